"""How long an image will take, from two small calls timed on this device."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod

import torch

from ssl_tilegen.diffusion.synthesis import Plan
from ssl_tilegen.workflows.generate.job import PaintJob

_PROBE_LAT, _LONG_S = 128, 2.0


def estimated_seconds(job: PaintJob, planned: Plan, processes: int) -> float:
    """Of painting and developing, start-up and files aside: rates of one call each, times the planned calls."""
    bundle, device = job.bundle, job.bundle.device
    local = bundle.conditioning.is_field
    side, batch = (_PROBE_LAT, 1) if local else (bundle.window_lat, min(job.how.batch, 4))
    _ = bundle.denoiser, bundle.autoencoder  # loaded before the clock runs

    def predicted(count: int) -> torch.Tensor:
        t = torch.full((count,), 0.5, device=device)
        return bundle.predict(latents(count), t, None)

    def latents(count: int) -> torch.Tensor:
        return torch.zeros(count, bundle.latent_channels, side, side, device=device)

    with torch.no_grad():
        per_call = _seconds_of_one(predicted, batch, device)
        per_decoding = _seconds_of_one(lambda count: bundle.decode(latents(count)), batch, device)
    paint_s = planned.network_latents * per_call / side**2
    return (paint_s + _decoded_latents(job) * per_decoding / side**2) / processes


def _decoded_latents(job: PaintJob) -> int:
    """Latents that are decoded, those of overlapping windows each time."""
    bundle, size, side = job.bundle, job.region_lat.size, job.bundle.window_lat
    hop = job.how.recipe.decode_hop_lat if job.how.recipe else 0
    if bundle.decoder_halo_lat is not None and not hop:
        return size.area
    hop = min(hop, side) or max(1, side // 2)
    windows = (1 + -(-max(0, length - side) // hop) for length in (size.rows, size.cols))
    return prod(windows) * side**2


def _seconds_of_one(call: Callable[[int], torch.Tensor], batch: int, device: torch.device) -> float:
    """Seconds that one of a batch takes. A large network on a CPU is called once, for one; others are called before."""
    first = _timed(call, 1)
    return first if first > _LONG_S and device.type == "cpu" else _timed(call, batch) / batch


def _timed(call: Callable[[int], torch.Tensor], count: int) -> float:
    """Seconds of a call; asking for a value waits for the device."""
    started = time.perf_counter()
    call(count).sum().item()
    return time.perf_counter() - started
