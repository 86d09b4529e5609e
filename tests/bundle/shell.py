"""A user's shell whose commands find the hub by its environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ssl_tilegen.cli import main
from tests.bundle.fake_hub import FakeHub
from tests.processes import forked

_numbers = count()


@dataclass
class Shell:
    """A user's shell: ``home`` holds the cache of huggingface_hub; every command is a process of its own."""

    home: Path
    url: str
    token: str = FakeHub.TOKEN

    def __call__(self, *words: object, ok: bool = True) -> str:
        """What a command says, on stdout or, where it fails, on stderr."""
        own = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HUB_DISABLE_XET": "1",
               "HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_OFFLINE": "0"}  # fmt: skip
        self.home.mkdir(exist_ok=True)
        said = self.home / f"{next(_numbers)}.err"
        process = forked(said, _run, said.with_suffix(".out"), [str(word) for word in words], **own)
        process.join(300)
        assert process.exitcode is not None and (process.exitcode == 0) == ok, said.read_text()
        return (said.with_suffix(".out") if ok else said).read_text()


def _run(out: Path, words: list[str]) -> None:
    """A command with its stdout in the file ``out``; huggingface_hub reads the environment when it is imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]
    with out.open("w") as file:
        os.dup2(file.fileno(), 1)
    main(words)
