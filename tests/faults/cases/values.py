# ruff: noqa: E501 (a case is a line)
"""Numbers that are none, too small, too large: sizes are arithmetic before they are arrays."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, REFUSED, STOPPED, Case, words
from tests.faults.cases.commands import AUGMENT, CLASSES, EMBED, EVALUATE, GENERATE, GRID, MODEL, PUBLISHED, SETS, SLIDE
from tests.faults.pieces import Copy, Edit

NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "x", "", "0x10", "1_0", "٣", "1e12", "1e-12")
OPTIONS = {
    "embed": (EMBED + " -o o.zarr", (SLIDE,), ("mpp", "gsd", "nodata-max", "tissue-min", "stride", "threads", "batch")),
    "generate": (GENERATE + " -o o.png", (GRID,), ("guidance", "overlap", "seed", "canvas-mib", "size", "steps")),
    "augment": (AUGMENT + " -o o", (CLASSES,), ("strength", "mix", "min-cosine", "mpp", "per-image", "keep-best")),
    "evaluate": (EVALUATE, (SETS,), ("mpp", "task-groups", "window", "limit", "rounds", "gallery")),
    "import": ("grid import f.npz -o o.zarr", (Copy("f.npz"),), ("mpp", "gsd", "tile")),
}
ENDLESS = {("steps", "1e12"), ("rounds", "1e12"), ("per-image", "1e12")}
BAD_PAIRS = ("nan,1", "1,nan", "inf,inf", "-inf,inf", "1", "1,2,3", ",", "a,b", "2,1", "0,0", "1e400,2")
BAD_SIZES = ("0", "-1", "x", "4096x", "x4096", "1x2x3", "1e9", "64.5", "1000000000000000000000", "64 x 64", "٣", "0x0")
BAD_REGIONS = ("0,0,0,0", "-1,0,64,64", "0,0,64", "0,0,64,64,64", "a,b,c,d", "0,0,1e9,1", "999999999,0,64,64",
               "0,0,99999999999,99999999999", "nan,0,64,64")  # fmt: skip
HUGE = {
    "grid-billion": (f"{GENERATE} --size 1000000000 -o o.ome.tif", (GRID,)),
    "grid-billion-dry": (f"{GENERATE} --size 1000000000 -o o.ome.tif --dry-run", (GRID,)),
    "grid-billion-stretch": (f"{GENERATE} --size 1000000000 --fit stretch -o o.ome.tif --dry-run", (GRID,)),
    "grid-wide": (f"{GENERATE} --size 2147483648x64 -o o.ome.tif --dry-run", (GRID,)),
    "grid-zarr": (f"{GENERATE} --size 1000000000 -o o.zarr --dry-run", (GRID,)),
    "grid-png": (f"{GENERATE} --size 1000000 -o o.png", (GRID,)),
    "grid-jpg": (f"{GENERATE} --size 60000 -o o.jpg", (GRID,)),
    "grid-region": (f"{GENERATE} --size 1000000000 --region 0,0,1000000000,1000000000 -o o.ome.tif", (GRID,)),
    "grid-steps": (f"generate --grid g.zarr --steps 1000000000 {MODEL} -o o.png", (GRID,)),
    "grid-steps-dry": (f"generate --grid g.zarr --steps 1000000000 {MODEL} -o o.png --dry-run", (GRID,)),
    "augment-many": (f"{AUGMENT} --per-image 1000000000 -o o", (CLASSES,)),
    "label-billion": (f"generate --label rock --size 1000000000 --steps 1 {MODEL} -o o.ome.tif", ()),
    "label-billion-dry": (f"generate --label rock --size 1000000000 --steps 1 {MODEL} -o o.ome.tif --dry-run", ()),
    "label-200000-dry": (f"generate --label rock --size 200000 --steps 1 {MODEL} -o o.ome.tif --dry-run", ()),
    "label-million-png": (f"generate --label rock --size 1000000 --steps 1 {MODEL} -o o.png", ()),
    "scene-billion": (f"generate --scene scene.png --size 1000000000 --steps 1 {MODEL} -o o.ome.tif", (Copy("scene.png"), Copy("scene.csv"))),
    "scene-far": (f"generate --scene far.geojson --steps 1 {MODEL} -o o.ome.tif", (Copy("scene.geojson", "far.geojson"), Edit("far.geojson", "features.0.geometry.coordinates.0.1", [1e12, 10]))),
    "scene-overflow": (f"generate --scene far.geojson --steps 1 {MODEL} -o o.ome.tif", (Copy("scene.geojson", "far.geojson"), Edit("far.geojson", "features.0.geometry.coordinates.0.1", [1e308, 10]))),
    "embed-declared-zarr": (f"embed in.zarr {MODEL} -o o.zarr", (Copy("in.zarr"), Edit("in.zarr/0/zarr.json", "shape", [3, 2**31, 2**31]))),
    "embed-declared-tiff": (f"embed huge.tif {MODEL} -o o.zarr", (Copy("huge.tif"),)),
    "embed-declared-png": (f"embed huge.png --mpp 0.5 {MODEL} -o o.zarr", (Copy("huge.png"),)),
    "preview-declared-zarr": ("grid preview g.zarr --image in.zarr -o o.png", (GRID, Copy("in.zarr"), Edit("in.zarr/0/zarr.json", "shape", [3, 2**31, 2**31]))),
    "evaluate-declared-tiff": (f"evaluate --real huge.tif --synthetic sets/synthetic --encoder texture {MODEL}", (SETS, Copy("huge.tif"))),
    "import-corner": ("grid import far.npz -o o.zarr", (Copy("far.npz"),)),
    "import-corner-float": ("grid import far-float.npz -o o.zarr", (Copy("far-float.npz"),)),
    "import-declared": ("grid import declared.npz -o o.zarr", (Copy("declared.npz"),)),
    "vector-declared": (f"generate --vector declared.npy --steps 1 {MODEL} -o o.png", (Copy("declared.npy"),)),
    "embed-gsd": (f"{EMBED} --gsd 1e12 -o o.zarr", (SLIDE,)),
    "embed-gsd-fine": (f"{EMBED} --gsd 1e-9 -o o.zarr", (SLIDE,)),
    "embed-gsd-least": (f"{EMBED} --gsd 1e-300 -o o.zarr", (SLIDE,)),
    "embed-gsd-most": (f"{EMBED} --gsd 1e300 -o o.zarr", (SLIDE,)),
    "embed-mpp": (f"embed slide.ome.tif {MODEL} --mpp 1e12 -o o.zarr", (Copy("slide.ome.tif"),)),
    "embed-mpp-fine": (f"embed slide.ome.tif {MODEL} --mpp 1e-9 -o o.zarr", (Copy("slide.ome.tif"),)),
    "evaluate-gsd": (f"evaluate --real in.tif --synthetic in.tif --gsd 1e12 --encoder texture {MODEL}", (SLIDE,)),
    "evaluate-fine": (f"evaluate --real in.tif --synthetic in.tif --gsd 1e-9 --encoder texture {MODEL}", (SLIDE,)),
    "augment-mpp": (f"{AUGMENT} --level image --mpp 1e-9 -o o", (CLASSES,)),
    "grid-declared": (f"{GENERATE} -o o.ome.tif", (GRID, Edit("g.zarr/embedding/zarr.json", "shape", [2**20, 2**20, 16]), Edit("g.zarr/valid/zarr.json", "shape", [2**20, 2**20]), Edit("g.zarr/tissue/zarr.json", "shape", [2**20, 2**20]), Edit("g.zarr/zarr.json", "attributes.size_px", [64 * 2**20, 64 * 2**20]))),
    "grid-info-declared": ("grid info g.zarr", (GRID, Edit("g.zarr/embedding/zarr.json", "shape", [2**20, 2**20, 16]), Edit("g.zarr/valid/zarr.json", "shape", [2**20, 2**20]), Edit("g.zarr/tissue/zarr.json", "shape", [2**20, 2**20]), Edit("g.zarr/zarr.json", "attributes.size_px", [64 * 2**20, 64 * 2**20]))),
}  # fmt: skip
FITS = {
    "grid-100000-dry": (f"{GENERATE} --size 100000 -o o.ome.tif --dry-run", (GRID,)),
    "label-100000-dry": (f"generate --label rock --size 100000 --steps 1 {MODEL} -o o.ome.tif --dry-run", ()),
    "label-64-dry": (f"generate --label rock --size 64 --steps 1 {MODEL} -o o.ome.tif --dry-run", ()),
}


def cases() -> Iterator[Case]:
    for command, (line, before, options) in OPTIONS.items():
        for option in options:
            for number, text in enumerate(NUMBERS):
                if (option, text) not in ENDLESS:
                    yield Case("value", f"{command}-{option}-{text or 'empty'}", (*words(line), f"--{option}={text}"),
                               before, REFUSED | {DONE}, long=number % 2 == 1)  # fmt: skip
    for text in BAD_PAIRS:
        yield Case("value", f"scale-{text}", (*words(EMBED), "-o", "o.zarr", f"--scale={text}"), (SLIDE,), REFUSED)
        yield Case("value", f"interval-{text}", (*words(GENERATE), "-o", "o.png", f"--guidance-interval={text}"),
                   (GRID,), REFUSED | ({DONE} if text == "0,0" else set()), long=True)  # fmt: skip
    for text in BAD_SIZES:
        yield Case("value", f"size-{text}", (*words(GENERATE), "-o", "o.png", f"--size={text}"), (GRID,),
                   REFUSED | ({DONE} if text in ("64 x 64", "٣") else set()))  # fmt: skip
    for text in BAD_REGIONS:
        yield Case("value", f"region-{text}", (*words(GENERATE), "-o", "o.png", f"--region={text}"), (GRID,), REFUSED)
    for text in ("1/1", "2/1", "-1/2", "0/0", "a/b", "0", "0/99999999999999999999", "1e9/2"):
        yield Case("value", f"shard-{text.replace('/', 'of')}", (*words(EMBED), "-o", "o.zarr", f"--shard={text}"),
                   (SLIDE,), REFUSED | {DONE}, leaves=("o.zarr.part",))  # fmt: skip
    for text in ("0", "4", "-1", "1,2", "1,2,3,4", "1,1,1", "a", "", "99999999999999999999", "1.5"):
        yield Case("value", f"bands-{text or 'empty'}", (*words(EMBED), "-o", "o.zarr", f"--bands={text}"), (SLIDE,),
                   REFUSED | ({DONE} if text == "1,1,1" else set()))  # fmt: skip
    for name, (line, before) in HUGE.items():
        yield Case("huge", name, words(line), before, REFUSED | ({DONE} if "dry" in name or "info" in name else set()),
                   cpu_s=20, never="(?i)could not be allocated|MemoryError|Killed")  # fmt: skip
    for name, (line, before) in FITS.items():
        yield Case("huge", name, words(line), before, frozenset({DONE}), cpu_s=20)
    for name, seconds in (("soon", 0.2), ("late", 1.0)):
        line = words(f"generate --label rock --size 60000 --steps 1 {MODEL} -o o.ome.tif")
        yield Case("signal", f"planning-{name}", line, (), frozenset({STOPPED, -15}) | REFUSED, signal_s=seconds, cpu_s=15,
                   leaves=("o.ome.tif.part", ".o*"))  # fmt: skip
        yield Case("signal", f"dry-{name}", (*line, "--dry-run"), (), frozenset({STOPPED, DONE, -15}) | REFUSED,
                   signal_s=seconds, cpu_s=15)  # fmt: skip
    for seconds in (0.3, 0.6, 1.0):
        yield Case("signal", f"import-{seconds}", words(f"{PUBLISHED} -o o"), (Copy("published"),),
                   frozenset({STOPPED, DONE, -15}), signal_s=seconds)  # fmt: skip
