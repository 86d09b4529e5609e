"""The functions of the package: lazy, and what the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssl_tilegen
from ssl_tilegen.errors import SettingError
from tests.bundles import encoder_bundle


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, ssl_tilegen; dir(ssl_tilegen); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ssl_tilegen.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(ssl_tilegen, name).__doc__


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
    assert "\n" not in str(raised.value)
