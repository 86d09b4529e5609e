"""A model bundle: one folder in diffusers layout with all it takes to embed and to generate.

``model_index.json``, one folder per component (``encoder``, ``autoencoder``, ``denoiser``, ``scheduler``) with
``config.json`` and safetensors, and ``bundle.json`` with facts that the components do not state. Never pickle.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.bundle.components import filled, load_component
from ssl_tilegen.bundle.find import find_bundle
from ssl_tilegen.bundle.info import check_prior, read_info, read_json, read_prior_info
from ssl_tilegen.diffusion.coarse_latents import LocalCondition
from ssl_tilegen.diffusion.conditioning import Conditioning, ConditioningSpec, FieldConditioning, TokenConditioning
from ssl_tilegen.geometry import Size, Window, cover
from ssl_tilegen.io.view import RasterView
from ssl_tilegen.nets import build_encoder
from ssl_tilegen.nets.window import attend, predict
from ssl_tilegen.prior.spec import PriorInfo
from ssl_tilegen.system.device import fast_dtype
from ssl_tilegen.system.hashing import sha256_of_folder

_PIECE_LAT = 128
_ENCODER_HALO_LAT = 8  # of autoencoders that do not say theirs


class ModelBundle:
    """Encoder, autoencoder and denoiser, loaded to a device; satisfies ``diffusion.protocols.Model``.

    Components are loaded when first used, so that `embed` never reads the denoiser.

    Args:
        folder: Folder of the bundle.
        device: Device of the networks.

    Raises:
        InputError: The folder holds no bundle.
        FormatError: The bundle is broken or of a newer format.

    Example:
        >>> bundle = ModelBundle.load("tiny")
        >>> bundle.info.encoder.tile_px, bundle.info.encoder.dim
        (64, 128)
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, torch.device(device)
        self.info = read_info(folder)

    @classmethod
    def load(cls, name: str | Path, device: torch.device | str = "cpu") -> ModelBundle:
        """Load a bundle.

        Args:
            name: Name of a built-in bundle, folder of a bundle, or ``hf-hub:ORG/NAME``.
            device: Device of the networks.

        Returns:
            The bundle; its networks are read when they are first used.

        Raises:
            InputError: No bundle is known by this name.
            FormatError: The bundle is broken or of a newer format.
        """
        return cls(find_bundle(name), device)

    # The components

    @cached_property
    def encoder(self) -> Any:
        """(N, 3, tile, tile), normalised -> (N, D)."""
        folder = self.folder / "encoder"
        config = read_json(folder / "config.json")
        if not config.get("pretrained"):
            return self._ready(filled(lambda: build_encoder(config), folder))
        from ssl_tilegen.encoders.timm_encoder import rebuild

        return self._ready(filled(lambda: rebuild(config), folder))

    @cached_property
    def autoencoder(self) -> Any:
        """Images (N, 3, H, W) in [-1, 1] <-> raw latents."""
        return self._ready(load_component(self.folder / "autoencoder"))

    @cached_property
    def denoiser(self) -> Any:
        """Noisy latents, time, condition -> raw prediction."""
        return self._ready(load_component(self.folder / "denoiser"))

    @cached_property
    def conditioner(self) -> Any:
        """For denoisers of windows: conditions (N, K, D) -> the tokens that they attend to (``nets.conditioner``)."""
        if self.has("conditioner"):
            return self._ready(load_component(self.folder / "conditioner"))
        from ssl_tilegen.nets.conditioner import TokenConditioner

        scaling = "unit_length" if self.info.l2_condition else "none"
        return self._ready(TokenConditioner(self.info.encoder.dim, scaling=scaling))

    @cached_property
    def prior(self) -> Any:
        """Samples grids of embeddings: noisy cells, time, condition -> velocity (``nets.prior_base``)."""
        module: Any = load_component(self.folder / "prior").eval().requires_grad_(False)
        if self.prior_info:
            check_prior(module, self.prior_info, self.info.encoder.dim, self.folder / "prior" / "prior.json")
        return module.to(self.device)

    @cached_property
    def prior_info(self) -> PriorInfo | None:
        """The conditions that the bundle's prior takes; None where it has no prior."""
        return read_prior_info(self.folder) if self.has("prior") else None

    def has(self, component: str) -> bool:
        """Whether the bundle has a component of this name."""
        return (self.folder / component / "config.json").is_file()

    def component_hash(self, component: str) -> str:
        """sha256 over a component's configuration and weights."""
        return sha256_of_folder(self.folder / component)

    @cached_property
    def hash(self) -> str:
        """sha256 over all components and the facts that join them: everything that the pixels depend on."""
        parts = [self.component_hash(c) for c in ("encoder", "autoencoder", "denoiser", "scheduler")]
        joints = {"encoder", "locality", "window_px", "latent_mean", "latent_scale", "prediction_type", "l2_condition"}
        joints |= {"time_scale"} if self.info.time_scale != 1 else set()
        joints |= {"conditioning"} if self.info.conditioning else set()
        parts += [self.component_hash("conditioner")] if self.has("conditioner") else []
        facts = self.info.model_dump(include=joints)
        if not self.info.encoder.input_px:  # which older bundles have no word for
            del facts["encoder"]["input_px"]
        parts.append(json.dumps(facts, sort_keys=True))
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def _ready(self, module: nn.Module) -> Any:
        frozen: Any = module.eval().requires_grad_(False).to(self.device)
        return frozen.to(memory_format=torch.channels_last)

    # diffusion.protocols.Model

    @cached_property
    def conditioning(self) -> Conditioning:
        """The conditioning that the bundle brings, as its denoiser was trained with it."""
        spec = self.info.conditioning
        if spec.kind == "field" if spec else self.info.locality == "local":
            return self._field_conditioning()
        return TokenConditioning.of(spec or ConditioningSpec(), self.window_lat)

    def _field_conditioning(self) -> FieldConditioning:
        stride, side = getattr(self.denoiser, "field_stride", 1), getattr(self.denoiser, "sketch_side", 0)
        condition = LocalCondition(
            stride, self.info.encoder.layout_dim, side, self.denoiser.decode_cells if side else None
        )
        return FieldConditioning(condition, quantum_lat=stride)

    @property
    def factor(self) -> int:
        """Pixels per latent on each axis."""
        own = getattr(self.autoencoder, "factor", None)
        return own or 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

    @property
    def window_lat(self) -> int:
        """Side of the training window in latents."""
        return self.info.window_px // self.factor

    @property
    def halo_lat(self) -> int:
        """Reach of a local denoiser beyond a tile, in latents; 0 for networks with attention."""
        return getattr(self.denoiser, "halo", 0)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return len(self.info.latent_mean) or self.autoencoder.config.latent_channels

    @property
    def decoder_halo_lat(self) -> int | None:
        """Reach of the decoder in latents; None where its receptive field is not finite."""
        return getattr(self.autoencoder, "decoder_halo", None)

    @property
    def encoder_halo_lat(self) -> int:
        """Reach of the autoencoder's encoder in latents."""
        return getattr(self.autoencoder, "encoder_halo", _ENCODER_HALO_LAT)

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """The keys of ``scheduler/scheduler_config.json``, as diffusers writes them."""
        return read_json(self.folder / "scheduler" / "scheduler_config.json")

    @property
    def prediction_type(self) -> str:
        """Parameterization of the denoiser's output: flow, v_prediction, epsilon or sample."""
        return self.info.prediction_type

    def predict(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The denoiser's raw prediction, whatever it was trained to predict.

        Args:
            x: Noisy latents (N, C, h, w).
            t: Times (N,), as the scheduler counts them.
            cond: Conditions of these latents, as `conditioning` samples them; None for the unconditional prediction.

        Returns:
            The prediction (N, C, h, w) in float32.
        """
        if self.conditioning.is_field:
            with self._autocast():
                return predict(self.denoiser, x, t, cond).float()
        tokens = self.conditioner.unconditional(len(x)) if cond is None else self.conditioner(cond)
        with self._autocast():
            raw = attend(self.denoiser, x, t * self.info.time_scale, tokens)
        return raw.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Decode normalised latents.

        Args:
            latents: Latents (N, C, h, w), as the denoiser paints them.

        Returns:
            Pixels (N, 3, factor h, factor w) in about [-1, 1].
        """
        mean, scale = self._statistics
        return self.decode_raw(latents.to(self.device) / scale + mean)

    def decode_raw(self, raw: Tensor) -> Tensor:
        """Latents as the autoencoder gives them (N, C, h, w) -> pixels (N, 3, factor h, factor w)."""
        with torch.no_grad(), self._autocast(exact=self.info.exact_autoencoder):
            pixels = self.autoencoder.decode(raw.contiguous(memory_format=torch.channels_last))
        return getattr(pixels, "sample", pixels).float()

    # The other direction

    @torch.no_grad()
    def encode_raw(self, rgb: np.ndarray) -> np.ndarray:
        """As `encode`, but latents as the autoencoder gives them, in float32. Piece by piece, without seams."""
        size = Size(rgb.shape[0] // self.factor, rgb.shape[1] // self.factor)
        halo, whole = self.encoder_halo_lat, Window.of(size)
        out = np.empty((self.latent_channels, size.rows, size.cols), np.float32)
        for core in cover(size, Size(_PIECE_LAT, _PIECE_LAT)):
            around = core.grown(halo).intersection(whole)
            assert around is not None
            pixels = np.ascontiguousarray(rgb[around.scaled(self.factor).slices].transpose(2, 0, 1))
            image = torch.from_numpy(pixels).to(self.device)[None].float() / 127.5 - 1
            with self._autocast(exact=self.info.exact_autoencoder):
                encoded = self.autoencoder.encode(image.contiguous(memory_format=torch.channels_last))
            mean = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else getattr(encoded, "latents", encoded)
            out[:, *core.slices] = mean[0][:, *core.within(around).slices].float().cpu().numpy()
        return out

    def encode(self, rgb: np.ndarray) -> Tensor:
        """Encode an image.

        Args:
            rgb: Pixels, uint8 (H, W, 3), whose sides are multiples of ``factor``.

        Returns:
            Normalised latents (C, H / factor, W / factor) on the CPU.
        """
        mean, scale = (s.cpu()[0] for s in self._statistics)
        return (torch.from_numpy(self.encode_raw(rgb)) - mean) * scale

    def encode_window(self, view: RasterView, window: Window) -> Tensor:
        """Encode a window of an image as a part of the whole; beyond its edges the image is mirrored.

        Args:
            view: The image at the bundle's resolution.
            window: The window, in latents.

        Returns:
            Normalised latents (C, rows, cols) on the CPU.
        """
        around = window.grown(self.encoder_halo_lat)
        return self.encode(view.read_mirrored(around.scaled(self.factor)).rgb)[:, *window.within(around).slices]

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        channels = self.latent_channels
        mean = torch.tensor(self.info.latent_mean or [0.0] * channels, device=self.device)
        scale = torch.tensor(self.info.latent_scale or [1.0] * channels, device=self.device)
        return mean[None, :, None, None], scale[None, :, None, None]

    def _autocast(self, *, exact: bool = False) -> Any:
        kind = None if exact else fast_dtype(self.device)
        return torch.autocast(self.device.type, kind) if kind else nullcontext()
