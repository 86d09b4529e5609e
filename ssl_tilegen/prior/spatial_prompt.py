"""Spatial relations in a prompt: "A beside B" becomes two texts and a map of where each is meant.

The grammar is small. A prompt is split at its first relation; the rest may hold more of them.

- ``A beside B``, ``A next to B``, ``A adjacent to B``, ``A to the left of B``: A left of B; ``right of``: B left of A
- ``A on the left and B on the right`` (either order; ``and`` or a comma; the second side may be left out)
- ``A above B``, ``A on top of B``; ``A below B``, ``A beneath B``; ``A at the top and B at the bottom``
- ``A between B and C``: B, A, C from left to right
- ``A surrounded by B``, ``A in the middle of B``, ``A in the centre of B``: a patch of A in B

Anything else is one text. So is a prompt whose relation lacks a side, or has only a pronoun there: "a village with a
forest beside it".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_tilegen.geometry import Size

Kind = Literal["across", "down", "inside"]
_WAVES, _SWING, _TILT = 4, 0.06, 0.25
_PATCH, _LOBES, _OFF_CENTRE = 0.31, 0.3, 0.06

_SIDES = {"on the left": ("across", 0), "on the right": ("across", 1), "at the top": ("down", 0),
          "at the bottom": ("down", 1)}  # fmt: skip
_SIDE = re.compile(rf"^(?P<one>.+?) (?P<place>{'|'.join(_SIDES)})(?:\s*,)?(?: and)? (?P<two>.+)$", re.I)
_BETWEEN = re.compile(r"^(?P<one>.+?) between (?P<two>.+?) and (?P<three>.+)$", re.I)
_PRONOUN = re.compile("it|them|that|this|these|those|each other|one another", re.I)
_RELATIONS: list[tuple[str, Kind, bool]] = [
    (r"beside|next to|adjacent to|(?:to|on) the left(?: side)? of|left of", "across", False),
    (r"(?:to|on) the right(?: side)? of|right of", "across", True),
    (r"above|on top of", "down", False),
    (r"below|beneath", "down", True),
    (r"surrounded by|in the (?:middle|cent(?:re|er)) of", "inside", False),
]
"""Phrases, the split that they mean, and whether the part named last comes first."""


@dataclass(frozen=True)
class Split:
    """Parts side by side ``across`` or ``down``, or the first ``inside`` the second; each a text or a split."""

    kind: Kind
    parts: tuple[Split | str, ...]

    def __str__(self) -> str:
        sign = {"across": " | ", "down": " / ", "inside": " in "}[self.kind]
        return f"({sign.join(map(str, self.parts))})"


def split(text: str) -> Split | str:
    """The parts of a prompt and their arrangement, or the text itself where it names no relation."""
    text = _trimmed(text)
    tree = _read(text)
    return text if any(_PRONOUN.fullmatch(part) for part in texts(tree)) else tree


def _read(text: str) -> Split | str:
    """The tree of a trimmed text."""
    found = [rule for rule in (_sides(text), _between(text), *_pairs(text)) if rule]
    return min(found, key=lambda pair: pair[0])[1] if found else text


def texts(tree: Split | str) -> list[str]:
    """The texts of a tree, in the order in which ``parts_map`` numbers them."""
    return [tree] if isinstance(tree, str) else [text for part in tree.parts for text in texts(part)]


def parts_map(tree: Split | str, cells: Size, seed: int) -> np.ndarray:
    """Which of ``texts`` each cell (R, K) is of. Borders are smooth and, by the seed, at random; a larger grid has the
    same map, larger."""
    rows, cols = (np.arange(cells.rows) + 0.5) / cells.rows, (np.arange(cells.cols) + 0.5) / cells.cols
    down, across = np.meshgrid(rows, cols, indexing="ij")
    return _numbered(tree, down, across, np.random.default_rng([seed, 7]))


def _numbered(tree: Split | str, down: np.ndarray, across: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if isinstance(tree, str):
        return np.zeros(down.shape, int)
    which = {"across": _stripes, "down": lambda d, a, n, r: _stripes(a, d, n, r), "inside": _patch}[tree.kind](
        down, across, len(tree.parts), rng
    )
    out, first = np.zeros(down.shape, int), 0
    for number, part in enumerate(tree.parts):
        out = np.where(which == number, first + _numbered(part, down, across, rng), out)
        first += len(texts(part))
    return out


def _stripes(along: np.ndarray, to: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Number of the stripe, growing with ``to``; borders are lines along ``along``, tilted and bent a little."""
    place = to.copy()
    which = np.zeros(to.shape, int)
    for border in range(1, count):
        bend = _wave(rng)(along) * _SWING + rng.uniform(-_TILT, _TILT) / count * (along - 0.5)
        which += place + bend > border / count
    return which


def _patch(down: np.ndarray, across: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """0 in a lobed patch near the middle, 1 around it."""
    row, col = down - 0.5 - rng.uniform(-1, 1) * _OFF_CENTRE, across - 0.5 - rng.uniform(-1, 1) * _OFF_CENTRE
    reach = _PATCH * (1 + _LOBES * _wave(rng)(np.arctan2(row, col) / (2 * np.pi)))
    return (np.hypot(row, col) > reach).astype(int)


def _wave(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A smooth random function of period 1, about within -1 and 1."""
    waves = [(k, rng.normal() / k**1.5, rng.random()) for k in range(1, _WAVES + 1)]
    return lambda x: sum(size * np.sin(2 * np.pi * (k * x + phase)) for k, size, phase in waves).clip(-1, 1)


Found = tuple[int, Split]
"""Where in the text a rule's phrase begins, and its meaning."""


def _sides(text: str) -> Found | None:
    match = _SIDE.match(text)
    if not match:
        return None
    kind, place = _SIDES[match["place"].lower()]
    other = next(name for name, facts in _SIDES.items() if facts == (kind, 1 - place))
    two = _trimmed(re.sub(rf"\s*,?\s*{other}$", "", _trimmed(match["two"]), flags=re.I))
    return _made(match.start("place"), kind, [match["one"], two], backwards=place == 1)  # type: ignore[arg-type]


def _between(text: str) -> Found | None:
    match = _BETWEEN.match(text)
    return _made(match.end("one"), "across", [match["two"], match["one"], match["three"]]) if match else None


def _pairs(text: str) -> list[Found | None]:
    found = []
    for phrase, kind, backwards in _RELATIONS:
        match = re.match(rf"^(?P<one>.+?),? (?:{phrase}) (?P<two>.+)$", text, re.I)
        found.append(_made(match.end("one"), kind, [match["one"], match["two"]], backwards) if match else None)
    return found


def _made(place: int, kind: Kind, sides: list[str], backwards: bool = False) -> Found | None:
    """A split whose last side may be split again; None where a side says nothing."""
    sides = [_trimmed(side) for side in sides]
    if not all(sides):
        return None
    parts: list[Split | str] = [*sides[:-1], _read(sides[-1])]
    return place, Split(kind, _flat(kind, parts[::-1] if backwards else parts))


def _flat(kind: Kind, parts: list[Split | str]) -> tuple[Split | str, ...]:
    """Parts of the same kind of split are parts of the whole: "A beside B beside C" is three alike."""
    if kind == "inside":
        return tuple(parts)
    inner = [part.parts if isinstance(part, Split) and part.kind == kind else (part,) for part in parts]
    return tuple(part for group in inner for part in group)


def _trimmed(text: str) -> str:
    """Without joining words: spaces, stops, articles and a leading verb."""
    text = " ".join(text.split()).strip(" ,.;:")
    text = re.sub(r"^(?:(?:an?|the|some|and|with|lies?|is|are|lying) )+", "", text, flags=re.I)
    return re.sub(r"(?: (?:lies?|is|are|lying|and))+$", "", text, flags=re.I).strip(" ,.;:")
