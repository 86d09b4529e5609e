"""Configurations of `train` that are wrong say in one line what is wrong and what would do."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest

from ssl_tilegen.config.train import load_stage_settings
from ssl_tilegen.errors import InputError, OutputError, SettingError, TilegenError
from ssl_tilegen.training.data.corpus import load_corpus
from ssl_tilegen.workflows.train import train
from tests.training import runs


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return runs.write_config(tmp_path, "autoencoder")


def test_no_text_encoder_is_none(tmp_path: Path) -> None:
    config = runs.write_config(tmp_path, "prior", 'table = "t.csv"\n', data="")
    for value in ("none", "'None'"):
        assert load_stage_settings("prior", config, [f"text_encoder={value}"]).text_encoder is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.stepz=4", "unknown key 'run.stepz'; do you mean 'run.steps'"),
        ("data.sources.0.path='x'", "unknown key 'data.sources.0.path'; do you mean 'data.sources.0.paths'"),
        ("tile_px=64", "unknown key 'tile_px'; known are backbone, backbone_stages, "),
        ("data.wieght=1", "unknown key 'data.wieght'; known are brightness, flat_keep, "),
        ("run.steps=abc", "'run.steps': Input should be a valid integer"),
        ("run.steps.x=1", "--set run.steps.x: no such key"),
        ("data.sources.3.mpp=1", "--set data.sources.3.mpp: no such key; items of a list are numbered from 0"),
        ("data.sources.a=1", "--set data.sources.a: no such key"),
        ("runsteps", "expected key=value"),
    ],
)
def test_a_wrong_override_is_one_line(config: Path, override: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_stage_settings("autoencoder", config, [override])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_items_of_a_list_are_told_by_number(config: Path) -> None:
    settings = load_stage_settings("autoencoder", config, ["data.sources.0.mpp=0.25", "run.steps=9"])
    assert settings.data.sources[0].mpp == 0.25 and settings.run.steps == 9


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("critic_weight", "discriminator_weight", 0.5),
        ("critic_from", "discriminator_from", 7),
        ("critic_width", "discriminator_width", 9),
        ("run.horizon", "run.ema_width", 0.2),
    ],
)
def test_renamed_keys_are_read_under_their_old_names(config: Path, old: str, new: str, value: float) -> None:
    def read(*overrides: str) -> object:
        return attrgetter(new)(load_stage_settings("autoencoder", config, overrides))

    key = old.split(".")[-1]
    start = config.read_text()
    config.write_text(start.replace("[run]\n", f"[run]\n{key} = {value}\n") if "." in old else
                      f"{key} = {value}\n{start}")  # fmt: skip
    assert read() == value and read(f"{old}=0.1" if value < 1 else f"{old}=3") == (0.1 if value < 1 else 3)
    config.write_text(config.read_text().replace(key, f"{new.split('.')[-1]} = 1\n{key}", 1))
    with pytest.raises(SettingError, match=f"'{old}' is the old name of '{new}'"):
        read()


def test_a_missing_key_is_named_without_the_rest_of_the_file(config: Path) -> None:
    config.write_text(runs.RUN)
    with pytest.raises(SettingError) as caught:
        load_stage_settings("prior", config)
    assert str(caught.value) == f"{config}: 'table' is missing; add it, or give --set table=VALUE"


@pytest.mark.parametrize(("text", "kind"), [(b"\xff\xfe\x00", SettingError), (b"steps = ", SettingError)])
def test_a_file_that_is_no_toml(config: Path, text: bytes, kind: type[TilegenError]) -> None:
    config.write_bytes(text)
    with pytest.raises(kind, match="not valid TOML"):
        load_stage_settings("autoencoder", config)


def test_a_byte_order_mark_is_no_fault(config: Path) -> None:
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    assert load_stage_settings("autoencoder", config).run.steps == 4


def test_sources_that_match_nothing(config: Path) -> None:
    with pytest.raises(InputError, match=r"none\*\.png"):
        load_corpus(load_stage_settings("autoencoder", config, ["data.sources.0.paths=['none*.png']"]).data)
    with pytest.raises(InputError, match=r"data\.sources is empty"):
        load_corpus(load_stage_settings("autoencoder", config, ["data.sources=[]"]).data)


def test_a_run_folder_that_cannot_be_made(config: Path, tmp_path: Path) -> None:
    runs.draw_images(tmp_path, 1)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written .* choose another --out"):
        train("autoencoder", config, tmp_path / "file" / "run", device="cpu")
