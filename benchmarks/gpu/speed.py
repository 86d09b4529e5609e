"""Peak of the machine, one image on two devices, and the speed of two networks."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_tilegen.bundle import ModelBundle
from ssl_tilegen.diffusion.field import ConditionField
from ssl_tilegen.diffusion.settings import SynthesisSettings
from ssl_tilegen.diffusion.synthesis import develop, paint
from ssl_tilegen.encoders.bundle_encoder import BundleEncoder
from ssl_tilegen.geometry import Window

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BundleAt(ModelBundle):
    """A bundle whose networks run in one precision."""

    precision: torch.dtype | None = None

    def _autocast(self, *, exact: bool = False) -> Any:
        kind = None if exact else self.precision
        return torch.autocast(self.device.type, kind) if kind else nullcontext()


def machine(device: torch.device, rehearse: bool) -> dict[str, Any]:
    """The card, and the measured TFLOP/s of a square matrix product in each precision."""
    peaks = {name: round(peak(device, kind, rehearse), 3) for name, kind in PRECISIONS.items()}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "peak_tflops": peaks}


def peak(device: torch.device, precision: torch.dtype | None, rehearse: bool) -> float:
    """Measured TFLOP/s of a square matrix product."""
    side = 512 if rehearse else 8192
    a, b = (torch.randn(side, side, device=device, dtype=precision or torch.float32) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, device, rounds=10) / 1e12


def same(model: str, device: torch.device, rehearse: bool) -> dict[str, Any]:
    """How far (of 255) an image painted on the device is from the one of the CPU in float32."""
    side = 128 if rehearse else 512
    reference, _, _ = image(model, torch.device("cpu"), None, side)
    found = {}
    for name, kind in PRECISIONS.items():
        made, _, _ = image(model, device, kind, side)
        apart = np.abs(made.astype(int) - reference)
        found[name] = {"mean": round(float(apart.mean()), 3), "most": int(apart.max())}
    return {"side_px": side, "apart": found}


def tiny(model: str, device: torch.device, rehearse: bool) -> list[dict[str, Any]]:
    """Seconds and memory of whole images by precision, with and without torch.compile (its own cost apart)."""
    rows: list[dict[str, Any]] = []
    for side in (64, 128) if rehearse else (1024, 4096):
        for name, kind in PRECISIONS.items():
            for compiled in (False, True):
                if compiled and (rehearse or (name == "float32" and side > 1024)):
                    continue
                started = time.perf_counter()
                image(model, device, kind, side, compiled=compiled)  # the first has the cost of starting
                first = time.perf_counter() - started
                with measured(device) as memory:
                    _, painted, developed = image(model, device, kind, side, compiled=compiled)
                rows.append({"side_px": side, "precision": name, "compiled": compiled, "first_s": round(first, 2),
                             "paint_s": round(painted, 3), "develop_s": round(developed, 3), **memory})  # fmt: skip
    return rows


def paper(device: torch.device, rehearse: bool) -> list[dict[str, Any]]:
    """Windows a second of the published U-Net, one call each, and what images of 50 guided steps would take."""
    from diffusers import UNet2DConditionModel

    widths, side = ((32, 64), 16) if rehearse else ((192, 384, 576, 960), 64)
    crossed = len(widths) - 1
    net: Any = UNet2DConditionModel(
        sample_size=side, in_channels=3, out_channels=3, block_out_channels=widths, layers_per_block=2,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * crossed),
        up_block_types=(*["CrossAttnUpBlock2D"] * crossed, "UpBlock2D"), cross_attention_dim=512, attention_head_dim=8,
    )  # fmt: skip
    net = net.to(device).eval().requires_grad_(False)
    millions = round(sum(p.numel() for p in net.parameters()) / 1e6, 1)
    rows = []
    for name, kind in PRECISIONS.items():
        best = peak(device, kind, rehearse)
        for compiled in (False, True):
            if compiled and (rehearse or name == "float32"):
                continue
            batch = 2 if rehearse or device.type == "cpu" else 64
            call = torch.compile(net) if compiled else net
            x, t = torch.randn(batch, 3, side, side, device=device), torch.full((batch,), 500, device=device)
            told = torch.randn(batch, 1, 512, device=device)
            with torch.no_grad(), torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None):
                with FlopCounterMode(display=False) as flops:
                    net(x, t, told)
                with measured(device) as memory:
                    seconds = timed(lambda: call(x, t, told).sample, device, rounds=2 if rehearse else 5)  # noqa: B023
            rate = batch / seconds
            windows = {px: (px * 4 // 256) ** 2 for px in (1024, 4096)}  # a stride of window / 4, as published
            rows.append({"parameters_m": millions, "precision": name, "compiled": compiled, "batch": batch,
                         "windows_per_s": round(rate, 2),
                         "tflops": round(flops.get_total_flops() / seconds / 1e12, 3),
                         "of_peak": round(flops.get_total_flops() / seconds / 1e12 / best, 3),
                         "s_of_50_guided_steps": {px: round(100 * n / rate, 1) for px, n in windows.items()},
                         **memory})  # fmt: skip
    return rows


def image(model: str, device: torch.device, precision: torch.dtype | None, side: int, *,
            compiled: bool = False) -> tuple[np.ndarray, float, float]:  # fmt: skip
    """An image (side, side, 3) from a field of the model's own vectors, and seconds of painting and developing."""
    bundle = BundleAt.load(model, device)
    assert isinstance(bundle, BundleAt)
    bundle.precision = precision
    if compiled:
        bundle.__dict__["denoiser"] = torch.compile(bundle.denoiser)
    own, cells = bundle.info.sampling, -(-side // bundle.info.encoder.tile_px)
    how = SynthesisSettings(steps=own.steps, times=own.times, update=own.update, guidance=own.guidance,
                            guidance_interval=own.guidance_interval)  # fmt: skip
    how = replace(how, call_lat=160_000 if device.type == "cpu" else 1_500_000)
    field = field_of(model, cells, bundle.factor)
    region = Window(0, 0, -(-side // bundle.factor), -(-side // bundle.factor))
    started = time.perf_counter()
    canvas = paint(bundle, field, region, how)
    wait(device)
    painted = time.perf_counter()
    made = np.concatenate(list(develop(bundle, canvas)))[:side, :side]
    return made, painted - started, time.perf_counter() - painted


def field_of(model: str, cells: int, factor: int) -> ConditionField:
    """A field of ``cells`` x ``cells``: the vectors of smooth coloured noise, repeated beyond 16 cells."""
    bundle = ModelBundle.load(model, "cpu")
    tile, few = bundle.info.encoder.tile_px, min(cells, 16)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(60, 220, (1, 3, 2 * few, 2 * few)).astype(np.float32))
    rgb = torch.nn.functional.interpolate(coarse, (few * tile, few * tile), mode="bicubic").clamp(0, 255)[0]
    tiles = rgb.reshape(3, few, tile, few, tile).permute(1, 3, 2, 4, 0).reshape(-1, tile, tile, 3)
    vectors = BundleEncoder(bundle).embed(tiles.to(torch.uint8).numpy()).reshape(few, few, -1)
    times = -(-cells // few)
    return ConditionField.of_grid(np.tile(vectors, (times, times, 1))[:cells, :cells], tile_px=tile, stride_px=tile,
                                  factor=factor)  # fmt: skip


def timed(call: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Seconds of a call, after two that warm up."""
    for _ in range(2):
        call()
    wait(device)
    started = time.perf_counter()
    for _ in range(rounds):
        call()
    wait(device)
    return (time.perf_counter() - started) / rounds


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def measured(device: torch.device) -> Iterator[dict[str, float]]:
    """Fills with the peak of the device's memory in MiB; nothing on a CPU."""
    found: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["peak_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
