"""The vectors of all captions of a table, by a text encoder; computed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ssl_tilegen.encoders.text import TextEncoder
from ssl_tilegen.prior.spec import TextFacts
from ssl_tilegen.system.atomic import writing
from ssl_tilegen.training.data.prior_table import PriorRow


def caption_vectors(
    encoder_name: str | None, rows: list[PriorRow], folder: Path, device: torch.device, say: Callable[[str], None]
) -> tuple[dict[str, np.ndarray], TextFacts | None]:
    """The vector of every caption, kept in ``folder``, and the facts of their encoder; nothing without an encoder."""
    captions = sorted({caption for row in rows for caption in row.captions})
    if not captions or encoder_name is None:
        return {}, None
    encoder = TextEncoder.load(encoder_name, device)
    facts = TextFacts(name=encoder.name, dim=encoder.dim, sha256=encoder.sha256)
    key = hashlib.sha256(json.dumps([facts.sha256, captions]).encode()).hexdigest()[:12]
    path = folder / f"captions-{key}.npy"
    if not path.exists():
        say(f"embedding {len(captions)} captions by {encoder.name}")
        with writing(path) as part:
            np.save(part, encoder.embed(captions))
    return dict(zip(captions, np.load(path), strict=True)), facts
