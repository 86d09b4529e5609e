"""From a table of images to a prior, and from a label, words, a vector or a map to a drawn grid and its image."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.config import EmbedSettings, GenerateSettings
from ssl_tilegen.encoders import text as text_module
from ssl_tilegen.errors import FormatError, InputError, OutputError, SettingError, TilegenError
from ssl_tilegen.geometry import Size
from ssl_tilegen.grids import EmbeddingGrid
from ssl_tilegen.nets import build_component
from ssl_tilegen.nets.grid_prior import GridPrior
from ssl_tilegen.nets.grid_unet import GridUNet
from ssl_tilegen.prior.sampling import sample_prior
from ssl_tilegen.prior.scene import read_scene
from ssl_tilegen.prior.spec import PriorSampling
from ssl_tilegen.training.data.prior_cells import Piece, pieces_of
from ssl_tilegen.training.data.prior_table import read_table
from ssl_tilegen.training.data.prior_windows import placed, shared
from ssl_tilegen.workflows.embed.run import embed
from ssl_tilegen.workflows.generate.prior_grid import asked
from ssl_tilegen.workflows.generate.run import generate
from ssl_tilegen.workflows.models import describe
from ssl_tilegen.workflows.train import train
from tests.bundles import encoder_bundle, painting_bundle

COLOURS = {"dark rock": (40, 30, 30), "bright sand": (230, 220, 180)}
TOML = """
table = "table.csv"
text_encoder = "words"
turns = 2
window_cells = 4
[net]
width = 64
blocks = 1
hidden = 32
[run]
steps = 200
batch = 16
lr = 4e-3
warmup = 10
cooldown = 0.3
ema = 0.9
log_every = 50
save_every = 200
sample_every = 200
"""


def small_text_encoder(folder: Path) -> Path:
    """A transformers model of random weights with a vocabulary of single words, saved as users save theirs."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    known = "dark rock bright sand stone a field of"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known.split()]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.3,
    }
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a bundle whose prior knows two grounds by label, words and a vector of three numbers."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("prior")
    rng = np.random.default_rng(0)
    small_text_encoder(folder / "words")
    painting_bundle(folder / "run" / "bundle")
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "caption", "vector", "gsd", "region"])
        for label, colour in COLOURS.items():
            for number in range(4):
                coarse = np.clip(np.array(colour) + rng.normal(0, 12, (20, 20, 3)), 0, 255).astype(np.uint8)
                name = f"{label.split()[0]}{number}_0.png"
                Image.fromarray(coarse).resize((330, 270), Image.Resampling.BICUBIC).save(folder / name)
                vector = "1 0 0" if "dark" in label else "0 0 2"
                table.writerow([name, label, f"{label} | a field of {label}", vector, 0.15, ""])
        options = EmbedSettings(out=folder / "grid.zarr", model=str(folder / "run" / "bundle"), gsd=0.15)
        embed([folder / "dark0_0.png"], options)
        table.writerow(["grid.zarr", "dark rock", "dark rock", "1 0 0", "", "64,0,256,256"])
    (folder / "prior.toml").write_text(TOML.replace('"words"', json.dumps(str(folder / "words"))))
    train("prior", folder / "prior.toml", folder / "run", device="cpu")
    return folder / "run" / "bundle"


@pytest.fixture(scope="module")
def brightness(trained, tmp_path_factory):
    """Says where cells (R, K, D) stand between the embeddings of the dark (0) and the bright ground (1)."""
    folder, ends = tmp_path_factory.mktemp("ends"), []
    for number, colour in enumerate(COLOURS.values()):
        path = folder / f"{number}.png"
        Image.new("RGB", (128, 128), colour).save(path)
        embed([path], EmbedSettings(out=path.with_suffix(".zarr"), model=str(trained), gsd=0.15))
        ends.append(EmbeddingGrid.open(path.with_suffix(".zarr")).read().embedding.astype(np.float64).mean((0, 1)))
    axis = ends[1] - ends[0]
    return lambda cells: float((cells.reshape(-1, len(axis)) - ends[0]).mean(0) @ axis / (axis @ axis))


def run(trained: Path, out: Path, **options) -> GenerateSettings:
    return GenerateSettings(model=str(trained), out=out, steps=2, device="cpu", **options)


@pytest.mark.parametrize(
    "dark, bright",
    [({"label": "dark rock"}, {"label": "Bright Sand"}), ({"text": "a field of dark rock"}, {"text": "bright sand"}),
     ({"vector": "dark.npy"}, {"vector": "both.npz:bright"})],
    ids=["label", "text", "vector"],
)  # fmt: skip
def test_a_drawn_grid_is_of_what_was_asked_for(trained, brightness, tmp_path, monkeypatch, dark, bright):
    monkeypatch.chdir(tmp_path)
    np.save("dark.npy", np.array([1.0, 0, 0]))
    np.savez("both.npz", dark=np.array([1.0, 0, 0]), bright=np.array([0, 0, 2.0]))
    found = []
    if "vector" in dark:
        dark = {"vector": str(tmp_path / "dark.npy")}
    for name, options in (("dark", dark), ("bright", bright)):
        generate(run(trained, tmp_path / f"{name}.png", size=256, save_grid=tmp_path / f"g-{name}.zarr", **options))
        grid = EmbeddingGrid.open(tmp_path / f"g-{name}.zarr")
        assert (grid.shape, grid.spec.resolution.value, grid.spec.source.kind) == (Size(4, 4), 0.15, "drawn")
        assert str(tmp_path) not in grid.spec.source.name
        found.append(brightness(grid.read().embedding.astype(np.float64)))
    assert found[1] > found[0] + 0.3


def test_same_seed_same_grid_and_picture_another_seed_another(trained, tmp_path):
    images, grids = [], []
    for number, seed in enumerate((3, 3, 4)):
        out, grid = tmp_path / f"{number}.png", tmp_path / f"{number}.zarr"
        generate(run(trained, out, label="dark rock", size=128, seed=seed, save_grid=grid))
        images.append(np.asarray(Image.open(out)))
        grids.append(EmbeddingGrid.open(grid).read().embedding)
    assert np.array_equal(images[0], images[1]) and np.array_equal(grids[0], grids[1])
    assert not np.array_equal(images[0], images[2]) and not np.array_equal(grids[0], grids[2])


def test_a_kept_grid_paints_the_same_picture_and_is_not_overwritten(trained, tmp_path):
    grid = tmp_path / "g.zarr"
    generate(run(trained, tmp_path / "a.png", text="dark rock", size=200, save_grid=grid))
    again = generate(run(trained, tmp_path / "b.png", grid=grid, size=200))
    assert again.size == (200, 200)
    assert generate(run(trained, tmp_path / "b.png", grid=grid, size=200, dry_run=True)).status == "planned"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "b.png")))
    with pytest.raises(OutputError, match=r"--save-grid.*exists"):
        generate(run(trained, tmp_path / "c.png", label="dark rock", size=200, save_grid=grid))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_dry_run_leaves_nothing_and_a_name_is_found_from_the_words(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = generate(run(trained, None, text="a field of bright sand", size=128, dry_run=True))
    assert (report.status, report.out.name) == ("planned", "a-field-of-bright-sand-synthetic.ome.tif")
    assert not list(tmp_path.iterdir())


def test_the_provenance_says_what_was_asked_for(trained, tmp_path):
    generate(run(trained, tmp_path / "x.png", text="dark rock", label="dark rock", size=128))
    facts = json.loads((tmp_path / "x.png.json").read_text())
    assert "label: dark rock; text: dark rock" in json.dumps(facts)


@pytest.mark.parametrize("kind", ["png", "geojson"])
def test_a_scene_puts_each_ground_in_its_place(trained, brightness, tmp_path, kind):
    path = tmp_path / f"map.{kind}"
    if kind == "png":
        image = np.zeros((30, 60, 3), np.uint8)
        image[:, :30], image[:, 30:] = (200, 0, 0), (0, 0, 200)
        Image.fromarray(image).save(path)
        (tmp_path / "map.csv").write_text("colour,label,text\n#c80000,bright sand,\n#0000c8,,dark rock\n")
    else:
        boxes = [("label", "bright sand", 0, 384), ("text", "dark rock", 384, 768)]
        features = [{"type": "Feature", "properties": {key: value}, "geometry": {"type": "Polygon", "coordinates": [
            [[a, 0], [b, 0], [b, 384], [a, 384], [a, 0]]]}} for key, value, a, b in boxes]  # fmt: skip
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    grid = tmp_path / "g.zarr"
    report = generate(run(trained, tmp_path / "x.png", scene=path, size="768x384", save_grid=grid))
    cells = EmbeddingGrid.open(grid).read().embedding.astype(np.float64)
    assert report.size == (768, 384) and cells.shape[:2] == (6, 12)
    left, right = (brightness(part) for part in (cells[:, :5], cells[:, 7:]))
    assert left > right + 0.3


def test_words_that_say_what_lies_where_become_a_map_that_is_kept(trained, brightness, tmp_path):
    grid, size = tmp_path / "g.zarr", "768x384"
    words = "bright sand beside a field of dark rock"
    report = generate(run(trained, tmp_path / "x.png", text=words, size=size, seed=2, save_grid=grid))
    drawn = EmbeddingGrid.open(grid)
    cells = drawn.read().embedding
    left, right = (brightness(part.astype(np.float64)) for part in (cells[:, :4], cells[:, 8:]))
    assert left > right + 0.3
    read = "note: the text is read as (bright sand | field of dark rock)"
    assert report.remarks[0] == drawn.spec.source.remarks[0] == read
    again = run(trained, tmp_path / "y.png", scene=tmp_path / "g.scene.png", size=size, seed=2,
                save_grid=tmp_path / "h.zarr")  # fmt: skip
    generate(again)
    assert np.array_equal(EmbeddingGrid.open(tmp_path / "h.zarr").read().embedding, cells)
    assert not (tmp_path / "h.scene.png").exists()


def test_a_region_of_a_drawn_image_is_a_part_of_it(trained, tmp_path):
    whole, part, saved = (tmp_path / f"{name}.png" for name in ("whole", "part", "saved"))
    options = {"label": "dark rock", "size": "250x200"}  # no multiple of a cell
    generate(run(trained, whole, **options, save_grid=tmp_path / "g.zarr"))
    generate(run(trained, part, **options, region="40,30,128,160"))
    generate(run(trained, saved, grid=tmp_path / "g.zarr", region="40,30,128,160"))
    pixels = [np.asarray(Image.open(path)).astype(int) for path in (whole, part, saved)]
    assert np.abs(pixels[0][30:190, 40:168] - pixels[1]).max() <= 2  # the chip's rounding
    assert np.array_equal(pixels[1], pixels[2])


@pytest.mark.parametrize(
    "options, message",
    [({"region": "200,0,128,128"}, "beyond the canvas of 250 x 200"), ({"recipe": "paper"}, "no such recipe"),
     ({"size": "16"}, "smaller than"), ({"out": Path("x.gz")}, "unknown kind")],
    ids=["region", "recipe", "size", "name"],
)  # fmt: skip
def test_wrong_options_are_refused_before_a_grid_is_sampled(trained, tmp_path, options, message):
    sampled: list[str] = []
    given = {"out": tmp_path / "x.png", "label": "dark rock", "size": "250x200"} | options
    settings = GenerateSettings(model=str(trained), device="cpu", **given)
    with pytest.raises(TilegenError, match=message):
        generate(settings, lambda stage, *_: sampled.append(stage))
    assert "sample prior" not in sampled


@pytest.mark.parametrize(
    "ring, message",
    [([[0, 0], [300, 0], [600, 0], [0, 0]], "coordinates must be pixels"),
     ([[500, 500], [600, 500], [600, 600], [500, 500]], "enclose no part of its 128 x 128 px")],
    ids=["flat", "far"],
)  # fmt: skip
def test_a_map_that_shows_nothing_is_refused(tmp_path, ring, message):
    path = tmp_path / "map.geojson"
    geometry = {"type": "Polygon", "coordinates": [ring]}
    path.write_text(json.dumps([{"properties": {"label": "x"}, "geometry": geometry}]))
    with pytest.raises(InputError, match=message):
        read_scene(path, Size(128, 128))


def test_a_large_map_is_read_in_little_memory(tmp_path, monkeypatch):
    path = tmp_path / "map.png"
    colours = [(k * 20, 255 - k * 20, 60) for k in range(12)]
    lines = [f"#{red:02x}{green:02x}{blue:02x},x" for red, green, blue in colours]
    (tmp_path / "map.csv").write_text("\n".join(["colour,label", *lines]))
    image = np.array(colours, np.uint8)[np.arange(9000) * 12 // 9000][None].repeat(300, 0)
    Image.fromarray(image).save(path)
    tracemalloc.start()
    scene = read_scene(path, None)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 * scene.index.size + (64 << 20)
    assert scene.index.shape[1] == 8192 and np.array_equal(np.unique(scene.index), np.arange(12))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="too many pixels"):
        read_scene(path, None)


def test_a_grid_is_never_there_without_its_map(trained, tmp_path):
    asked_for = run(trained, tmp_path / "x.png", text="bright sand beside dark rock", size=128,
                    save_grid=tmp_path / "g.zarr")  # fmt: skip
    scene = tmp_path / "g.scene.png"
    scene.mkdir()
    with pytest.raises(OutputError, match=r"g\.scene\.png: exists and was not made by this program"):
        generate(asked_for)
    scene.rmdir()
    with pytest.raises(OutputError, match=r"g\.scene\.png: exists and was not made"):  # comes while the grid is sampled
        generate(asked_for, lambda stage, *_: scene.mkdir(exist_ok=True) if stage == "sample prior" else None)
    assert not (tmp_path / "g.zarr").exists()
    scene.rmdir()
    generate(asked_for)
    written = read_scene(tmp_path / "g.scene.png", Size(128, 128))
    assert [region.text for region in written.regions] == ["bright sand", "dark rock"]
    assert {".g.scene.png.part", ".g.scene.csv.part"}.isdisjoint(p.name for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, message",
    [({"label": "dark rocks"}, "do you mean dark rock. .known: "), ({"text": "rock " * 30}, "fewer words"),
     ({"vector": "long.npy"}, "has shape 4, this prior takes 3 numbers"),
     ({"vector": "none.npy"}, "no vector can be read"), ({"vector": "nan.npy"}, "finite"),
     ({"scene": "none.png"}, "cannot be read"), ({"scene": "bare.png"}, "legend")],
    ids=["label", "text", "length", "missing", "nan", "no map", "no legend"],
)  # fmt: skip
def test_what_the_prior_cannot_be_told_is_one_line(trained, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    np.save("long.npy", np.zeros(4))
    np.save("nan.npy", np.array([0, np.nan, 0]))
    Image.new("RGB", (4, 4)).save("bare.png")
    if "scene" in options:
        options = {"scene": Path(options["scene"])}
    with pytest.raises((InputError, SettingError), match=message) as caught:
        generate(run(trained, tmp_path / "x.png", size=128, **options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "options",
    [{}, {"text": " "}, {"text": "ma\udce7a"}, {"grid": "g.zarr", "label": "x"}, {"grid": "g", "save_grid": "h"}],
)
def test_contradictions_are_refused_before_any_work(options):
    with pytest.raises(ValueError, match=r"give --grid|is empty|not UTF-8|not both|is one already"):
        GenerateSettings(**options)


def test_without_transformers_text_says_what_to_install_and_labels_work(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install transformers"):
        generate(run(trained, tmp_path / "x.png", text="dark rock", size=128))
    assert generate(run(trained, tmp_path / "y.png", label="dark rock", size=128)).status == "done"


def test_other_weights_of_the_text_encoder_are_refused(trained, tmp_path):
    bundle = ModelBundle.load(trained)
    info = bundle.prior_info
    assert info is not None and info.text is not None
    bundle.__dict__["prior_info"] = info.model_copy(update={"text": info.text.model_copy(update={"sha256": "0"})})
    with pytest.raises(FormatError, match="not the weights"):
        asked(run(trained, tmp_path / "x.png", text="dark rock"), bundle)


def test_a_bundle_without_a_prior_says_so(tmp_path):
    folder = painting_bundle(tmp_path / "bundle")
    with pytest.raises(FormatError, match=r"has no prior.*--grid"):
        generate(run(folder, tmp_path / "x.png", label="forest"))


def test_models_info_lists_the_labels(trained):
    facts = describe(str(trained))
    assert list(facts["labels"]) == ["bright sand", "dark rock"] and facts["vector_dim"] == 3
    assert "prior" in facts["components"] and facts["labels"]["dark rock"] == "aerial, 0.15 m/px"


@pytest.mark.parametrize(
    "net, message",
    [("_class_name='FieldUNet'", "no prior"), ("breaks=true", "no longer read"),
     ("window=2", "unknown argument 'window'")],
    ids=["class", "breaks", "argument"],
)  # fmt: skip
def test_a_network_that_cannot_be_is_one_line(trained, tmp_path, net, message):
    config, bundle = trained.parents[1] / "prior.toml", f"bundle={json.dumps(str(trained))}"
    with pytest.raises(SettingError, match=message) as caught:
        train("prior", config, tmp_path / "run", overrides=[f"net.{net}", bundle], device="cpu")
    assert "\n" not in str(caught.value)


def test_a_window_of_many_pieces_of_one_cell():
    piece = Piece(0, np.ones((1, 1, 2), np.float16), np.zeros((1, 1), np.int8))
    cells, state, joints = placed([(piece, row, col) for row in range(12) for col in range(12)], 12)
    assert cells.all() and not state.any()
    assert joints[0, :, 1:].all() and joints[1, 1:].all() and not joints[0, :, 0].any() and not joints[1, 0].any()


def test_two_sources_share_a_window():
    pieces = [Piece(0, np.full((2, 2, 2), value, np.float16), np.zeros((2, 2), np.int8)) for value in (1, 2)]
    one, two = ([(piece, row, col) for row in (0, 2) for col in (0, 2)] for piece in pieces)
    for seed in range(8):
        (cells, _, joints), other = shared(placed(one, 4), placed(two, 4), np.random.default_rng(seed))
        border = other[:, 1:] != other[:, :-1]  # its place is told by the conditions: it is no joint
        assert not joints[0, :, 1:][border].any() and joints[0, :, 2][~border[:, 1]].all() and not joints[0, :, 1].any()
        assert 0 < other.sum() < 16 and (cells[other] == 2).all() and (cells[~other] == 1).all()


def shaken_prior() -> GridPrior:
    torch.manual_seed(0)
    net = GridPrior(6, 3, width=16, blocks=2, hidden=8).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return net


def shaken_unet() -> GridUNet:
    torch.manual_seed(0)
    net = GridUNet(6, 4, 4, 3, widths=(8, 16), down_blocks=(1, 1), up_blocks=(0,), hidden=8).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
        net.set_layout(torch.linalg.qr(torch.randn(48, 4)).Q.T)
    return net


@pytest.mark.parametrize("build", [shaken_prior, shaken_unet])
def test_pieces_of_a_grid_equal_the_whole_and_a_grid_grows_in_place(build):
    net, rng = build(), np.random.default_rng(0)
    condition = rng.standard_normal((3, 40, 50)).astype(np.float32)
    condition[:, :, 20:30] = np.nan
    how = PriorSampling(steps=3, guidance=2.0)
    whole, cut = sample_prior(net, condition, how, 5), sample_prior(net, condition, how, 5, call_cells=300)
    assert np.allclose(whole.embedding, cut.embedding, atol=0.02 * whole.embedding.std())
    smaller = sample_prior(net, condition[:, :30, :30], how, 5)
    inside = np.s_[:10, :10]  # out of reach of the new edge: 3 steps of 3 cells
    assert np.allclose(whole.embedding[inside], smaller.embedding[inside], atol=0.02 * whole.embedding.std())


def test_a_window_of_its_own_equals_a_canvas_that_ends_there():
    net = shaken_prior()
    x, t, condition = torch.randn(1, 7, 9, 9), torch.tensor([0.4]), torch.randn(1, 3, 9, 9)
    inside = torch.zeros(1, 1, 9, 9)
    inside[..., 2:5, 3:7] = 1
    masked = net(x, t, condition, inside)[..., 2:5, 3:7]
    alone = net(x[..., 2:5, 3:7], t, condition[..., 2:5, 3:7])
    assert torch.allclose(masked, alone, atol=1e-5)


def test_a_unet_of_cells_sees_their_layout_parts_as_one_image():
    """A basis vector comes out as its own image, beside it true to the encoder; and what it gives is in components."""
    net = shaken_unet()
    weight = torch.linalg.qr(torch.randn(48, 4)).Q.T * torch.tensor([[4.0], [2.0], [1.0], [0.5]])
    net.scale[2:6] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    net.set_layout(weight)
    layout = torch.randn(1, 4, 2, 3)
    both = net._image(torch.cat([layout, layout * net.layout_gain[:, None, None]]))
    white, true = (nn.functional.pixel_shuffle(part, 2) for part in both.chunk(2, 1))
    assert white.shape == true.shape == (1, 3, 8, 12)
    pinv = torch.linalg.pinv(weight)
    wanted = pinv @ (layout[0, :, 1, 2] / net.scale[2:6])
    cell = true[0, :, 4:8, 8:12].flatten()
    assert torch.allclose(cell / cell.norm(), wanted / wanted.norm(), atol=1e-5)
    back = net._components(nn.functional.pixel_unshuffle(white, 2))
    assert torch.allclose(back, layout, atol=1e-5)


def test_a_unet_of_cells_is_told_where_pieces_meet():
    net = shaken_unet()
    joints = torch.zeros(1, 2, 2, 3)
    joints[0, 0, 1, 2] = joints[0, 1, 1, 0] = 1  # left of a cell, and above another
    seams = net._seams(joints, torch.zeros(1, 1, 4, 6))[0, 0]
    assert seams.tolist() == [[0] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0]]
    x, t = torch.randn(1, 7, 2, 3), torch.tensor([0.5])
    assert torch.equal(net(x, t, None), net(x, t, None, None, 0 * joints))
    assert not torch.allclose(net(x, t, None), net(x, t, None, None, joints), atol=1e-3)


@pytest.mark.parametrize("wrong", [{"layout_dim": 6}, {"layout_px": 3}, {"up_blocks": (1, 1)}])
def test_a_unet_of_cells_that_cannot_be_is_refused(wrong):
    config = {"_class_name": "GridUNet", "dim": 6, "layout_dim": 4, "layout_px": 4, "condition_dim": 3,
              "widths": (8, 16), "down_blocks": (1, 1), "up_blocks": (1,)}  # fmt: skip
    build_component(config)
    with pytest.raises(FormatError, match="GridUNet"):
        build_component(config | wrong)


def test_grids_and_images_become_the_same_kind_of_piece(trained):
    folder = trained.parents[1]
    rows = read_table(folder / "table.csv")
    pieces, seen = pieces_of(rows, ModelBundle.load(trained), 2, 0, folder / "run" / "prior" / "cache", print)
    assert [sum(piece.row == number for piece in pieces) for number in range(9)] == [2] * 8 + [1]
    grid = pieces[-1]
    whole = EmbeddingGrid.open(folder / "grid.zarr").read().embedding
    assert np.array_equal(grid.cells, whole[0:4, 1:5]) and (grid.state == 1).all()
    assert {facts.resolution.value for facts in seen} == {0.15}


def test_a_grid_of_another_encoder_is_refused(trained, tmp_path):
    other = encoder_bundle(tmp_path / "other", seed=1)
    Image.new("RGB", (128, 128), (9, 99, 9)).save(tmp_path / "x.png")
    embed([tmp_path / "x.png"], EmbedSettings(out=tmp_path / "x.zarr", model=str(other), gsd=0.15))
    (tmp_path / "t.csv").write_text("path,label\nx.zarr,green\n")
    with pytest.raises(FormatError, match="another encoder"):
        pieces_of(read_table(tmp_path / "t.csv"), ModelBundle.load(trained), 1, 0, tmp_path / "cache", print)


def test_a_broken_table_names_its_line(tmp_path):
    table = tmp_path / "t.csv"
    for text, message in (("label\nx\n", "no column 'path'"), ("path,colour\na,b\n", "unknown column 'colour'"),
                          ("path,vector\na,1 x\n", "line 2"), ("path\n", "no rows"),
                          ("path,vector\na,1 2\nb,1\n", "different lengths")):  # fmt: skip
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            read_table(table)


@pytest.mark.parametrize("net, wanted", [("", "GridUNet"), ("[net]\nwidth = 16\nblocks = 1", "GridPrior")])
def test_vectors_with_a_layout_part_get_a_network_that_sees_inside_the_cells(tmp_path, net, wanted):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (9 * 64, 12 * 64, 3), np.uint8)).save(tmp_path / "a.png")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "mpp"], ["a.png", "noise", "0.499"]])
    run_lines = "[run]\nsteps = 2\nbatch = 2\nlr = 1e-3\n"
    (tmp_path / "prior.toml").write_text(f'table = "table.csv"\ntext_encoder = "none"\nturns = 4\n{net}\n{run_lines}')
    train("prior", tmp_path / "prior.toml", tmp_path / "run", device="cpu", overrides=["bundle=tiny"])
    made = json.loads((tmp_path / "run/bundle/prior/config.json").read_text())
    assert made["_class_name"] == wanted
