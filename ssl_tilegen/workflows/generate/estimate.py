"""How long an image will take, from two small calls timed on this device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ssl_tilegen.diffusion.synthesis import Plan
from ssl_tilegen.workflows.generate.job import PaintJob

_PROBE_LAT = 128


def estimated_seconds(job: PaintJob, planned: Plan, processes: int) -> float:
    """Of painting and developing, start-up and files aside: rates of one call each, times what is planned."""
    bundle, device = job.bundle, job.bundle.device
    local = bundle.conditioning.is_field
    side, batch = (_PROBE_LAT, 1) if local else (bundle.window_lat, min(job.how.batch, 4))
    x = torch.zeros(batch, bundle.latent_channels, side, side, device=device)
    t = torch.full((batch,), 0.5, device=device)
    with torch.no_grad():
        per_call = _timed(lambda: bundle.predict(x, t, None))
        per_decoding = _timed(lambda: bundle.decode(x))
    latents = job.region_lat.size.area
    paint_s = planned.network_latents * per_call / (batch * side**2)
    return (paint_s + latents * per_decoding / (batch * side**2)) / processes


def _timed(call: Callable[[], torch.Tensor]) -> float:
    """Seconds of a call that has run once before; asking for a value waits for the device."""
    call().sum().item()
    started = time.perf_counter()
    call().sum().item()
    return time.perf_counter() - started
