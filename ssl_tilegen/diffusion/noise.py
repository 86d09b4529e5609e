"""Noise with an address: the normal number at a place depends on (seed, stream, place) and nothing else.

So the image is the same for any batch, order of windows, number of processes and point of resumption. Two regions of
one virtual canvas start from the same noise where they meet. Philox (Salmon et al. 2011) is a function of a key and
a counter: the key is (seed, stream), the counter starts at the block's absolute position. The bits are turned to
normals here (Box-Muller), so no version of numpy's own sampler changes an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from ssl_tilegen.geometry import Window
from ssl_tilegen.system.resources import cores

_BLOCKS_A_THREAD = 4
BLOCK_LAT = 64
"""Side of a block in latents; part of the address, so changing it changes every image."""

_WORD = 1 << 64
_OFFSET_STREAM = 1 << 63
"""Streams from here on are for lattice offsets; below are the noise of each step."""
_SHARED_STREAM = _OFFSET_STREAM - 1
"""The component of coherent noise that is the same over a whole canvas."""


def addressed_noise(window: Window, channels: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Standard normal noise (channels, rows, cols) of an absolute window in latents; negative places are places too."""
    out = np.empty((channels, window.rows, window.cols), dtype=np.float32)

    def fill(block: Window) -> None:
        shared = block.intersection(window)
        assert shared is not None  # blocks are those that meet the window
        to, of = shared.within(window).slices, shared.within(block).slices
        out[:, *to] = _block(block, channels, seed, stream)[:, *of]

    blocks = list(_blocks(window))
    threads = min(len(blocks) // _BLOCKS_A_THREAD, cores())
    if threads < 2:
        for block in blocks:
            fill(block)
    else:  # numpy works on blocks without the interpreter's lock
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, blocks))
    return out


def coherent_noise(window: Window, channels: int, seed: int, reach: int) -> NDArray[np.float32]:
    """As ``addressed_noise``, but its mean over 2 ``reach`` + 1 places to a side is about the same everywhere.

    Such a mean tells a network that sees no further what a whole image has in common: its stain, its light. So it finds
    the same all over the canvas. Each number is still normal, and so is each mean.
    """
    noise = addressed_noise(window.grown(reach), channels, seed).astype(np.float64)
    side = 2 * reach + 1
    along = reduce(np.add, (noise[:, first : first + window.rows] for first in range(side)))
    slow = reduce(np.add, (along[:, :, first : first + window.cols] for first in range(side))) / side**2
    shared = addressed_noise(Window(0, 0, 1, 1), channels, seed, _SHARED_STREAM) / side
    own = noise[:, reach : reach + window.rows, reach : reach + window.cols]
    return (own - slow + shared).astype(np.float32)


def addressed_offset(period: int, quantum: int, seed: int, step: int) -> tuple[int, int]:
    """A (row, col) offset in [0, period), a multiple of ``quantum``, that belongs to (seed, step)."""
    row, col = _philox(seed, _OFFSET_STREAM + step, 0, 0).random_raw(2).tolist()
    choices = max(1, period // quantum)
    return row % choices * quantum, col % choices * quantum


def _blocks(window: Window) -> Iterator[Window]:
    outer = window.aligned(BLOCK_LAT)
    for row in range(outer.row, outer.row_end, BLOCK_LAT):
        for col in range(outer.col, outer.col_end, BLOCK_LAT):
            yield Window(row, col, BLOCK_LAT, BLOCK_LAT)


def _block(block: Window, channels: int, seed: int, stream: int) -> NDArray[np.float32]:
    """All noise (channels, BLOCK_LAT, BLOCK_LAT) of one block."""
    source = _philox(seed, stream, block.row // BLOCK_LAT, block.col // BLOCK_LAT)
    bits = source.random_raw(channels * BLOCK_LAT * BLOCK_LAT // 2)
    return _normals(bits).reshape(channels, BLOCK_LAT, BLOCK_LAT)


def _philox(seed: int, stream: int, row: int, col: int) -> np.random.Philox:
    """The generator at an address; it counts upwards in the counter's lowest word, which the address leaves free."""
    key = np.array([seed % _WORD, stream % _WORD], dtype=np.uint64)
    counter = np.array([0, 0, row % _WORD, col % _WORD], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter)


def _normals(bits: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Two normals from each 64 bits (Box & Muller 1958). In float64: so the last bit of float32 is the same on every
    vector unit."""
    unit = 2.0**-32
    radius = (bits >> np.uint64(32)).astype(np.float64)
    radius += 1
    radius *= unit
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64)
    angle *= 2 * np.pi * unit
    normals = np.empty((2, len(bits)), np.float32)
    np.multiply(radius, np.cos(angle), out=normals[0], casting="same_kind")
    np.multiply(radius, np.sin(angle), out=normals[1], casting="same_kind")
    return normals.ravel()
