# ruff: noqa: E501 (a case is a line)
"""Inputs that are no such thing: pipes, devices, folders, cut and foreign files, names that cannot be."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, MENDABLE, REFUSED, SOME, Case, words
from tests.faults.cases.commands import GENERATE, GRID, MODEL, SETS, SLIDE, TRAIN
from tests.faults.pieces import Copy, Fifo, File, Folder, Link, Piece, Socket

# option that takes an input -> (command, suffix of the name, good file, what else is there)
TAKERS: dict[str, tuple[str, str, str, tuple[Piece, ...]]] = {
    "embed": (f"embed X {MODEL} -o o.zarr", ".tif", "in.tif", ()),
    "embed-png": (f"embed X {MODEL} --mpp 0.5 -o o.zarr", ".png", "in.png", ()),
    "embed-list": (f"embed --list X {MODEL} --out-dir o", ".csv", "", ()),
    "embed-regions": (f"embed in.tif --regions X {MODEL} -o o.zarr", ".geojson", "r.geojson", (SLIDE,)),
    "embed-config": (f"embed in.tif --config X {MODEL} -o o.zarr", ".toml", "", (SLIDE,)),
    "embed-model": ("embed in.tif --model X --device cpu -o o.zarr", "", "bundle/bundle.json", (SLIDE,)),
    "embed-weights": (f"embed in.tif --encoder vit_tiny_patch16_224 --weights X {MODEL} -o o.zarr", ".pth", "", (SLIDE,)),
    "generate-grid": (f"generate --grid X --steps 1 {MODEL} -o o.png", ".zarr", "g.zarr/zarr.json", ()),
    "generate-scene": (f"generate --scene X --steps 1 {MODEL} -o o.png", ".png", "scene.png", ()),
    "generate-geojson": (f"generate --scene X --steps 1 {MODEL} -o o.png", ".geojson", "scene.geojson", ()),
    "generate-vector": (f"generate --vector X --steps 1 {MODEL} -o o.png", ".npy", "", ()),
    "generate-keep": (f"{GENERATE} --keep X --region 0,0,64,64 -o o.png", ".tif", "in.tif", (GRID,)),
    "augment": (f"augment X --steps 1 {MODEL} -o o", ".csv", "classes.csv", ()),
    "evaluate-real": (f"evaluate --real X --synthetic sets/synthetic --encoder texture {MODEL}", ".png", "in.png", (SETS,)),
    "evaluate-task": (f"evaluate --task X --encoder texture {MODEL}", "", "", ()),
    "grid-info": ("grid info X", ".zarr", "g.zarr/zarr.json", ()),
    "grid-preview": ("grid preview X -o o.png", ".zarr", "g.zarr/zarr.json", ()),
    "grid-preview-image": ("grid preview g.zarr --image X -o o.png", ".tif", "in.tif", (GRID,)),
    "grid-export": ("grid export X -o o.h5", ".zarr", "g.zarr/zarr.json", ()),
    "grid-import-npz": ("grid import X -o o.zarr", ".npz", "f.npz", ()),
    "grid-import-h5": ("grid import X -o o.zarr", ".h5", "f.h5", ()),
    "grid-import-image": ("grid import f.npz --image X -o o.zarr", ".tif", "in.tif", (Copy("f.npz"),)),
    "models-info": ("models info X", "", "bundle/bundle.json", ()),
    "train": ("train autoencoder --config X --device cpu --out o", ".toml", "train/autoencoder.toml", ()),
}  # fmt: skip
GARBAGE = bytes(range(256)) * 8
DEEP = "[" * 100_000


def cases() -> Iterator[Case]:
    for name, (command, suffix, good, before) in TAKERS.items():
        for what, (word, pieces) in traps(suffix, good).items():
            line = tuple(word if part == "X" else part for part in words(command))
            fine = {DONE} if (name, what) == ("embed-config", "empty") else set()
            yield Case("input", f"{name}-{what}", line, (*before, *pieces), REFUSED | {SOME} | fine, cpu_s=15)
    yield from _names()
    yield from _many()


def traps(suffix: str, good: str) -> dict[str, tuple[str, tuple[Piece, ...]]]:
    """What may stand where a good file is expected: its name, and what is put there."""
    found: dict[str, tuple[str, tuple[Piece, ...]]] = {
        "fifo": (f"x{suffix}", (Fifo(f"x{suffix}"),)),
        "socket": (f"x{suffix}", (Socket(f"x{suffix}"),)),
        "device": ("/dev/zero", ()),
        "link-to-device": (f"x{suffix}", (Link(f"x{suffix}", "/dev/zero"),)),
        "folder": (f"x{suffix}", (Folder(f"x{suffix}"),)),
        "empty": (f"x{suffix}", (File(f"x{suffix}", ""),)),
        "garbage": (f"x{suffix}", (File(f"x{suffix}", GARBAGE),)),
        "missing": (f"no/x{suffix}", ()),
        "dangling": (f"x{suffix}", (Link(f"x{suffix}", "gone"),)),
        "loop": (f"x{suffix}", (Link(f"x{suffix}", f"x{suffix}"),)),
        "newline": (f"a\nb\x1b[31m{suffix}", ()),
        "no-utf8": (f"a\udcff{suffix}", ()),
        "long": ("n" * 300 + suffix, ()),
        "nul-text": (f"x{suffix}", (File(f"x{suffix}", "path,label\n\0a,\0b\n"),)),
        "deep": (f"x{suffix}", (File(f"x{suffix}", DEEP),)),
    }
    if good and "/" not in good:
        found["cut"] = (f"x{suffix}", (Copy(good, f"x{suffix}", cut=200),))
    return found


def _names() -> Iterator[Case]:
    """Names of good inputs and of outputs."""
    names = {
        "newline": "a\nb", "escape": "a\x1b[2Jb", "blank": "a b", "quote": "a'b\"", "percent": "a%sb{x}", "dash": "-x",
        "tilde": "~x", "bracket": "[a]", "star": "a*", "no-utf8": "a\udcff", "umlaut": "ä漢", "long": "n" * 240,
        "bell": "a\ab", "return": "a\rb", "delete": "a\x7fb", "bidi": "a\u202eb", "formula": "=1+1",
    }  # fmt: skip
    model = words(MODEL)
    for name, text in names.items():
        yield Case("name", f"embed-input-{name}", ("embed", f"./{text}.tif", *model, "-o", "o.zarr"),
                   (Copy("in.tif", f"{text}.tif"),), frozenset({DONE, MENDABLE}))  # fmt: skip
        yield Case("name", f"embed-output-{name}", ("embed", "in.tif", *model, "-o", f"./{text}.zarr", "--preview"),
                   (SLIDE,), frozenset({DONE, MENDABLE}))  # fmt: skip
        yield Case("name", f"generate-output-{name}", (*words(GENERATE), "-o", f"./{text}.ome.tif"), (GRID,),
                   frozenset({DONE, MENDABLE}))  # fmt: skip
    for name, out in {"long": "n" * 256, "deep": "/".join(["d" * 200] * 25), "nul-like": "a/b" * 2000}.items():
        for kind, line in {
            "embed": ("embed", "in.tif", *model, "-o", f"{out}.zarr"),
            "generate": (*words(GENERATE), "-o", f"{out}.png"),
            "export": ("grid", "export", "g.zarr", "-o", f"{out}.h5"),
            "import": ("grid", "import", "f.npz", "-o", f"{out}.zarr"),
            "preview": ("grid", "preview", "g.zarr", "-o", f"{out}.png"),
            "train": ("train", "autoencoder", "--config", "train/autoencoder.toml", "--out", out, "--device", "cpu"),
            "summary": ("embed", "in.tif", *model, "-o", "o.zarr", "--summary", f"{out}.csv"),
        }.items():
            before = (SLIDE, GRID, Copy("f.npz"), TRAIN)
            yield Case("name", f"{kind}-out-too-{name}", line, before, REFUSED)


def _many() -> Iterator[Case]:
    """Some of many inputs are bad: the others are done, and the message counts right."""
    bad = (File("d/a.tif", GARBAGE), Copy("in.tif", "d/b.tif"))
    line = words(f"embed d {MODEL} --out-dir o")
    yield Case("many", "one-bad", line, bad, frozenset({SOME}), says="1 of 2")
    all_bad = tuple(File(f"d/{name}.tif", GARBAGE) for name in "abcde")
    yield Case("many", "all-bad", line, all_bad, REFUSED | {SOME}, never="the others are done")
    yield Case("many", "formula-in-summary", words(f"embed =1+1.tif {MODEL} -o o.zarr --summary s.csv"),
               (Copy("in.tif", "=1+1.tif"),), frozenset({DONE}), lacks="(^|,)\"?[=@]")  # fmt: skip
    yield Case(
        "many", "fifo-among", line, (Fifo("d/a.tif"), Copy("in.tif", "d/b.tif")), frozenset({DONE, SOME}), cpu_s=15
    )
    yield Case(
        "many", "newline-among", line, (File("d/a\nb.tif", GARBAGE), Copy("in.tif", "d/b.tif")), frozenset({SOME})
    )
    yield Case("many", "same-names", words(f"embed d/x.tif e/x.tif {MODEL} --out-dir o"),
               (Copy("in.tif", "d/x.tif"), Copy("in.tif", "e/x.tif")), REFUSED)  # fmt: skip
    yield Case("many", "case-names", words(f"embed d/x.tif e/X.tif {MODEL} --out-dir o"),
               (Copy("in.tif", "d/x.tif"), Copy("in.tif", "e/X.tif")), REFUSED | {DONE})  # fmt: skip
    yield Case("many", "augment-one-bad", words(f"augment classes --steps 1 {MODEL} -o o"),
               (Copy("classes"), File("classes/dots/bad.png", GARBAGE)), frozenset({SOME}))  # fmt: skip
    yield Case("many", "augment-fifo", words(f"augment classes --steps 1 {MODEL} -o o"),
               (Copy("classes"), Fifo("classes/dots/bad.png")), frozenset({SOME, DONE, MENDABLE}), cpu_s=15)  # fmt: skip
    yield Case("many", "evaluate-one-bad", words(f"evaluate --real sets/real --synthetic sets/synthetic --encoder texture --metrics fd -k 2 --rounds 2 {MODEL}"),
               (SETS, File("sets/real/bad.png", GARBAGE)), frozenset({SOME}))  # fmt: skip
