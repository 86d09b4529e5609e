"""How strong lines at the autoencoder's period are in pictures: its blocks of 8 px show where a painter repeats itself.

    python -m benchmarks.lines IMAGE...

One JSON line per image. ``period_8``, ``period_4``: the power of rows and columns at that period, of grey values,
divided by the power at periods beside it; 1 in pictures without such lines. The mean over parts of 512 px.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ssl_tilegen.geometry import Window
from ssl_tilegen.io.raster import open_raster

SIDE, PERIODS = 512, (8, 4)
_BESIDE = (*range(-12, -4), *range(5, 13))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    for path in parser.parse_args().images:
        with open_raster(path) as raster:
            found = lines(raster.read(Window.of(raster.size)).rgb)
        print(json.dumps({"image": path.name} | {f"period_{p}": round(v, 2) for p, v in found.items()}), flush=True)


def lines(rgb: np.ndarray) -> dict[int, float]:
    """Period in px -> the strength of lines at it, of (H, W, 3) of at least 512 px."""
    grey = rgb.astype(np.float64).mean(2)
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    parts = [
        grey[row : row + SIDE, col : col + SIDE]
        for row in range(0, grey.shape[0] - SIDE + 1, SIDE)
        for col in range(0, grey.shape[1] - SIDE + 1, SIDE)
    ]
    if not parts:
        raise SystemExit(f"error: an image of {grey.shape[1]} x {grey.shape[0]} px; give {SIDE} px or more")
    power = np.mean([np.abs(np.fft.fft2((part - part.mean()) * window)) ** 2 for part in parts], axis=0)
    sides = [side[:, : SIDE // 4].mean(1) for side in (power, power.T)]
    return {period: float(np.mean([_peak(side, SIDE // period) for side in sides])) for period in PERIODS}


def _peak(power: np.ndarray, place: int) -> float:
    beside = power[[place + offset for offset in _BESIDE]].mean()
    return float(power[place - 1 : place + 2].mean() / beside)


if __name__ == "__main__":
    main()
