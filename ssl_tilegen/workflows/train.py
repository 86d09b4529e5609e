"""The story of `train`: read the configuration and the images, train one stage, put the result into a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle import (
    EncoderInfo,
    ModelBundle,
    find_bundle,
    resolutions_of,
    save_component,
    save_prior,
    update_info,
)
from ssl_tilegen.errors import InputError, OutputError
from ssl_tilegen.runtime import allow_many_files
from ssl_tilegen.training.autoencoder import AutoencoderStage
from ssl_tilegen.training.cache import scenes_of
from ssl_tilegen.training.captions import caption_vectors
from ssl_tilegen.training.checkpoint import has_checkpoint
from ssl_tilegen.training.data import Corpus, load_corpus
from ssl_tilegen.training.denoiser import DenoiserStage
from ssl_tilegen.training.encoder import EncoderStage
from ssl_tilegen.training.loop import Stage, train_stage
from ssl_tilegen.training.pretrained import keep_pretrained
from ssl_tilegen.training.prior import PriorStage
from ssl_tilegen.training.prior_cells import pieces_of
from ssl_tilegen.training.prior_table import Table
from ssl_tilegen.training.processes import Processes
from ssl_tilegen.training.record import changed_settings, keep_data, keep_record
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

    The run lives in ``out/<stage>``: log.jsonl, curves, samples, checkpoint, the resolved settings, what the data are.
    The same call continues an unfinished run, on one process or on many (started by torchrun, accelerate or srun).
    ``report`` is given one dict per log line or message; ``stop`` ends the run after a step, and then the bundle has
    the weights so far (but for an encoder, which takes its last steps only at the end of its run).
    """
    settings = load_settings(stage, config, overrides)
    team = Processes(device)
    allow_many_files()
    run_folder, bundle_folder = out / stage, out / "bundle"
    say = report if team.is_first else lambda facts: None
    data = _data_of(settings, bundle_folder, say)
    with team.first_alone():
        if team.is_first:
            _open_run(run_folder, settings, data, restart, say)
    if stage == "encoder" and settings.pretrained:
        if team.is_first:
            keep_pretrained(settings, data.resolutions, bundle_folder)
            keep_record(stage, settings, data, bundle_folder, config.parent)
        team.wait()
        return {"stage": stage, "run": str(run_folder), "bundle": str(bundle_folder)}
    with team.first_alone():
        made = _make_stage(settings, data, bundle_folder, run_folder, team, say)
    module = train_stage(made, settings.run, run_folder, say, team, stop)
    if team.is_first and not (stop() and isinstance(made, EncoderStage)):
        _export(made, module, data, bundle_folder)
        keep_record(stage, settings, data, bundle_folder, config.parent)
    team.wait()
    return {"stage": stage, "run": str(run_folder), "bundle": str(bundle_folder)}


def _open_run(folder: Path, settings: Any, data: Any, restart: bool, report: Report) -> None:
    """Make or clear the run's folder and keep in it what goes into the run; say what differs from what it was begun
    with."""
    kept = folder / "settings.json"
    if restart:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        goes_on = has_checkpoint(folder)
        changes = changed_settings(kept, settings) if goes_on else []
        other_data = keep_data(data, folder) and goes_on
        kept.write_text(settings.model_dump_json(indent=2))
    except OSError as error:
        raise OutputError(f"{folder}: cannot write here ({error.strerror}); choose another --out") from error
    if changes:
        report({"message": f"going on in {folder} with other settings: {', '.join(changes)}"})
    if other_data:
        report({"message": f"warning: going on in {folder} with other images than the run was begun with"})


def _data_of(settings: Any, bundle_folder: Path, report: Report) -> Any:
    """What a stage learns from: a corpus of images, at the resolutions of the bundle it is for, or a prior's table."""
    if isinstance(settings, PriorSettings):
        return Table.read(Path(settings.table))
    source = Path(getattr(settings, "bundle", None) or bundle_folder)
    known = {} if isinstance(settings, EncoderSettings) else resolutions_of(source)
    return load_corpus(settings.data, lambda text: report({"message": text}), known)


def _make_stage(
    settings: Any, data: Any, bundle_folder: Path, run_folder: Path, team: Processes, report: Report
) -> Stage:
    if isinstance(settings, EncoderSettings):
        return EncoderStage(settings, data)
    if isinstance(settings, AutoencoderSettings):
        if settings.train_only == "decoder" and settings.start_from:
            _take_over(Path(find_bundle(settings.start_from)), bundle_folder, team)
        return AutoencoderStage(settings, data)
    if isinstance(settings, PriorSettings):
        return _make_prior(settings, data, bundle_folder, run_folder / "cache", team, report)
    return _make_denoiser(settings, data, bundle_folder, run_folder / "cache", team, report)


def _make_denoiser(
    settings: DenoiserSettings,
    corpus: Corpus,
    bundle_folder: Path,
    cache: Path,
    team: Processes,
    report: Report,
) -> DenoiserStage:
    source = Path(settings.bundle) if settings.bundle else bundle_folder
    for component in ("encoder", "autoencoder"):
        if not (source / component / "config.json").is_file():
            raise InputError(f"{source} has no {component}: run 'ssl-tilegen train {component}' into the same --out")
    bundle = ModelBundle.load(source, team.device)
    _take_over(source, bundle_folder, team)
    say: Callable[[str], None] = lambda text: report({"message": text})  # noqa: E731
    held_out = scenes_of(corpus.validation, bundle, settings, cache, say) if corpus.validation else None
    return DenoiserStage(settings, bundle, scenes_of(corpus, bundle, settings, cache, say), held_out, corpus.held_out)


def _take_over(source: Path, bundle_folder: Path, team: Processes) -> None:
    """All that another bundle holds, as the start of this run's; but for its name and what was measured of it."""
    if source.resolve() != bundle_folder.resolve() and team.is_first:
        about = shutil.ignore_patterns("CARD.md", "*.png", "*.jpg")  # which is about the other's weights
        shutil.copytree(source, bundle_folder, dirs_exist_ok=True, ignore=about)
        update_info(bundle_folder, name=bundle_folder.parent.name, scores={})


def _make_prior(
    settings: PriorSettings, table: Table, bundle_folder: Path, cache: Path, team: Processes, report: Report
) -> PriorStage:
    source = Path(settings.bundle) if settings.bundle else bundle_folder
    if not (source / "encoder" / "config.json").is_file():
        raise InputError(f"{source} has no encoder: run 'ssl-tilegen train encoder' into the same --out")
    bundle = ModelBundle.load(source, team.device)
    _take_over(source, bundle_folder, team)
    say: Callable[[str], None] = lambda text: report({"message": text})  # noqa: E731
    texts, facts = caption_vectors(settings.text_encoder, table.rows, cache, team.device, say)
    pieces, seen = pieces_of(table.rows, bundle, settings.turns, settings.run.seed, cache, say)
    return PriorStage(settings, bundle, table.rows, pieces, seen, texts, facts)


def _export(stage: Stage, module: Any, corpus: Any, folder: Path) -> None:
    """Put the averaged weights and what is known of them into the bundle."""
    module = module.to("cpu")
    if isinstance(stage, PriorStage):
        run = json.loads(stage.settings.run.model_dump_json())
        save_prior(module, stage.info.model_copy(update={"training": run}), folder)
    elif isinstance(stage, EncoderStage):
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
        save_component(stage.finished(module), folder / "autoencoder")
        update_info(folder)
    elif isinstance(stage, DenoiserStage):
        save_component(module, folder / "denoiser")
        update_info(
            folder,
            scheduler=stage.target.scheduler,
            locality="local" if stage.local else "window",
            window_px=stage.settings.window_lat * stage.bundle.factor,
            stride_px=[stage.bundle.info.encoder.tile_px],
            latent_mean=[round(float(v), 6) for v in stage.latent_mean],
            latent_scale=[round(float(v), 6) for v in stage.latent_scale],
            prediction_type=stage.target.prediction,
            l2_condition=stage.l2_condition and not stage.local,
            time_scale=stage.time_scale,
            training=json.loads(stage.settings.run.model_dump_json()),
        )
