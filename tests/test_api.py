"""The functions of the package: lazy, and what the command line does."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssl_tilegen
from ssl_tilegen.config import AugmentSettings, EmbedSettings, EvaluateSettings, GenerateSettings
from ssl_tilegen.config.options import Settings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.io.pyramid import ImageSpec, open_writer
from tests.bundles import encoder_bundle
from tests.training import runs

SAMPLE = Path(__file__).parent.parent / "examples" / "sample" / "tissue.ome.tif"
EXAMPLES = ("open_raster", "ModelBundle", "embed", "EmbeddingGrid", "generate", "augment", "evaluate", "train")


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, ssl_tilegen; dir(ssl_tilegen); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ssl_tilegen.__all__)
def test_every_public_name_is_documented_with_an_example(name: str) -> None:
    text = getattr(ssl_tilegen, name).__doc__
    if name == "EmbeddingGrid":
        text += ssl_tilegen.EmbeddingGrid.open.__doc__
    assert all(section in text for section in ("Args:", "Raises:", "Example:")) and name in EXAMPLES


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples of the docstrings name."""
    folder = tmp_path_factory.mktemp("examples")
    with ssl_tilegen.open_raster(SAMPLE) as sample:
        pixels = sample.read(Window(600, 800, 512, 512)).rgb
        with open_writer(folder / "slide.ome.tif", ImageSpec(Size(256, 256), sample.resolution)) as writer:
            writer.write(pixels[:256, 256:])
    names = [f"tiles/{label}/g{group}_0.png" for label in ("stroma", "tumour") for group in range(2)]
    names += [f"{kind}/g{group}_0.png" for kind in ("real", "synthetic") for group in range(14)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        row, col = divmod(number, 8)
        Image.fromarray(pixels[64 * row : 64 * row + 64, 64 * col : 64 * col + 64]).save(folder / name)
    runs.draw_images(folder, 2)
    runs.write_config(folder, "autoencoder")
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_docstrings_run(example_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In the order of ``EXAMPLES``: the grid of one is the input of the next."""
    monkeypatch.chdir(example_folder)
    thing = getattr(ssl_tilegen, name)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    (found,) = finder.find(thing, name, globs={name: thing})
    output: list[str] = []
    result = runner.run(found, out=output.append)
    assert result.attempted > 0 and not result.failed, "".join(output)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = ssl_tilegen.nothing


def test_an_image_is_embedded_without_a_settings_object(tmp_path: Path) -> None:
    bundle = encoder_bundle(tmp_path / "bundle")
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    [report] = ssl_tilegen.embed(tmp_path / "a.png", out=tmp_path / "a.zarr", model=str(bundle), mpp=0.5)
    grid = ssl_tilegen.EmbeddingGrid.open(tmp_path / "a.zarr")
    assert report.status == "done" and report.grid == grid.path and grid.read().usable.any()


@pytest.mark.parametrize("options", [{"sizes": "512"}, {"grid": "a.zarr", "steps": 0}, {}])
def test_wrong_options_are_one_line(options: dict[str, object]) -> None:
    with pytest.raises(SettingError) as raised:
        ssl_tilegen.generate(**options)
    assert "\n" not in str(raised.value) and "None" not in str(raised.value)


def test_an_unknown_option_is_called_one() -> None:
    with pytest.raises(SettingError, match=r"^unknown option 'tile'; do you mean '"):
        ssl_tilegen.embed("a.png", tile=64)


@pytest.mark.parametrize(("name", "kind"), [("embed", EmbedSettings), ("generate", GenerateSettings),
                                            ("augment", AugmentSettings), ("evaluate", EvaluateSettings)])  # fmt: skip
def test_the_options_that_a_docstring_names_are_there(name: str, kind: type[Settings]) -> None:
    line = next(line for line in getattr(ssl_tilegen, name).__doc__.splitlines() if "**options:" in line)
    named = re.findall(r"``(\w+)``", line)
    assert len(named) > 3 and set(named) <= set(kind.model_fields)
