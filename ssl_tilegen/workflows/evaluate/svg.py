"""Plots of the report as inline SVG: arrays in, markup out. Colours are CSS variables: the page is light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from markupsafe import Markup

_FONT = 'font-size="12" fill="var(--ink-2)"'


def histogram(sets: Sequence[np.ndarray], label: str, *, line: tuple[float, str] | None = None) -> Markup:
    """Overlaid distributions of ``sets`` of values, each of area 1; ``line``: a value to mark, and its name."""
    width, height, left, base = 372, 240, 18, 190
    finite = [values[np.isfinite(values)] for values in sets]
    everything = np.concatenate(finite)
    low, high = float(everything.min()), float(np.quantile(everything, 0.995))
    high = high if high > low else low + 1
    edges = np.linspace(low, high, 41)
    shares = [np.histogram(np.clip(values, low, high), edges)[0] / max(1, len(values)) for values in finite]
    top = max(float(s.max()) for s in shares) or 1.0

    def x(value: float) -> float:
        return left + (width - 2 * left) * (value - low) / (high - low)

    parts = []
    for i, own in enumerate(shares):
        steps = [f"M{x(edges[0]):.1f},{base}"]
        for edge, following, share in zip(edges, edges[1:], own, strict=False):
            y = base - 160 * share / top
            steps.append(f"L{x(edge):.1f},{y:.1f}L{x(following):.1f},{y:.1f}")
        steps.append(f"L{x(edges[-1]):.1f},{base}Z")
        parts.append(f'<path d="{"".join(steps)}" fill="var(--c{i + 1})" fill-opacity=".28" stroke="var(--c{i + 1})" '
                     f'stroke-width="1.5"/>')  # fmt: skip
    if line and low <= line[0] <= high:
        at = x(line[0])
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="24" y2="{base}" stroke="var(--bad)" '
                     f'stroke-dasharray="4 3"/>'
                     f'<text x="{at + 5:.1f}" y="36" {_FONT}>{escape(line[1])}</text>')  # fmt: skip
    parts.append(f'<line x1="{left}" x2="{width - left}" y1="{base}" y2="{base}" stroke="var(--line)"/>')
    for tick in np.linspace(low, high, 4):
        parts.append(f'<text x="{x(tick):.1f}" y="{base + 17}" text-anchor="middle" {_FONT}>{_short(tick)}</text>')
    parts.append(f'<text x="{width / 2}" y="{base + 36}" text-anchor="middle" {_FONT}>{escape(label)}</text>')
    return _svg(width, height, parts, label)


def precision_recall(points: Sequence[tuple[str, float, float, float, float]]) -> Markup:
    """Precision against recall: (name, precision, recall, and both of real against real), one colour a name."""
    side, left, top = 250, 44, 12
    parts = []
    for step in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + side * step, top + side * (1 - step)
        parts.append(f'<path d="M{left},{y}H{left + side}M{x},{top}V{top + side}" stroke="var(--line)" fill="none"/>'
                     f'<text x="{left - 7}" y="{y + 4}" text-anchor="end" {_FONT}>{step:g}</text>'
                     f'<text x="{x}" y="{top + side + 17}" text-anchor="middle" {_FONT}>{step:g}</text>')  # fmt: skip
    for i, (_, precision, recall, own_precision, own_recall) in enumerate(points):
        colour = f"var(--c{i % 4 + 1})"
        a = left + side * recall, top + side * (1 - precision)
        b = left + side * min(1, own_recall), top + side * (1 - min(1, own_precision))
        parts.append(f'<line x1="{b[0]:.1f}" y1="{b[1]:.1f}" x2="{a[0]:.1f}" y2="{a[1]:.1f}" stroke="{colour}" '
                     f'stroke-dasharray="3 3"/><circle cx="{b[0]:.1f}" cy="{b[1]:.1f}" r="6" fill="var(--card)" '
                     f'stroke="{colour}" stroke-width="2"/><circle cx="{a[0]:.1f}" cy="{a[1]:.1f}" r="6" '
                     f'fill="{colour}"/>')  # fmt: skip
    parts.append(f'<text x="{left + side / 2}" y="{top + side + 35}" text-anchor="middle" {_FONT}>recall</text>'
                 f'<text transform="translate(12,{top + side / 2}) rotate(-90)" text-anchor="middle" {_FONT}>'
                 "precision</text>")  # fmt: skip
    return _svg(left + side + 20, top + side + 44, parts, "precision and recall")


def confusion(table: np.ndarray, classes: Sequence[str]) -> Markup:
    """Counts as a shaded square: row = made as, column = seen as; shares are of the row."""
    cell, left, top, n = 84, 130, 34, len(classes)
    parts = []
    for j, name in enumerate(classes):
        parts.append(f'<text x="{left + cell * (j + 0.5)}" y="{top - 10}" text-anchor="middle" {_FONT}>'
                     f"{escape(name[:14])}</text>"
                     f'<text x="{left - 10}" y="{top + cell * (j + 0.5) + 4}" text-anchor="end" {_FONT}>'
                     f"{escape(name[:18])}</text>")  # fmt: skip
    for i, row in enumerate(table):
        for j, count in enumerate(row):
            share = float(count) / max(1.0, float(row.sum()))
            colour = "var(--good)" if i == j else "var(--bad)"
            x, y = left + cell * j, top + cell * i
            parts.append(f'<rect x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="6" fill="{colour}" '
                         f'fill-opacity="{0.06 + 0.6 * share:.2f}"/><text x="{x + cell / 2}" y="{y + cell / 2 - 1}" '
                         f'text-anchor="middle" font-size="15" fill="var(--ink)">{share:.0%}</text>'
                         f'<text x="{x + cell / 2}" y="{y + cell / 2 + 17}" text-anchor="middle" {_FONT}>'
                         f"{int(count)}</text>")  # fmt: skip
    return _svg(left + cell * n + 10, top + cell * n + 10, parts, "confusion")


def forest(rows: Sequence[tuple[str, float, float, float, int]], *, percent: bool = True) -> Markup:
    """Values with intervals, one a line: (name, value, low, high, colour number)."""
    left, width, step = 250, 330, 24
    low = min(r[2] for r in rows)
    high = max(r[3] for r in rows)
    pad = 0.06 * (high - low) or 0.5
    low, high = low - pad, high + pad

    def x(value: float) -> float:
        return left + width * (value - low) / (high - low)

    parts = []
    for tick in np.linspace(low + pad, high - pad, 5):
        text = f"{tick:.0%}" if percent else _short(tick)
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{step * len(rows) + 6}" '
                     f'stroke="var(--line)"/><text x="{x(tick):.1f}" y="{step * len(rows) + 22}" text-anchor="middle" '
                     f"{_FONT}>{text}</text>")  # fmt: skip
    for i, (name, value, start, end, colour) in enumerate(rows):
        y = step * (i + 0.5) + 4
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end" {_FONT}>{escape(name)}</text>'
                     f'<line x1="{x(start):.1f}" x2="{x(end):.1f}" y1="{y}" y2="{y}" stroke="var(--c{colour})" '
                     f'stroke-width="3" stroke-linecap="round" stroke-opacity=".45"/>'
                     f'<circle cx="{x(value):.1f}" cy="{y}" r="5" fill="var(--c{colour})"/>')  # fmt: skip
    return _svg(left + width + 24, step * len(rows) + 30, parts, "values with intervals")


def heat_map(values: np.ndarray, low: float, high: float, label: str) -> Markup:
    """(R, K) as squares from ``low`` (faint) to ``high`` (full); NaN is left open. Large maps are averaged down."""
    by = max(1, -(-max(values.shape) // 64))
    rows, cols = (-(-n // by) for n in values.shape)
    padded = np.full((rows * by, cols * by), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(rows, by, cols, by).swapaxes(1, 2).reshape(rows, cols, -1)
    known = np.isfinite(blocks).any(2)
    means = np.zeros((rows, cols))
    means[known] = np.nanmean(blocks[known], axis=1)
    cell = max(2, min(16, 560 // max(rows, cols)))
    parts = [
        f'<rect x="{c * cell}" y="{r * cell}" width="{cell}" height="{cell}" '
        f'fill="var(--accent)" fill-opacity="{0.05 + 0.95 * np.clip((means[r, c] - low) / (high - low), 0, 1):.2f}" '
        'shape-rendering="crispEdges"/>'
        for r, c in zip(*np.nonzero(known), strict=True)
    ]
    return _svg(round(cols * cell), round(rows * cell), parts, label)


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> Markup:
    """The parts in one element. Texts from outside are escaped where they are put into ``parts``."""
    return Markup(f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
                  f'aria-label="{escape(label)}">{"".join(parts)}</svg>')  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
