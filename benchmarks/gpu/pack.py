"""All that `train painter` needs on another machine, in one small folder: `python -m benchmarks.gpu.pack --out PACK`.

Images are packed, not latents: as JPEG of quality 92 they take a third of the bytes, a card encodes them in seconds,
and they stay images, so flips, stains and other autoencoders work. Each source of the TOML gets a share of the bytes
like its weight; of that, pieces of at most 512 px with content, at the resolution they are trained at, drawn at random
(a JPEG file that is read as it is, is copied). PACK holds

- ``images/NN``: the pieces of source NN, and ``painter.toml``: the settings with these sources, for ``--model``;
- ``backbone.pth``: the discriminator's packaged weights in half precision.

The bundle travels with the checkout; `python -m benchmarks.gpu --out OUT --painter PACK/painter.toml` trains it on.

It ends with one JSON line: bytes and pieces of each source. ``--mib`` is for PACK alone: the checkout travels too.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import timm
import torch

from ssl_tilegen.config.train import SourceSettings, load_stage_settings
from ssl_tilegen.errors import InputError
from ssl_tilegen.geometry import Size, Window, cover
from ssl_tilegen.nets.efficientnet_lite import load_packaged
from ssl_tilegen.training.data.corpus import is_flat, source_files
from ssl_tilegen.training.data.images import TrainingImage, Wanted, read_training_images

PIECE_PX, LEAST_PX, QUALITY, AT_ONCE = 512, 192, 92, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("examples/train_tiny/painter.toml"))
    parser.add_argument("--model", default="tiny", help="bundle to train on, by the name it has there")
    parser.add_argument("--mib", type=float, default=16)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="A.B=VALUE")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists: remove it, or choose another folder")
    given.out.mkdir(parents=True)
    print(json.dumps(packed(given.config, given.out, given.model, int(given.mib * 2**20), given.overrides)))


def packed(config: Path, out: Path, model: str, budget: int, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Fill ``out``; bytes and pieces by source, and bytes in all."""
    settings = load_stage_settings("painter", config, overrides)
    facts: dict[str, Any] = settings.model_dump(mode="json", exclude_unset=True)
    facts |= {"bundle": model, "start_from": model}
    if settings.backbone.startswith("efficientnet-lite") and settings.backbone_weights == "pretrained":
        save_backbone(int(settings.backbone[-1]), out / "backbone.pth")
        facts["backbone_weights"] = "backbone.pth"
    sources, rng = settings.data.sources, np.random.default_rng(settings.run.seed)
    left = budget - sum(path.stat().st_size for path in out.iterdir()) - (1 << 16)
    shares = [left * source.weight / sum(s.weight for s in sources) for source in sources]
    found = []
    for number, (source, share) in enumerate(zip(sources, shares, strict=True)):
        folder = out / "images" / f"{number:02d}"
        told = packed_source(source, folder, int(share), rng)
        facts["data"]["sources"][number] = told | {"paths": [f"{folder.relative_to(out)}/*.jpg"]}
        files = list(folder.iterdir())
        found.append({"pieces": len(files), "bytes": sum(path.stat().st_size for path in files)})
    (out / "painter.toml").write_text("\n".join(toml(facts)) + "\n")
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {"sources": found, "bytes": total}


def packed_source(source: SourceSettings, folder: Path, budget: int, rng: np.random.Generator) -> dict[str, Any]:
    """Pieces of a source up to ``budget`` bytes, at least one; its settings as they are to be told of those."""
    if source.grids:
        raise InputError(f"{source.paths[0]}: has grids beside its images, which are not packed; leave `grids` out")
    folder.mkdir(parents=True)
    told = source.model_dump(exclude_unset=True, exclude={"paths", "exclude", "shrink", "mpp", "gsd"})
    spent, pieces = 0, drawn(source, rng)
    for image, window in pieces:
        name = folder / f"{image.path.stem}_{window.row}-{window.col}.jpg"
        told[{"um": "mpp", "m": "gsd"}[image.resolution.unit]] = image.resolution.value
        if whole_jpeg(source, image):
            shutil.copyfile(image.path, name)
        else:
            rgb = np.ascontiguousarray(image.take(window)[0])
            name.write_bytes(imagecodecs.jpeg8_encode(rgb, level=QUALITY, subsampling="444"))
        size = name.stat().st_size
        if spent and spent + size > budget:
            name.unlink()
            break
        spent += size
    if spent == 0:
        raise InputError(f"{source.paths[0]}: no piece of {LEAST_PX} px that shows anything")
    return told


def drawn(source: SourceSettings, rng: np.random.Generator) -> Iterator[tuple[TrainingImage, Window]]:
    """Valid pieces with content in random order: of so many files at once as are in memory together."""
    files = source_files(source)
    order = rng.permutation(len(files))
    for first in range(0, len(files), AT_ONCE):
        wanted = [Wanted(files[index], 0, source) for index in order[first : first + AT_ONCE]]
        pieces = [(image, window) for image in read_training_images(wanted, 2048) for window in windows(image)]
        for index in rng.permutation(len(pieces)):
            image, window = pieces[index]
            rgb, valid = image.take(window)
            if (valid is None or valid.all()) and not is_flat(rgb):
                yield image, window


def windows(image: TrainingImage) -> Iterator[Window]:
    """The pieces of an image; what is narrower than ``LEAST_PX`` at its end is left out."""
    for window in cover(image.size, Size(PIECE_PX, PIECE_PX)):
        if min(window.rows, window.cols) >= LEAST_PX:
            yield window


def whole_jpeg(source: SourceSettings, image: TrainingImage) -> bool:
    """Whether the file is what is trained on, byte for byte."""
    small = max(image.size.rows, image.size.cols) <= PIECE_PX
    return small and source.shrink == 1 and image.path.suffix.lower() in (".jpg", ".jpeg")


def save_backbone(variant: int, file: Path) -> None:
    """The packaged weights of EfficientNet-Lite without its classifier, in timm's order; kernels in half precision."""
    weights = load_packaged(variant)
    names = [name for name in timm.create_model(f"tf_efficientnet_lite{variant}").state_dict() if name in weights]
    kept = [name for name in names if not name.startswith("classifier") and "num_batches" not in name]
    half = {name: weights[name].half() if weights[name].ndim > 1 else weights[name] for name in kept}
    torch.save(half, file)


def toml(facts: dict[str, Any], table: str = "") -> Iterator[str]:
    """Lines of TOML for settings: values first, then tables and arrays of tables."""
    later = {name: value for name, value in facts.items() if isinstance(value, dict) or _is_tables(value)}
    for name, value in facts.items():
        if name not in later and value is not None:
            yield f"{name} = {json.dumps(value)}"
    for name, value in later.items():
        for part in [value] if isinstance(value, dict) else value:
            yield f"\n[{table}{name}]" if isinstance(value, dict) else f"\n[[{table}{name}]]"
            yield from toml(part, f"{table}{name}.")


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


if __name__ == "__main__":
    main()
