"""The identity of a text encoder's weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from ssl_tilegen.encoders.text import TextEncoder


class Tokens(dict):
    def to(self, device: torch.device) -> Tokens:
        return self


class Tokenizer:
    model_max_length = 8

    def __call__(self, texts: str | list[str], **how: object) -> Tokens:
        many = [texts] if isinstance(texts, str) else texts
        ids = torch.ones(len(many), 2, dtype=torch.long)
        return Tokens(input_ids=ids[0].tolist() if isinstance(texts, str) else ids)


class ClipLike(nn.Module):
    """Its weights hold a scalar, as CLIP's ``logit_scale`` is one."""

    config = object()

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Embedding(4, 3)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))

    def get_text_features(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.project(input_ids).mean(1)


def test_the_hash_takes_weights_of_any_shape() -> None:
    model = ClipLike()
    table = model.project.weight.detach().numpy().tobytes()
    expected = b"logit_scale" + model.logit_scale.detach().numpy().tobytes() + b"project.weight" + table
    encoder = TextEncoder("clip", Tokenizer(), model)
    assert encoder.sha256 == hashlib.sha256(expected).hexdigest()
    model.logit_scale.data += 1
    assert encoder.sha256 != hashlib.sha256(expected).hexdigest()
