"""The story of `train`: read the configuration and the images, train one stage, put the result into a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssl_tilegen.bundle import EncoderInfo, ModelBundle, save_component, update_info
from ssl_tilegen.errors import InputError
from ssl_tilegen.runtime import pick_device
from ssl_tilegen.training.autoencoder import AutoencoderStage
from ssl_tilegen.training.cache import scenes_of
from ssl_tilegen.training.data import Corpus, load_corpus
from ssl_tilegen.training.denoiser import DenoiserStage
from ssl_tilegen.training.encoder import EncoderStage
from ssl_tilegen.training.loop import Stage, train_stage
from ssl_tilegen.training.settings import AutoencoderSettings, DenoiserSettings, EncoderSettings, load_settings

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
    """Train ``stage`` (encoder, autoencoder, denoiser) as ``config`` says; the bundle grows in ``out/bundle``.

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


def _export(stage: Stage, module: Any, corpus: Corpus, folder: Path) -> None:
    """Put the averaged weights and what is known of them into the bundle."""
    module = module.to("cpu")
    if isinstance(stage, EncoderStage):
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
