"""The results of `augment`: the gate's verdicts, the manifest, and the summary."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_tilegen.config import AugmentSettings
from ssl_tilegen.errors import PartialFailure, failures_line
from ssl_tilegen.metrics.votes import Votes, class_votes
from ssl_tilegen.system.boundary import printable
from ssl_tilegen.system.csv_table import defused_row
from ssl_tilegen.workflows.augment.inputs import Failure, Original
from ssl_tilegen.workflows.augment.plan import Sample, single_groups
from ssl_tilegen.workflows.augment.store import Record

MANIFEST = "manifest.csv"
COLUMNS = (
    "path", "kind", "source", "label", "group", "split", "seed", "strength", "mix", "mixed_with", "mixed_group",
    "cosine", "class_votes", "nearest", "nearest_cosine",
)  # fmt: skip
REASONS = ("left_class", "min_cosine", "not_best")


class Verdicts(NamedTuple):
    """Of all samples: their neighbours' ``votes``, ``cosine`` to the source, and why each is dropped ('' = kept).

    ``in_class``: share of the samples that the vote gives to their class, ``real_in_class`` that of the originals; both
    None where a class has one group, for then nobody is left to vote for it.
    """

    votes: Votes
    cosine: np.ndarray
    reasons: tuple[str, ...]
    in_class: float | None
    real_in_class: float | None


@dataclass(frozen=True)
class AugmentReport:
    """Summary. ``status``: done, or partial while other processes hold sheets (then counts are this process's).

    ``originals`` and ``kept`` by class; ``dropped`` by reason; ``cosine``: mean over all samples painted;
    ``in_class``: share of the samples whose neighbours say their class, and ``real_in_class`` that of the originals.
    """

    out: Path
    status: str
    originals: dict[str, int]
    painted: int
    kept: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    cosine: float | None = None
    in_class: float | None = None
    real_in_class: float | None = None
    failed: tuple[Failure, ...] = ()
    seconds: float = 0.0
    per_s: float = 0.0

    def line(self) -> str:
        """The report as text."""
        if self.status == "finished before":
            return printable(f"{self.out}: finished before")
        rate = f"{self.seconds:.1f} s, {self.per_s:.2f} images/s"
        if self.status != "done":
            line = f"{self.out}: {self.status}, {self.painted} images painted here in {rate}; others hold the rest"
            return printable(line)
        kept = ", ".join(f"{count} {label}" for label, count in self.kept.items())
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items() if count)
        gone = f", dropped {dropped}" if dropped else ""
        found = f"cosine to the source {self.cosine:.3f}"
        if self.in_class is not None and self.real_in_class is not None:
            found += f", in class {100 * self.in_class:.0f} % (real ones {100 * self.real_in_class:.0f} %)"
        bare = [label for label, count in self.kept.items() if not count]
        note = f"note: nothing is left of {', '.join(bare)}; loosen the gate" if bare else ""
        return printable(
            f"{self.out}: done, {sum(self.kept.values())} images ({kept}) of {sum(self.originals.values())}{gone}; "
            f"{found}; {rate}"
        ) + (f"\n{printable(note)}" if note else "")


class AugmentIncomplete(PartialFailure):
    """Some of the originals could not be read; ``reports`` has the report of the others."""

    def __init__(self, report: AugmentReport) -> None:
        total = len(report.failed) + sum(report.originals.values())
        failed = [(failure.name, failure.error) for failure in report.failed]
        super().__init__(failures_line(failed, total, total - len(failed), "images"))
        self.reports = [report]


def judge(
    samples: Sequence[Sample], originals: Sequence[Original], records: Sequence[Record], settings: AugmentSettings
) -> Verdicts:
    """The votes of the real neighbours on every sample, and the samples that the settings drop."""
    order = np.concatenate([record.originals for record in records])
    real = np.concatenate([record.real for record in records])[np.unique(order, return_index=True)[1]]
    names = sorted({original.label for original in originals})
    labels = np.array([names.index(original.label) for original in originals])
    groups = np.unique([original.group for original in originals], return_inverse=True)[1]
    vectors = np.concatenate([record.vectors for record in records])
    cosine = np.concatenate([record.cosine for record in records])
    own = np.array([sample.original for sample in samples])
    partner = np.array([sample.original if sample.partner is None else sample.partner for sample in samples])
    votes = class_votes(vectors, labels[own], groups[np.stack([own, partner], 1)], real, labels, groups)
    theirs = class_votes(real, labels, groups[:, None], real, labels, groups)
    reasons = _reasons(samples, votes.label == labels[own], votes.share, cosine, settings)
    if single_groups(originals):
        return Verdicts(votes, cosine, reasons, None, None)
    agree, real_agree = (votes.label == labels[own]).mean(), (theirs.label == labels).mean()
    return Verdicts(votes, cosine, reasons, round(float(agree), 4), round(float(real_agree), 4))


def _reasons(
    samples: Sequence[Sample], in_class: np.ndarray, share: np.ndarray, cosine: np.ndarray, settings: AugmentSettings
) -> tuple[str, ...]:
    """Why each sample is dropped, '' where it is kept. Of an image's samples the nearest to it are the best."""
    reasons = [""] * len(samples)
    if not settings.gated:
        return tuple(reasons)
    left: dict[int, list[int]] = {}
    for index, sample in enumerate(samples):
        if not in_class[index]:
            reasons[index] = "left_class"
        elif settings.min_cosine is not None and cosine[index] < settings.min_cosine:
            reasons[index] = "min_cosine"
        else:
            left.setdefault(sample.original, []).append(index)
    for own in left.values():
        for index in sorted(own, key=lambda i: -cosine[i])[settings.keep_best or len(own) :]:
            reasons[index] = "not_best"
    return tuple(reasons)


def summarise(verdicts: Verdicts, samples: Sequence[Sample], originals: Sequence[Original]) -> dict[str, Any]:
    """The counts and means of the report."""
    kept = [originals[s.original].label for s, why in zip(samples, verdicts.reasons, strict=True) if not why]
    names = sorted({original.label for original in originals})
    return {
        "kept": {label: Counter(kept)[label] for label in names},
        "dropped": {reason: verdicts.reasons.count(reason) for reason in REASONS},
        "cosine": round(float(verdicts.cosine.mean()), 4),
        "in_class": verdicts.in_class,
        "real_in_class": verdicts.real_in_class,
    }


def write_manifest(
    path: Path, verdicts: Verdicts, samples: Sequence[Sample], originals: Sequence[Original],
    settings: AugmentSettings, real_files: Mapping[int, str],
) -> None:  # fmt: skip
    """One row per kept image, and per original that lies beside them (``real_files``: index -> path)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for index, where in sorted(real_files.items()):
            own = originals[index]
            facts = {"path": where, "kind": "real", "source": own.name, "label": own.label, "group": own.group,
                     "split": own.split}  # fmt: skip
            table.writerow(defused_row(facts))
        for index, sample in enumerate(samples):
            if not verdicts.reasons[index]:
                table.writerow(defused_row(_row(index, sample, verdicts, originals, settings)))


def _row(
    index: int, sample: Sample, verdicts: Verdicts, originals: Sequence[Original], settings: AugmentSettings
) -> dict[str, object]:
    own, votes = originals[sample.original], verdicts.votes
    other = None if sample.partner is None else originals[sample.partner]
    return {
        "path": sample.file,
        "kind": "synthetic",
        "source": own.name,
        "label": own.label,
        "group": own.group,
        "split": own.split,
        "seed": sample.seed,
        "strength": "" if settings.strength is None else settings.strength,
        "mix": settings.mix if other else "",
        "mixed_with": other.name if other else "",
        "mixed_group": other.group if other else "",
        "cosine": f"{verdicts.cosine[index]:.4f}",
        "class_votes": "" if verdicts.in_class is None else f"{votes.share[index]:.3f}",
        "nearest": originals[int(votes.nearest[index])].name,
        "nearest_cosine": f"{votes.cosine[index]:.4f}",
    }
