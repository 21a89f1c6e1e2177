"""How weights, windows and thresholds lie in memory: pure numpy, no compiled code.

A packed pixel is one bit a channel, filled up with zeros to whole bytes, at least two; a row of a window is its pixels
one after the other, read 64 bits at a time. So 39 channels take 5 bytes, and a 3x3 window of them 3 x 2 words.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.kernels.target import Tile

Array = NDArray[np.generic]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

LANES = 8
# beyond every count; far from the ends of int64, so that sums with it do not overflow
NEVER = 1 << 40


def vectors_of(channels: int) -> int:
    """Vectors of eight channels; two at least, as the smallest tile has."""
    return max(2, -(-channels // LANES))


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution's geometry on one image.

    Attributes:
        channels: of the input.
        height: of the input, without border.
        width: of the input, without border.
        size: of the square window.
        stride: of the window.
        padding: zeros around the input, as torch counts them.
        border: pixels around the input in its buffer, `padding` at least.

    """

    channels: int
    height: int
    width: int
    size: int
    stride: int
    padding: int
    border: int

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return (self.height + 2 * self.padding - self.size) // self.stride + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (self.width + 2 * self.padding - self.size) // self.stride + 1

    def origins(self) -> tuple[Longs, Longs]:
        """Row and column of the first pixel of each output's window, in the input without border: both (pixels,)."""
        y, x = np.divmod(np.arange(self.out_height * self.out_width), self.out_width)
        return y * self.stride - self.padding, x * self.stride - self.padding


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a convolution goes through its input, and what of each window lies outside of the image.

    Attributes:
        pixels: int32 (tiles x pixels of a tile, 4): offset of the window in an image's buffer in bytes, class x
            vectors, index of the output, its offset in the buffer of output bits in bytes. The last output fills the
            last tile.
        ranges: int32 (tiles, 4): first and last + 1 word of the window that a tile visits, and the same of its rows.
            Rows of the window that lie outside of the image for all pixels of a tile are left out.
        offsets: int64 (words,): of each word of a window, in bytes from its first.
        inside: bool (classes, size, size): which places of the window lie in the image.
        visited: bool (classes, size, size): which places of the window a tile of this class visits.

    """

    pixels: NDArray[np.int32]
    ranges: NDArray[np.int32]
    offsets: Longs
    inside: NDArray[np.bool_]
    visited: NDArray[np.bool_]


def paths(window: Window, tile_pixels: int, unit: int, word: int, vectors: int, out_border: int) -> Paths:
    """The ways of a convolution.

    Args:
        window: its geometry.
        tile_pixels: pixels of a register tile.
        unit: bytes of a pixel of the input's buffer.
        word: bytes that are read at once.
        vectors: of eight output channels.
        out_border: pixels around the output in the buffer of output bits.

    """
    per_row = -(-window.size * unit // word)
    pitch = (window.width + 2 * window.border) * unit
    top, left = window.origins()
    count = len(top)
    tiles = -(-count // tile_pixels)
    order = np.minimum(np.arange(tiles * tile_pixels), count - 1)
    first, last = _visited_rows(window, top[order].reshape(tiles, tile_pixels))
    spans = np.stack([np.repeat(first, tile_pixels), np.repeat(last, tile_pixels), top[order], left[order]], axis=1)
    keys, classes = np.unique(_borders(window, spans), axis=0, return_inverse=True)
    y, x = np.divmod(order, window.out_width)
    records = np.stack(
        [
            (top[order] + window.border) * pitch + (left[order] + window.border) * unit,
            classes.reshape(-1) * vectors,
            order,
            ((y + out_border) * (window.out_width + 2 * out_border) + x + out_border) * vectors,
        ],
        axis=1,
    )
    steps = np.arange(window.size)[:, None] * pitch + np.arange(per_row)[None, :] * word
    place = np.arange(window.size)
    rows = (place >= keys[:, 0, None]) & (place < keys[:, 1, None])
    rows_inside = (place >= keys[:, 2, None]) & (place < keys[:, 3, None])
    columns = (place >= keys[:, 4, None]) & (place < keys[:, 5, None])
    everywhere = np.ones((len(keys), 1, window.size), dtype=np.bool_)
    return Paths(
        records.astype(np.int32),
        np.stack([first * per_row, last * per_row, first, last], axis=1).astype(np.int32),
        steps.reshape(-1).astype(np.int64),
        rows_inside[:, :, None] & columns[:, None, :],
        rows[:, :, None] & everywhere,
    )


def _visited_rows(window: Window, top: Longs) -> tuple[Longs, Longs]:
    """First and last + 1 row of the window with a pixel inside the image, of each tile; `top` is (tiles, pixels)."""
    first = np.clip(-top, 0, window.size).min(axis=1)
    last = np.clip(window.height - top, 0, window.size).max(axis=1)
    return first, np.maximum(first, last)


def _borders(window: Window, spans: Longs) -> Longs:
    """(first, last, top, left) -> first and last of visited rows, of rows inside, of columns inside; (pixels, 6)."""
    first, last, top, left = spans.T
    inside = [np.clip(edge, 0, window.size) for edge in (-top, window.height - top, -left, window.width - left)]
    return np.stack([first, last, *inside], axis=1)


def pack_bits(bits: NDArray[np.bool_], vectors: int, word: int = 8) -> NDArray[np.int64]:
    """Bits (filters, size, size, C) -> words (filters, rows x words a row) in the order of `Paths.offsets`."""
    filters, size, _, channels = bits.shape
    wide = np.zeros((filters, size, size, vectors * LANES), dtype=np.bool_)
    wide[..., :channels] = bits
    packed = np.packbits(wide, axis=-1, bitorder="little").reshape(filters, size, size * vectors)
    full = np.zeros((filters, size, -(-size * vectors // word) * word), dtype=np.uint8)
    full[..., : size * vectors] = packed
    return full.view("<i8").reshape(filters, -1).astype(np.int64)


def starts_of(vectors: int, tile: Tile) -> NDArray[np.int32]:
    """First vector of each block of filters; the last block overlaps its neighbour where they do not divide evenly."""
    blocks = -(-vectors // tile.vectors)
    return np.minimum(np.arange(blocks) * tile.vectors, vectors - tile.vectors).astype(np.int32)


def block_weights(planes: list[Array], tile: Tile) -> Array:
    """Words of filters as the tiles read them.

    Args:
        planes: each (filters, words), filters being a multiple of eight.
        tile: the shape of the register tile.

    Returns:
        (blocks, words, vectors of a tile, planes, 8).

    """
    stacked = np.stack(planes)
    count, filters, words = stacked.shape
    grouped = stacked.reshape(count, filters // LANES, LANES, words)
    starts = starts_of(filters // LANES, tile)
    chosen = grouped[:, starts[:, None] + np.arange(tile.vectors)[None, :]]
    return np.ascontiguousarray(chosen.transpose(1, 4, 2, 0, 3))


def first_at_least(z: Callable[[Doubles], Doubles], bound: float, limit: int, filters: int) -> Longs:
    """The smallest integer d in [-limit, limit] with z(d) >= bound for each filter; NEVER where there is none.

    `z` maps integers of shape (filters,) to values, and must not fall with d. Where all are, d is -NEVER.
    """
    low = np.full(filters, -limit - 1, dtype=np.int64)
    high = np.full(filters, limit + 1, dtype=np.int64)
    while (unsettled := high - low > 1).any():
        middle = (low + high) // 2
        reached = z(middle.astype(np.float64)) >= bound
        high = np.where(unsettled & reached, middle, high)
        low = np.where(unsettled & ~reached, middle, low)
    return np.where(high > limit, NEVER, np.where(high <= -limit, -NEVER, high))
