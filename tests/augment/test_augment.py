"""augment: the same images however they are stacked, dealt and stopped; nothing crosses a class or a split."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.cli import main
from ssl_tilegen.config import AugmentSettings
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.synthesis import paint
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.errors import InputError, Interrupted, OutputError, SettingError
from ssl_tilegen.geometry import Size
from ssl_tilegen.metrics.votes import class_votes
from ssl_tilegen.system.progress import silent
from ssl_tilegen.workflows.augment.inputs import read_originals
from ssl_tilegen.workflows.augment.paint_stack import frame, paint_stack
from ssl_tilegen.workflows.augment.patches import cells_of, mixed
from ssl_tilegen.workflows.augment.report import AugmentIncomplete
from ssl_tilegen.workflows.augment.run import augment
from ssl_tilegen.workflows.augment.store import run_folder
from tests.bundles import painting_bundle
from tests.diffusion.toys import LocalToy, WindowToy, random_field

CLASSES = {"dots": 60, "lines": 180}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painting_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes, three groups of two images each, of two sizes."""
    rng, folder = np.random.default_rng(0), tmp_path / "in"
    for label, level in CLASSES.items():
        (folder / label).mkdir(parents=True)
        for group in range(3):
            for copy in range(2):
                size = (70, 100) if group == 2 else (72, 72)
                pixels = rng.integers(level - 40, level + 40, (*size, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / label / f"g{group}_{copy}.png")
    return folder


@pytest.fixture
def settings(bundle: Path, tmp_path: Path) -> AugmentSettings:
    return AugmentSettings(out=tmp_path / "out", model=str(bundle), batch=3)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def changed(settings: AugmentSettings, **values: object) -> AugmentSettings:
    return AugmentSettings.model_validate(settings.model_dump() | values)


@pytest.mark.parametrize(("update", "times"), [("dpmpp_2m", ()), ("ancestral", ()), ("renoise", (1.0, 0.7, 0.3))])
@pytest.mark.parametrize("strength", [None, 0.5])
@pytest.mark.parametrize("model", [LocalToy(), WindowToy()], ids=["local", "window"])
def test_a_stack_is_what_paint_makes_one_by_one(model, strength, update, times):
    size, seeds = Size(61, 90), [3, 4, 5]
    fields = [random_field(seed) for seed in seeds]
    how = SynthesisSettings(steps=4, times=times, update=update, bleed_lat=4)
    region, window = frame(model, size, how)
    sources = None
    if strength is not None:
        sources = torch.randn(3, model.latent_channels, window.rows, window.cols)
    stack = paint_stack(model, fields, size, seeds, how, sources=sources, strength=strength or 1.0)
    for index, (field, seed) in enumerate(zip(fields, seeds, strict=True)):
        own = None if sources is None else (lambda w, i=index: sources[i][:, *w.within(window).slices])
        alone = paint(model, field, region, replace(how, seed=seed), source=own, strength=strength or 1.0)
        torch.testing.assert_close(stack[index], alone[window], rtol=1e-4, atol=1e-4)


def test_same_layout_same_sizes_and_a_manifest(images, settings):
    report = augment(images, changed(settings, per_image=2, originals="link"))
    assert report.status == "done" and report.painted == 24 and report.kept == {"dots": 12, "lines": 12}
    found = rows(settings.out)
    made = [row for row in found if row["kind"] == "synthetic"]
    assert len(found) == 36 and len({row["path"] for row in found}) == 36 and len({row["seed"] for row in made}) == 24
    for row in found:
        label, _ = row["path"].split("/")
        source = Image.open(images / row["source"])
        image = Image.open(settings.out / row["path"])
        assert label == row["label"] == row["source"].split("/")[0] and image.size == source.size
        assert row["group"] == Path(row["source"]).name[:2]
    facts = json.loads(Image.open(settings.out / made[0]["path"]).text["Description"])
    assert facts["synthetic"] and facts["seed"] == int(made[0]["seed"]) and facts["source"] == made[0]["source"]
    assert -1 <= float(made[0]["cosine"]) <= 1 and made[0]["nearest"] in {row["source"] for row in found}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems that hold no name but UTF-8")
def test_an_image_whose_name_is_not_utf8_fails_alone_and_by_its_name(images, settings):
    plain = images / "dots" / "g0_0.png"
    plain.rename(plain.with_name(os.fsdecode(b"g0_\xff.png")))
    with pytest.raises(AugmentIncomplete, match=r"1 of 12 .* 11 done: dots/g0_.*\.png: its name is not UTF-8; rename"):
        augment(images, settings)
    assert len([row for row in rows(settings.out) if row["kind"] == "synthetic"]) == 11


@pytest.mark.slow
def test_a_sample_depends_on_its_source_seed_and_number_alone(images, settings, tmp_path):
    """Other images, more samples and another share of the work change nothing of a sample."""
    augment(images, settings)
    augment(images, changed(settings, out=tmp_path / "more", per_image=2))
    for path in images.glob("*/g2*"):
        path.unlink()
    augment(images, changed(settings, out=tmp_path / "fewer"))
    augment(images, changed(settings, out=tmp_path / "seed", seed=1))
    few, more = files(tmp_path / "fewer"), files(tmp_path / "more")
    assert len(few) == 8
    for name in few:
        one, two = (np.asarray(Image.open(folder / name)).astype(int) for folder in (settings.out, tmp_path / "more"))
        three, other = (np.asarray(Image.open(tmp_path / f / name)).astype(int) for f in ("fewer", "seed"))
        assert abs(one - two).max() <= 2 and abs(one - three).max() <= 2, name  # the chip's rounding
        assert abs(one - other).mean() > 2 and more[name] != more[name.replace("s0", "s1")]


@pytest.mark.slow
def test_shards_and_resumed_runs_make_the_same_bytes(images, settings, tmp_path):
    augment(images, settings)
    whole = files(settings.out)
    dealt = changed(settings, out=tmp_path / "dealt")
    first = augment(images, changed(dealt, shard=(0, 2)))
    assert first.status == "partial" and not dealt.out.exists()
    assert augment(images, changed(dealt, shard=(1, 2))).status == "done"
    assert files(dealt.out) == whole and rows(dealt.out) == rows(settings.out)
    assert augment(images, changed(dealt, shard=(0, 2))).status == "finished before"

    stopped = changed(settings, out=tmp_path / "stopped")

    def stop(stage: str, done: float, total: float) -> None:
        if stage == "augment" and done >= 6:
            raise Interrupted("stop", 15)

    with pytest.raises(Interrupted):
        augment(images, stopped, stop)
    assert not stopped.out.exists() and run_folder(stopped.out).is_dir()
    with pytest.raises(OutputError, match="--restart"):
        augment(images, changed(stopped, seed=7))
    image = sorted(images.glob("*/*.png"))[0]
    own = image.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)  # another image by the same name
    with pytest.raises(OutputError, match="--restart"):
        augment(images, stopped)
    image.write_bytes(own)
    report = augment(images, stopped)
    assert 0 < report.painted < 12 and files(stopped.out) == whole
    assert not run_folder(stopped.out).exists() and not list(tmp_path.glob("*.lock"))


def test_one_of_several_processes_does_not_start_over(images, settings):
    with pytest.raises(SettingError, match="--restart: 2 processes make"):
        augment(images, changed(settings, shard=(1, 2), restart=True))


def test_a_finished_output_is_refused(images, settings):
    augment(images, settings)
    with pytest.raises(OutputError, match="--overwrite"):
        augment(images, settings)
    assert augment(images, changed(settings, overwrite=True)).status == "done"


def test_strength_keeps_the_source_and_mix_stays_in_class_and_split(images, settings, tmp_path):
    listed = tmp_path / "list.csv"
    lines = [f"in/{p.parent.name}/{p.name},{p.parent.name},{p.name[:2]},{'b' if p.name[1] == '2' else 'a'}"
             for p in sorted(images.glob("*/*.png"))]  # fmt: skip
    listed.write_text("\n".join(["path,label,group,split", *lines]))
    augment(listed, changed(settings, mix=0.4, strength=0.4))
    for row in rows(settings.out):
        own, other = (row[name].split("/")[1] for name in ("source", "mixed_with"))
        assert own == other == row["label"] and row["path"].startswith(f"{row['split']}/{row['label']}/")
        assert (row["group"] == "g2") == (row["mixed_group"] == "g2") == (row["split"] == "b")
        assert row["split"] == "b" or row["group"] != row["mixed_group"]

    def apart(folder: Path) -> float:
        pairs = [(row["path"], row["source"]) for row in rows(folder)]
        return float(np.mean([abs(np.asarray(Image.open(folder / a)).astype(float) - np.asarray(Image.open(b))).mean()
                              for a, b in ((p, tmp_path / s) for p, s in pairs)]))  # fmt: skip

    augment(listed, changed(settings, out=tmp_path / "fresh"))
    assert apart(settings.out) < apart(tmp_path / "fresh")


@pytest.mark.slow
def test_the_gate_counts_what_it_drops(images, settings, tmp_path):
    report = augment(images, changed(settings, per_image=3, keep_best=1))
    assert sum(report.kept.values()) + sum(report.dropped.values()) == report.painted == 36
    found = rows(settings.out)
    assert len(found) == sum(report.kept.values()) == len(files(settings.out))
    assert len({row["source"] for row in found}) == len(found)
    assert all(float(row["class_votes"]) >= 0.5 for row in found)
    strict = augment(images, changed(settings, out=tmp_path / "strict", min_cosine=1))
    assert sum(strict.kept.values()) == 0 and strict.dropped["min_cosine"] > 0 and "nothing is left" in strict.line()


def test_votes_leave_kin_out_and_weigh_classes_alike():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal((4, 0), 0.1, (40, 2)), rng.normal((0, 4), 0.1, (8, 2))])
    labels, groups = np.repeat([0, 1], [40, 8]), np.array([f"a{i}" for i in range(40)] + ["b"] * 4 + ["c"] * 4)
    made = np.array([[4.0, 0.1], [0.1, 4.0], [0.1, 4.0]])
    votes = class_votes(made, np.array([0, 1, 0]), np.array([["a0"], ["b"], ["a0"]]), real, labels, groups, k=5)
    assert votes.label.tolist() == [0, 1, 1] and votes.share.tolist() == [1, 1, 0]
    assert set(labels[votes.nearest]) == {0, 1} and (votes.cosine > 0.99).all()
    all_kin = class_votes(made[1:2], np.array([1]), np.array([["b", "c"]]), real, labels, groups)
    assert all_kin.label[0] == 0 and labels[all_kin.nearest[0]] == 1


def test_mixing_moves_content_and_leaves_layout():
    rng = np.random.default_rng(0)
    own, other = (rng.normal(size=(r, c, 8)).astype(np.float32) for r, c in ((3, 4), (2, 6)))
    half = mixed(own, other, 0.5, layout_dim=3)
    assert (half[..., 5:] == own[..., 5:]).all() and not np.isclose(half[..., :5], own[..., :5]).any()
    np.testing.assert_allclose(mixed(own, other, 1e-6), own, atol=1e-4)
    np.testing.assert_allclose(mixed(own, other, 1 - 1e-6)[2, 3], other[1, 5], atol=1e-4)


def test_cells_cover_a_picture_of_any_size(bundle):
    encoder = BundleEncoder(ModelBundle.load(bundle))
    tiles = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64, 3), np.uint8)
    whole = tiles.swapaxes(1, 2).reshape(1, 128, 192, 3)
    known = encoder.embed(tiles.reshape(6, 64, 64, 3)).reshape(2, 3, -1)
    np.testing.assert_allclose(cells_of(encoder, whole)[0], known, atol=1e-3)
    inner = cells_of(encoder, whole[:, 5:-5, 32:-32])
    assert inner.shape == (1, 2, 2, encoder.dim)
    mirrored = np.pad(whole[0, 5:-5, 32:-32], ((5, 5), (0, 0), (0, 0)), "symmetric")
    np.testing.assert_allclose(inner[0, 1, 0], encoder.embed(mirrored[None, 64:, :64])[0], atol=1e-3)
    assert cells_of(encoder, whole[:, :17, :20]).shape == (1, 1, 1, encoder.dim)


@pytest.mark.slow
def test_large_images_are_painted_from_their_grids(settings, tmp_path, monkeypatch):
    import rasterio

    rng = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / "maps" / label).mkdir(parents=True)
        for name in ("a_0", "b_0"):
            with rasterio.open(tmp_path / "maps" / label / f"{name}.tif", "w", driver="GTiff", width=200, height=130,
                               count=3, dtype="uint8", crs="EPSG:32614",
                               transform=rasterio.transform.from_origin(5e5, 4e6, 0.15, 0.15)) as file:  # fmt: skip
                file.write(rng.integers(0, 255, (3, 130, 200), np.uint8))
    monkeypatch.setenv("WORLD_SIZE", "2")  # started by torchrun: each process takes its own images, none waits
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        report = augment(tmp_path / "maps", changed(settings, level="image", mix=0.3, strength=0.7))
        assert report.painted == 2 and report.status == ("done" if rank == "1" else "partial")
    assert json.loads(next(settings.out.rglob("*.tif.json")).read_text())["provenance"]["strength"] == 0.7
    assert report.kept == {"dots": 2, "lines": 2}
    with rasterio.open(settings.out / rows(settings.out)[0]["path"]) as file:
        assert (file.width, file.height, file.crs.to_epsg()) == (200, 130, 32614)
        assert abs(file.transform.a - 0.15) < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: [p.unlink() for p in (d / "dots").iterdir()], "dots: a class without images"),
        (lambda d: [p.rename(d / p.name) for p in d.glob("*/*")] and [(d / k).rmdir() for k in ("dots", "lines")],
         "images, but none in a class folder; move them to"),
        (lambda d: [p.unlink() or p.parent.mkdir(exist_ok=True) for p in d.glob("*/*.png")], "without images"),
        (lambda d: [p.write_bytes(b"\x89PNG") for p in (d / "dots").iterdir()], "no image of class dots can be read"),
        (lambda d: (d / "x").mkdir() or (d / "dots").rename(d / "x" / "dots"), "holds folders of images; give"),
    ],
)  # fmt: skip
def test_bad_folders_are_one_line(images, settings, change, message):
    change(images)
    with pytest.raises(InputError, match=message) as caught:
        augment(images, settings)
    assert "\n" not in str(caught.value) and not settings.out.exists() and not run_folder(settings.out).exists()


def test_one_class_is_enough(images, settings):
    for path in (images / "dots").iterdir():
        path.unlink()
    (images / "dots").rmdir()
    assert set(augment(images, settings).kept) == {"lines"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", "no columns 'path' and 'label'"),
        ("path,label\nin/dots/g0_0.png,dots\nin/lines/g0_0.png,\n", "line 3: no label"),
        ("path,label\nin/dots/g0_0.png,dots\nin/lines/g0_0.png,a/b\n", "label a/b holds characters"),
        ("path,label,group,split\nin/dots/g0_0.png,dots,g,a\nin/dots/g0_1.png,dots,g,b\nin/lines/g0_0.png,lines,h,a\n",
         "group g of dots is in two splits, a and b"),
    ],
)  # fmt: skip
def test_bad_lists_are_one_line(images, settings, tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        augment(tmp_path / "list.csv", settings)


def test_unreadable_pictures_are_listed_and_the_others_done(images, settings, capsys):
    whole = (images / "dots" / "g0_0.png").read_bytes()
    (images / "dots" / "g0_0.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (8, 8)).save(images / "lines" / "g9_0.png")
    with pytest.raises(AugmentIncomplete) as caught:
        augment(images, settings)
    (report,) = caught.value.reports
    assert [failure.name for failure in report.failed] == ["dots/g0_0.png", "lines/g9_0.png"]
    assert report.painted == 11 and len(rows(settings.out)) == 11 and caught.value.exit_code == 3
    with pytest.raises(SystemExit) as ended:
        main(["augment", str(images), "-o", str(settings.out), "--model", settings.model, "--overwrite", "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 3 and json.loads(out)["reports"][0]["painted"] == 11
    last = err.splitlines()[-1]
    assert last.startswith("error: 2 of 13 images failed, 11 done: dots/g0_0.png: ")
    assert all(last.count(name) == 1 for name in ("g0_0.png", "g9_0.png")), "each image is named once"


def test_large_pictures_of_unknown_resolution_are_listed_before_anything_is_painted(images):
    with pytest.raises(InputError, match=r"resolution is unknown; say it with --mpp .* or --level patch"):
        read_originals(images, "image", silent)
    assert len(read_originals(images, "image", silent, sampled=True).images) == 12
    assert len(read_originals(images, "auto", silent).images) == 12


def test_the_rate_counts_from_the_start_of_a_sheet(images, settings):
    told = []
    augment(images, settings, lambda stage, done, total: told.append((stage, done)))
    assert next(done for stage, done in told if stage == "augment") == 0


def test_the_gate_needs_groups(images, settings):
    for path in images.glob("dots/g[12]*"):
        path.unlink()
    with pytest.raises(InputError, match="class dots has one group, g0"):
        augment(images, changed(settings, min_cosine=0.1))
    report = augment(images, settings)
    assert report.in_class is None and {row["class_votes"] for row in rows(settings.out)} == {""}


@pytest.mark.parametrize("options", ["--strength 0", "--mix 1", "--per-image 2 --keep-best 3", "--shard 2/2",
                                     "--level big", "--suffix .gif"])  # fmt: skip
def test_wrong_usage_is_2(options, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["augment", str(tmp_path), *options.split()])
    assert ended.value.code == 2
