"""The good files that cases start from: a small bundle of random weights, images, grids, folders, configurations.

Made once, by the commands themselves, in processes of the server.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

TRAIN = """window_px = 32
[net]
_class_name = "AutoencoderKL"
latent_channels = 4
block_out_channels = [8, 8]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
norm_num_groups = 4
mid_block_add_attention = false
[run]
steps = 2
batch = 2
log_every = 1
save_every = 1
sample_every = 2
warmup = 1
precision = "no"
[data]
[[data.sources]]
paths = ["p*.png"]
mpp = 0.5
turns = 1
"""
ENCODER = """tile_px = 32
features = 12
dim = 12
layout_dim = 6
local_px = 16
fit_tiles = 20
[arch_args]
patch_size = 8
depth = 1
embed_dim = 24
num_heads = 2
""" + TRAIN[TRAIN.index("[run]") :]
COMMANDS = (
    "embed in.tif -o g.zarr --model bundle --device cpu",
    "embed in.png --mpp 0.5 -o h.zarr --model bundle --device cpu",
    "generate --grid g.zarr -o in.zarr --model bundle --device cpu --steps 1",
    "generate --grid h.zarr -o slide.ome.tif --model bundle --device cpu --steps 1",
    "grid export g.zarr -o f.npz",
    "grid export g.zarr -o f.h5",
    "augment classes -o augmented --model bundle --device cpu --steps 1",
)
# commands that are killed on the way, and what they start from
UNFINISHED = (
    ("embed", "embed in.tif --model {world}/bundle --device cpu -o o.zarr", ("in.tif",)),
    ("generate", "generate --grid g.zarr --steps 1 --model {world}/bundle --device cpu -o o.ome.tif", ("g.zarr",)),
    ("augment", "augment classes --steps 1 --model {world}/bundle --device cpu -o o", ("classes",)),
    ("evaluate", "evaluate --real sets/real --synthetic sets/synthetic --encoder texture --rounds 2 --metrics fd -k 2 "
     "--model {world}/bundle --device cpu --report o.html", ("sets",)),
)  # fmt: skip


def build_files(folder: Path) -> None:
    """What no command makes."""
    import rasterio
    from rasterio.transform import from_origin

    from tests.bundle.importers.sources import lid_folder
    from tests.bundle.importers.states import UNet, Vq, large_image_diffusion
    from tests.bundles import prior_bundle

    prior_bundle(folder / "bundle")
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (3, 128, 192), np.uint8)
    place = {"crs": "EPSG:32614", "transform": from_origin(1000, 2000, 0.15, 0.15)}
    with rasterio.open(folder / "in.tif", "w", driver="GTiff", width=192, height=128, count=3, dtype="uint8",
                       **place) as file:  # fmt: skip
        file.write(pixels)
    picture(folder / "in.png", 1, 128)
    for label, level in (("dots", 70), ("lines", 180)):
        for group in range(2):
            picture(folder / "classes" / label / f"g{group}_0.png", group, 64, level)
    rows = [f"classes/{label}/g{group}_0.png,{label}" for label in ("dots", "lines") for group in range(2)]
    (folder / "classes.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    for name, first in (("real", 0), ("synthetic", 10)):
        for number in range(6):
            picture(folder / "sets" / name / f"g{number}_0.png", first + number, 48)
    tensors = large_image_diffusion(16, region=False, net=UNet(32, (1, 1), 1, 8), vq=Vq(32, (1, 1, 1), 1, 8))
    lid_folder(folder / "published", tensors)
    for number in range(2):
        picture(folder / "train" / f"p{number}.png", number, 64)
    (folder / "train" / "autoencoder.toml").write_text(TRAIN)
    (folder / "train" / "encoder.toml").write_text(ENCODER)
    square = [[[1002, 1996], [1020, 1996], [1020, 1985], [1002, 1985], [1002, 1996]]]
    crs = {"crs": {"type": "name", "properties": {"name": "EPSG:32614"}}}
    pixels_of = [[[10, 10], [100, 10], [100, 100], [10, 100], [10, 10]]]
    for name, ring, more in (("r", square, crs), ("rs", pixels_of, {}), ("scene", pixels_of, {})):
        area = {
            "type": "Feature",
            "properties": {"label": "rock"},
            "geometry": {"type": "Polygon", "coordinates": ring},
        }
        (folder / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [area], **more}))
    Image.new("RGB", (32, 32), (255, 0, 0)).save(folder / "scene.png")
    (folder / "scene.csv").write_text("colour,label,text\n#ff0000,rock,\n")


def picture(path: Path, seed: int, side: int, level: int = 128) -> None:
    """A PNG of coloured noise around a level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, side, level])
    Image.fromarray(rng.integers(level - 60, level + 60, (side, side, 3)).astype(np.uint8)).save(path)


def build_traps(folder: Path) -> None:
    """Small files that claim to be large, and files with code in them."""
    import rasterio

    side = 1 << 20
    with rasterio.open(folder / "huge.tif", "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8",
                       tiled=True, blockxsize=16384, blockysize=16384, compress="deflate", SPARSE_OK=True,
                       crs="EPSG:32614", transform=rasterio.Affine(0.15, 0, 1000, 0, -0.15, 2000)):  # fmt: skip
        pass
    _huge_png(folder / "huge.png")
    with np.load(folder / "f.npz") as file:
        good = {name: file[name] for name in file}
    count, dim = good["features"].shape
    far = good["coords"].copy()
    far[-1] = 2_000_000
    _npz(folder / "far.npz", good | {"coords": far})
    _npz(folder / "far-float.npz", good | {"coords": far * 1e30})
    _npz(folder / "negative.npz", good | {"coords": good["coords"] - 64})
    _npz(folder / "nan.npz", good | {"coords": good["coords"] * np.nan})
    _npz(folder / "nan-features.npz", good | {"features": good["features"] * np.nan})
    _npz(folder / "text.npz", good | {"features": np.array([["a"] * dim] * count)})
    _npz(folder / "complex.npz", good | {"features": good["features"] * 1j})
    _npz(folder / "pickle.npz", good | {"features": np.array([[Payload()] * dim] * count, dtype=object)})
    _npz(folder / "attributes.npz", good | {"attributes": np.array('{"patch_size": "x", "patch_size_level0": [1]}')})
    _npz(folder / "attributes-deep.npz", good | {"attributes": np.array("[" * 100_000)})
    _npz(folder / "no-coords.npz", {"features": good["features"]})
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 64), }"
    (folder / "declared.npy").write_bytes(_npy(header))
    with zipfile.ZipFile(folder / "declared.npz", "w") as made:
        made.writestr("features.npy", _npy(header))
        made.writestr("coords.npy", _npy(header))
    np.save(folder / "pickle.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    (folder / "pickle.pth").write_bytes(pickle.dumps({"weight": Payload()}))
    pixels = np.zeros((1, 64, 64), np.complex64)
    place = {"crs": "EPSG:32614", "transform": rasterio.Affine(0.15, 0, 1000, 0, -0.15, 2000)}
    with rasterio.open(folder / "complex.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="complex64",
                       **place) as file:  # fmt: skip
        file.write(pixels)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype="float32",
                           **place) as file:  # fmt: skip
            file.write(np.full((3, 64, 64), value, np.float32))


class Payload:
    """What a pickle would run: it leaves a file behind."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("payload-ran",)


def _npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _npy(header: str) -> bytes:
    text = header.ljust(118 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def _huge_png(path: Path) -> None:
    """A PNG that declares 60,000 x 60,000 px and ends after its first chunk of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
