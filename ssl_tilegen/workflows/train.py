"""The story of `train`: read the configuration and the images, train one stage, put the result into a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_tilegen.bundle import EncoderInfo, ModelBundle, save_component, save_prior, update_info
from ssl_tilegen.encoders.text import TextEncoder
from ssl_tilegen.errors import InputError
from ssl_tilegen.priorspec import TextFacts
from ssl_tilegen.runtime import pick_device
from ssl_tilegen.training.autoencoder import AutoencoderStage
from ssl_tilegen.training.cache import scenes_of
from ssl_tilegen.training.data import Corpus, load_corpus
from ssl_tilegen.training.denoiser import DenoiserStage
from ssl_tilegen.training.encoder import EncoderStage
from ssl_tilegen.training.loop import Stage, train_stage
from ssl_tilegen.training.prior import PriorStage
from ssl_tilegen.training.prior_cells import pieces_of
from ssl_tilegen.training.prior_table import Row, read_table
from ssl_tilegen.training.settings import (
    AutoencoderSettings,
    DenoiserSettings,
    EncoderSettings,
    PriorSettings,
    load_settings,
)

Report = Callable[[dict[str, Any]], None]


def train(
    stage: str,
    config: Path,
    out: Path,
    *,
    overrides: list[str] | None = None,
    device: str = "auto",
    restart: bool = False,
    report: Report = lambda facts: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train ``stage`` (encoder, autoencoder, denoiser, prior) as ``config`` says; the bundle grows in ``out/bundle``.

    The run lives in ``out/<stage>``: log.jsonl, samples, checkpoint, the resolved settings. The same call continues
    an unfinished run. ``report`` is given one dict per log line or message; ``stop`` ends the run after a step.
    """
    settings = load_settings(stage, config, overrides)
    run_folder, bundle_folder = out / stage, out / "bundle"
    if restart:
        shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / "settings.json").write_text(settings.model_dump_json(indent=2))
    chip = pick_device(device)
    if isinstance(settings, PriorSettings):
        corpus, made = None, _make_prior(settings, bundle_folder, run_folder, chip, report)
    else:
        corpus = load_corpus(settings.data, lambda text: report({"message": text}))
        made = _make_stage(settings, corpus, bundle_folder, run_folder, chip, report)
    module = train_stage(made, settings.run, run_folder, report, chip, stop)
    _export(made, module, corpus, bundle_folder)
    return {"stage": stage, "run": str(run_folder), "bundle": str(bundle_folder)}


def _make_stage(
    settings: Any, corpus: Corpus, bundle_folder: Path, run_folder: Path, chip: torch.device, report: Report
) -> Stage:
    if isinstance(settings, EncoderSettings):
        return EncoderStage(settings, corpus)
    if isinstance(settings, AutoencoderSettings):
        return AutoencoderStage(settings, corpus)
    return _make_denoiser(settings, corpus, bundle_folder, run_folder, chip, report)


def _make_denoiser(
    settings: DenoiserSettings,
    corpus: Corpus,
    bundle_folder: Path,
    run_folder: Path,
    chip: torch.device,
    report: Report,
) -> DenoiserStage:
    source = Path(settings.bundle) if settings.bundle else bundle_folder
    for component in ("encoder", "autoencoder"):
        if not (source / component / "config.json").is_file():
            raise InputError(f"{source} has no {component}: run 'ssl-tilegen train {component}' into the same --out")
    bundle = ModelBundle.load(source, chip)
    if source != bundle_folder:
        shutil.copytree(source, bundle_folder, dirs_exist_ok=True)
    scenes = scenes_of(corpus, bundle, settings, run_folder / "cache", lambda text: report({"message": text}))
    return DenoiserStage(settings, bundle, scenes)


def _make_prior(
    settings: PriorSettings, bundle_folder: Path, run_folder: Path, chip: torch.device, report: Report
) -> PriorStage:
    source = Path(settings.bundle) if settings.bundle else bundle_folder
    if not (source / "encoder" / "config.json").is_file():
        raise InputError(f"{source} has no encoder: run 'ssl-tilegen train encoder' into the same --out")
    bundle = ModelBundle.load(source, chip)
    if source != bundle_folder:
        shutil.copytree(source, bundle_folder, dirs_exist_ok=True)

    def say(text: str) -> None:
        report({"message": text})

    rows = read_table(Path(settings.table))
    texts, facts = _captions(settings, rows, run_folder / "cache", chip, say)
    pieces, seen = pieces_of(rows, bundle, settings.turns, settings.run.seed, run_folder / "cache", say)
    return PriorStage(settings, bundle, rows, pieces, seen, texts, facts)


def _captions(
    settings: PriorSettings, rows: list[Row], folder: Path, chip: torch.device, say: Callable[[str], None]
) -> tuple[dict[str, np.ndarray], TextFacts | None]:
    """The vector of every caption of the table, kept in ``folder``, and the facts of what made them."""
    captions = sorted({caption for row in rows for caption in row.captions})
    if not captions or settings.text_encoder is None:
        return {}, None
    encoder = TextEncoder.load(settings.text_encoder, chip)
    facts = TextFacts(name=encoder.name, dim=encoder.dim, sha256=encoder.sha256)
    key = hashlib.sha256(json.dumps([facts.sha256, captions]).encode()).hexdigest()[:12]
    path = folder / f"captions-{key}.npy"
    if not path.exists():
        say(f"embedding {len(captions)} captions by {encoder.name}")
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part.npy")
        np.save(part, encoder.embed(captions))
        part.replace(path)
    return dict(zip(captions, np.load(path), strict=True)), facts


def _export(stage: Stage, module: Any, corpus: Corpus | None, folder: Path) -> None:
    """Put the averaged weights and what is known of them into the bundle."""
    module = module.to("cpu")
    if isinstance(stage, PriorStage):
        run = json.loads(stage.settings.run.model_dump_json())
        save_prior(module, stage.info.model_copy(update={"training": run}), folder)
    elif isinstance(stage, EncoderStage):
        assert corpus is not None
        s = stage.settings
        encoder = stage.finished(module)
        facts: dict[str, Any] = {"tile_px": s.tile_px, "dim": s.dim if s.layout_dim else s.features}
        config = facts | {"_class_name": type(encoder).__name__, "arch": s.arch, "arch_args": s.arch_args,
                          "features": s.features, "layout_px": s.layout_px, "layout_dim": s.layout_dim}  # fmt: skip
        save_component(encoder, folder / "encoder", config)
        name = f"{s.arch}-{s.tile_px}px-{facts['dim']}d" + (f"-layout{s.layout_dim}" if s.layout_dim else "")
        resolutions = {domain: (r.value, r.unit) for domain, r in corpus.resolutions.items()}
        info = EncoderInfo(id=name, layout_dim=s.layout_dim, **facts)
        update_info(folder, encoder=info, resolutions=resolutions)
    elif isinstance(stage, AutoencoderStage):
        save_component(module, folder / "autoencoder")
        update_info(folder)
    elif isinstance(stage, DenoiserStage):
        save_component(module, folder / "denoiser")
        update_info(
            folder,
            locality="local",
            window_px=stage.settings.window_lat * stage.bundle.factor,
            stride_px=[stage.bundle.info.encoder.tile_px],
            latent_mean=[round(float(v), 6) for v in stage.latent_mean],
            latent_scale=[round(float(v), 6) for v in stage.latent_scale],
            prediction_type="flow",
            training=json.loads(stage.settings.run.model_dump_json()),
        )
