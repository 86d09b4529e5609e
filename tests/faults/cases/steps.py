"""Faults at the steps of every command that writes: it fails in one line, or goes on to the same end when called again.

A kill may leave unfinished work beside the output, an error too where the command can continue it; after the command
has been run again there is nothing but the whole output.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, MENDABLE, STOPPED, Case, words
from tests.faults.cases.commands import AUGMENT, EMBED, GENERATE, IMPORT, TRAINING, WRITERS
from tests.faults.inject import CHANGES, Fault
from tests.faults.pieces import Copy

UNFINISHED = ("*.part", "*.part/*", ".*", "*/.*", "*.lock")
RESUMED = ("embed", "generate", "generate-png", "generate-zarr", "draw", "augment", "evaluate", "train")
KILLS = (0.15, 0.4, 0.7, 0.85, 1.0)
ERRORS = (
    ("ENOSPC", "open", 0.5), ("ENOSPC", "write", 0.2), ("ENOSPC", "write", 0.9), ("ENOSPC", "mkdir", 0.5),
    ("EDQUOT", "write", 0.6), ("EIO", "open", 0.8), ("EIO", "write", 0.5), ("EIO", "rename", 1.0),
    ("EIO", "unlink", 1.0), ("EIO", "mkdir", 1.0), ("EIO", "fsync", 1.0), ("EIO", "read", 0.5), ("EACCES", "open", 0.1),
)  # fmt: skip
# a finished output that is replaced: name -> (command, what is there)
REPLACED = {
    "embed": (f"{EMBED} -o o.zarr --overwrite", (*WRITERS["embed"][3], Copy("g.zarr", "o.zarr"))),
    "generate": (f"{GENERATE} -o o.ome.tif --overwrite", (*WRITERS["generate"][3], Copy("slide.ome.tif", "o.ome.tif"),
                 Copy("slide.ome.tif.json", "o.ome.tif.json"))),
    "generate-zarr": (f"{GENERATE} -o o.zarr --overwrite", (*WRITERS["generate"][3], Copy("in.zarr", "o.zarr"),
                      Copy("in.zarr.json", "o.zarr.json"))),
    "augment": (f"{AUGMENT} -o o --overwrite", (*WRITERS["augment"][3], Copy("augmented", "o"))),
    "import": (f"{IMPORT} -o o.zarr --overwrite", (*WRITERS["import"][3], Copy("g.zarr", "o.zarr"))),
}  # fmt: skip
# what is written beside an output, and the option that asks for it
SIDES = {
    "embed": (("o.embed-preview.png", "--preview"), ("o.geojson", "--geojson --preview"), ("s.csv", "--summary s.csv")),
    "generate": (("o.ome.tif.json", "--preview"), ("o.preview.png", "--preview")),
    "draw": (("k.zarr", "--save-grid k.zarr"),),
    "evaluate": (("o.html.json", ""),),
}
SHARES = tuple(number / 20 for number in range(1, 21))


def cases() -> Iterator[Case]:
    for name, (command, option, out, before) in WRITERS.items():
        line = words(f"{command} {option} {out}")
        leaves = UNFINISHED + (("o", "o/*") if name == "train" else ())
        after_error = leaves if name in RESUMED else ()
        for at in KILLS:
            yield Case("kill", f"{name}-{at:g}", line, before, frozenset({DONE}), leaves=leaves, again=True, at=at,
                       fault=Fault("", "SIGKILL"))  # fmt: skip
        for at in (0.3, 0.8):
            yield Case("term", f"{name}-{at:g}", line, before, frozenset({DONE, STOPPED}), leaves=after_error,
                       again=at < 0.5, at=at, fault=Fault("", "SIGTERM"))  # fmt: skip
        for what, step, at in ERRORS:
            left = UNFINISHED if step == "unlink" else after_error  # what the system does not let go of stays
            yield Case("step", f"{name}-{what}-{step}-{at:g}", line, before, frozenset({DONE, MENDABLE}), at=at,
                       leaves=left, again=(what, at) == ("ENOSPC", 0.9), fault=Fault("", what, step))  # fmt: skip
        for kib in (4, 64):
            yield Case("disk", f"{name}-{kib}", line, before, frozenset({DONE, MENDABLE}), leaves=after_error,
                       disk_kib=kib, again=kib == 64)  # fmt: skip
        yield Case("disk", f"{name}-readonly", line, before, frozenset({MENDABLE}), disk_kib=-1)
        yield Case("disk", f"{name}-file-size", line, before, frozenset({DONE, MENDABLE}), leaves=after_error,
                   file_bytes=4096)  # fmt: skip
    yield from _replaced()
    yield from _appearing()
    yield from _long()


def _replaced() -> Iterator[Case]:
    for name, (command, before) in REPLACED.items():
        for at in (0.5, 0.8, 0.9, 1.0):
            yield Case("replace", f"{name}-kill-{at:g}", words(command), before, frozenset({DONE}), at=at, again=True,
                       ours=("o*",), leaves=UNFINISHED, fault=Fault("", "SIGKILL"))  # fmt: skip
        for what, step, at in (("EIO", "rename", 1.0), ("EIO", "rename", 0.5), ("ENOSPC", "write", 0.9)):
            leaves = UNFINISHED if name in RESUMED else ()
            yield Case("replace", f"{name}-{what}-{step}-{at:g}", words(command), before, frozenset({DONE, MENDABLE}),
                       at=at, again=True, ours=("o*",), leaves=leaves, fault=Fault("", what, step))  # fmt: skip


def _appearing() -> Iterator[Case]:
    """A user's file that gets the name of an output while the command runs."""
    for name, (command, option, out, before) in WRITERS.items():
        sides = SIDES.get(name, ())
        for file, more in ((out, ""), *sides) if name != "train" else ():
            for force in ("", *(() if name in ("evaluate", "models", "preview") else ("--overwrite",))):
                line = words(f"{command} {option} {out} {more} {force}")
                leaves = (*UNFINISHED, file, *((out, f"{out}.json") if more else ()))
                yield Case("appears", f"{name}-{file}{force[1:]}", line, before, frozenset({MENDABLE}), at=0.5,
                           leaves=leaves, fault=Fault("", f"APPEARS {file}", "open"))  # fmt: skip
                for at in (0.75, 0.9):  # while what was written is being flushed
                    yield Case("flushed", f"{name}-{file}{force[1:]}-{at:g}", line, before, frozenset({DONE, MENDABLE}),
                               at=at, leaves=leaves, fault=Fault("", f"APPEARS {file}", "fsync"))  # fmt: skip
    init = "train init autoencoder --from {world}/bundle --images train --mpp 0.5 -o my.toml"
    for force in ("", "--overwrite"):
        yield Case("flushed", f"init{force[1:]}", words(f"{init} {force}"), (Copy("train"),), frozenset({MENDABLE}),
                   at=0.5, leaves=("my.toml",), fault=Fault("", "APPEARS my.toml", "fsync"))  # fmt: skip
    yield Case("flushed", "train-component", words(f"{TRAINING} --out o"), (Copy("train"),), frozenset({MENDABLE}),
               at=0.4, leaves=("o", "o/*"), fault=Fault("", "APPEARS o/bundle", "open"))  # fmt: skip


def _long() -> Iterator[Case]:
    """Every kind of fault at every twentieth of the steps of its kind."""
    for name, (command, option, out, before) in WRITERS.items():
        line = words(f"{command} {option} {out}")
        leaves = UNFINISHED + (("o", "o/*") if name == "train" else ())
        for at in SHARES:
            for what in ("SIGKILL", "SIGTERM"):
                yield Case("long", f"{name}-{what}-{at:g}", line, before, frozenset({DONE, STOPPED}), leaves=leaves,
                           again=True, at=at, fault=Fault("", what), long=True)  # fmt: skip
            for step in (*CHANGES, "read"):
                for what in ("EIO", "EACCES") + (("ENOSPC", "EDQUOT") if step not in ("unlink", "read") else ()):
                    left = leaves if name in RESUMED or step == "unlink" else ()  # what is not let go of stays
                    yield Case("long", f"{name}-{what}-{step}-{at:g}", line, before, frozenset({DONE, MENDABLE}),
                               at=at, leaves=left, again=True, fault=Fault("", what, step),
                               long=True)  # fmt: skip
