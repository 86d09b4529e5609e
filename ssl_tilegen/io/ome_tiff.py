"""OME-TIFF that both worlds open: its levels are SubIFDs (Bio-Formats, QuPath) and chained pages (OpenSlide)."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

from ssl_tilegen.io.formats import ImageSpec
from ssl_tilegen.io.tiff_layout import Tag, ascii_tag
from ssl_tilegen.io.tiled_tiff import TiledTiff, software

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA_AT = "http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd"
_OME_UNIT = {"um": "µm", "m": "m"}


class OmeTiff(TiledTiff):
    """``.ome.tif``: mpp and provenance in the OME-XML, mpp in the resolution tags too (OpenSlide reads only those).

    That the levels stand in the main chain as well bends the OME-TIFF specification; no reader met so far minds.
    A CRS has no place in it: it is kept in the ``.json`` beside.
    """

    compressions = ("jpeg", "deflate", "zstd")
    sub_ifds = True

    def first_page_tags(self) -> list[Tag]:
        return [ascii_tag(270, ome_xml(self.spec, self.path.name)), ascii_tag(305, software())]


def ome_xml(spec: ImageSpec, name: str) -> str:
    """The OME metadata of one RGB image, its provenance as a map annotation. ASCII: others as references."""
    root = ET.Element("OME", {
        "xmlns": _SCHEMA,
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:schemaLocation": f"{_SCHEMA} {_SCHEMA_AT}",
        "Creator": software(),
    })  # fmt: skip
    image = ET.SubElement(root, "Image", ID="Image:0", Name=name)
    ET.SubElement(image, "Description").text = "Synthetic image"
    _add_pixels(image, spec)
    ET.SubElement(image, "AnnotationRef", ID="Annotation:0")
    annotations = ET.SubElement(root, "StructuredAnnotations")
    provenance = ET.SubElement(annotations, "MapAnnotation", ID="Annotation:0", Namespace="ssl-tilegen/provenance")
    value = ET.SubElement(provenance, "Value")
    for key, fact in sorted(spec.record.items()):
        text = fact if isinstance(fact, str) else json.dumps(fact, sort_keys=True)
        ET.SubElement(value, "M", K=key).text = text
    return ET.tostring(root, encoding="us-ascii", xml_declaration=True).decode("ascii")


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
