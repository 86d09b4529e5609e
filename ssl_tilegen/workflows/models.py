"""The models at hand: bundles, and encoders known by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_tilegen.bundle import BUILT_IN, ModelBundle, hub
from ssl_tilegen.bundle.card import card_of
from ssl_tilegen.bundle.importers import NO_LICENCE, ImportOptions, recognise
from ssl_tilegen.bundle.importers.writing import check_place, write_bundle
from ssl_tilegen.encoders.card import EncoderCard
from ssl_tilegen.encoders.registry import CARDS
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.system.progress import Progress, silent


@dataclass(frozen=True)
class Listing:
    """The list of `models list`: the facts of each built-in bundle, and the registry of encoders."""

    bundles: tuple[dict[str, Any], ...]
    encoders: tuple[EncoderCard, ...]

    def table(self) -> str:
        """The listing as text, one model a line."""
        head = f"{'encoder':<20}{'dim':>6}{'tile':>6}  {'um/px':<6} {'pooling':<9} {'licence':<22} weights"
        bundles = [f"{facts['name']:<20} {facts['folder']}" for facts in self.bundles]
        return "\n".join(["bundle", *bundles, "", head, *map(_row, self.encoders)])


def list_models() -> Listing:
    """All models that can be named without a path."""
    return Listing(tuple(filter(None, map(_describe_if_there, BUILT_IN))), CARDS)


def describe(name: str) -> dict[str, Any]:
    """The facts of a bundle, built-in or in a folder: bundle.json, its place, its parts and its hash."""
    bundle = ModelBundle.load(name)
    known = ("encoder", "autoencoder", "denoiser", "conditioner", "scheduler", "prior")
    parts = [part for part in known if (bundle.folder / part).is_dir()]
    facts = bundle.info.model_dump() | {"folder": str(bundle.folder), "components": parts, "sha256": bundle.hash}
    return facts | _of_prior(bundle)


def card_text(name: str) -> str:
    """The card of a bundle in the hub's form."""
    return card_of(ModelBundle.load(name))


def pull_bundle(name: str) -> dict[str, Any]:
    """Fetch a bundle of the hub into the cache; its facts."""
    return describe(str(hub.fetch(name)))


def push_bundle(
    name: str, target: str, *, licence: str | None = None, private: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Upload a bundle to the hub with its card.

    Raises SettingError where it states no licence that lets it be passed on, and none is given.
    """
    where, bundle = hub.HubName.parse(target), ModelBundle.load(name)
    if bundle.info.licence == "unknown" and not licence:
        raise SettingError(f"{name}: states no licence; say it with --licence, such as --licence Apache-2.0")
    if bundle.info.licence.startswith(NO_LICENCE) and not licence:
        raise SettingError(
            f"{name}: licence: {bundle.info.licence}; if its authors gave you one, say it with --licence"
        )
    if not hub.is_whole(bundle.folder):
        raise InputError(f"{name}: is not whole; train or import its other parts first")
    if licence:
        bundle.info = bundle.info.model_copy(update={"licence": licence})
    text = card_of(bundle, str(where))
    texts = {"README.md": text, "bundle.json": bundle.info.model_dump_json(indent=2) + "\n"}
    page = None if dry_run else hub.push(bundle.folder, str(where), texts, private=private)
    return {"page": page, "card": text, "folder": str(bundle.folder)}


def _of_prior(bundle: ModelBundle) -> dict[str, Any]:
    """The conditions that its prior takes; empty where the bundle has no prior."""
    info = bundle.prior_info
    if info is None:
        return {}
    labels = {name: f"{facts.domain}, {info.resolution_of(name)}" for name, facts in info.labels.items()}
    text = info.text.name if info.text else None
    return {"labels": labels, "text_encoder": text, "vector_dim": info.vector_dim, "prior_training": info.training}


def _describe_if_there(name: str) -> dict[str, Any] | None:
    """The facts of a built-in bundle; None in a checkout where it has not been trained yet."""
    try:
        return describe(name)
    except FormatError:
        return None


def _row(card: EncoderCard) -> str:
    gated = " (gated)" if card.gated else ""
    return (
        f"{card.name:<20}{card.dim:>6}{card.tile_px:>6}  {card.mpp or '-':<6} {card.pooling:<9} {card.licence:<22} "
        f"{card.source}{gated}"
    )


@dataclass(frozen=True)
class ImportReport:
    """The result of `models import`: the bundle, its facts, and its licence."""

    out: Path
    family: str
    name: str
    encoder: str
    mib: int
    left_out: int
    recipes: tuple[str, ...]
    licence: str
    origin: str
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """The report as text, one fact a line."""
        recipes = f", recipes: {', '.join(self.recipes)}" if self.recipes else ""
        return "\n".join([
            f"{self.out}: {self.name} ({self.family}), {self.mib} MiB, encoder {self.encoder}{recipes}",
            f"origin: {self.origin}",
            f"licence: {self.licence}",
            *([f"left out: {self.left_out} tensors, listed in bundle.json"] if self.left_out else []),
            *(f"note: {note}" for note in self.notes),
        ])  # fmt: skip


def import_model(
    source: str | Path, out: Path, options: ImportOptions | None = None, *, overwrite: bool = False,
    progress: Progress = silent,
) -> ImportReport:  # fmt: skip
    """Make the bundle ``out`` of a published model.

    Args:
        source: A folder or a checkpoint of Large-Image-Diffusion, PixCell or ZoomLDM, or a diffusers LDM folder; one
            of the hub as ``hf-hub:ORG/NAME[/FOLDER][@REVISION]``.
        out: The bundle's folder.
        options: What the files do not say.
        overwrite: Replace a bundle that is there.
        progress: Told MiB written.

    Returns:
        What was made.

    Raises:
        InputError, FormatError, OutputError, SettingError: with one line each.

    Example:
        >>> import_model(Path("PixCell-1024"), Path("pixcell"), ImportOptions(vae=Path("sd3.5/vae")))  # doctest: +SKIP
    """
    options = options or ImportOptions()
    if hub.is_hub_name(source):
        options = replace(options, origin=str(source))
    place = _fetched(source)
    options = replace(options, vae=_fetched(options.vae) if options.vae else None)
    check_place(place, out, options, overwrite=overwrite)
    imported = recognise(place, options)

    def finish(folder: Path) -> None:
        if options.encoder_weights:
            from ssl_tilegen.training.pretrained import keep_named  # timm takes seconds to import

            keep_named(folder, options.encoder_weights)

    write_bundle(imported, place, out, options, overwrite=overwrite, finish=finish,
                 progress=lambda done, total: progress("import", done / 2**20, total / 2**20))  # fmt: skip
    info = ModelBundle.load(out).info
    return ImportReport(out, imported.family, info.name, info.encoder.id, imported.nbytes >> 20, len(imported.left_out),
                        tuple(info.recipes), info.licence, info.origin, imported.notes)  # fmt: skip


def _fetched(source: str | Path) -> Path:
    """The folder of a source: its own, or where one of the hub lies in the cache."""
    return hub.fetch_source(str(source)) if hub.is_hub_name(source) else Path(source)
