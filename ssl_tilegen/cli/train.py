"""The commands `train STAGE` and `train init`."""

from __future__ import annotations

import inspect
import json
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from ssl_tilegen.cli.command import MEASURE, PLAIN, Body, Overwrite, command
from ssl_tilegen.cli.console import Console
from ssl_tilegen.config.describe import brief, full
from ssl_tilegen.config.train import STAGES
from ssl_tilegen.config.train.common import LOCAL
from ssl_tilegen.errors import Interrupted, SettingError
from ssl_tilegen.geometry import Resolution
from ssl_tilegen.system.boundary import printable
from ssl_tilegen.system.launch import distributed_environment
from ssl_tilegen.system.signals import check_stop, stop_requested

training = typer.Typer(help="Train one part of a bundle on your images; a stopped run continues.", **PLAIN)

Training = Annotated[Path, typer.Option("--config", metavar="FILE", help="TOML file of the stage. [required]")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file. Such as run.steps=2000."),
]
RunFolder = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Folder of the run. [`run` beside the file]", show_default=False),
]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:I. [auto]", show_default=False)
]
Restart = Annotated[bool, typer.Option("--restart", help="Start over, and replace what the bundle has of this stage.")]


def _stage_command(stage: str, body: Body) -> None:
    """Make ``body`` the command ``train STAGE``, whose help lists the keys of its TOML file."""
    kind = STAGES[stage].settings

    def explain(wanted: bool) -> None:
        if wanted:
            print(full(kind))
            raise typer.Exit

    option = typer.Option("--help-config", help="Explain every key of the TOML file.", is_eager=True, callback=explain)
    body.__annotations__["help_config"] = Annotated[bool, option]
    body.__name__ = stage
    heading = "Keys of the TOML file with their defaults, as --set takes them (--help-config explains each):"
    example = f"Examples:\n    ssl-tilegen train {stage} --config {stage}.toml --set run.steps=2000"
    body.__doc__ = "\n\n".join([inspect.getdoc(kind) or "", heading, *brief(kind), example])
    command(group=training)(body)


def _trainer(stage: str) -> Body:
    def body(
        console: Console, config: Training, set_: Overrides = None, out: RunFolder = None, device: Device = "auto",
        restart: Restart = False, help_config: bool = False,
    ) -> tuple[Any, str]:  # fmt: skip
        return _train(console, stage, config, out, overrides=set_ or [], device=device, restart=restart)

    return body


def _train_encoder(
    console: Console,
    config: Training,
    set_: Overrides = None,
    out: RunFolder = None,
    device: Device = "auto",
    restart: Restart = False,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="Take a pretrained encoder as it is.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights of --encoder from the disk.")
    ] = None,
    help_config: bool = False,
) -> tuple[Any, str]:
    if encoder and encoder.startswith(LOCAL):  # from here on, not from the file's folder
        encoder = f"{LOCAL}{Path(encoder.removeprefix(LOCAL)).resolve()}"
    given = {"pretrained": encoder, "weights": weights and weights.resolve()}
    overrides = [
        *(set_ or []),
        *(f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in given.items() if value),
    ]
    return _train(console, "encoder", config, out, overrides=overrides, device=device, restart=restart)


def _train(console: Console, stage: str, config: Path, out: Path | None, **options: Any) -> tuple[Any, str]:
    console.hush(distributed_environment().rank > 0)
    console.loading("PyTorch and the images")
    from ssl_tilegen.workflows.train import train as work

    report = work(stage, config, out or config.parent / "run", report=console.facts, stop=stop_requested, **options)
    check_stop()
    if report["stopped"]:
        raise Interrupted("another process of this run was interrupted: the same command continues", signal.SIGTERM)
    return report, printable(f"{report['bundle']}: {stage} trained; the log is in {report['run']}")


for _stage in STAGES:
    _stage_command(_stage, _train_encoder if _stage == "encoder" else _trainer(_stage))


@command(group=training)
def init(
    console: Console,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help=f"{', '.join(STAGES)}.")],
    from_: Annotated[
        str, typer.Option("--from", metavar="BUNDLE", help="Bundle: a built-in name or a folder. [required]")
    ],
    images: Annotated[
        Path,
        typer.Option(
            "--images", metavar="DIR", help="Folder of images. For a prior: one sub-folder per class. [required]"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The TOML file. [required]")],
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", help="Micrometres per pixel of images that state none.", **MEASURE),
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option("--gsd", help="Metres per pixel of images that state none.", **MEASURE),
    ] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Write a commented TOML file for a stage, with the network, windows and resolutions of a bundle.

    Examples:
        ssl-tilegen train init painter --from tiny --images slides/ -o painter.toml
    """
    from ssl_tilegen.workflows.train_paths import write_config

    if mpp and gsd:
        raise SettingError("give --mpp or --gsd, not both")
    said = Resolution.stated(mpp or None, gsd or None)
    written = write_config(stage, from_, images, out, said, overwrite=overwrite)
    return {"files": written}, printable(f"{out}: written; next: ssl-tilegen train {stage} --config {out}")
