"""Classifiers that take long to train are trained once: their answers are cached beside the report."""

from __future__ import annotations

import hashlib

import numpy as np

from ssl_tilegen import __version__
from ssl_tilegen.metrics.usefulness import LabelledSet, Learner
from ssl_tilegen.workflows.evaluate.feature_cache import FeatureCache


def cached_outcome(learner: Learner, how: str, cache: FeatureCache | None) -> Learner:
    """``learner``, but not asked twice for the same sets and seed. ``how``: all else that its answer depends on."""
    if cache is None:
        return learner

    def said(train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
        cached = cache.cached(_key(how, train, test, classes, seed), ["said"])
        if cached.last + 1 < len(test):
            cached.add(np.arange(len(test)), {"said": learner(train, test, classes, seed)})
        return cached.read()[1]["said"]

    return said


def _key(how: str, train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> str:
    key = hashlib.sha256(f"{__version__}\0{how}\0{classes}\0{seed}\0{train.y.tolist()}".encode())
    for images in (train.x, test):  # of one array each where they differ in size
        for one in images if images.dtype == object else [images]:
            key.update(f"\0{one.dtype}{one.shape}".encode())
            key.update(np.ascontiguousarray(one).tobytes())
    return key.hexdigest()
