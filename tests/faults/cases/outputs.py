# ruff: noqa: E501 (a case is a line)
"""Outputs that are an input, lie in one or around one, or have the name of something of a user's."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, REFUSED, Case, words
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
    STORE,
    TRAIN,
    TRAINING,
    WRITERS,
)
from tests.faults.pieces import Copy, File, Folder, Link

HARMLESS = ("train-images", "train-parent", "embed-out-dir-store")  # what is made has other names
# an input as an output: name -> (command, what is there)
SELF = {
    "embed-file": (f"{EMBED} -o in.tif", (SLIDE,)),
    "embed-store": (f"embed in.zarr {MODEL} -o in.zarr", (STORE,)),
    "embed-inside-store": (f"embed in.zarr {MODEL} -o in.zarr/0", (STORE,)),
    "embed-dotted": (f"{EMBED} -o ./x/../in.tif", (SLIDE, Folder("x"))),
    "embed-absolute": (f"{EMBED} -o {{here}}/in.tif", (SLIDE,)),
    "embed-link": (f"{EMBED} -o other.tif", (SLIDE, Link("other.tif", "in.tif"))),
    "embed-input-link": (f"embed other.tif {MODEL} -o in.tif", (SLIDE, Link("other.tif", "in.tif"))),
    "embed-hard-link": (f"{EMBED} -o other.tif", (SLIDE, Link("other.tif", "in.tif", hard=True))),
    "embed-linked-folder": (f"{EMBED} -o there/in.tif", (SLIDE, Link("there", "."))),
    "embed-list": (f"embed --list l.csv {MODEL} -o l.csv", (SLIDE, File("l.csv", "path\nin.tif\n"))),
    "embed-regions": (f"{EMBED} --regions r.geojson -o r.geojson", (SLIDE, File("r.geojson", "{}"))),
    "embed-config": (f"{EMBED} --config c.toml -o c.toml", (SLIDE, File("c.toml", "tissue_min = 0.1\n"))),
    "embed-model": ("embed in.tif --model m --device cpu -o m", (SLIDE, Copy("bundle", "m"))),
    "embed-parent": (f"embed d/in.tif {MODEL} -o d", (Copy("in.tif", "d/in.tif"),)),
    "embed-out-dir-store": (f'embed in.zarr {MODEL} --out-dir {{here}}', (STORE,)),
    "embed-out-dir-in": (f"embed in.zarr {MODEL} --out-dir in.zarr", (STORE,)),
    "generate-grid": (f"{GENERATE} -o g.zarr", (GRID,)),
    "generate-in-grid": (f"{GENERATE} -o g.zarr/embedding/o.png", (GRID,)),
    "generate-grid-parent": (f"generate --grid d.zarr/g.zarr --steps 1 {MODEL} -o d.zarr", (Copy("g.zarr", "d.zarr/g.zarr"),)),
    "generate-grid-link": (f"{GENERATE} -o k.zarr", (GRID, Link("k.zarr", "g.zarr"))),
    "generate-keep": (f"{GENERATE} --keep in.tif --region 0,0,64,64 -o in.tif", (GRID, SLIDE)),
    "generate-scene": (f"generate --scene s.png --steps 1 {MODEL} --size 64 -o s.png", (Copy("scene.png", "s.png"), Copy("scene.csv", "s.csv"))),
    "generate-vector": (f"generate --vector v.png --steps 1 {MODEL} --size 64 -o v.png", (File("v.png"),)),
    "generate-config": (f"{GENERATE} --config c.png -o c.png", (GRID, File("c.png", "seed = 1\n"))),
    "generate-save-grid-scene": (f"generate --scene s.png {MODEL} --steps 1 --size 64 --save-grid s.png -o o.png", (Copy("scene.png", "s.png"), Copy("scene.csv", "s.csv"))),
    "generate-save-grid-out": (f"{DRAW} --save-grid o.zarr -o o.zarr", ()),
    "augment-folder": (f"{AUGMENT} -o classes", (CLASSES,)),
    "augment-parent": (f"augment d/classes --steps 1 {MODEL} -o d", (Copy("classes", "d/classes"),)),
    "augment-class": (f"{AUGMENT} -o classes/dots", (CLASSES,)),
    "augment-inside": (f"{AUGMENT} -o classes/new", (CLASSES,)),
    "augment-csv": (f"augment classes.csv --steps 1 {MODEL} -o classes.csv", (CLASSES, Copy("classes.csv"))),
    "augment-csv-folder": (f"augment classes.csv --steps 1 {MODEL} -o classes", (CLASSES, Copy("classes.csv"))),
    "augment-here": (f"{AUGMENT} -o .", (CLASSES,)),
    "augment-link": (f"{AUGMENT} -o k", (CLASSES, Link("k", "classes"))),
    "evaluate-real": (f"evaluate --real r.html --synthetic sets/synthetic {MODEL} --report r.html", (SETS, Copy("in.png", "r.html"))),
    "evaluate-config": (f"{EVALUATE} --config c.html --report c.html", (SETS, File("c.html", "seed = 1\n"))),
    "preview-image": (f"{PREVIEW} --image in.tif -o in.tif", (GRID, SLIDE)),
    "preview-png": ("grid preview h.zarr --image in.png -o in.png", (Copy("h.zarr"), PICTURE)),
    "preview-grid": (f"{PREVIEW} -o g.zarr", (GRID,)),
    "preview-inside": (f"{PREVIEW} -o g.zarr/zarr.json", (GRID,)),
    "export-grid": ("grid export g.h5 -o g.h5", (Copy("g.zarr", "g.h5"),)),
    "export-inside": (f"{EXPORT} -o g.zarr/x.h5", (GRID,)),
    "import-features": (f"{IMPORT} -o f.npz", (Copy("f.npz"),)),
    "import-h5": ("grid import f.h5 -o f.h5", (Copy("f.h5"),)),
    "import-image": (f"{IMPORT} --image in.tif -o in.tif", (Copy("f.npz"), SLIDE)),
    "import-image-store": (f"{IMPORT} --image in.zarr -o in.zarr", (Copy("f.npz"), STORE)),
    "models-source": (f"{PUBLISHED} -o published", (Copy("published"),)),
    "models-inside": (f"{PUBLISHED} -o published/checkpoints/o", (Copy("published"),)),
    "models-parent": ("models import d/published -o d", (Copy("published", "d/published"),)),
    "models-vae": (f"{PUBLISHED} --vae v -o v", (Copy("published"), Copy("bundle/autoencoder", "v"))),
    "models-config": (f"{PUBLISHED} --config c.yaml -o c.yaml", (Copy("published"), File("c.yaml", "model: {}\n"))),
    "models-checkpoint": ("models import published/checkpoints/last.ckpt -o published/checkpoints/last.ckpt", (Copy("published"),)),
    "models-foreign-bundle": (f"{PUBLISHED} -o m", (Copy("published"), Copy("bundle", "m"), File("m/encoder/my notes.txt"))),
    "init-user": ("train init autoencoder --from {world}/bundle --images train --mpp 0.5 -o my.toml", (TRAIN, File("my.toml"))),
    "init-config": ("train init autoencoder --from {world}/bundle --images train --mpp 0.5 -o train/autoencoder.toml", (TRAIN,)),
    "init-table": ("train init prior --from {world}/bundle --images classes --mpp 0.5 -o my.toml", (CLASSES, File("my.csv"))),
    "init-image": ("train init autoencoder --from {world}/bundle --images in.png --mpp 0.5 -o in.png", (PICTURE,)),
    "train-images": (f"{TRAINING} --out train", (TRAIN,)),
    "train-config": (f"{TRAINING} --out train/autoencoder.toml", (TRAIN,)),
    "train-parent": (f"{TRAINING} --out .", (TRAIN, Copy("train", "autoencoder"))),
}  # fmt: skip


def cases() -> Iterator[Case]:
    yield from _selves()
    yield from _users()
    yield from _sides()


def _forces(command: str) -> tuple[str, ...]:
    """What makes a command replace things: not every one has all of these options."""
    if command.startswith("train init"):
        return ("--overwrite",)
    if command.startswith("train"):
        return ("", "--restart")
    if command.startswith("grid preview"):
        return ("",)
    return ("", "--overwrite") if command.startswith(("grid", "models")) else ("--overwrite", "--overwrite --restart")


def _selves() -> Iterator[Case]:
    for name, (command, before) in SELF.items():
        for force in _forces(command):
            mark = f"{name}{force.replace(' --', '-').replace('--', '-')}"
            allowed = REFUSED | ({DONE} if name in HARMLESS else set())
            yield Case("self", mark, words(f"{command} {force}"), before, allowed, long=" " in force)


def _users() -> Iterator[Case]:
    """A user's file, folder, links to them at the output's name or at the name of its unfinished part."""
    for name, (command, option, out, before) in WRITERS.items():
        line = f"{command} {option} {out}"
        for force in _forces(command):
            end = force.replace(" --", "-").replace("--", "-")
            for what, traps in {
                "file": (File(out),),
                "folder": (Folder(out),),
                "link-to-file": (File("mine.txt"), Link(out, "mine.txt")),
                "link-to-folder": (Folder("mine"), Link(out, "mine")),
            }.items():
                allowed = REFUSED | ({DONE} if name == "train" and "folder" in what else set())
                yield Case("user", f"{name}-{what}{end}", words(f"{line} {force}"), (*before, *traps), allowed)
            yield Case("user", f"{name}-part{end}", words(f"{line} {force}"), (*before, Folder(f"{out}.part")),
                       allowed=REFUSED | {DONE})  # fmt: skip
            yield Case("user", f"{name}-part-file{end}", words(f"{line} {force}"), (*before, File(f"{out}.part")),
                       allowed=REFUSED | {DONE})  # fmt: skip


def _sides() -> Iterator[Case]:
    """Files that are written beside an output: over an input, over a user's file, over each other."""
    picture = (PICTURE,)
    table = {
        "summary-image": (f"{EMBED_PNG} -o o.zarr --summary in.png", picture),
        "summary-user": (f"{EMBED_PNG} -o o.zarr --summary mine.csv", (*picture, File("mine.csv"))),
        "summary-list": (f"embed --list l.csv {MODEL} --out-dir o --summary l.csv", (SLIDE, File("l.csv", "path\nin.tif\n"))),
        "summary-is-list": (f"embed --list embed-summary.csv --out-dir . {MODEL}", (SLIDE, File("embed-summary.csv", "path\nin.tif\n"))),
        "summary-is-out": (f"{EMBED_PNG} -o o.zarr --summary o.zarr", picture),
        "summary-in-out": (f"{EMBED_PNG} -o o.zarr --summary o.zarr/zarr.json", picture),
        "summary-link": (f"{EMBED_PNG} -o o.zarr --summary s.csv", (*picture, Link("s.csv", "in.png"))),
        "summary-folder": (f"{EMBED_PNG} -o o.zarr --summary docs", (*picture, Folder("docs"))),
        "summary-config": (f"{EMBED_PNG} -o o.zarr --config c.csv --summary c.csv", (*picture, File("c.csv", "tissue_min = 0.1\n"))),
        "summary-regions": (f"{EMBED} -o o.zarr --regions r.geojson --summary r.geojson", (SLIDE, Copy("r.geojson"))),
        "summary-bundle": ("embed in.tif --model m --device cpu -o o.zarr --summary m/bundle.json", (SLIDE, Copy("bundle", "m"))),
        "summary-user-out-dir": (f"{EMBED} --out-dir o", (SLIDE, File("o/embed-summary.csv"))),
        "geojson-user": (f"{EMBED} -o o.zarr --geojson", (SLIDE, File("o.geojson"))),
        "geojson-regions": (f"{EMBED} -o r.zarr --geojson --regions r.geojson", (SLIDE, Copy("r.geojson"))),
        "geojson-link": (f"{EMBED} -o o.zarr --geojson", (SLIDE, Link("o.geojson", "in.tif"))),
        "geojson-slide": (f"embed slide.ome.tif {MODEL} -o o.zarr --geojson", (Copy("slide.ome.tif"), File("o.geojson"))),
        "geojson-slide-regions": (f"embed slide.ome.tif {MODEL} -o r.zarr --geojson --regions r.geojson", (Copy("slide.ome.tif"), Copy("rs.geojson", "r.geojson"))),
        "preview-user": (f"{EMBED} -o o.zarr --preview", (SLIDE, File("o.preview.png"))),
        "preview-input": (f"embed o.preview.png --mpp 0.5 {MODEL} -o o.zarr --preview", (Copy("in.png", "o.preview.png"),)),
        "preview-link": (f"{EMBED_PNG} -o o.zarr --preview", (PICTURE, Link("o.preview.png", "in.png"))),
        "generate-preview-user": (f"{GENERATE} -o o.ome.tif --preview", (GRID, File("o.preview.png"))),
        "generate-preview-keep": (f"generate --grid h.zarr --steps 1 {MODEL} --keep o.preview.png --region 0,0,64,64 -o o.ome.tif --preview", (Copy("h.zarr"), Copy("in.png", "o.preview.png"))),
        "generate-json-user": (f"{GENERATE} -o o.ome.tif", (GRID, File("o.ome.tif.json"))),
        "generate-json-scene": (f"generate --scene o.png.json {MODEL} --steps 1 -o o.png", (Copy("scene.geojson", "o.png.json"),)),
        "save-grid-user": (f"{DRAW} --save-grid mine -o o.png", (File("mine"),)),
        "save-grid-folder": (f"{DRAW} --save-grid docs -o o.png", (Folder("docs"),)),
        "save-grid-grid-beside": (f"{DRAW} --save-grid o.png.json -o o.png", ()),
        "save-scene-user": (f"generate --text=left~rock,~right~sand --size 128 --steps 1 {MODEL} --save-grid k.zarr -o o.png", (File("k.scene.png"), File("k.scene.csv"))),
        "hidden-grid-user": (f"{DRAW} -o o.png", (Folder(".o.png.grid.zarr"),)),
        "plan-user": (f"{DRAW} -o o.png --dry-run", (Folder(".o.png.plan0.zarr"),)),
        "grid-preview-default-user": (PREVIEW, (GRID, File("g.preview.png"))),
        "grid-preview-image-default": ("grid preview h.zarr --image h.preview.png", (Copy("h.zarr"), Copy("in.png", "h.preview.png"))),
        "export-default-user": (EXPORT, (GRID, File("g.h5"))),
        "import-default-user": (IMPORT, (Copy("f.npz"), Folder("f.zarr"))),
        "report-json-of-training": (f"{EVALUATE} --report o.html --report-json x.json --overwrite", (SETS, File("x.json", '{"stage": "encoder", "software": "ssl-tilegen 1"}'))),
        "report-json-user": (f"{EVALUATE} --report o.html", (SETS, File("o.json"))),
        "report-json-input": (f"evaluate --real sets/real --synthetic o.json --encoder texture --metrics fd -k 2 --rounds 2 {MODEL} --report o.html", (SETS, Copy("in.png", "o.json"))),
        "report-part-user": (f"{EVALUATE} --report o.html", (SETS, Folder("o.html.part"))),
        "report-in-set": (f"{EVALUATE} --report sets/real/g0_0.html", (SETS,)),
        "manifest-user": (f"{AUGMENT} -o o", (CLASSES, Folder("o"))),
        "augment-part-user": (f"{AUGMENT} -o o", (CLASSES, Folder("o.part"))),
        "augment-hidden-user": (f"{AUGMENT} -o o", (CLASSES, Folder(".o.0123abcd"))),
        "embed-hidden-user": (f"{EMBED} -o o.zarr", (SLIDE, Folder(".o.zarr.0123abcd"))),
        "embed-hidden-user-over": (f"{EMBED} -o o.zarr --overwrite", (SLIDE, Copy("g.zarr", "o.zarr"), Folder(".o.zarr.0123abcd"))),
        "embed-hidden-part-user": (f"{EMBED} -o o.zarr", (SLIDE, Folder(".o.zarr.part.0123abcd"))),
        "lock-user": (f"{EMBED} -o o.zarr", (SLIDE, File("o.zarr.lock"))),
        "lock-empty": (f"{EMBED} -o o.zarr", (SLIDE, File("o.zarr.lock", ""))),
        "model-with-colon": ("generate --grid g.zarr --steps 1 --model a:b --device cpu -o a:b/o.png", (GRID, Copy("bundle", "a:b"))),
        "lock-user-generate": (f"{GENERATE} -o o.png", (GRID, File("o.png.lock"))),
        "lock-folder": (f"{EMBED} -o o.zarr", (SLIDE, Folder("o.zarr.lock"))),
        "lock-link": (f"{EMBED} -o o.zarr", (SLIDE, Link("o.zarr.lock", "in.tif"))),
        "lock-old-user": (f"{EMBED} -o o.zarr --restart --overwrite", (SLIDE, File("o.zarr.lock"))),
        "train-bundle-user": (f"{TRAINING} --out o", (TRAIN, Folder("o/bundle/autoencoder"))),
        "train-stage-user": (f"{TRAINING} --out o --restart", (TRAIN, Folder("o/autoencoder"))),
        "train-hidden-user": (f"{TRAINING} --out o", (TRAIN, Folder("o/bundle/.autoencoder.part"))),
    }  # fmt: skip
    for name, (command, before) in table.items():
        ours = ("o.zarr",) if name == "embed-hidden-user-over" else ()
        line = tuple(word.replace("~", " ") for word in words(command))
        yield Case("side", name, line, before, allowed=REFUSED | {DONE}, ours=ours, cpu_s=20)
