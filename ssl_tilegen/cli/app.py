"""The command line: parse, one call, print. Options are made from the settings of `ssl_tilegen.config`.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ssl_tilegen import __version__
from ssl_tilegen.cli.console import Console, plain
from ssl_tilegen.cli.help import HelpCommand, HelpGroup, show_all
from ssl_tilegen.cli.tables import facts_table
from ssl_tilegen.config import (
    AugmentSettings,
    EmbedSettings,
    EvaluateSettings,
    GenerateSettings,
    Settings,
    load_settings,
)
from ssl_tilegen.config.options import ADVANCED, MAX_GIB_MEANING, MAX_GPX_MEANING
from ssl_tilegen.errors import SettingError
from ssl_tilegen.system.boundary import (
    explain,
    hold_standard_files,
    make_safe,
    printable,
    silence,
    write_line,
)
from ssl_tilegen.system.budget import MAX_GPX, limits
from ssl_tilegen.system.launch import distributed_environment
from ssl_tilegen.system.signals import catching_signals

HELP = "Embed slides and aerial images into grids of vectors, and paint images of any size from such grids."
EPILOG = "Exit codes: 0 done, 1 an error you can mend, 2 wrong usage, 3 some inputs failed, 130/143 interrupted."

PLAIN: dict[str, Any] = {
    "add_completion": False, "pretty_exceptions_enable": False, "no_args_is_help": True, "cls": HelpGroup
}  # fmt: skip
app = typer.Typer(help=HELP, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}, **PLAIN)
models = typer.Typer(help="Bundles of models: list, describe, import, fetch and upload them.", **PLAIN)
app.add_typer(models, name="models")
grid = typer.Typer(help="Grids of embeddings: facts, previews, exchange with other tools.", **PLAIN)
app.add_typer(grid, name="grid")


def finite(value: float | None) -> float | None:
    """The value of an option; BadParameter where it is infinite or no number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


MEASURE: dict[str, Any] = {"metavar": "X", "callback": finite}
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with these options. Options given here win.",
        rich_help_panel="Common",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON summary on stdout.", rich_help_panel="Common")]
LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option(
        "--log-format",
        metavar="text|json",
        help="Form of the lines on stderr. [text]",
        show_default=False,
        rich_help_panel="Common",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Common")]
HelpAll = Annotated[
    bool,
    typer.Option("--help-all", help="Explain every option in full.", is_eager=True, callback=show_all),
]
MaxGpx = Annotated[
    float | None,
    typer.Option(
        "--max-gpx", metavar="X", help=f"{MAX_GPX_MEANING} [{MAX_GPX:g}]", show_default=False, rich_help_panel=ADVANCED
    ),
]
MaxGib = Annotated[
    float | None,
    typer.Option(
        "--max-gib", metavar="X", help=f"{MAX_GIB_MEANING} [most of what is free]", show_default=False,
        rich_help_panel=ADVANCED,
    ),
]  # fmt: skip
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT", help="Images, folders, patterns, or addresses. Addresses are those that GDAL reads."
    ),
]
Labelled = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|CSV", help="Folder of class folders, or a CSV. The CSV has the columns path, label, group, split."
    ),
]
Body = Callable[..., tuple[Any, str]]
GridPath = Annotated[Path, typer.Argument(metavar="GRID", help="A grid made by `embed`.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a finished output.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        console = Console()
        _run(console, False, lambda: console.summary(None, f"ssl-tilegen {__version__}"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def command(settings: type[Settings] | None = None, group: typer.Typer = app) -> Callable[[Body], Body]:
    """Make ``body(console, [settings,] own parameters...) -> (summary, text)`` a command.

    The options of ``settings`` and the common ones are added, and errors become one line and an exit code.
    """

    def register(body: Body) -> Body:
        def run(**given: Any) -> None:
            console = Console(as_json=given.pop("json"), log_format=given.pop("log_format"))
            debug, _ = given.pop("debug"), given.pop("help_all")
            given_limits = {} if settings else {name: given.pop(name) for name in ("max_gpx", "max_gib")}
            with catching_signals():
                own = _run(console, debug, lambda: _arguments(settings, given), usage=given.get("config") is None)
                with _limits_of(own.get("settings"), given_limits):
                    result = _run(console, debug, lambda: body(console, **own))
                _run(console, debug, lambda: console.summary(*result))

        run.__signature__ = _signature(body, settings)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        group.command(body.__name__.rstrip("_"), help=inspect.getdoc(body), cls=HelpCommand)(run)
        return body

    return register


def _limits_of(settings: Settings | None, given: dict[str, float | None]) -> AbstractContextManager[None]:
    """The limits on sizes that the options (and the configuration file) say."""
    gpx, gib = (settings.max_gpx, settings.max_gib) if settings else (given["max_gpx"], given["max_gib"])
    return limits(gpx, gib)


def _arguments(settings: type[Settings] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The body's own parameters, and the options among ``given`` folded into one settings object."""
    if settings is None:
        return given
    options = {name: given.pop(name) for name in settings.model_fields}
    return given | {"settings": load_settings(settings, given.pop("config"), options)}


def _signature(body: Callable[..., Any], settings: type[Settings] | None) -> inspect.Signature:
    """Parameters for Typer: the body's own, one per option, the common ones. None means that an option was not
    given."""
    own = inspect.signature(body, eval_str=True).parameters.values()
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name not in ("console", "settings")]
    common: dict[str, tuple[Any, Any]] = {
        "json": (Json, False),
        "log_format": (LogFormat, "text"),
        "debug": (Debug, False),
        "help_all": (HelpAll, False),
    }
    if settings is not None:
        options = [_option(settings, name) for name in settings.model_fields]
        parameters += sorted(options, key=lambda option: option.name in Settings.model_fields)  # common ones last
        common = {"config": (Config, None)} | common
    else:
        common |= {"max_gpx": (MaxGpx, None), "max_gib": (MaxGib, None)}
    for name, (annotation, default) in common.items():
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return inspect.Signature(parameters)


_AS_TYPED = (bool, int, float, str, Path)


def _option(settings: type[Settings], name: str) -> inspect.Parameter:
    """A setting as a Typer option; types that Typer does not know are given as text and parsed by the settings."""
    field = settings.model_fields[name]
    extra: Any = field.json_schema_extra
    required = field.is_required()
    unset = required or field.default is None or field.default is False
    shown = extra["default_text"] or ("" if unset else str(field.default))
    option = typer.Option(
        *extra["options"],
        help=f"{field.description}{' [required]' if required else f' [{shown}]' if shown else ''}",
        metavar=extra.get("metavar") or _metavar(field.annotation),
        show_default=False,
        rich_help_panel=extra["panel"] or None,
    )
    kind = _kind(field.annotation)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _kind(annotation: Any) -> Any:
    """The type to give Typer for a field's annotation, without its None."""
    if get_origin(annotation) is Literal:
        return annotation
    members = [member for member in get_args(annotation) if member is not type(None)] or [annotation]
    return members[0] if members[0] in _AS_TYPED or get_origin(members[0]) is Literal else str


def _metavar(annotation: Any) -> str | None:
    """How the value of an option is written in the help: the choices of a Literal, or a word for the type."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    inner = annotation if get_origin(annotation) is Literal or not members else members[0]
    if get_origin(inner) is Literal:
        return "|".join(get_args(inner))
    return {bool: None, int: "N", float: "X", Path: "PATH"}.get(inner, "TEXT")


def _run(console: Console, debug: bool, call: Callable[[], Any], *, usage: bool = False) -> Any:
    """The result of ``call``, with errors turned into one line and an exit code: 2 where the options are wrong."""
    try:
        return call()
    except (typer.Exit, typer.BadParameter, typer.Abort):
        raise
    except Exception as error:
        text, code = explain(error)
        _fail(console, error, text, 2 if usage and isinstance(error, SettingError) else code, debug)


def _fail(console: Console, error: Exception, text: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        console.close()
        traceback.print_exception(error, file=sys.stderr)
    console.error(text)
    if console.as_json:
        reports = getattr(error, "reports", [])
        with suppress(OSError):  # of a stdout that takes nothing: the line above stands
            console.summary({"error": text, "exit_code": code} | ({"reports": plain(reports)} if reports else {}), "")
    raise typer.Exit(code)


@command(EmbedSettings)
def embed(console: Console, settings: EmbedSettings, inputs: Inputs = None) -> tuple[Any, str]:
    """Embed images into grids of vectors, one grid per image.

    The same command continues a run that was stopped. Of many inputs, those that fail are listed at the end.

    Examples:
        ssl-tilegen embed slide.svs --preview
        ssl-tilegen embed slides/ --out-dir grids --skip-existing
        ssl-tilegen embed map.tif --gsd 0.15 --encoder dinov2-small
    """
    if not inputs and settings.list is None:
        raise typer.BadParameter("no input; give images, folders, globs or --list FILE.csv")
    console.loading("PyTorch and the encoder")
    from ssl_tilegen.workflows.embed.run import embed as work

    reports = work(inputs or [], settings, console)
    return reports, "\n".join(report.line() for report in reports)


@command(GenerateSettings)
def generate(console: Console, settings: GenerateSettings) -> tuple[Any, str]:
    """Paint an image from a grid of embeddings, or from words, a label, a vector or a map.

    Examples:
        ssl-tilegen generate --grid slide.zarr -o slide.ome.tif --preview
        ssl-tilegen generate --label "benign lung" --size 2048 -o lung.png
        ssl-tilegen generate --grid map.zarr --size 8192 --dry-run
    """
    console.hush(distributed_environment().rank > 0)
    console.loading(f"PyTorch and the model {settings.model}")
    from ssl_tilegen.workflows.generate.run import generate as work

    report = work(settings, console)
    return report, report.line()


@command(AugmentSettings)
def augment(console: Console, settings: AugmentSettings, source: Labelled) -> tuple[Any, str]:
    """Make new images of labelled ones: same classes, same layout, and a manifest.

    Examples:
        ssl-tilegen augment train/ -o more --per-image 4 --gsd 0.15
        ssl-tilegen augment labels.csv -o more --keep-best 1 --per-image 4
    """
    console.loading(f"PyTorch and the model {settings.model}")
    from ssl_tilegen.workflows.augment.run import augment as work

    report = work(source, settings, console)
    return report, report.line()


@command(EvaluateSettings)
def evaluate(console: Console, settings: EvaluateSettings) -> tuple[Any, str]:
    """Measure how close synthetic images are to real ones, and how useful for training classifiers.

    Examples:
        ssl-tilegen evaluate --real real/ --synthetic made/ --report page.html
        ssl-tilegen evaluate --task folder/ --task-models linear,knn
    """
    console.loading("PyTorch and the encoders")
    from ssl_tilegen.workflows.evaluate.run import evaluate as work
    from ssl_tilegen.workflows.evaluate.table import table

    report = work(settings, console)
    if settings.report:
        console.note(f"report: {settings.report}, its scores as JSON: {settings.json_path}")
    for line in report.warnings:
        console.note(f"warning: {line}")
    if report.skipped:
        console.summary(report.facts(), table(report))
        first = report.skipped[0][1]
        console.error(f"{len(report.skipped)} images could not be read and were left out; the first: {first}")
        raise typer.Exit(3)
    return report.facts(), table(report)


@command(group=models)
def list_(console: Console) -> tuple[Any, str]:
    """List the built-in bundles and the encoders that are known by name.

    Examples:
        ssl-tilegen models list
    """
    from ssl_tilegen.workflows.models import list_models

    found = list_models()
    return found, found.table()


@command(group=models)
def info(
    console: Console,
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Name of a built-in bundle, a folder, or hf-hub:ORG/NAME.")
    ],
) -> tuple[Any, str]:
    """Describe a bundle: encoder, resolutions, labels, training, licence, scores.

    Examples:
        ssl-tilegen models info tiny
    """
    from ssl_tilegen.workflows.models import describe

    facts = describe(bundle)
    return facts, facts_table(facts)


@command(group=models)
def import__(
    console: Console,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder or checkpoint of a published model, or hf-hub:ORG/NAME[/FOLDER]. It is recognised by content.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder of the bundle to make. [required]")
    ],
    vae: Annotated[
        str | None,
        typer.Option(
            "--vae",
            metavar="DIR",
            help="Folder of the autoencoder, or hf-hub:ORG/NAME/vae. Where the source does not bring it.",
        ),
    ] = None,
    training_config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="YAML of the training run. Where it is not beside the checkpoint."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", metavar="NAME", help="Encoder of its embeddings. For an encoder other than the published one."
        ),
    ] = None,
    encoder_weights: Annotated[
        Path | None,
        typer.Option(
            "--encoder-weights",
            metavar="FILE",
            help="Weights of that encoder, to be kept in the bundle. No other command asks for them then.",
        ),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", help="Micrometres per pixel that it paints at.", min=0, **MEASURE),
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option("--gsd", help="Metres per pixel that it paints at.", min=0, **MEASURE),
    ] = None,
    magnification: Annotated[
        str | None,
        typer.Option("--magnification", metavar="5x", help="Magnification to paint at. Of a multi-scale model."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the bundle.")] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Make a bundle of a published model: Large-Image-Diffusion, PixCell, ZoomLDM, or a diffusers LDM folder.

    Weights are not changed, and nothing that a checkpoint names is run. The licence is printed: read it.

    Examples:
        ssl-tilegen models import brca_hipt_20x/ -o brca
        ssl-tilegen models import PixCell-1024/ --vae sd35/vae -o pixcell
        ssl-tilegen models import hf-hub:StonyBrook-CVLab/ZoomLDM/brca -o zoom
    """
    from ssl_tilegen.bundle.importers import ImportOptions
    from ssl_tilegen.geometry import Resolution
    from ssl_tilegen.workflows.models import import_model

    if mpp and gsd:
        raise typer.BadParameter("give --mpp or --gsd, not both")
    resolution = Resolution.stated(mpp or None, gsd or None)
    options = ImportOptions(
        vae=Path(vae) if vae else None,
        config=training_config,
        encoder=encoder,
        encoder_weights=encoder_weights,
        resolution=resolution,
        magnification=magnification,
        name=name,
    )
    report = import_model(source, out, options, overwrite=overwrite, progress=console)
    return report, report.line()


@command(group=models)
def pull(
    console: Console,
    name: Annotated[str, typer.Argument(metavar="NAME", help="hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION.")],
) -> tuple[Any, str]:
    """Fetch a bundle from the hub into the cache; afterwards --model takes its name without a network.

    Examples:
        ssl-tilegen models pull hf-hub:my-lab/my-bundle
    """
    from ssl_tilegen.workflows.models import pull_bundle

    facts = pull_bundle(name)
    return facts, f"{name}: {facts['folder']} (licence: {facts['licence']})"


@command(group=models)
def push(
    console: Console,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="hf-hub:ORG/NAME.")],
    licence: Annotated[str | None, typer.Option("--licence", help="Licence of a bundle that states none.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the card, upload nothing.")] = False,
) -> tuple[Any, str]:
    """Upload a bundle with its card to the hub, as the user that `hf auth login` names.

    Examples:
        ssl-tilegen models push run/bundle hf-hub:my-lab/my-bundle --dry-run
    """
    from ssl_tilegen.workflows.models import push_bundle

    facts = push_bundle(bundle, name, licence=licence, private=private, dry_run=dry_run)
    return facts, facts["card"] if dry_run else f"{bundle}: uploaded to {facts['page']}"


@command(group=models)
def card(
    console: Console,
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Name of a built-in bundle, a folder, or hf-hub:ORG/NAME.")
    ],
) -> tuple[Any, str]:
    """Print a bundle's model card in the form of the Hugging Face hub.

    Examples:
        ssl-tilegen models card run/bundle
    """
    from ssl_tilegen.workflows.models import card_text

    text = card_text(bundle)
    return {"card": text}, text


@command(group=grid)
def info_(console: Console, path: GridPath) -> tuple[Any, str]:
    """Describe a grid: its source, its encoder, and the number of usable cells.

    Examples:
        ssl-tilegen grid info slide.zarr
    """
    from ssl_tilegen.workflows.grid.info import describe_grid

    facts = describe_grid(path)
    return facts, facts_table(facts)


@command(group=grid)
def preview(
    console: Console,
    path: GridPath,
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="The image it was made from, to show beside it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="PNG to write. [GRID.grid-preview.png]", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Write a preview of a grid: principal components as colours, invalid cells marked.

    Examples:
        ssl-tilegen grid preview slide.zarr --image slide.svs
    """
    from ssl_tilegen.workflows.grid.info import preview_grid

    written = preview_grid(path, image, out, overwrite=overwrite)
    return {"preview": written}, printable(f"{written}: written")


@command(group=grid)
def export(
    console: Console,
    path: GridPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write, .h5 or .npz. [GRID.h5]", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Write the vectors of a grid for TRIDENT and CLAM: .h5 (or .npz) with level-0 coordinates.

    Examples:
        ssl-tilegen grid export slide.zarr -o slide.h5
    """
    from ssl_tilegen.workflows.grid.feature_exchange import export_grid

    report = export_grid(path, out, overwrite=overwrite)
    return report, report.line()


@command(group=grid)
def import_(
    console: Console,
    features: Annotated[Path, typer.Argument(metavar="FEATURES", help=".h5 of TRIDENT or CLAM, or .npz.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="GRID", help="Grid to write. [FEATURES.zarr]", show_default=False),
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="The image the features were taken from.")
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", help="Micrometres per pixel of the patches.", min=1e-6, **MEASURE),
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option("--gsd", help="Metres per pixel of the patches.", min=1e-6, **MEASURE),
    ] = None,
    tile: Annotated[
        int | None, typer.Option("--tile", metavar="PX", help="Side of a patch in its pixels.", min=1)
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="Name of the encoder, to be recorded.")
    ] = None,
    overwrite: Overwrite = False,
) -> tuple[Any, str]:
    """Make a grid from features that another tool extracted.

    Examples:
        ssl-tilegen grid import slide.h5 --image slide.svs --encoder uni
    """
    from ssl_tilegen.workflows.grid.feature_exchange import import_features

    options: dict[str, Any] = {"image": image, "mpp": mpp, "gsd": gsd, "tile": tile, "encoder": encoder}
    report = import_features(features, out, overwrite=overwrite, **options)
    return report, report.line()


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
