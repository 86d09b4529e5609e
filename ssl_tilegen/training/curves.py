"""The values that a run logs, over its steps, drawn with Pillow."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

from ssl_tilegen.system.atomic import writing

_NOT_DRAWN = {"step", "steps", "eta_s"}
_WIDTH, _HEIGHT, _MARGIN = 420, 220, 34
_ACROSS = 3
_INK, _PALE, _FRAME, _PAPER = (31, 78, 140), (176, 198, 226), (190, 190, 190), (255, 255, 255)
_SMOOTH, _COLOURS = 15, 16

Curves = dict[str, list[tuple[float, float]]]


def draw_curves(log: Path, out: Path) -> None:
    """One panel per value in a log of JSON lines, into a small PNG. Nothing where there is nothing to draw.

    Long curves are drawn pale, with their running mean over them.
    """
    curves = _read(log)
    if not curves:
        return
    down = math.ceil(len(curves) / _ACROSS)
    sheet = Image.new("RGB", (min(len(curves), _ACROSS) * _WIDTH, down * _HEIGHT), _PAPER)
    for place, (name, points) in enumerate(curves.items()):
        sheet.paste(_panel(name, points), (place % _ACROSS * _WIDTH, place // _ACROSS * _HEIGHT))
    with writing(out) as fresh:
        sheet.quantize(_COLOURS, dither=Image.Dither.NONE).save(fresh, optimize=True)


def _read(log: Path) -> Curves:
    """Name -> [(step, value)], only finite numbers."""
    curves: Curves = {}
    for line in log.read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name not in _NOT_DRAWN and isinstance(value, (int, float)) and math.isfinite(value):
                curves.setdefault(name, []).append((record["step"], value))
    return curves


def _panel(name: str, points: list[tuple[float, float]]) -> Image.Image:
    panel = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    draw = ImageDraw.Draw(panel)
    box = (_MARGIN + 30, 22, _WIDTH - 12, _HEIGHT - _MARGIN + 10)
    draw.rectangle(box, outline=_FRAME)
    draw.text((box[0], 5), f"{name}: {points[-1][1]:.4g}", fill=_INK)
    (left, right), (low, high) = (_span([p[axis] for p in points]) for axis in (0, 1))
    for y, value in ((box[1], high), (box[3] - 10, low)):
        draw.text((4, y), f"{value:.4g}", fill=(90, 90, 90))
    draw.text((box[0], box[3] + 3), f"{left:g}", fill=(90, 90, 90))
    draw.text((box[2] - 8 * len(f"{right:g}"), box[3] + 3), f"{right:g}", fill=(90, 90, 90))
    across, down = (box[2] - box[0]) / (right - left), (box[3] - box[1]) / (high - low)
    _draw_line(draw, [(box[0] + (x - left) * across, box[3] - (y - low) * down) for x, y in points])
    return panel


def _draw_line(draw: ImageDraw.ImageDraw, line: list[tuple[float, float]]) -> None:
    """Points in pixels as a line; a single one as a dot."""
    if len(line) == 1:
        draw.ellipse([line[0][0] - 2, line[0][1] - 2, line[0][0] + 2, line[0][1] + 2], fill=_INK)
    if len(line) > 1:
        smooth = _smoothed(line)
        draw.line(line, fill=_INK if smooth is line else _PALE, width=2)
        draw.line(smooth, fill=_INK, width=2)


def _smoothed(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The running mean of a long line, over fewer points towards its ends; a short one as it is."""
    if len(line) < 4 * _SMOOTH:
        return line
    heights = [y for _, y in line]
    smooth = []
    for i, (x, _) in enumerate(line):
        reach = min(_SMOOTH // 2, i, len(line) - 1 - i)
        part = heights[i - reach : i + reach + 1]
        smooth.append((x, sum(part) / len(part)))
    return smooth


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
