"""Rows of the table for convolutions: packed weights, thresholds and biases of each class of border pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.kernels import target
from trainables.kernels.emitter import WEIGHT_PLANES
from trainables.kernels.fields import Conv, Mode, Op
from trainables.kernels.layout import (
    LANES,
    NEVER,
    Array,
    Doubles,
    Longs,
    Paths,
    Window,
    block_weights,
    first_at_least,
    pack_bits,
    paths,
    starts_of,
    vectors_of,
)
from trainables.kernels.maps import Bits, Cell, Floats, Padded, Plane, Row
from trainables.kernels.target import Kind

OPS: dict[Kind, Op] = {
    "binary_wide": Op.BINARY_WIDE,
    "binary_tall": Op.BINARY_TALL,
    "ternary": Op.TERNARY,
    "planes": Op.PLANES,
    "float": Op.FLOAT,
}
Signs = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size, stride and zero padding of a square window."""

    size: int
    stride: int
    padding: int

    def on(self, source: Bits | Padded) -> Window:
        """The window on a map."""
        return Window(source.channels, source.height, source.width, self.size, self.stride, self.padding, source.border)


@dataclass(frozen=True, slots=True)
class Next:
    """The activation that follows on y: of z = scale y + shift, +1 where z >= bound; ternary, -1 where z <= -bound.

    `scale` and `shift` have shape (channels,); `bound` is 0 for sign; the planes of `bits` say which it is.
    """

    scale: Doubles
    shift: Doubles
    bound: float
    bits: Bits


@dataclass(frozen=True, slots=True)
class ToBits:
    """Finish with the next activation of z(d), d being the sum of the products of each filter: exact thresholds.

    `z` maps sums (filters,) to values, rising with d or, where `falling`, falling.
    """

    z: Callable[[Doubles], Doubles]
    falling: NDArray[np.bool_]
    bound: float
    bits: Bits


@dataclass(frozen=True, slots=True)
class ToFloats:
    """Finish with y = scale d + shift + residual in fp32, d being the sum of the products of each filter.

    It is stored in `output`, and the next activation in `following`, each where given.
    """

    scale: Doubles
    shift: Doubles
    residual: Floats | None
    output: Floats | None
    following: Next | None


def bit_convolution(source: Bits, signs: Signs, geometry: Geometry, finish: ToBits | ToFloats) -> Row:
    """A convolution of packed activations with weights -1, 0, +1 of shape (O, I, size, size)."""
    if isinstance(finish, ToBits):
        signs = np.where(finish.falling[:, None, None, None], -signs, signs)
    window = geometry.on(source)
    vectors = vectors_of(len(signs))
    kind = _kind(source, signs, vectors)
    way = _paths(window, kind, vectors_of(source.channels), 8, vectors, finish)
    last = np.moveaxis(signs, 1, -1)
    padded = np.zeros((vectors * LANES, *last.shape[1:]), np.int8)
    padded[: len(last)] = last
    positive, nonzero = (pack_bits(bits, vectors_of(source.channels)) for bits in (padded > 0, padded != 0))
    planes = [positive] if WEIGHT_PLANES[kind] == 1 else [nonzero, positive]
    masks = pack_bits(np.ones((1, *last.shape[1:]), np.bool_), vectors_of(source.channels))[0]
    cells: dict[Conv, Cell] = {
        **_input_cells(window, way, kind, vectors),
        **_weight_cells([plane.astype(np.int64) for plane in planes], kind),
        **_beyond_cells(masks, way),
        Conv.INPUT: source.buffer,
        Conv.INPUT_IMAGE: source.buffer.image_bytes,
        Conv.INPUT_PLANE: Plane(source.buffer),
    }
    counts = _Counts.of(padded, way, agree=kind == "planes")
    if isinstance(finish, ToBits):
        return Row(OPS[kind], cells | _threshold_cells(finish, counts, len(signs), signs[0].size))
    scale, bias = counts.linear(_wide(finish.scale, vectors), _wide(finish.shift, vectors))
    return Row(OPS[kind], cells | _float_cells(finish, scale, bias))


def float_convolution(source: Padded, weights: Array, geometry: Geometry, finish: ToFloats) -> Row:
    """A convolution of fp32 maps with fp32 weights (O, I, size, size)."""
    window = geometry.on(source)
    vectors = vectors_of(len(weights))
    way = _paths(window, "float", 4 * source.channels, 4, vectors, finish)
    wide = np.zeros((vectors * LANES, weights[0].size), np.float32)
    wide[: len(weights)] = np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
    classes = len(way.inside)
    cells: dict[Conv, Cell] = {
        **_input_cells(window, way, "float", vectors),
        **_weight_cells([wide], "float"),
        Conv.INPUT: source.buffer,
        Conv.INPUT_IMAGE: source.buffer.image_bytes,
    }
    bias = np.tile(_wide(finish.shift, vectors), (classes, 1))
    return Row(Op.FLOAT, cells | _float_cells(finish, _wide(finish.scale, vectors), bias))


def window_sums(source: Bits, geometry: Geometry, scale: Doubles, residual: Floats | None, output: Floats) -> Row:
    """Make output = residual + scale_o S, S being the sum of the packed activations in an output's window."""
    window = geometry.on(source)
    vectors = vectors_of(len(scale))
    way = paths(window, 1, vectors_of(source.channels), 8, vectors, 0)
    ones = np.ones((1, geometry.size, geometry.size, source.channels), np.bool_)
    cells: dict[Conv, Cell] = {
        Conv.BLOCKS: len(way.offsets),
        Conv.TILES: len(way.pixels),
        Conv.PIXELS: way.pixels,
        Conv.OFFSETS: way.offsets,
        Conv.MASKS: pack_bits(ones, vectors_of(source.channels))[0],
        Conv.INPUT: source.buffer,
        Conv.INPUT_IMAGE: source.buffer.image_bytes,
        Conv.INPUT_PLANE: Plane(source.buffer),
        Conv.VECTORS: vectors,
        Conv.COUNT: (way.inside.sum(axis=(1, 2)) * source.channels).astype(np.int32),
        Conv.SCALE: _wide(scale, vectors).astype(np.float32),
        **_map_cells(output, Conv.OUTPUT, Conv.OUTPUT_IMAGE, Conv.OUTPUT_PIXEL),
        **_map_cells(residual, Conv.RESIDUAL, Conv.RESIDUAL_IMAGE, Conv.RESIDUAL_PIXEL),
    }
    return Row(Op.WINDOW_SUM, cells)


@dataclass(frozen=True, slots=True)
class _Counts:
    """What a tile counts: n - 2 (v - outside) = d for each filter and class of border pixels, or v = -d.

    `products` n and `outside` have shape (classes, filters).
    """

    products: Longs
    outside: Longs
    agree: bool

    @classmethod
    def of(cls, signs: Signs, way: Paths, agree: bool) -> "_Counts":
        places = signs.reshape(len(signs), *way.inside.shape[1:], -1)
        nonzero = np.count_nonzero(places, axis=-1).reshape(len(signs), -1)
        positive = np.count_nonzero(places > 0, axis=-1).reshape(len(signs), -1)
        inside = way.inside.reshape(len(way.inside), -1).astype(np.int64)
        beyond = (way.visited & ~way.inside).reshape(len(way.inside), -1).astype(np.int64)
        return cls(inside @ nonzero.T, beyond @ positive.T, agree)

    def at_least(self, bound: Longs) -> Longs:
        """The largest v at which d >= bound (filters,); (classes, filters)."""
        if self.agree:
            return np.tile(-bound, (len(self.products), 1))
        return self.outside + (self.products - bound) // 2

    def at_most(self, bound: Longs) -> Longs:
        """The smallest v at which d <= bound (filters,); (classes, filters)."""
        if self.agree:
            return np.tile(-bound, (len(self.products), 1))
        return self.outside - (bound - self.products) // 2

    def linear(self, scale: Doubles, shift: Doubles) -> tuple[Doubles, Doubles]:
        """What scale d + shift is in v: a factor (filters,) and what is added (classes, filters)."""
        if self.agree:
            return -scale, np.tile(shift, (len(self.products), 1))
        return -2 * scale, scale * (self.products + 2 * self.outside) + shift


def _kind(source: Bits, signs: Signs, vectors: int) -> Kind:
    if source.planes == 2:
        return "planes"
    if not signs.all():
        return "ternary"
    wide, tall = target.tile("binary_wide").vectors, target.tile("binary_tall").vectors
    covered = {size: -(-vectors // size) * size for size in (wide, tall)}
    return "binary_wide" if vectors >= wide and covered[wide] <= covered[tall] else "binary_tall"


def _paths(window: Window, kind: Kind, unit: int, word: int, vectors: int, finish: ToBits | ToFloats) -> Paths:
    following = finish if isinstance(finish, ToBits) else finish.following
    border = 0 if following is None else following.bits.border
    return paths(window, target.tile(kind).pixels, unit, word, vectors, border)


def _input_cells(window: Window, way: Paths, kind: Kind, vectors: int) -> dict[Conv, Cell]:
    starts = starts_of(vectors, target.tile(kind))
    return {
        Conv.BLOCKS: len(starts),
        Conv.STARTS: starts,
        Conv.TILES: len(way.ranges),
        Conv.RANGES: way.ranges,
        Conv.PIXELS: way.pixels,
        Conv.OFFSETS: way.offsets,
        Conv.VECTORS: vectors,
    }


def _beyond_cells(masks: Longs, way: Paths) -> dict[Conv, Cell]:
    """Which bits of the last word of a row are not of the window, and where these words lie."""
    per_row = len(masks) // way.inside.shape[1]
    beyond = ~masks[per_row - 1 : per_row]
    return {Conv.BEYOND: beyond, Conv.ROW_ENDS: way.offsets[per_row - 1 :: per_row].copy()} if beyond.any() else {}


def _weight_cells(planes: list[Array], kind: Kind) -> dict[Conv, Cell]:
    weights = block_weights(planes, target.tile(kind))
    return {Conv.WEIGHTS: weights, Conv.BLOCK_STRIDE: weights[0].nbytes}


def _threshold_cells(finish: ToBits, counts: _Counts, filters: int, limit: int) -> dict[Conv, Cell]:
    def rising(sums: Doubles) -> Doubles:
        return finish.z(np.where(finish.falling, -sums, sums))

    def falling(sums: Doubles) -> Doubles:
        return -rising(-sums)

    wide = counts.products.shape[1]
    upper = np.full((len(counts.products), wide), -NEVER, np.int64)
    lower = np.full_like(upper, NEVER)
    plus, minus = np.full(wide, NEVER, np.int64), np.full(wide, -NEVER, np.int64)
    plus[:filters] = first_at_least(rising, finish.bound, limit, filters)
    minus[:filters] = -first_at_least(falling, finish.bound, limit, filters)
    upper[:, :filters] = counts.at_least(plus)[:, :filters]
    lower[:, :filters] = counts.at_most(minus)[:, :filters]
    return {
        Conv.MODE: Mode.BITS,
        Conv.UPPER: upper,
        Conv.LOWER: lower,
        Conv.BITS: finish.bits.buffer,
        Conv.BITS_IMAGE: finish.bits.buffer.image_bytes,
        Conv.BITS_PLANE: Plane(finish.bits.buffer),
    }


def _float_cells(finish: ToFloats, scale: Doubles, bias: Doubles) -> dict[Conv, Cell]:
    return {
        Conv.MODE: Mode.FLOAT,
        Conv.SCALE: scale.astype(np.float32),
        Conv.BIAS: bias.astype(np.float32),
        **_map_cells(finish.output, Conv.OUTPUT, Conv.OUTPUT_IMAGE, Conv.OUTPUT_PIXEL),
        **_map_cells(finish.residual, Conv.RESIDUAL, Conv.RESIDUAL_IMAGE, Conv.RESIDUAL_PIXEL),
        **_next_cells(finish.following),
    }


def _next_cells(following: Next | None) -> dict[Conv, Cell]:
    if following is None:
        return {}
    upper, lower = bounds(following)
    vectors = vectors_of(following.bits.channels)
    return {
        Conv.NEXT_SCALE: _wide(following.scale, vectors).astype(np.float32),
        Conv.NEXT_BIAS: _wide(following.shift, vectors).astype(np.float32),
        Conv.NEXT_UPPER: upper,
        Conv.NEXT_LOWER: lower,
        Conv.BITS: following.bits.buffer,
        Conv.BITS_IMAGE: following.bits.buffer.image_bytes,
        Conv.BITS_PLANE: Plane(following.bits.buffer),
    }


def bounds(following: Next) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """From which z on an activation is +1, and down from which -1; never in the channels that fill up."""
    channels, vectors = following.bits.channels, vectors_of(following.bits.channels)
    upper = np.full(vectors * LANES, np.inf, np.float32)
    upper[:channels] = following.bound
    lower = np.full(vectors * LANES, -np.inf, np.float32)
    if following.bits.planes == 2:
        lower[:channels] = -following.bound
    return upper, lower


def _map_cells(floats: Floats | None, base: Conv, image: Conv, pixel: Conv) -> dict[Conv, Cell]:
    if floats is None:
        return {}
    return {base: floats.buffer, image: floats.buffer.image_bytes, pixel: 32 * vectors_of(floats.channels)}


def _wide(values: Doubles, vectors: int) -> Doubles:
    wide = np.zeros(vectors * LANES)
    wide[: len(values)] = values
    return wide
