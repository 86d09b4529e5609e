"""Options that several commands have, each declared once. A command gives the meaning and the group in its help."""

from __future__ import annotations

from typing import Any

from ssl_tilegen.config.options import option


def model_option(meaning: str, panel: str) -> Any:
    """``--model``: the bundle of a command."""
    return option("tiny", meaning, "--model", metavar="BUNDLE", panel=panel)


def seed_option(meaning: str, panel: str) -> Any:
    """``--seed``, of which 0 is the default everywhere."""
    return option(0, meaning, "--seed", panel=panel, ge=0)


def steps_option(panel: str) -> Any:
    """``--steps``: how many steps a sampler takes."""
    return option(None, "Sampling steps.", "--steps", default_text="the bundle's", panel=panel, gt=0, le=10_000)


def guidance_option(panel: str) -> Any:
    """``--guidance``: the weight of classifier-free guidance."""
    return option(
        None,
        "Strength of guidance, 1 for none. W in uncond + W (cond - uncond).",
        "--guidance",
        default_text="the bundle's",
        metavar="W",
        panel=panel,
        ge=0,
    )


def mpp_option(purpose: str, panel: str, default_text: str = "") -> Any:
    """``--mpp``: a resolution in micrometres per pixel; ``purpose`` goes on from there."""
    return option(None, f"Micrometres per pixel {purpose}", "--mpp", default_text=default_text, panel=panel, gt=0)


def gsd_option(purpose: str, panel: str, default_text: str = "") -> Any:
    """``--gsd``: a resolution in metres per pixel; ``purpose`` goes on from there."""
    return option(None, f"Metres per pixel {purpose}", "--gsd", default_text=default_text, panel=panel, gt=0)


def shard_option(meaning: str, panel: str) -> Any:
    """``--shard``: the part of the work that one of many processes does."""
    return option(None, meaning, "--shard", default_text="automatic", metavar="I/N", panel=panel)


def threads_option(meaning: str, panel: str) -> Any:
    """``--threads``: how many threads read."""
    return option(None, meaning, "--threads", default_text="one per core, at most 16", panel=panel, gt=0)
