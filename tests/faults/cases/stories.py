# ruff: noqa: E501 (a case is a line)
"""Several commands after each other: what a run left is taken up, replaced or kept, and never somebody else's."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, MENDABLE, REFUSED, SOME, Case, words
from tests.faults.cases.commands import (
    AUGMENT,
    CLASSES,
    EMBED,
    EVALUATE,
    GENERATE,
    GRID,
    IMPORT,
    MODEL,
    PUBLISHED,
    SETS,
    SLIDE,
    TRAIN,
    TRAINING,
    WRITERS,
)
from tests.faults.inject import Fault
from tests.faults.pieces import Append, Copy, Edit, Fifo, File, Folder, Gone, Link, Remove, Swap

DONE_ONLY = frozenset({DONE})


def cases() -> Iterator[Case]:
    yield from _own_again()
    yield from _foreign_after()
    yield from _healed()
    yield from _memory()


def _own_again() -> Iterator[Case]:
    """What a command made itself is refused without an option, and replaced with it, whole."""
    for name, (command, option, out, before) in WRITERS.items():
        line = f"{command} {option} {out}"
        if name in ("preview", "train"):
            yield Case(
                "again",
                f"{name}-plain",
                words(line),
                before,
                DONE_ONLY | {MENDABLE},
                first=(words(line),),
                ours=(out, "o.*"),
            )
            continue
        yield Case("again", f"{name}-plain", words(line), before, REFUSED, first=(words(line),))
        for force in (
            ("--overwrite",)
            if name.startswith(("export", "import", "models"))
            else ("--overwrite", "--overwrite --restart")
        ):
            mark = force.replace(" --", "-").strip("-")
            yield Case(
                "again",
                f"{name}-{mark}",
                words(f"{line} {force}"),
                before,
                DONE_ONLY,
                first=(words(line),),
                ours=(out, f"{out}.json", "o.json"),
            )
    preview = words(f"{EMBED} -o o.zarr --preview")
    paint = words(f"generate --grid o.zarr --steps 1 {MODEL} -o o.ome.tif --preview")
    draw = words("grid preview o.zarr")
    for name, one, two in (
        ("embed-generate", preview, paint),
        ("embed-grid", preview, draw),
        ("generate-grid", paint, draw),
    ):
        yield Case("again", f"previews-{name}", two, (SLIDE,) if name != "generate-grid" else (Copy("g.zarr", "o.zarr"),),
                   DONE_ONLY | {MENDABLE}, first=(one,))  # fmt: skip
    geo = words(f"{EMBED} -o o.zarr --geojson")
    yield Case(
        "again",
        "geojson-edited",
        (*geo, "--overwrite"),
        (SLIDE,),
        REFUSED | {DONE},
        first=(geo,),
        then=(File("o.geojson"),),
        ours=("o.zarr",),
    )
    yield Case(
        "again",
        "summary-own",
        (*words(f"{EMBED} --out-dir o --skip-existing"),),
        (SLIDE,),
        DONE_ONLY,
        first=(words(f"{EMBED} --out-dir o"),),
        ours=("o/embed-summary.csv",),
    )


def _foreign_after() -> Iterator[Case]:
    """A user puts a file into what a command made: it is not ours to remove any more."""
    for name, (command, option, out, before) in WRITERS.items():
        if name not in ("embed", "generate-zarr", "augment", "import", "train"):
            continue
        line = f"{command} {option} {out}"
        inner = f"{out}/autoencoder" if name == "train" else out
        for force in ("--restart",) if name == "train" else ("--overwrite",):
            yield Case("foreign", f"{name}{force[1:]}", words(f"{line} {force}"), before, REFUSED | {DONE}, first=(words(line),),
                       then=(File(f"{inner}/my notes.txt"), Folder(f"{inner}/mine")),
                       ours=_all_but_mine(name, inner, out))  # fmt: skip
    kill = {
        "embed": f"{EMBED} -o o.zarr",
        "generate": f"{GENERATE} -o o.ome.tif",
        "augment": f"{AUGMENT} -o o",
        "evaluate": f"{EVALUATE} --report o.html",
    }
    for name, line in kill.items():
        before, out = WRITERS[name][3], WRITERS[name][2]
        for force in ("", "--restart"):
            yield Case("foreign", f"{name}-part{force[1:]}", words(f"{line} {force}"), (*before, *_unfinished(name)), REFUSED | {DONE},
                       then=(File(f"{out}.part/my notes.txt"),), ours=(f"{out}.part/[!m]*", f"{out}.part"))  # fmt: skip
    augment, patch = words(f"{AUGMENT} -o o"), "o/dots/g0_0-s0.png"
    for name, then in {
        "patch-edited": (File(patch),),
        "label-edited": (Swap("o/manifest.csv", ",dots,", ",dotz,"),),
        "patch-added": (File("o/dots/mine.png"), Append("o/manifest.csv", "dots/mine.png,dots\n")),
        "patch-linked": (File("mine.png"), Remove(patch), Link(patch, "../../mine.png")),
    }.items():
        yield Case(
            "foreign", f"augment-{name}", (*augment, "--overwrite"), (CLASSES,), REFUSED, first=(augment,), then=then
        )
    page, painted = words(f"{EVALUATE} --report o.html"), words(f"{GENERATE} -o o.ome.tif")
    for name, command, before, piece in (
        ("sidecar-edited", painted, (GRID,), Edit("o.ome.tif.json", "note", "seen by A. on Monday")),
        ("page-edited", page, (SETS,), Swap("o.html", "Real against synthetic", "REAL against synthetic")),
        ("page-json-edited", page, (SETS,), Edit("o.html.json", "note", "seen by A. on Monday")),
    ):
        yield Case("foreign", name, (*command, "--overwrite"), before, REFUSED, first=(command,), then=(piece,))
    parts = words("generate --text=left~rock,~right~sand --size 128 --steps 1 --save-grid k.zarr -o o.png") + words(
        MODEL
    )
    parts = tuple(word.replace("~", " ") for word in parts)
    image = words(f"{GENERATE} -o k.scene.png")
    yield Case("foreign", "scene-is-own-image", parts, (GRID,), REFUSED, first=(image,))
    named = (CLASSES, Copy("in.png", "classes/dots/g0_0-s0.png"))
    yield Case("foreign", "original-called-as-sample", (*augment, "--originals", "copy"), named, DONE_ONLY,
               lacks="^dots/g0_0-s0.png,real")  # fmt: skip
    shared = words(f"{EVALUATE} --report-json s.json --report")
    yield Case("foreign", "json-of-two-pages", (*shared, "p.html"), (SETS,), DONE_ONLY | {MENDABLE},
               beside=(*shared, "o.html"))  # fmt: skip
    began = File("o.png.part/.ssl-tilegen.json", '{"software": "ssl-tilegen 1"}')
    paint = words(f"{GENERATE} -o o.png")
    for name, pieces in {
        "pipe": (Fifo("o.png.part/state.npz"),),
        "link": (File("mine.raw"), Link("o.png.part/rows.raw", "../mine.raw")),
        "hard-link": (File("mine.raw"), Link("o.png.part/rows.raw", "mine.raw", hard=True)),
    }.items():
        yield Case("foreign", f"generate-part-{name}", paint, (GRID, began, *pieces), REFUSED)
    run = words(f"{TRAINING} --out o")
    yield Case("foreign", "train-notes-in-checkpoint", (*run, "--set", "run.steps=4"), (TRAIN,), DONE_ONLY, first=(run,),
               then=(File("o/autoencoder/checkpoint/my notes.txt"), Folder("o/autoencoder/checkpoint/mine")),
               ours=("o/bundle", "o/autoencoder/[!c]*", "o/autoencoder/curves.png", "o/autoencoder/checkpoint/[!m]*"))  # fmt: skip
    lost = (Gone("o/autoencoder"),)
    yield Case("foreign", "train-over-trained", run, (TRAIN,), REFUSED, first=(run,), then=lost, says="--restart")
    yield Case("foreign", "train-over-trained-restart", (*run, "--restart"), (TRAIN,), DONE_ONLY, first=(run,), then=lost,
               ours=("o/bundle",))  # fmt: skip
    yield Case("foreign", "train-readme-pipe", run, (TRAIN, Fifo("o/bundle/README.md")), DONE_ONLY)
    yield Case("foreign", "train-settings-pipe", run, (TRAIN, Fifo("o/autoencoder/settings.json")), REFUSED)
    for name, out, file in (("augment", "o", "sheets/0.npz"), ("embed", "o.zarr", "done/c/0")):
        begun, bad = _unfinished(name), File(f"{out}.part/{file}", b"PK")
        line = words(f"{WRITERS[name][0]} -o {out}")
        yield Case("foreign", f"{name}-part-damaged", line, (*WRITERS[name][3], *begun, bad), REFUSED,
                   ours=("o*.lock", f"{out}.part", ".o*"), leaves=("*",))  # fmt: skip
    bundle = words(f"{PUBLISHED} -o o")
    yield Case("foreign", "models-card-edited", (*bundle, "--overwrite"), (Copy("published"),), REFUSED, first=(bundle,),
               then=(Append("o/CARD.md", "We have tested it on our own slides.\n"),))  # fmt: skip
    train = words(f"{TRAINING} --out .")
    yield Case("foreign", "train-then-restart", (*train, "--restart"), (TRAIN, Folder("autoencoder")), REFUSED | {DONE}, first=(train,),
               ours=("autoencoder/[a-z]*.json*", "autoencoder/sample*", "autoencoder/check*", "autoencoder/step*", "bundle"))  # fmt: skip


def _all_but_mine(name: str, inner: str, out: str) -> tuple[str, ...]:
    """All that the command made, but for what the user put among it."""
    names = "abcdefghijklnopqrstuvwxyz0123456789.ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return (*(f"{inner}/{letter}*" for letter in names), f"{inner}/manifest.csv", f"{out}/bundle", f"{out}.json")


def _unfinished(name: str) -> tuple[Copy, ...]:
    return (Copy(f"unfinished/{name}", "."),)


def _healed() -> Iterator[Case]:
    """A file that was bad and was replaced, an output that was begun, a lock that a dead process left."""
    embed = words(f"embed x.tif {MODEL} -o o.zarr")
    yield Case("heal", "embed-cut-replaced", embed, (Copy("in.tif", "x.tif", cut=30_000),), DONE_ONLY, first=(embed,), then=(Copy("in.tif", "x.tif"),),
               ours=("o.zarr*",))  # fmt: skip
    slide = words(f"embed x.ome.tif {MODEL} -o o.zarr")
    yield Case("heal", "embed-other-source", slide, (Copy("slide.ome.tif", "x.ome.tif", cut=4000),), DONE_ONLY, first=(slide,), then=(Copy("slide.ome.tif", "x.ome.tif"),),
               ours=("o.zarr*",))  # fmt: skip
    many = words(f"embed d {MODEL} --out-dir o --skip-existing")
    yield Case(
        "heal",
        "embed-many-replaced",
        many,
        (Copy("in.tif", "d/a.tif"), File("d/b.tif", "x")),
        DONE_ONLY,
        first=(many,),
        then=(Copy("in.tif", "d/b.tif"),),
        ours=("o/*",),
    )
    for name, (command, option, out, before) in WRITERS.items():
        if name in ("evaluate", "generate", "embed", "augment"):
            unfinished = (*before, *_unfinished(name))
            yield Case(
                "heal",
                f"{name}-resumed",
                words(f"{command} {option} {out}"),
                unfinished,
                DONE_ONLY,
                ours=(f"{out}.part", "o*.lock", ".o*"),
            )
            yield Case(
                "heal",
                f"{name}-restarted",
                words(f"{command} {option} {out} --restart"),
                unfinished,
                DONE_ONLY,
                ours=(f"{out}.part", "o*.lock", ".o*"),
            )
    other = words(f"{GENERATE} --seed 5 -o o.ome.tif")
    ours = ("o*.lock", "o.ome.tif.part")  # where the kill came before the first state, nothing is lost
    yield Case("heal", "generate-other-settings", other, (GRID, *_unfinished("generate")), REFUSED | {DONE}, ours=ours)
    yield Case(
        "heal",
        "embed-other-settings",
        words(f"{EMBED} --stride 32 -o o.zarr"),
        (SLIDE, *_unfinished("embed")),
        REFUSED,
        ours=("o*.lock",),
    )
    yield Case(
        "heal",
        "augment-other-settings",
        words(f"{AUGMENT} --seed 5 -o o"),
        (CLASSES, *_unfinished("augment")),
        REFUSED,
        ours=("o*.lock",),
    )
    lock = '{"host": "{host}", "pid": 999999, "space": "", "began": "1", "since": "2020-01-01 00:00:00"}'
    yield Case(
        "heal",
        "embed-after-import-over",
        words(f"{EMBED} -o o.zarr --overwrite"),
        (SLIDE, Copy("f.npz")),
        DONE_ONLY,
        first=(words(f"{IMPORT} -o o.zarr"),),
        ours=("o.zarr",),
    )
    yield Case(
        "heal",
        "old-lock",
        words(f"{EMBED} -o o.zarr"),
        (SLIDE, File("o.zarr.lock", lock)),
        DONE_ONLY | {MENDABLE},
        ours=("o.zarr.lock",),
    )
    yield Case("heal", "evaluate-all-or-none", words(f"{EVALUATE} --report o.html"), (SETS,), DONE_ONLY | {MENDABLE}, at=1.0, fault=Fault("", "EIO", "rename"),
               leaves=("o.html.part*", "*.lock", ".*"), whole=("o.html", "o.html.json"))  # fmt: skip
    for at in (0.5, 0.8, 0.9, 1.0):
        for what in ("SIGKILL", "ENOSPC"):
            yield Case("heal", f"evaluate-all-or-none-{what}-{at:g}", words(f"{EVALUATE} --report o.html"), (SETS,), DONE_ONLY | {MENDABLE}, at=at,
                       fault=Fault("", what, "any" if what == "SIGKILL" else "open"), leaves=("o.html.part*", "*.lock", ".*"),
                       whole=("o.html", "o.html.json") if what != "SIGKILL" else (), again=True)  # fmt: skip
    yield Case(
        "heal",
        "cells-unreadable",
        words(f"embed in.zarr {MODEL} -o o.zarr"),
        (Copy("in.zarr"), File("in.zarr/0/c/0/0/0", b"x" * 50)),
        REFUSED | {SOME},
    )


def _memory() -> Iterator[Case]:
    """A process that may take little memory: one line, or the work done."""
    for name, (command, option, out, before) in WRITERS.items():
        for mib in (16, 96):
            yield Case("memory", f"{name}-{mib}", words(f"{command} {option} {out}"), before, DONE_ONLY | {MENDABLE}, memory_mib=mib,
                       leaves=("*.part", "*.part/*", ".*", "*/.*", "*.lock", "o", "o/*"), cpu_s=30)  # fmt: skip
