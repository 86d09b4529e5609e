"""A pretrained encoder taken into a bundle as it is, so that nobody has to train one."""

from __future__ import annotations

from pathlib import Path

from ssl_tilegen.bundle import EncoderInfo, save_component, update_info
from ssl_tilegen.config.train import EncoderSettings
from ssl_tilegen.encoders.timm_encoder import load_timm_encoder, recipe_of
from ssl_tilegen.geometry import Resolution


def keep_pretrained(settings: EncoderSettings, resolutions: dict[str, Resolution], folder: Path) -> None:
    """Put the encoder that ``settings.pretrained`` names into the bundle ``folder``: weights, statistics, pooling."""
    name = settings.pretrained
    assert name is not None
    encoder = load_timm_encoder(name, weights=settings.weights)
    own = Path(name.removeprefix("local-dir:")).name if name.startswith("local-dir:") else name
    facts = {"tile_px": encoder.tile_px, "dim": encoder.dim}
    config = facts | recipe_of(name, encoder.module) | {"_class_name": type(encoder.module).__name__, "pretrained": own}
    save_component(encoder.module, folder / "encoder", config, exact=True)
    mean, std = encoder.normalisation
    info = EncoderInfo(id=own, mean=mean, std=std, pooling=encoder.pooling, **facts)
    update_info(folder, encoder=info, resolutions={domain: (r.value, r.unit) for domain, r in resolutions.items()})
