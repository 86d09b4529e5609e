"""The commands that cases are made of, and what each needs before it."""

from __future__ import annotations

from tests.faults.pieces import Copy, Piece

MODEL = "--model {world}/bundle --device cpu"
SLIDE, PICTURE, GRID, STORE = Copy("in.tif"), Copy("in.png"), Copy("g.zarr"), Copy("in.zarr")
CLASSES, SETS, TRAIN = Copy("classes"), Copy("sets"), Copy("train")

EMBED = f"embed in.tif {MODEL}"
EMBED_PNG = f"embed in.png --mpp 0.5 {MODEL}"
GENERATE = f"generate --grid g.zarr --steps 1 {MODEL}"
DRAW = f"generate --label rock --size 64 --steps 1 {MODEL}"
AUGMENT = f"augment classes --steps 1 {MODEL}"
EVALUATE = (
    f"evaluate --real sets/real --synthetic sets/synthetic --encoder texture --rounds 2 --metrics fd -k 2 {MODEL}"
)
PREVIEW, EXPORT, IMPORT = "grid preview g.zarr", "grid export g.zarr", "grid import f.npz"
PUBLISHED = "models import published"
TRAINING = "train autoencoder --config train/autoencoder.toml --device cpu"

# name -> (command without its output, the option of its output, a good output, what is to be there)
WRITERS: dict[str, tuple[str, str, str, tuple[Piece, ...]]] = {
    "embed": (EMBED, "-o", "o.zarr", (SLIDE,)),
    "generate": (GENERATE, "-o", "o.ome.tif", (GRID,)),
    "generate-png": (GENERATE, "-o", "o.png", (GRID,)),
    "generate-zarr": (GENERATE, "-o", "o.zarr", (GRID,)),
    "draw": (DRAW, "-o", "o.ome.tif", ()),
    "augment": (AUGMENT, "-o", "o", (CLASSES,)),
    "evaluate": (EVALUATE, "--report", "o.html", (SETS,)),
    "preview": (PREVIEW, "-o", "o.png", (GRID,)),
    "export": (EXPORT, "-o", "o.h5", (GRID,)),
    "export-npz": (EXPORT, "-o", "o.npz", (GRID,)),
    "import": (IMPORT, "-o", "o.zarr", (Copy("f.npz"),)),
    "train": (TRAINING, "--out", "o", (TRAIN,)),
    "models": (PUBLISHED, "-o", "o", (Copy("published"),)),
}
