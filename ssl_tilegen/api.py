"""The commands as functions of keyword options, for notebooks and programs.

Options have the names of the command line with underscores. They take its text, or the values that the text stands for:
``size="1024x768"`` or ``size=Size(768, 1024)``. An unknown option or a value out of range is a SettingError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_tilegen.config import AugmentSettings, EmbedSettings, EvaluateSettings, GenerateSettings, load_settings
from ssl_tilegen.system.progress import Progress, silent

if TYPE_CHECKING:
    from ssl_tilegen.workflows.augment.report import AugmentReport
    from ssl_tilegen.workflows.embed.report import EmbedReport
    from ssl_tilegen.workflows.evaluate.report import EvaluateReport
    from ssl_tilegen.workflows.generate.run import GenerateReport


def embed(
    images: str | Path | Sequence[str | Path], *, progress: Progress = silent, **options: Any
) -> list[EmbedReport]:
    """Embed images into grids of vectors, one grid per image.

    Args:
        images: Files, folders, globs, or addresses that GDAL reads; one or many.
        progress: Called with (stage, done, total).
        **options: The options of `ssl-tilegen embed`: ``out``, ``model``, ``mpp``, ``stride``, ...

    Returns:
        One report per image, with the path of its ``grid``.

    Raises:
        SettingError: An option is unknown or out of range.
        InputError: The only image cannot be read.
        EmbedIncomplete: Some of many images failed; ``reports`` says which.
        OutputError: The grid exists already or cannot be written.

    Example:
        >>> [report] = embed("slide.ome.tif", out="slide.zarr")
        >>> report.status
        'done'
    """
    from ssl_tilegen.workflows.embed.run import embed as work

    inputs = [images] if isinstance(images, str | Path) else list(images)
    return work(inputs, load_settings(EmbedSettings, None, options), progress)


def generate(*, progress: Progress = silent, **options: Any) -> GenerateReport:
    """Paint an image from a grid of embeddings, given or sampled from a label, a text, a vector or a map.

    Args:
        progress: Called with (stage, done, total).
        **options: The options of `ssl-tilegen generate`: ``grid``, ``label``, ``text``, ``size``, ``out``, ...

    Returns:
        The facts of the image: its path ``out``, its size, its cost.

    Raises:
        SettingError: An option is unknown or out of range.
        InputError: An input cannot be read.
        FormatError: The grid and the model do not fit each other.
        OutputError: The output exists already or cannot be written.

    Example:
        >>> generate(grid="slide.zarr", size="256x192", out="synthetic.ome.tif").size
        (256, 192)
    """
    from ssl_tilegen.workflows.generate.run import generate as work

    return work(load_settings(GenerateSettings, None, options), progress)


def augment(source: str | Path, *, progress: Progress = silent, **options: Any) -> AugmentReport:
    """Make new images of labelled ones: same classes, same layout, and a manifest.

    Args:
        source: A folder with one sub-folder per class, or a CSV with the columns path, label, group and split.
        progress: Called with (stage, done, total).
        **options: The options of `ssl-tilegen augment`: ``out``, ``per_image``, ``strength``, ``mix``, ...

    Returns:
        The numbers of images kept and dropped, by class and reason.

    Raises:
        SettingError: An option is unknown or out of range.
        InputError: The data set cannot be read.
        OutputError: The output exists already or cannot be written.

    Example:
        >>> augment("tiles", out="more-tiles", per_image=1).kept
        {'stroma': 2, 'tumour': 2}
    """
    from ssl_tilegen.workflows.augment.run import augment as work

    return work(source, load_settings(AugmentSettings, None, options), progress)


def evaluate(*, progress: Progress = silent, **options: Any) -> EvaluateReport:
    """Measure how good and how useful synthetic images are.

    Args:
        progress: Called with (stage, done, total).
        **options: The options of `ssl-tilegen evaluate`: ``real``, ``synthetic``, ``task``, ``report``, ...

    Returns:
        Scores with intervals and baselines; ``scores`` has one entry per score.

    Raises:
        SettingError: An option is unknown or out of range.
        InputError: Nothing can be compared.
        OutputError: The report exists already or cannot be written.

    Example:
        >>> report = evaluate(real="real", synthetic="synthetic", mpp=0.5, metrics="fd", encoder="texture")
        >>> [score.name for score in report.scores]
        ['fd']
    """
    from ssl_tilegen.workflows.evaluate.run import evaluate as work

    return work(load_settings(EvaluateSettings, None, options), progress)


def train(
    stage: str,
    config: str | Path,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    restart: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> dict[str, Any]:
    """Train one part of a bundle; the same call continues an unfinished run.

    Args:
        stage: encoder, autoencoder, denoiser, painter or prior.
        config: TOML file with the options of the stage.
        out: Folder of the run and its bundle; ``run`` beside the file by default.
        overrides: ``key=value`` pairs on top of the file.
        device: auto, cpu, cuda or cuda:I.
        restart: Start over instead of continuing.
        report: Called with one dict per log line.

    Returns:
        The folders of the ``run`` and of the ``bundle``.

    Raises:
        SettingError: A key is unknown or out of range.
        InputError: The file or the training images cannot be read.

    Example:
        >>> str(train("autoencoder", "autoencoder.toml", overrides=["run.steps=2"])["bundle"])
        'run/bundle'
    """
    from ssl_tilegen.workflows.train import train as work

    config = Path(config)
    folder = Path(out) if out else config.parent / "run"
    return work(stage, config, folder, overrides=list(overrides), device=device, restart=restart, report=report)
