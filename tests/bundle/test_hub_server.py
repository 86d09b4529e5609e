"""`models push`, `pull`, `import` and `--model hf-hub:` in a shell, against a hub that answers over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ssl_tilegen.bundle import ModelBundle, update_info
from tests.bundle.fake_hub import FakeHub, Repository
from tests.bundle.importers.sources import lid_folder, pixcell_folder
from tests.bundle.importers.states import PixCell
from tests.bundle.shell import Shell
from tests.bundles import painting_bundle


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = painting_bundle(tmp_path_factory.mktemp("b") / "bundle")
    update_info(folder, licence="CC-BY-4.0", datasets=["lab/slides"], scores={"psnr_db": 30.5})
    (folder / "denoiser" / "notes.txt.part").write_text("not finished")
    return folder


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        yield running


def files_of(repository: Repository, branch: str = "main") -> dict[str, bytes]:
    return repository.commits[repository.branches[branch]]


def test_pushed_pulled_and_used_without_the_hub(painting: Path, tmp_path: Path) -> None:
    with FakeHub().running() as hub:
        shell = Shell(tmp_path / "home", hub.url)
        shell("models", "push", painting, "hf-hub:lab/painter")
        files, repository = files_of(hub.repositories["lab/painter"]), hub.repositories["lab/painter"]
        assert repository.messages == ["initial commit", "Upload bundle"]  # one commit: nobody fetches half a bundle
        assert not any(name.endswith(".part") for name in files)
        head = yaml.safe_load(files["README.md"].decode().split("---")[1])
        assert (head["license"], head["library_name"], head["datasets"]) == ("cc-by-4.0", "ssl-tilegen", ["lab/slides"])
        assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 30.5
        first = repository.branches["main"]
        second = repository.commit({**files, "bundle.json": files["bundle.json"].replace(b'"stub"', b'"second"')})
        assert second in shell("models", "pull", "hf-hub:lab/painter")
        assert first in shell("models", "pull", f"hf-hub:lab/painter@{first}")
        assert "no revision v9" in shell("models", "pull", "hf-hub:lab/painter@v9", ok=False)
        assert "no such model" in shell("models", "pull", "hf-hub:lab/other", ok=False)
        before = len(hub.log)
        assert '"second"' in shell("models", "info", "hf-hub:lab/painter", "--json")
        assert len(hub.log) == before  # what is cached needs no request
    grid, image = tmp_path / "g.zarr", Path(__file__).parents[2] / "examples" / "sample" / "tissue.ome.tif"
    shell("embed", image, "--model", "hf-hub:lab/painter", "-o", grid, "--mpp", "0.5")  # the server is gone
    assert grid.is_dir()
    assert '"stub"' in shell("models", "info", f"hf-hub:lab/painter@{first}", "--json")
    said = shell("models", "pull", "hf-hub:lab/painter@other", ok=False)
    assert "no network" in said and len(said.strip().splitlines()) == 1


def test_a_second_push_removes_what_a_component_no_longer_has(painting: Path, hub: FakeHub, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "home", hub.url)
    repository = hub.repositories["lab/painter"] = Repository()
    index = "denoiser/diffusion_pytorch_model.safetensors.index.json"
    repository.commit({index: b"{}", "figure.png": b"mine", ".gitattributes": b""})
    shell("models", "push", painting, "hf-hub:lab/painter@v2")
    files = files_of(repository, "v2")
    assert index not in files and files["figure.png"] == b"mine" and index in files_of(repository)
    for name in ("bundle.json", "denoiser/config.json", "denoiser/diffusion_pytorch_model.safetensors"):
        assert name in files
    weights = (painting / "denoiser" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert files["denoiser/diffusion_pytorch_model.safetensors"] == weights


def test_pushing_without_the_right_to_is_one_line(painting: Path, hub: FakeHub, tmp_path: Path) -> None:
    said = Shell(tmp_path / "home", hub.url, token="hf_other")("models", "push", painting, "hf-hub:lab/x", ok=False)
    assert "hf auth login" in said and len(said.strip().splitlines()) == 1 and not hub.repositories


def uploaded(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}  # fmt: skip


def test_published_models_are_imported_straight_from_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    """A repository that is the model, its autoencoder from a folder of another, and a model in a folder of one."""
    model, _ = pixcell_folder(tmp_path / "PixCell", PixCell(1))
    own = uploaded(model)
    vae = {name: own.pop(name) for name in list(own) if name.startswith("vae/") and name.endswith(".safetensors")}
    hub.repositories["lab/PixCell-256"] = Repository()
    commit = hub.repositories["lab/PixCell-256"].commit(own)
    hub.repositories["maker/sd"] = Repository()
    hub.repositories["maker/sd"].commit(
        vae | {"vae/config.json": own["vae/config.json"], "text/model.safetensors": b"x"}
    )
    hub.repositories["lab/many"] = Repository()
    hub.repositories["lab/many"].commit(uploaded(lid_folder(tmp_path / "LID"), "crc/"))
    shell = Shell(tmp_path / "home", hub.url)
    words = ("models", "import", f"hf-hub:lab/PixCell-256@{commit}", "--vae", "hf-hub:maker/sd/vae", "-o")
    assert "PixCell" in shell(*words, tmp_path / "pixcell")
    assert ModelBundle(tmp_path / "pixcell").info.encoder.id == "uni2-h"
    assert not any("text/model" in line for line in hub.log)
    assert "Large-Image-Diffusion" in shell("models", "import", "hf-hub:lab/many/crc", "-o", tmp_path / "crc")
    said = shell("models", "import", "hf-hub:lab/many/brca", "-o", tmp_path / "x", ok=False)
    assert "has no folder brca" in said and len(said.strip().splitlines()) == 1
