"""The figures of a run over its steps, drawn with Pillow."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

_NOT_DRAWN = {"step", "steps", "eta_s"}
_WIDTH, _HEIGHT, _MARGIN = 420, 220, 34
_ACROSS = 3
_INK, _FRAME, _PAPER = (31, 78, 140), (190, 190, 190), (255, 255, 255)


def draw_curves(log: Path, out: Path) -> None:
    """One panel per figure in a log of JSON lines, into a PNG. Nothing where there is nothing to draw."""
    curves = _read(log)
    if not curves:
        return
    down = math.ceil(len(curves) / _ACROSS)
    sheet = Image.new("RGB", (min(len(curves), _ACROSS) * _WIDTH, down * _HEIGHT), _PAPER)
    for place, (name, points) in enumerate(curves.items()):
        sheet.paste(_panel(name, points), (place % _ACROSS * _WIDTH, place // _ACROSS * _HEIGHT))
    fresh = out.with_name(f"{out.stem}.part{out.suffix}")
    sheet.save(fresh)
    fresh.replace(out)


def _read(log: Path) -> dict[str, list[tuple[float, float]]]:
    """Figure -> [(step, value)], only finite numbers."""
    curves: dict[str, list[tuple[float, float]]] = {}
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
    line = [
        (
            box[0] + (x - left) / (right - left) * (box[2] - box[0]),
            box[3] - (y - low) / (high - low) * (box[3] - box[1]),
        )
        for x, y in points
    ]
    if len(line) > 1:
        draw.line(line, fill=_INK, width=2)
    else:
        draw.ellipse([line[0][0] - 2, line[0][1] - 2, line[0][0] + 2, line[0][1] + 2], fill=_INK)
    return panel


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
