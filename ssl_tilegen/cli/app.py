"""The command line: parse, one call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from ssl_tilegen.cli import images as images  # registers its commands
from ssl_tilegen.cli.command import app
from ssl_tilegen.cli.grid import grid
from ssl_tilegen.cli.models import models
from ssl_tilegen.cli.train import training
from ssl_tilegen.system.boundary import explain, hold_standard_files, make_safe, silence, write_line

app.add_typer(models, name="models")
app.add_typer(grid, name="grid")
app.add_typer(training, name="train")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ssl-tilegen` and `python -m ssl_tilegen`; ends the process with the command's exit code."""
    hold_standard_files()
    make_safe(sys.stdout)
    make_safe(sys.stderr)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # of zarr, beside its error
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="ssl-tilegen")
    except OSError as error:  # while a help text is written; commands report their own
        silence(sys.stdout)
        write_line(f"error: stdout: {explain(error)[0]}", sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
