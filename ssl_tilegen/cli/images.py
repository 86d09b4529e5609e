"""The commands `embed`, `generate`, `augment` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssl_tilegen.cli.command import command
from ssl_tilegen.cli.console import Console
from ssl_tilegen.config import AugmentSettings, EmbedSettings, EvaluateSettings, GenerateSettings
from ssl_tilegen.system.launch import distributed_environment

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT", help="Images, folders, patterns, or addresses. Addresses are those that GDAL reads."
    ),
]
Labelled = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|CSV", help="Folder of class folders, or a CSV. The CSV has the columns path, label, group, split."
    ),
]


@command(EmbedSettings)
def embed(console: Console, settings: EmbedSettings, inputs: Inputs = None) -> tuple[Any, str]:
    """Embed images into grids of vectors, one grid per image.

    The same command continues a run that was stopped. Of many inputs, those that fail are listed at the end.

    Examples:
        ssl-tilegen embed slide.svs --preview
        ssl-tilegen embed slides/ --out-dir grids --skip-existing
        ssl-tilegen embed map.tif --gsd 0.15 --encoder dinov2-small
    """
    if not inputs and settings.list is None:
        raise typer.BadParameter("no input; give images, folders, globs or --list FILE.csv")
    console.loading("PyTorch and the encoder")
    from ssl_tilegen.workflows.embed.run import embed as work

    reports = work(inputs or [], settings, console)
    return reports, "\n".join(report.line() for report in reports)


@command(GenerateSettings)
def generate(console: Console, settings: GenerateSettings) -> tuple[Any, str]:
    """Paint an image from a grid of embeddings, or from words, a label, a vector or a map.

    Examples:
        ssl-tilegen generate --grid slide.zarr -o slide.ome.tif --preview
        ssl-tilegen generate --label "benign lung" --size 2048 -o lung.png
        ssl-tilegen generate --grid map.zarr --size 8192 --dry-run
    """
    console.hush(distributed_environment().rank > 0)
    console.loading(f"PyTorch and the model {settings.model}")
    from ssl_tilegen.workflows.generate.run import generate as work

    report = work(settings, console)
    return report, report.line()


@command(AugmentSettings)
def augment(console: Console, settings: AugmentSettings, source: Labelled) -> tuple[Any, str]:
    """Make new images of labelled ones: same classes, same layout, and a manifest.

    Examples:
        ssl-tilegen augment train/ -o more --per-image 4 --gsd 0.15
        ssl-tilegen augment labels.csv -o more --keep-best 1 --per-image 4
    """
    console.loading(f"PyTorch and the model {settings.model}")
    from ssl_tilegen.workflows.augment.run import augment as work

    report = work(source, settings, console)
    return report, report.line()


@command(EvaluateSettings)
def evaluate(console: Console, settings: EvaluateSettings) -> tuple[Any, str]:
    """Measure how close synthetic images are to real ones, and how useful for training classifiers.

    Examples:
        ssl-tilegen evaluate --real real/ --synthetic made/ --report page.html
        ssl-tilegen evaluate --task folder/ --task-models linear,knn
    """
    console.loading("PyTorch and the encoders")
    from ssl_tilegen.workflows.evaluate.run import evaluate as work
    from ssl_tilegen.workflows.evaluate.table import table

    report = work(settings, console)
    if settings.report:
        console.note(f"report: {settings.report}, its scores as JSON: {settings.json_path}")
    for line in report.warnings:
        console.note(f"warning: {line}")
    if report.skipped:
        console.summary(report.facts(), table(report))
        first = report.skipped[0][1]
        console.error(f"{len(report.skipped)} images could not be read and were left out; the first: {first}")
        raise typer.Exit(3)
    return report.facts(), table(report)
