"""Files of weights in torch's own format, which are pickles: read as tensors and plain values, never as code."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def read_torch_file(path: Path) -> Mapping[str, Any]:
    """The named tensors of a torch file, on the CPU, and what is beside them: numbers, texts, lists, mappings, options
    of a training run. ValueError, in a few words, where it holds anything else or is broken."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # of the age of the format, beside the error
            tree = torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("it is damaged, or holds objects that are no tensors") from None
    except Exception as error:  # whatever a damaged file does to the reader
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(lines[0][:120]) from None
    if not isinstance(tree, Mapping):
        raise ValueError(f"it holds a {type(tree).__name__}, no named tensors")
    return tree
