"""The fine-tuned classifier of a task: the encoder of --model, as its bundle says that it is fed, with a new head."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EvaluateSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.metrics.usefulness import LabelledSet, Learner
from ssl_tilegen.system.device import pick_device
from ssl_tilegen.workflows.evaluate.classifier_cache import cached_outcome
from ssl_tilegen.workflows.evaluate.feature_cache import FeatureCache

FINETUNED = "finetuned"


class FineTuning(NamedTuple):
    """The ``encoder`` to fine-tune; None where that is not asked for or, as ``note`` says, cannot be done."""

    encoder: NetworkEncoder | None = None
    note: str = ""


def plan_fine_tuning(settings: EvaluateSettings) -> FineTuning:
    """Load the encoder that the task of ``settings`` fine-tunes, before any other work.

    InputError, FormatError or SettingError where the bundle carries no encoder and the one that it names cannot be
    had, but --task-models asks for it.
    """
    if not settings.task or FINETUNED not in settings.task_models:
        return FineTuning()
    bundle = ModelBundle.load(settings.model, pick_device(settings.device))
    try:
        return FineTuning(encoder_of(bundle, batch=settings.batch))
    except (InputError, FormatError, SettingError) as error:
        if bundle.has("encoder"):
            raise
        if "task_models" in settings.model_fields_set:
            raise type(error)(
                f"--task-models {FINETUNED}: takes the encoder of --model {settings.model}, which cannot be had "
                f"({error}); leave {FINETUNED} out, or import the model with --encoder-weights FILE"
            ) from None
        return FineTuning(note=f"no fine-tuned network: no encoder of --model {settings.model} can be had ({error})")


def resized(rgb: np.ndarray, side: int) -> np.ndarray:
    """A window (S, S, 3) at the side that a network takes."""
    how = Pillow.Resampling.BOX if len(rgb) >= side else Pillow.Resampling.BICUBIC
    return np.asarray(Pillow.fromarray(rgb).resize((side, side), how))


def fine_tuner(encoder: NetworkEncoder, settings: EvaluateSettings, cache: FeatureCache | None) -> Learner:
    """Trains ``encoder`` with a new head on windows of the side that it takes."""
    from ssl_tilegen.training.classifier import ClassifierSettings, EncoderBackbone, fine_tuned

    backbone, how = EncoderBackbone(encoder), ClassifierSettings(steps=settings.task_steps)

    def learn(train: LabelledSet, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
        return fine_tuned(backbone, train.x, train.y, classes, seed, how, encoder.device)(test)

    facts = encoder.weights_sha256, encoder.pooling, encoder.normalisation, how
    return cached_outcome(learn, f"{FINETUNED} {facts}", cache)
