"""OME-TIFF that both worlds open: its levels are SubIFDs (Bio-Formats, QuPath) and chained pages (OpenSlide)."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET

from ssl_tilegen.geometry import Resolution
from ssl_tilegen.io.tiff.layout import Tag, ascii_tag, utf8_tag
from ssl_tilegen.io.writers.format import ImageSpec
from ssl_tilegen.io.writers.tiled_tiff import TiledTiff, software

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA_AT = "http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd"
_OME_UNIT = {"um": "\u00b5m", "m": "m"}  # the micro sign: the schema does not know the Greek letter
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class OmeTiff(TiledTiff):
    """``.ome.tif``: mpp and provenance in the OME-XML, mpp in the resolution tags too (OpenSlide reads only those).

    That the levels stand in the main chain as well bends the OME-TIFF specification; no reader met so far minds.
    A CRS has no place in it: it is kept in the ``.json`` beside.
    """

    compressions = ("jpeg", "deflate", "zstd")
    sub_ifds = True

    def first_page_tags(self) -> list[Tag]:
        """The OME-XML and the name of the software."""
        return [utf8_tag(270, ome_xml(self.spec, self.path.name)), ascii_tag(305, software())]


def ome_xml(spec: ImageSpec, name: str) -> str:
    """The OME metadata of one RGB image, its provenance as a map annotation.

    UTF-8 without character references: Bio-Formats drops the "&" of "&#181;" before it parses.
    """
    root = ET.Element("OME", {
        "xmlns": _SCHEMA,
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:schemaLocation": f"{_SCHEMA} {_SCHEMA_AT}",
        "Creator": software(),
    })  # fmt: skip
    power = nominal_magnification(spec.resolution)
    if power is not None:
        instrument = ET.SubElement(root, "Instrument", ID="Instrument:0")
        ET.SubElement(instrument, "Objective", ID="Objective:0:0", NominalMagnification=repr(power))
    image = ET.SubElement(root, "Image", ID="Image:0", Name=_clean(name))
    ET.SubElement(image, "Description").text = "Synthetic image"
    if power is not None:
        ET.SubElement(image, "InstrumentRef", ID="Instrument:0")
        ET.SubElement(image, "ObjectiveSettings", ID="Objective:0:0")
    _add_pixels(image, spec)
    ET.SubElement(image, "AnnotationRef", ID="Annotation:0")
    annotations = ET.SubElement(root, "StructuredAnnotations")
    provenance = ET.SubElement(annotations, "MapAnnotation", ID="Annotation:0", Namespace="ssl-tilegen/provenance")
    value = ET.SubElement(provenance, "Value")
    for key, fact in sorted(spec.record.items()):
        text = fact if isinstance(fact, str) else json.dumps(fact, sort_keys=True)
        ET.SubElement(value, "M", K=_clean(key)).text = _NOT_XML.sub("?", text)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def nominal_magnification(resolution: Resolution | None) -> float | None:
    """The objective with which slides of this pixel size are scanned: 20 for 0.5 um/px, 40 for 0.25; powers of two
    between. None where the size is unknown, not in um, or no microscope's (below 0.05, above 16 um/px)."""
    if resolution is None or resolution.unit != "um" or not 0.05 <= resolution.value <= 16:
        return None
    return 20.0 * 2.0 ** round(math.log2(0.5 / resolution.value))


def _clean(text: str) -> str:
    """Text for an attribute: line ends and tabs, which ElementTree would write as references, become spaces."""
    return re.sub(r"[\t\r\n]", " ", _NOT_XML.sub("?", text))


def _add_pixels(image: ET.Element, spec: ImageSpec) -> None:
    facts = {"SizeX": spec.size.cols, "SizeY": spec.size.rows, "SizeC": 3, "SizeZ": 1, "SizeT": 1}
    pixels = ET.SubElement(
        image, "Pixels", {"ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": "uint8", "SignificantBits": "8",
                          "Interleaved": "true", "BigEndian": "false", **{k: str(v) for k, v in facts.items()}}
    )  # fmt: skip
    if spec.resolution is not None:
        for axis in "XY":
            pixels.set(f"PhysicalSize{axis}", repr(spec.resolution.value))
            pixels.set(f"PhysicalSize{axis}Unit", _OME_UNIT[spec.resolution.unit])
    ET.SubElement(pixels, "Channel", ID="Channel:0:0", SamplesPerPixel="3")
    ET.SubElement(pixels, "TiffData", IFD="0", PlaneCount="1")
