"""The folder of a training run: who may take it away when something fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_tilegen.system.atomic import temporary_beside
from ssl_tilegen.system.locks import Busy, lock
from ssl_tilegen.workflows.train_paths import clear_run, locked_run, tidied
from tests.system.test_atomic import litter


def _begin(run: Path) -> None:
    run.mkdir(parents=True)
    (run / "settings.json").write_text("{}")


def test_a_run_that_fails_at_its_start_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    with pytest.raises(OSError, match="no data"), tidied(out), locked_run(out / "encoder", out / "bundle"):
        _begin(out / "encoder")
        raise OSError("no data")
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_refused_leaves_the_run_that_has_begun_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "first"
    with pytest.raises(Busy), tidied(out), lock(out / "encoder"):
        _begin(out / "encoder")
        with locked_run(out / "encoder", out / "bundle"):
            pytest.fail("the lock was free")
    assert [path.name for path in (out / "encoder").iterdir()] == ["settings.json"]


@pytest.mark.parametrize("name", ["log.jsonl", "notes.txt"])
def test_a_run_that_has_begun_in_earnest_keeps_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), tidied(tmp_path), locked_run(tmp_path / "encoder", tmp_path / "bundle"):
        _begin(tmp_path / "encoder")
        (tmp_path / "encoder" / name).touch()
        raise OSError("disk")
    assert (tmp_path / "encoder" / name).exists()


def test_what_killed_runs_left_in_a_run_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run, kept = tmp_path / "denoiser", []
    for folder in (run, run / "snapshots", run / "cache", run / "cache" / "latents-0123456789ab"):
        folder.mkdir(parents=True)
        kept += [temporary_beside(folder / "000000.npz"), folder / "mine.tmp", folder / ".mine.npz"]
        litter(folder, "000000.npz")
    (run / "mine").mkdir()
    litter(run / "mine", "a.png")
    kept += [*(run / "mine").iterdir(), *run.rglob("*.old.npz")]  # put aside, and nothing has taken its place
    for path in kept:
        path.touch()
    with locked_run(run, tmp_path / "bundle"):
        assert sorted(path for path in run.rglob("*") if path.is_file()) == sorted(kept)


def test_a_run_behind_a_link_starts_over_in_the_folder_that_the_link_names(tmp_path: Path) -> None:
    _begin(tmp_path / "disk" / "run")
    (tmp_path / "disk" / "run" / "settings.json").write_text('{"run": {"steps": 1}}')
    (tmp_path / "disk" / "run" / "log.jsonl").touch()
    (tmp_path / "encoder").symlink_to("disk/run")
    clear_run(tmp_path / "encoder")
    assert (tmp_path / "encoder").is_symlink() and not list((tmp_path / "disk" / "run").iterdir())


def test_a_lock_outlives_a_folder_that_is_taken_away_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, mkdir = [], Path.mkdir

    def then_gone(self: Path, *args: object, **more: object) -> None:
        mkdir(self, *args, **more)  # type: ignore[arg-type]
        made.append(self)
        if len(made) < 3:
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", then_gone)
    with lock(tmp_path / "out" / "encoder"):
        assert (tmp_path / "out" / "encoder.lock").exists()
