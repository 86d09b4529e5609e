# ruff: noqa: E501 (a case is a line)
"""A second command, or a user, between two steps of a command: each does its work whole, or says in one line why not."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, MENDABLE, SOME, Case, words
from tests.faults.cases.commands import (
    AUGMENT,
    CLASSES,
    DRAW,
    EMBED,
    EMBED_PNG,
    EVALUATE,
    EXPORT,
    GENERATE,
    GRID,
    IMPORT,
    MODEL,
    PICTURE,
    PREVIEW,
    PUBLISHED,
    SETS,
    SLIDE,
    TRAIN,
    TRAINING,
    WRITERS,
)
from tests.faults.inject import Fault
from tests.faults.pieces import Copy, File, Folder, Link, Moved, Piece

FEATURES, MINE = Copy("f.npz"), Folder("mine")
ENCODER = "train encoder --config train/encoder.toml --device cpu"
EMBED_CLASS = f"embed classes/dots --mpp 0.5 {MODEL}"
# name -> (a command, another that runs between its steps, what is there, what may change)
PAIRS: dict[str, tuple[str, str, tuple[Piece, ...], tuple[str, ...]]] = {
    "generate-itself": (f"{GENERATE} -o o.png", f"{GENERATE} -o o.png", (GRID,), ()),
    "generate-restart": (f"{GENERATE} -o o.png", f"{GENERATE} -o o.png --restart --overwrite", (GRID,), ()),
    "generate-embed": (f"{GENERATE} -o o.zarr", f"{EMBED} -o o.zarr --overwrite --restart", (GRID, SLIDE), ()),
    "embed-generate": (f"{EMBED} -o o.zarr", f"{GENERATE} -o o.zarr --overwrite --restart", (GRID, SLIDE), ()),
    "embed-import": (f"{EMBED} -o o.zarr", f"{IMPORT} -o o.zarr --overwrite", (SLIDE, FEATURES), ()),
    "import-embed": (f"{IMPORT} -o o.zarr", f"{EMBED} -o o.zarr --overwrite --restart", (SLIDE, FEATURES), ()),
    "export-embed": (f"{EXPORT} -o o.h5", f"{EMBED} -o g.zarr --overwrite", (SLIDE, GRID), ("g.zarr",)),
    "generate-embed-grid": (f"{GENERATE} -o o.png", f"{EMBED} -o g.zarr --overwrite", (SLIDE, GRID), ("g.zarr",)),
    "draw-import": (f"{DRAW} --save-grid k.zarr -o o.png", f"{IMPORT} -o k.zarr", (FEATURES,), ()),
    "import-draw": (f"{IMPORT} -o k.zarr", f"{DRAW} --save-grid k.zarr -o o.png --overwrite", (FEATURES,), ()),
    "draw-draw": (f"{DRAW} --save-grid k.zarr -o o.png", f"{DRAW} --seed 3 --save-grid k.zarr -o p.png --overwrite", (), ()),
    "draw-export": (f"{DRAW} --save-grid k.zarr -o o.png", "grid export k.zarr -o k.h5", (), ()),
    "draw-restart": (f"{DRAW} -o o.png", f"{DRAW} -o o.png --restart --overwrite", (), ()),
    "preview-generate": (f"{PREVIEW} -o o.png", f"{GENERATE} -o o.png", (GRID,), ()),
    "generate-preview": (f"{GENERATE} -o o.png", f"{PREVIEW} -o o.png --overwrite", (GRID,), ()),
    "augment-restart": (f"{AUGMENT} -o o", f"{AUGMENT} -o o --restart --overwrite", (CLASSES,), ()),
    "augment-embed": (f"{AUGMENT} -o o", f"{EMBED_CLASS} --out-dir o", (CLASSES,), ()),
    "embed-augment": (f"{EMBED_CLASS} --out-dir o", f"{AUGMENT} -o o --overwrite", (CLASSES,), ()),
    "embed-into-classes": (f"{AUGMENT} -o o --originals copy", f"{EMBED_CLASS} --out-dir classes/dots", (CLASSES,), ()),
    "evaluate-restart": (f"{EVALUATE} --report o.html", f"{EVALUATE} --report o.html --restart --overwrite", (SETS,), ()),
    "evaluate-generate": (f"{EVALUATE} --report o.html --report-json o.png.json", f"{GENERATE} -o o.png --overwrite", (SETS, GRID), ()),
    "generate-evaluate": (f"{GENERATE} -o o.png", f"{EVALUATE} --report o.html --report-json o.png.json --overwrite", (SETS, GRID), ()),
    "models-itself": (f"{PUBLISHED} -o o", f"{PUBLISHED} -o o --overwrite", (Copy("published"),), ()),
    "train-encoder": (f"{TRAINING} --out o", f"{ENCODER} --out o", (TRAIN,), ()),
    "train-restart": (f"{TRAINING} --out o", f"{TRAINING} --out o --restart", (TRAIN,), ()),
    "train-models": (f"{TRAINING} --out o", f"{PUBLISHED} -o o/bundle --overwrite", (TRAIN, Copy("published")), ()),
    "summary": (f"{EMBED} -o o.zarr --summary s.csv", f"{EMBED_PNG} -o p.zarr --summary s.csv", (SLIDE, PICTURE), ()),
}  # fmt: skip
# name -> (a command, what is there, what a user does meanwhile, what may change or come)
USERS: dict[str, tuple[str, tuple[Piece, ...], tuple[Piece, ...], tuple[str, ...]]] = {
    # at the very last step what came goes with the folder to its new name
    "part-folder-embed": (f"{EMBED} -o o.zarr", (SLIDE,), (Folder("o.zarr.part"),), ("o.zarr.part",)),
    "part-folder-generate": (f"{GENERATE} -o o.png", (GRID,), (Folder("o.png.part"),), ()),
    "link-grid": (f"{EMBED} -o o.zarr --overwrite", (SLIDE, MINE), (Link("o.zarr", "mine"),), ()),
    "link-image": (f"{GENERATE} -o o.png --overwrite", (GRID, File("mine.txt")), (Link("o.png", "mine.txt"),), ()),
    "lock-moved": (f"{EMBED} -o o.zarr", (SLIDE,), (Moved("o.zarr.lock", "stolen"),), ("stolen",)),
    "source-replaced": (f"{EMBED} -o o.zarr", (SLIDE,), (Copy("inf.tif", "in.tif"),), ()),
    "part-moved": (f"{GENERATE} -o o.png", (GRID,), (Moved("o.png.part", "away"),), ("away", "away/*")),
    "run-moved": (f"{TRAINING} --out o", (TRAIN,), (Moved("o/autoencoder", "away"),), ("away", "away/*")),
    "bundle-linked": (f"{TRAINING} --out o", (TRAIN, MINE), (Moved("o/bundle", "away", "../mine"),), ("away", "away/*")),
}  # fmt: skip
AT = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)
LEAVES = ("*.part", "*.part/*", ".*", "*/.*", "*.lock")
ENDS = frozenset({DONE, MENDABLE, SOME})


def cases() -> Iterator[Case]:
    for name, (command, other, before, ours) in PAIRS.items():
        yield from _at_all(name, command, before, ours, beside=words(other))
    users = dict(USERS)
    for name, (command, option, out, before) in WRITERS.items():
        line = f"{command} {option} {out}"
        if name in ("embed", "generate", "generate-zarr", "augment", "evaluate", "import"):
            users[f"part-linked-{name}"] = (
                line,
                (*before, MINE),
                (Moved(f"{out}.part", "away", "mine"),),
                ("away", "away/*"),
            )
        if not name.startswith(("preview", "export", "models")):
            users[f"folder-{name}"] = (line, before, (Folder(out),), ())
    for name, (command, before, meanwhile, ours) in users.items():
        yield from _at_all(f"user-{name}", command, before, ours, meanwhile=meanwhile)


def _at_all(
    name: str,
    command: str,
    before: tuple[Piece, ...],
    ours: tuple[str, ...],
    beside: tuple[str, ...] = (),
    meanwhile: tuple[Piece, ...] = (),
) -> Iterator[Case]:
    leaves = (*LEAVES, *ours, *(("o", "o/*") if command.startswith("train") else ()))
    for at in AT:
        yield Case("between", f"{name}-{at:g}", words(command), before, ENDS, at=at, ours=ours, leaves=leaves, beside=beside, meanwhile=meanwhile, fault=Fault("", "WAITS"))  # fmt: skip
