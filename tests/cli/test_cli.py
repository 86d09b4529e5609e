"""The command line as its users meet it: options, outputs, exit codes, signals, start-up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_tilegen import __version__
from ssl_tilegen.cli import main
from ssl_tilegen.config import EmbedSettings, EvaluateSettings, GenerateSettings, load_settings
from ssl_tilegen.errors import SettingError
from ssl_tilegen.geometry import Size, Window
from ssl_tilegen.grids import is_complete, unfinished_grid
from tests import processes
from tests.bundles import encoder_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (130, 200, 3), np.uint8)).save(path)
    return path


def code_of(*arguments: object) -> int:
    """The exit code of a command run in this process."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['ssl-tilegen', 'embed', '--help']\n"
        "try: runpy.run_module('ssl_tilegen', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'timm', 'zarr', 'numpy', 'rasterio', 'openslide'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_embed_and_generate_load_nothing_that_they_do_not_need(tmp_path: Path) -> None:
    """Of an image that is no stained slide, with the built-in bundle, from a grid that covers all of its image."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)).save(tmp_path / "a.png")
    program = (
        "import sys, runpy\n"
        "for words in ('embed a.png --gsd 0.1', 'generate --grid a.zarr --steps 1 -o b.png'):\n"
        "    sys.argv = ['ssl-tilegen', *words.split()]\n"
        "    try: runpy.run_module('ssl_tilegen', run_name='__main__')\n"
        "    except SystemExit as end: assert not end.code\n"
        "    heavy = {'timm', 'diffusers', 'transformers', 'accelerate', 'torchvision', 'torch._dynamo', 'scipy',"
        " 'skimage', 'rasterio', 'huggingface_hub', 'sympy'} & set(sys.modules)\n"
        "    assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "b.png").is_file()


@pytest.mark.parametrize(
    "command", ["", "embed", "generate", "augment", "evaluate", "train", "models", "models list", "models info"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*command.split(), "--help") == 0
    assert "Usage: ssl-tilegen" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--version") == 0
    assert capsys.readouterr().out == f"ssl-tilegen {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    ["nonsense", "embed", "embed a --nonsense", "embed a --stride many", "embed a --stride -3", "embed a --shard 4/4",
     "embed a --mpp 1 --gsd 1", "embed a --pooling best", "generate", "generate --grid g --size big",
     "generate --grid g --fit maybe",
     "generate --grid g --update fast", "generate --grid g --region 1,2,3", "train sculptor --config a.toml"],
)  # fmt: skip
def test_wrong_usage_is_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*arguments.split()) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_embed_prints_one_summary(image: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("embed", image, "--gsd", 0.15, "--model", bundle, "--json") == 0
    out, err = capsys.readouterr()
    (report,) = json.loads(out)
    assert report["status"] == "done" and report["cells"] == 3 * 4 and report["counts"]["ok"] == 3 * 4
    assert out.count("\n") == 1 and "embed a.png" in err
    assert is_complete(image.with_suffix(".zarr"))


def test_errors_are_one_line(image: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("embed", image, "--model", bundle) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and "--mpp" in err and err.count("\n") == 1
    assert code_of("embed", image, "--model", bundle, "--json", "--log-format", "json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 1 and json.loads(err)["event"] == "error"
    assert code_of("embed", image, "--model", bundle, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_some_failed_is_3_and_lists_them(image: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = image.with_name("bad.svs")
    bad.write_text("x")
    assert code_of("embed", image, bad, "--gsd", 0.15, "--model", bundle, "--json") == 3
    out, err = capsys.readouterr()
    assert [report["status"] for report in json.loads(out)["reports"]] == ["done", "failed"]
    assert "bad.svs" in err and err.splitlines()[-1].startswith("error: 1 of 2 inputs failed")


def test_a_configuration_file_and_options_over_it(
    image: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'model = "{bundle}"\ngsd = 0.3\nstride = 16\n')
    assert code_of("embed", image, "--config", config, "--stride", 32, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["cells"] == 4 * 6
    for text, message in (("strides = 3", "unknown key 'strides'"), ("stride = ", "not valid TOML"), ("stride=0", "0")):
        config.write_text(text)
        assert code_of("embed", image, "--config", config) == 1
        assert message in capsys.readouterr().err
    assert code_of("embed", image, "--config", tmp_path / "none.toml") == 1


def test_models_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("models", "list") == 0
    assert "uni2-h" in capsys.readouterr().out
    assert code_of("models", "list", "--json") == 0
    assert {"uni", "virchow2", "dinov3-sat"} <= {e["name"] for e in json.loads(capsys.readouterr().out)["encoders"]}


def test_models_info(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("models", "info", bundle) == 0
    assert "stub" in capsys.readouterr().out
    assert code_of("models", "info", bundle, "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoder"]["id"] == "stub-0"
    assert code_of("models", "info", "/no/such") == 1


def test_values_are_parsed_alike_from_options_and_files() -> None:
    options = load_settings(GenerateSettings, None, {"grid": "g", "size": "4096x2048", "region": "1,2,30,40"})
    assert options.size == Size(2048, 4096) and options.region == Window(2, 1, 40, 30)
    assert load_settings(GenerateSettings, None, {"grid": "g", "size": 512}).size == Size(512, 512)
    listed = load_settings(EmbedSettings, None, {"bands": [3, 2, 1], "scale": [0, 4000], "shard": "1/4"})
    assert (listed.bands, listed.scale, listed.shard) == ((3, 2, 1), (0.0, 4000.0), (1, 4))
    assert load_settings(EmbedSettings, None, {"shard": [1, 4]}).shard == (1, 4)
    named = load_settings(EvaluateSettings, None, {"task": "t", "encoder": [" texture", ""], "metrics": "fd, kid"})
    assert (named.encoder, named.metrics) == (("texture",), ("fd", "kid"))


@pytest.mark.parametrize("shard", ["4/4", "0/0", "-1/4", "1", [4, 4], [0, 0], [-1, 4], [1], [0, 4, 1], ["a", "b"], 3])
def test_a_shard_that_is_none_is_refused_in_every_form(shard: object) -> None:
    with pytest.raises(SettingError, match=r"^--shard .*: expected I/N with I from 0 to N - 1"):
        load_settings(EmbedSettings, None, {"shard": shard})


@pytest.mark.parametrize("option", ["encoder", "task_models", "metrics"])
@pytest.mark.parametrize("names", ["", " , ", [], [""]])
def test_a_list_of_no_names_is_refused(option: str, names: object) -> None:
    with pytest.raises(SettingError, match=f"^--{option.replace('_', '-')}.* is empty; give one or more names"):
        load_settings(EvaluateSettings, None, {"task": "t", option: names})


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_terminated_run_says_so_and_is_continued(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (640, 640, 3), np.uint8)).save(tmp_path / "a.png")
    words = ["embed", str(tmp_path / "a.png"), "--gsd", "0.15", "--stride", "16", "--model", str(bundle)]
    heard = tmp_path / "heard.log"
    process = processes.command(heard, words)
    processes.wait_until(lambda: heard.exists() and "\n" in heard.read_text(), process, heard)  # the first progress
    os.kill(process.pid, signal.SIGTERM)
    process.join(300)
    said = heard.read_text()
    assert process.exitcode == 143 and "SIGTERM" in said and "Traceback" not in said
    assert unfinished_grid(tmp_path / "a.zarr").exists()
    assert code_of(*words) == 0 and is_complete(tmp_path / "a.zarr")
