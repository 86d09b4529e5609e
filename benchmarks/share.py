"""How much of the wall clock of `generate` is network and decoder.

Run with `python -m benchmarks.share --grid EMB.zarr --out FOLDER`; more words go to `generate`.

The bundle's own `predict` and `decode` are timed while the command runs in this process; what is left is start-up,
conditions, noise, updates, saved states, pyramid and file. One JSON line per size: ``share`` of all seconds from the
parsed command to the report, and of the seconds of painting and developing alone (``share_of_making``). With
``--profile`` the 25 dearest functions of the rest are printed too, which costs some time itself.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import json
import pstats
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.cli import main as command

_CALLS = ("predict", "decode")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--suffix", default=".ome.tif")
    parser.add_argument("--profile", action="store_true")
    options, extra = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    spent: dict[str, float] = defaultdict(float)
    for name in _CALLS:
        setattr(ModelBundle, name, timed(getattr(ModelBundle, name), spent, name))
    for size in options.sizes:
        spent.clear()
        profile = cProfile.Profile() if options.profile else contextlib.nullcontext()
        with profile:
            report = ran(["generate", "--grid", str(options.grid), "--size", str(size), "--overwrite", "--restart",
                          "-o", str(options.out / f"{size}{options.suffix}"), "--json", *extra])  # fmt: skip
        inside = sum(spent.values())
        print(json.dumps({"size": size, **{f"{name}_s": round(spent[name], 2) for name in _CALLS},
                          **{key: report[key] for key in ("paint_s", "develop_s", "seconds")},
                          "share": round(inside / report["seconds"], 3),
                          "share_of_making": round(inside / (report["paint_s"] + report["develop_s"]), 3)}),
              flush=True)  # fmt: skip
        if isinstance(profile, cProfile.Profile):
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def timed(call: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """``call``, its seconds added to ``spent``; waits for the device."""

    def wrapped(self: ModelBundle, *args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = call(self, *args, **options)
        if result.is_cuda:
            result.sum().item()
        spent[name] += time.perf_counter() - started
        return result

    return wrapped


def ran(words: list[str]) -> dict[str, Any]:
    """The report of a command run in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        command(words)
    return json.loads(said.getvalue().splitlines()[-1])


if __name__ == "__main__":
    main()
