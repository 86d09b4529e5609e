"""The commands `models ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssl_tilegen.cli.command import MEASURE, PLAIN, Overwrite, command
from ssl_tilegen.cli.console import Console
from ssl_tilegen.cli.tables import facts_table

models = typer.Typer(help="Bundles of models: list, describe, import, fetch and upload them.", **PLAIN)


AnyBundle = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Name of a built-in bundle, a folder, or hf-hub:ORG/NAME.")
]
PublishedSource = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder or checkpoint of a published model, or hf-hub:ORG/NAME[/FOLDER]. It is recognised by content.",
    ),
]
NewBundle = Annotated[
    Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder of the bundle to make. [required]")
]
Vae = Annotated[
    str | None,
    typer.Option(
        "--vae",
        metavar="DIR",
        help="Folder of the autoencoder, or hf-hub:ORG/NAME/vae. Where the source does not bring it.",
    ),
]
TrainingConfig = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML of the training run. Where it is not beside the checkpoint."),
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder", metavar="NAME", help="Encoder of its embeddings. For an encoder other than the published one."
    ),
]
EncoderWeights = Annotated[
    Path | None,
    typer.Option(
        "--encoder-weights",
        metavar="FILE",
        help="Weights of that encoder, to be kept in the bundle. No other command asks for them then.",
    ),
]
Mpp = Annotated[
    float | None,
    typer.Option("--mpp", help="Micrometres per pixel that it paints at.", min=0, **MEASURE),
]
Gsd = Annotated[
    float | None,
    typer.Option("--gsd", help="Metres per pixel that it paints at.", min=0, **MEASURE),
]
Magnification = Annotated[
    str | None,
    typer.Option("--magnification", metavar="5x", help="Magnification to paint at. Of a multi-scale model."),
]
BundleName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the bundle.")]


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
    bundle: AnyBundle,
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
    source: PublishedSource,
    out: NewBundle,
    vae: Vae = None,
    training_config: TrainingConfig = None,
    encoder: EncoderName = None,
    encoder_weights: EncoderWeights = None,
    mpp: Mpp = None,
    gsd: Gsd = None,
    magnification: Magnification = None,
    name: BundleName = None,
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
    bundle: AnyBundle,
) -> tuple[Any, str]:
    """Print a bundle's model card in the form of the Hugging Face hub.

    Examples:
        ssl-tilegen models card run/bundle
    """
    from ssl_tilegen.workflows.models import card_text

    text = card_text(bundle)
    return {"card": text}, text
