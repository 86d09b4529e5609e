"""A pretrained encoder taken into a bundle as it is, so that nobody has to train one."""

from __future__ import annotations

from pathlib import Path

from ssl_tilegen.bundle import EncoderInfo, ModelBundle, save_component, update_info
from ssl_tilegen.config.train import EncoderSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_of
from ssl_tilegen.encoders.module_encoder import NetworkEncoder
from ssl_tilegen.encoders.registry import ENCODERS
from ssl_tilegen.encoders.timm_encoder import load_timm_encoder, recipe_of
from ssl_tilegen.geometry import Resolution


def keep_pretrained(settings: EncoderSettings, resolutions: dict[str, Resolution], folder: Path) -> None:
    """Put the encoder that ``settings.pretrained`` names into the bundle ``folder``: weights, statistics, pooling."""
    assert settings.pretrained is not None
    info = _kept(load_timm_encoder(settings.pretrained, weights=settings.weights), folder)
    update_info(folder, encoder=info, resolutions={domain: (r.value, r.unit) for domain, r in resolutions.items()})


def keep_named(folder: Path, weights: Path | None) -> None:
    """Put the encoder that the bundle ``folder`` names into it, so that nobody has to bring its weights again."""
    bundle = ModelBundle(folder)
    info, encoder = bundle.info, encoder_of(bundle, weights)
    card = ENCODERS.get(encoder.id)
    licence = f"{info.licence}; the encoder {encoder.id} in it: {card.licence if card else 'see its makers'}"
    update_info(folder, encoder=_kept(encoder, folder), licence=licence)


def _kept(encoder: NetworkEncoder, folder: Path) -> EncoderInfo:
    """Facts for the bundle ``folder`` of an encoder whose weights are put into it."""
    name = encoder.id
    own = Path(name.removeprefix("local-dir:")).name if name.startswith("local-dir:") else name
    facts = {"tile_px": encoder.tile_px, "dim": encoder.dim}
    config = facts | recipe_of(name, encoder.module) | {"_class_name": type(encoder.module).__name__, "pretrained": own}
    save_component(encoder.module, folder / "encoder", config, exact=True)
    mean, std = encoder.normalisation
    seen = encoder.input_px if encoder.input_px != encoder.tile_px else 0
    return EncoderInfo(id=own, mean=mean, std=std, pooling=encoder.pooling, input_px=seen, **facts)
