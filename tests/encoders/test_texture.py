"""The encoder without weights: the same everywhere, indifferent to batches, and it sees what is wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.texture import TextureEncoder
from ssl_tilegen.io.jpeg_quality import storage_of
from ssl_tilegen.metrics.frechet import frechet_distance


def images(seed: int, n: int = 48, side: int = 64) -> np.ndarray:
    """Coloured noise with edges, uint8 (n, side, side, 3)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(n, side, side, 3)), (0, 3, 3, 0)) * 400 + 128
    smooth[..., 0] += 40 * (smooth[..., 1] > 128)
    return (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


def test_it_is_an_encoder_and_does_not_mind_batches() -> None:
    encoder = TextureEncoder(64)
    assert isinstance(encoder, Encoder) and encoder.weights_sha256 == TextureEncoder(128).weights_sha256
    x = images(0, 9)
    together, alone = encoder.embed(x), np.concatenate([encoder.embed(x[i : i + 1]) for i in range(9)])
    assert together.shape == (9, encoder.dim) and together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("side", [32, 100, 224])
def test_any_side_and_flat_tiles_are_finite(side: int) -> None:
    encoder = TextureEncoder(side)
    for value in (0, 128, 255):
        assert np.isfinite(encoder.embed(np.full((2, side, side, 3), value, np.uint8))).all()


def test_turning_a_tile_by_a_quarter_changes_nothing() -> None:
    x = images(1, 4, side=65)  # an odd side: every second pixel is the same from either end
    encoder = TextureEncoder(65)
    np.testing.assert_allclose(encoder.embed(x), encoder.embed(np.rot90(x, 1, (1, 2)).copy()), atol=2e-3)


@pytest.mark.parametrize("kind", ["blur", "noise", "shift"])
def test_distance_rises_with_degradation(kind: str) -> None:
    encoder, other = TextureEncoder(64), images(3)
    real = encoder.embed(images(2))

    def spoilt(amount: float) -> np.ndarray:
        x = other.astype(np.float32)
        if kind == "blur":
            x = gaussian_filter(x, (0, amount, amount, 0))
        elif kind == "noise":
            x = x + np.random.default_rng(0).normal(0, 10 * amount, x.shape)
        else:
            x = x + np.array([12, -6, 4]) * amount
        return x.clip(0, 255).astype(np.uint8)

    found = [frechet_distance(real, encoder.embed(spoilt(amount))) for amount in (0, 0.7, 1.5, 3)]
    assert found == sorted(found) and found[-1] > 3 * found[0]


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
def test_jpeg_quality_is_read_back(tmp_path: Path, quality: int) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(images(0, 1)[0]).save(path, quality=quality)
    assert storage_of(path) == f"jpeg q{quality}"


def test_other_storage(tmp_path: Path) -> None:
    image = Image.fromarray(images(0, 1)[0])
    for name, wanted in (("a.png", "lossless"), ("a.tif", "lossless"), ("a.webp", "webp")):
        image.save(tmp_path / name)
        assert storage_of(tmp_path / name) == wanted
    file = io.BytesIO(b"nothing")
    (tmp_path / "b.png").write_bytes(file.getvalue())
    assert storage_of(tmp_path / "b.png") == "other"
