# ruff: noqa: E501 (a case is a line)
"""Files of ours, and of others, with wrong values in them: bundles, grids, OME-Zarr, GeoJSON, tables, states of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.faults.case import DONE, REFUSED, SOME, Case, words
from tests.faults.cases.commands import (
    AUGMENT,
    CLASSES,
    EMBED,
    GENERATE,
    GRID,
    MODEL,
    SETS,
    SLIDE,
    STORE,
    TRAIN,
    TRAINING,
)
from tests.faults.pieces import Copy, Edit, File, Folder, Link, Piece

WRONG: tuple[object, ...] = ("x", -1, 0, 1e308, None, [], {}, [1, 2, 3], True)
BUNDLE_KEYS = ("encoder", "encoder.tile_px", "encoder.dim", "encoder.mean", "resolutions", "window_px", "locality",
               "latent_mean", "latent_scale", "sampling.steps", "stride_px", "prediction_type", "name")  # fmt: skip
GRID_KEYS = ("tile_px", "stride_px", "size_px", "factor", "resolution", "background", "source", "encoder",
             "source.size_px", "spatial:transform", "format", "kind", "encoder.id")  # fmt: skip
PRIOR_KEYS = ("labels", "stride_px", "sampling.steps", "vector_dim", "encoder_sha256", "text")
CONFIG_KEYS = ("arch", "arch_args", "arch_args.patch_size", "arch_args.depth", "dim", "tile_px")


def cases() -> Iterator[Case]:
    yield from _edited()
    yield from _classes()
    yield from _stores()
    yield from _features()
    yield from _texts()
    yield from _states()
    yield from _images()


def _edited() -> Iterator[Case]:
    """Each fact of a bundle, a grid, a prior, an encoder's configuration with values of wrong types and ranges."""
    bundle, draw = Copy("bundle", "m"), "generate --label rock --size 64 --steps 1 --model m --device cpu -o o.png"
    embed, paint = (
        "embed in.tif --model m --device cpu -o o.zarr",
        "generate --grid g.zarr --steps 1 --model m --device cpu -o o.png",
    )
    tables = (
        ("bundle", "m/bundle.json", BUNDLE_KEYS, paint, (bundle, GRID)),
        ("encoder", "m/encoder/config.json", CONFIG_KEYS, embed, (bundle, SLIDE)),
        ("prior", "m/prior/prior.json", PRIOR_KEYS, draw, (bundle,)),
        ("grid", "g.zarr/zarr.json", GRID_KEYS, f"{GENERATE} -o o.png", (GRID,)),
    )
    for name, file, keys, command, before in tables:
        for number, key in enumerate(keys):
            for index, value in enumerate(WRONG):
                where = f"attributes.{key}" if name == "grid" else key
                yield Case("wrong", f"{name}-{key}-{json.dumps(value)}", words(command),
                           (*before, Edit(file, where, value)), REFUSED | {DONE}, cpu_s=20,
                           long=(number + index) % 3 != 0)  # fmt: skip
            yield Case("wrong", f"{name}-{key}-gone", words(command), (*before, Edit(file, where, None, remove=True)),
                       REFUSED | {DONE}, long=number % 2 == 1)  # fmt: skip
    for key in GRID_KEYS[:6]:
        yield Case(
            "wrong",
            f"grid-info-{key}",
            words("grid info g.zarr"),
            (GRID, Edit("g.zarr/zarr.json", f"attributes.{key}", "x")),
            REFUSED,
        )
        yield Case(
            "wrong",
            f"grid-export-{key}",
            words("grid export g.zarr -o o.h5"),
            (GRID, Edit("g.zarr/zarr.json", f"attributes.{key}", -1)),
            REFUSED,
        )
    for key, value in (("tile_px", 10**9), ("factor", float("nan")), ("resolution.value", float("inf"))):
        for line in (
            f"{GENERATE} -o o.png",
            "grid info g.zarr",
            "grid preview g.zarr -o o.png",
            "grid export g.zarr -o o.h5",
        ):
            yield Case("wrong", f"grid-{key}-{value}-{words(line)[1]}", words(line),
                       (GRID, Edit("g.zarr/zarr.json", f"attributes.{key}", value)), REFUSED | {DONE}, cpu_s=20)  # fmt: skip


def _classes() -> Iterator[Case]:
    """Names of networks and arguments that no bundle of ours has."""
    embed, draw = (
        "embed in.tif --model m --device cpu -o o.zarr",
        "generate --grid g.zarr --steps 1 --model m --device cpu -o o.png",
    )
    before: tuple[Piece, ...] = (Copy("bundle", "m"), SLIDE, GRID, Copy("pickle.pth"))
    for key, value in (("checkpoint_path", "pickle.pth"), ("pretrained", True), ("pretrained_cfg", {"file": "pickle.pth"}),
                       ("pretrained_cfg_overlay", {"file": "pickle.pth"}), ("img_size", 10**9), ("depth", 10**6),
                       ("embed_dim", 10**9), ("num_heads", 0), ("no_such", 1), ("features_only", True)):  # fmt: skip
        yield Case(
            "class",
            f"arch_args-{key}",
            words(embed),
            (*before, Edit("m/encoder/config.json", f"arch_args.{key}", value)),
            REFUSED,
            cpu_s=20,
        )
    for part in ("encoder", "autoencoder", "denoiser", "prior"):
        for value in ("os.system", "StableDiffusionPipeline", "UNet1DModel", "", "Linear", 5):
            line = (
                embed
                if part == "encoder"
                else draw
                if part != "prior"
                else draw.replace("--grid g.zarr", "--label rock")
            )
            yield Case("class", f"{part}-{value or 'empty'}", words(line), (*before, Edit(f"m/{part}/config.json", "_class_name", value)),
                       REFUSED | ({DONE} if part == "encoder" else set()))  # fmt: skip
    for part in ("autoencoder", "denoiser"):
        for file in ("config.json", "diffusion_pytorch_model.safetensors"):
            yield Case(
                "class",
                f"{part}-cut-{file[:6]}",
                words(draw),
                (*before, Copy(f"bundle/{part}/{file}", f"m/{part}/{file}", cut=40)),
                REFUSED,
            )
            yield Case("class", f"{part}-link-{file[:6]}", words(draw), (GRID, Copy("bundle", "n"), Folder("m", empty=True),
                       Link("m/bundle.json", "../n/bundle.json"), Link("m/x", "m")), REFUSED)  # fmt: skip
    yield Case("class", "weights-declare", words(draw), (*before, File("m/denoiser/diffusion_pytorch_model.safetensors",
               (2**40).to_bytes(8, "little") + b"{}")), REFUSED)  # fmt: skip
    yield Case(
        "class",
        "weights-pickle",
        words(draw),
        (*before, Copy("pickle.pth", "m/denoiser/diffusion_pytorch_model.safetensors")),
        REFUSED,
    )
    for name in ("pickle.pth", "pickle.npy", "in.tif"):
        yield Case("class", f"weights-{name}", (*words(f"embed in.tif --encoder vit_tiny_patch16_224 --weights {name} --device cpu -o o.zarr"),),
                   (SLIDE, Copy(name)), REFUSED)  # fmt: skip
    yield Case("class", "text-encoder", words("generate --text rock --size 64 --model m --device cpu -o o.png"),
               (Copy("bundle", "m"), Edit("m/prior/prior.json", "text", {"name": "./evil", "dim": 8, "sha256": ""}),
                File("evil/config.json", json.dumps({"model_type": "x", "auto_map": {"AutoModel": "code.Evil"}})),
                File("evil/code.py", "import os\nos.mkdir('payload-ran')\n")), REFUSED)  # fmt: skip


def _stores() -> Iterator[Case]:
    """OME-Zarr that is none, or leads out of its store."""
    line, file = f"embed in.zarr {MODEL} -o o.zarr", "in.zarr/zarr.json"
    scales = "attributes.ome.multiscales"
    secret = (Copy("in.zarr/0", "secret"),)
    edits: dict[str, tuple[str, object]] = {
        "path-up": (f"{scales}.0.datasets.0.path", "../secret"),
        "path-up-twice": (f"{scales}.0.datasets.0.path", "0/../../secret"),
        "path-absolute": (f"{scales}.0.datasets.0.path", "/etc"),
        "path-empty": (f"{scales}.0.datasets.0.path", ""),
        "path-number": (f"{scales}.0.datasets.0.path", 5),
        "path-nul": (f"{scales}.0.datasets.0.path", "a\0b"),
        "path-url": (f"{scales}.0.datasets.0.path", "http://127.0.0.1:1/x"),
        "datasets-none": (f"{scales}.0.datasets", []),
        "datasets-text": (f"{scales}.0.datasets", "x"),
        "scales-none": (scales, []),
        "scales-number": (scales, 7),
        "axes-none": (f"{scales}.0.axes", []),
        "axes-deep": (f"{scales}.0.axes", [[[["x"]]]]),
        "scale-nan": (f"{scales}.0.datasets.0.coordinateTransformations", [{"type": "scale", "scale": [1, float("nan"), 1]}]),
        "scale-zero": (f"{scales}.0.datasets.0.coordinateTransformations", [{"type": "scale", "scale": [1, 0, 0]}]),
        "scale-infinite": (f"{scales}.0.datasets.0.coordinateTransformations", [{"type": "scale", "scale": [1, float("inf"), 1]}]),
        "scale-negative": (f"{scales}.0.datasets.0.coordinateTransformations", [{"type": "scale", "scale": [1, -1, 1]}]),
        "scale-text": (f"{scales}.0.datasets.0.coordinateTransformations", [{"type": "scale", "scale": "abc"}]),
        "crs": ("attributes.ssl_tilegen", {"crs": "EPSG:nothing", "transform": [1, 2, 3, 4, 5, 6]}),
        "transform-nan": ("attributes.ssl_tilegen", {"crs": "EPSG:32614", "transform": [float("nan")] * 6}),
        "transform-short": ("attributes.ssl_tilegen", {"crs": "EPSG:32614", "transform": [1, 2]}),
        "transform-zero": ("attributes.ssl_tilegen", {"crs": "EPSG:32614", "transform": [0] * 6}),
        "own-text": ("attributes.ssl_tilegen", "x"),
    }  # fmt: skip
    for name, (key, value) in edits.items():
        allowed = REFUSED | (
            {DONE}
            if name in ("own-text", "scale-nan", "scale-zero", "scale-infinite", "scale-negative", "scale-text", "crs")
            else set()
        )
        yield Case("store", name, words(line), (STORE, *secret, Edit(file, key, value)), allowed)
    for key, value in (("shape", [3, 0, 0]), ("shape", [3, -1, 5]), ("shape", [128, 192]), ("shape", "x"), ("data_type", "complex64"),
                       ("data_type", "x"), ("codecs", []), ("codecs", [{"name": "no-such"}]), ("chunk_grid.configuration.chunk_shape", [1, 1, 2**40]),
                       ("chunk_grid.configuration.chunk_shape", [0, 0, 0]), ("fill_value", "x"), ("zarr_format", 9)):  # fmt: skip
        yield Case(
            "store",
            f"array-{key}-{json.dumps(value)}",
            words(line),
            (STORE, Edit("in.zarr/0/zarr.json", key, value)),
            REFUSED,
            cpu_s=20,
        )
    yield Case("store", "chunks-cut", words(line), (STORE, File("in.zarr/0/c/0/0/0", b"xx")), REFUSED)
    yield Case(
        "store",
        "link-out",
        words(line),
        (
            STORE,
            Copy("in.zarr/0", "secret"),
            Edit(file, f"{scales}.0.datasets.0.path", "k"),
            Link("in.zarr/k", "../secret"),
        ),
        REFUSED | {DONE},
    )


def _features() -> Iterator[Case]:
    """Features of other tools."""
    for name in (
        "negative",
        "nan",
        "nan-features",
        "text",
        "complex",
        "pickle",
        "attributes",
        "attributes-deep",
        "no-coords",
        "far-float",
    ):
        yield Case(
            "features",
            name,
            words(f"grid import {name}.npz -o o.zarr"),
            (Copy(f"{name}.npz"),),
            REFUSED,
            never="payload",
        )
    yield Case(
        "features",
        "vector-pickle",
        words(f"generate --vector pickle.npy --steps 1 {MODEL} -o o.png"),
        (Copy("pickle.npy"),),
        REFUSED,
    )
    yield Case(
        "features",
        "vector-key",
        words(f"generate --vector f.npz:nothing --steps 1 {MODEL} -o o.png"),
        (Copy("f.npz"),),
        REFUSED,
    )
    for value in ("nan", "0", "-1", "inf"):
        yield Case(
            "features",
            f"mpp-{value}",
            (*words("grid import f.npz -o o.zarr"), f"--mpp={value}"),
            (Copy("f.npz"),),
            REFUSED,
        )


def _texts() -> Iterator[Case]:
    """Tables, TOML, GeoJSON and JSON of users."""
    lists = {
        "latin1": "path\nb\xe4ume.tif\n".encode("latin-1"), "utf16": "path\nin.tif\n".encode("utf-16"), "no-column": b"file\nin.tif\n",
        "long-field": b"path\n" + b"x" * 200_000 + b"\n", "quote": b'path\n"in.tif\n', "nul": b"path\na\0b\n", "up": b"path\n../../../../etc/passwd\n",
        "id-up": b"path,id\nin.tif,../x\n", "id-dots": b"path,id\nin.tif,..\n", "id-nul": b"path,id\nin.tif,a\0\n", "id-long": b"path,id\nin.tif," + b"n" * 300 + b"\n",
        "id-newline": b'path,id\nin.tif,"a\nb"\n', "mpp-nan": b"path,mpp\nin.tif,nan\n", "mpp-huge": b"path,gsd\nin.tif,1e300\n", "header-only": b"path\n",
        "twice": b"path\nin.tif\nin.tif\n", "twice-id": b"path,id\nin.tif,a\nin.tif,a\n", "same-column": b"path,path\nin.tif,in.tif\n", "bom": b"\xef\xbb\xbfpath\nin.tif\n",
        "self": b"path\nl.csv\n", "folder": b"path\n.\n", "remote": b"path\nhttp://127.0.0.1:1/x.tif\n", "more-cells": b"path\nin.tif,a,b,c\n",
    }  # fmt: skip
    for name, content in lists.items():
        allowed = (
            REFUSED
            | {SOME}
            | ({DONE} if name in ("twice", "same-column", "bom", "more-cells", "id-newline") else set())
        )
        yield Case(
            "table",
            f"list-{name}",
            words(f"embed --list l.csv {MODEL} --out-dir o"),
            (SLIDE, File("l.csv", content)),
            allowed,
            cpu_s=20,
        )
    good = "classes/dots/g0_0.png,dots\nclasses/dots/g1_0.png,dots\nclasses/lines/g0_0.png,lines\nclasses/lines/g1_0.png,lines\n"
    tables = {
        "latin1": b"path,label\n\xe4.png,a\n", "label-up": b"path,label\nclasses/dots/g0_0.png,../../x\nclasses/lines/g0_0.png,b\n",
        "label-dots": b"path,label\nclasses/dots/g0_0.png,..\nclasses/lines/g0_0.png,b\n", "label-long": b"path,label\nclasses/dots/g0_0.png," + b"n" * 300 + b"\nclasses/lines/g0_0.png,b\n",
        "label-nul": b"path,label\nclasses/dots/g0_0.png,a\0\nclasses/lines/g0_0.png,b\n", "label-newline": b'path,label\nclasses/dots/g0_0.png,"a\nb"\nclasses/lines/g0_0.png,b\n',
        "split-up": b"path,label,split\nclasses/dots/g0_0.png,a,../x\nclasses/lines/g0_0.png,b,train\n", "one-class": b"path,label\nclasses/dots/g0_0.png,a\n",
        "no-label": b"path\nclasses/dots/g0_0.png\n", "long-field": b"path,label\n" + b"x" * 200_000 + b",a\n",
        "manifest-label": b"path,label\nclasses/dots/g0_0.png,manifest.csv\nclasses/lines/g0_0.png,augment.json\n",
    }  # fmt: skip
    for name, content in tables.items():
        yield Case(
            "table",
            f"augment-{name}",
            words(f"augment t.csv --steps 1 {MODEL} -o o"),
            (CLASSES, File("t.csv", content)),
            REFUSED | {SOME, DONE},
        )
    yield Case("table", "augment-formula", words(f"augment t.csv --steps 1 {MODEL} -o o"),
               (CLASSES, File("t.csv", "path,label,group\n" + good.replace(",dots", ",dots,=1+1").replace(",lines", ",lines,@x"))), frozenset({DONE}), lacks="(^|,)\"?[=@]")  # fmt: skip
    tomls = {
        "latin1": b"name = '\xe4'\n", "nul": b"a = '\0'\n", "unknown": b"nothing = 1\n", "type": b"tissue_min = 'x'\n", "deep": b"a = " + b"[" * 5000 + b"]" * 5000,
        "array": b"[[tissue_min]]\n", "date": b"tissue_min = 2020-01-01\n", "huge": b"stride = 99999999999999999999999\n", "nan": b"mpp = nan\n", "inf": b"mpp = inf\n",
        "list": b"out = [1]\n", "table": b"[out]\na = 1\n", "bool": b"mpp = true\n", "out-list": b"out = ''\n", "long": b"a = '" + b"x" * 100_000 + b"'\n",
        "newline": b"model = 'a\\nb'\n", "escape": b"model = '''\x1b[2J'''\n", "key": b"'a\\nb' = 1\n\"c\\u001b\" = 2\n",
    }  # fmt: skip
    for name, content in tomls.items():
        yield Case(
            "toml",
            f"embed-{name}",
            words("embed in.tif --config c.toml --device cpu -o o.zarr"),
            (SLIDE, File("c.toml", content)),
            REFUSED,
        )
        yield Case(
            "toml",
            f"train-{name}",
            words("train autoencoder --config train/c.toml --device cpu --out o"),
            (TRAIN, File("train/c.toml", content)),
            REFUSED,
            long=name not in ("latin1", "deep", "key"),
        )
    areas = {
        "number": "5", "list": "[]", "null": "null", "features-null": '{"type": "FeatureCollection", "features": null}', "feature-null": '{"type": "FeatureCollection", "features": [null]}',
        "geometry-null": '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": null, "properties": {"label": "rock"}}]}',
        "coordinates-null": _area("null"), "coordinates-text": _area('"x"'), "coordinates-empty": _area("[]"), "coordinates-ragged": _area("[[[1], [2, 3]]]"),
        "coordinates-nan": _area("[[[NaN, 1], [2, 3], [4, 5], [NaN, 1]]]"), "coordinates-inf": _area("[[[Infinity, 1], [2, 3], [4, 5], [Infinity, 1]]]"),
        "coordinates-huge": _area("[[[0, 0], [1e300, 0], [1e300, 1e300], [0, 0]]]"), "coordinates-strings": _area('[[["a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]]]'),
        "point": '{"type": "Feature", "properties": {"label": "rock"}, "geometry": {"type": "Point", "coordinates": [1, 2]}}', "line-deep": '{"features": ' + "[" * 50_000,
        "crs": '{"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": "EPSG:nothing"}}, "features": []}', "crs-number": '{"type": "FeatureCollection", "crs": 5, "features": []}',
        "properties-list": '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": [1], "geometry": {"type": "Polygon", "coordinates": [[[0,0],[9,0],[9,9],[0,0]]]}}]}',
        "collection": '{"type": "GeometryCollection", "geometries": [{"type": "GeometryCollection", "geometries": []}]}', "latin1": "\xe4", "duplicate": '{"features": [], "features": 1}',
    }  # fmt: skip
    for name, text in areas.items():
        content = text.encode("latin-1")
        yield Case(
            "geojson",
            f"regions-{name}",
            words(f"{EMBED} --regions x.geojson -o o.zarr"),
            (SLIDE, File("x.geojson", content)),
            REFUSED | {DONE},
            cpu_s=20,
        )
        yield Case(
            "geojson",
            f"scene-{name}",
            words(f"generate --scene x.geojson --steps 1 {MODEL} -o o.png"),
            (File("x.geojson", content),),
            REFUSED,
            cpu_s=20,
        )
    for name, text in {
        "no-colour": "label\nrock\n",
        "bad-colour": "colour,label\nred,rock\n",
        "none": "colour,label\n",
        "unknown": "colour,label\n#ff0000,nothing\n",
        "formula": "colour,label\n=1,rock\n",
    }.items():
        yield Case(
            "table",
            f"legend-{name}",
            words(f"generate --scene s.png --steps 1 --size 64 {MODEL} -o o.png"),
            (Copy("scene.png", "s.png"), File("s.csv", text)),
            REFUSED,
        )


def _area(coordinates: str) -> str:
    area = f'{{"type": "Polygon", "coordinates": {coordinates}}}'
    return f'{{"type": "FeatureCollection", "features": [{{"type": "Feature", "properties": {{"label": "rock"}}, "geometry": {area}}}]}}'


def _states() -> Iterator[Case]:
    """Unfinished runs with damaged or hostile states: one line, or made anew."""
    both = REFUSED | {DONE}
    generate = words(f"{GENERATE} -o o.ome.tif")
    for name, piece in {"pickle": Copy("pickle.npz", "o.ome.tif.part/state.npz"), "garbage": File("o.ome.tif.part/state.npz", b"x" * 99), "empty": File("o.ome.tif.part/state.npz", ""),
                        "latents": File("o.ome.tif.part/latents.state", b"x" * 99), "other": Copy("f.npz", "o.ome.tif.part/state.npz"), "folder": Folder("o.ome.tif.part/state.npz")}.items():  # fmt: skip
        yield Case("state", f"generate-{name}", generate, (GRID, piece), both)
        yield Case("state", f"generate-{name}-restart", (*generate, "--restart"), (GRID, piece), both)
    for name, piece in {
        "json": File("o.zarr.part/zarr.json", "{}"),
        "garbage": File("o.zarr.part/zarr.json", b"\xff"),
        "deep": File("o.zarr.part/zarr.json", "[" * 50_000),
        "empty": Folder("o.zarr.part", empty=True),
    }.items():
        yield Case(
            "state",
            f"embed-{name}",
            words(f"{EMBED} -o o.zarr"),
            (SLIDE, piece),
            both,
            ours=("o.zarr.part",) if name == "empty" else (),
        )
    for name, piece in {
        "plan": File("o.part/plan.json", "[]"),
        "deep": File("o.part/plan.json", "[" * 50_000),
        "latin1": File("o.part/plan.json", b"\xff\xfe"),
    }.items():
        yield Case("state", f"augment-{name}", words(f"{AUGMENT} -o o"), (CLASSES, piece), both)
    for name, piece in {"settings": File("o/autoencoder/settings.json", "[]"), "deep": File("o/autoencoder/settings.json", "[" * 50_000), "latin1": File("o/autoencoder/settings.json", b"\xff"),
                        "log": File("o/autoencoder/log.jsonl", b"\xff\n"), "bundle": File("o/bundle/bundle.json", "[]"), "bundle-deep": File("o/bundle/bundle.json", "[" * 50_000)}.items():  # fmt: skip
        yield Case("state", f"train-{name}", words(f"{TRAINING} --out o"), (TRAIN, piece), both)
    yield from _checkpoints()
    for mark, lock in enumerate(
        (
            "{}",
            "[]",
            "\xff",
            '{"pid": -1}',
            '{"host": "x", "pid": 1, "space": "", "began": "", "since": "\x1b[2J"}',
            "[" * 50_000,
            "x" * 100_000,
        )
    ):
        yield Case(
            "state", f"lock-{mark}", words(f"{EMBED} -o o.zarr"), (SLIDE, File("o.zarr.lock", lock)), both, cpu_s=20
        )
    for manifest in (b"path,label,group\n\xff", b"path\n" + b"x" * 200_000, b"\0\0", b""):
        yield Case(
            "state",
            f"manifest-{len(manifest)}",
            words(f"{AUGMENT} -o o"),
            (CLASSES, File("classes/manifest.csv", manifest)),
            both,
        )


def _checkpoints() -> Iterator[Case]:
    """A finished training whose checkpoint is damaged, and which is called again."""
    train, place = words(f"{TRAINING} --out o"), "o/autoencoder/checkpoint"
    pieces: dict[str, Piece] = {
        "list": File(f"{place}/state.json", "[]"), "torn": File(f"{place}/state.json", '{"step": 1, "upd'), "empty": File(f"{place}/state.json", ""),
        "deep": File(f"{place}/state.json", "[" * 50_000), "latin1": File(f"{place}/state.json", b"\xff"), "step-text": Edit(f"{place}/state.json", "step", "x"),
        "step-huge": Edit(f"{place}/state.json", "step", 10**30), "step-negative": Edit(f"{place}/state.json", "step", -1), "others": Edit(f"{place}/state.json", "others", [[]]),
        "updates-nan": Edit(f"{place}/state.json", "updates", float("nan")), "updates-gone": Edit(f"{place}/state.json", "updates", None, remove=True),
        "scaler": Edit(f"{place}/state.json", "scaler", {"scale": "x"}), "weights": File(f"{place}/weights.safetensors", b"x" * 99),
        "weights-cut": Copy("bundle/autoencoder/diffusion_pytorch_model.safetensors", f"{place}/weights.safetensors", cut=400),
        "optimiser": File(f"{place}/optimiser.pt", b"x" * 99), "optimiser-pickle": Copy("pickle.pth", f"{place}/optimiser.pt"),
    }  # fmt: skip
    for name, piece in pieces.items():
        yield Case("state", f"checkpoint-{name}", train, (TRAIN,), REFUSED, first=(train,), then=(piece,),
                   ours=("o/autoencoder/data.json", "o/autoencoder/settings.json", "o/autoencoder/*.json*", "o/bundle/*"))  # fmt: skip


def _images() -> Iterator[Case]:
    """Pixels that are no colours, and images cut short."""
    for name in ("complex", "nan", "inf"):
        yield Case(
            "image",
            f"embed-{name}",
            words(f"embed {name}.tif {MODEL} -o o.zarr"),
            (Copy(f"{name}.tif"),),
            REFUSED,
            cpu_s=20,
        )
    for cut in (8, 100, 1000, 20_000):
        yield Case(
            "image",
            f"embed-tif-cut-{cut}",
            words(f"embed x.tif {MODEL} -o o.zarr"),
            (Copy("in.tif", "x.tif", cut=cut),),
            REFUSED,
        )
        yield Case(
            "image",
            f"embed-png-cut-{cut}",
            words(f"embed x.png --mpp 0.5 {MODEL} -o o.zarr"),
            (Copy("in.png", "x.png", cut=cut),),
            REFUSED,
        )
        yield Case(
            "image",
            f"embed-ome-cut-{cut}",
            words(f"embed x.ome.tif {MODEL} -o o.zarr"),
            (Copy("slide.ome.tif", "x.ome.tif", cut=cut),),
            REFUSED | {DONE} if cut > 1000 else REFUSED,
        )
    yield Case(
        "image",
        "evaluate-complex",
        words(f"evaluate --real complex.tif --synthetic sets/synthetic --encoder texture {MODEL}"),
        (SETS, Copy("complex.tif")),
        REFUSED | {SOME},
    )
    for name in ("embedding", "valid", "tissue", "done"):
        for line in (
            f"{GENERATE} -o o.png",
            "grid info g.zarr",
            "grid export g.zarr -o o.h5",
            "grid preview g.zarr -o o.png",
        ):
            yield Case(
                "image",
                f"grid-{name}-cut-{words(line)[1].strip('-')}",
                words(line),
                (GRID, File(f"g.zarr/{name}/zarr.json", "{")),
                REFUSED,
            )
