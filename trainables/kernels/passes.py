"""The operations of a packed network that are no hot spot, as plain loops that numba compiles.

Each takes the address of its row in the table; `trainables.kernels.fields.Pass` names the columns.
"""

from typing import Any

import numpy as np
from numba.extending import register_jitable

from trainables.kernels.fields import Conv, Pass
from trainables.kernels.memory import (
    as_byte,
    column,
    popcount,
    read_byte,
    read_float,
    read_int32,
    read_int64,
    write_byte,
    write_float,
)

_P = Pass
Compiled = Any  # what numba makes of these functions has no types


@register_jitable
def image(op: int) -> None:
    """(N, C, H, W) floats -> (N, H + 2p, W + 2p, C), whose border stays as it is."""
    height, width, channels = column(op, _P.HEIGHT), column(op, _P.WIDTH), column(op, _P.CHANNELS)
    pad = column(op, _P.PAD)
    for n in range(column(op, _P.IMAGES)):
        source = column(op, _P.INPUT) + n * column(op, _P.INPUT_IMAGE)
        target = column(op, _P.OUTPUT) + n * column(op, _P.OUTPUT_IMAGE)
        for y in range(height):
            row = target + 4 * channels * ((y + pad) * (width + 2 * pad) + pad)
            for c in range(channels):
                line = source + 4 * width * (c * height + y)
                for x in range(width):
                    write_float(row + 4 * (x * channels + c), read_float(line + 4 * x))


@register_jitable
def unpack(op: int) -> None:
    """Packed activations (N, H + 2p, W + 2p, VECTORS bytes) -> floats -1, 0, +1 (N, H + 2q, W + 2q, PITCH), border 0.

    p is INPUT_PAD, q is PAD.
    """
    height, width, channels = column(op, _P.HEIGHT), column(op, _P.WIDTH), column(op, _P.CHANNELS)
    vectors, plane = column(op, _P.VECTORS), column(op, _P.INPUT_PLANE)
    pad, given, pitch = column(op, _P.PAD), column(op, _P.INPUT_PAD), column(op, _P.PITCH)
    for n in range(column(op, _P.IMAGES)):
        source = column(op, _P.INPUT) + n * column(op, _P.INPUT_IMAGE)
        target = column(op, _P.OUTPUT) + n * column(op, _P.OUTPUT_IMAGE)
        for y in range(height):
            for x in range(width):
                bits = source + vectors * ((y + given) * (width + 2 * given) + x + given)
                floats = target + 4 * pitch * ((y + pad) * (width + 2 * pad) + x + pad)
                for c in range(channels):
                    low = np.int64(read_byte(bits + c // 8)) >> (c % 8) & 1
                    value = 2 * low - 1
                    if plane != 0:
                        plus = np.int64(read_byte(bits + plane + c // 8)) >> (c % 8) & 1
                        value = low * (2 * plus - 1)
                    write_float(floats + 4 * c, np.float32(value))


@register_jitable
def pool_bits(op: int) -> None:
    """The largest of each window of packed activations: +1 where one is +1, -1 where all are -1."""
    height, width, vectors = column(op, _P.INPUT_HEIGHT), column(op, _P.INPUT_WIDTH), column(op, _P.VECTORS)
    size, stride, padding = column(op, _P.SIZE), column(op, _P.STRIDE), column(op, _P.PADDING)
    pad, given = column(op, _P.PAD), column(op, _P.INPUT_PAD)
    plane, target_plane = column(op, _P.INPUT_PLANE), column(op, _P.BITS_PLANE)
    for n in range(column(op, _P.IMAGES)):
        source = column(op, _P.INPUT) + n * column(op, _P.INPUT_IMAGE)
        target = column(op, _P.BITS) + n * column(op, _P.BITS_IMAGE)
        for y in range(column(op, _P.HEIGHT)):
            top, bottom = max(0, y * stride - padding), min(height, y * stride - padding + size)
            for x in range(column(op, _P.WIDTH)):
                left, right = max(0, x * stride - padding), min(width, x * stride - padding + size)
                place = target + vectors * ((y + pad) * (column(op, _P.WIDTH) + 2 * pad) + x + pad)
                for j in range(vectors):
                    plus, minus = np.int64(0), np.int64(255)
                    for yy in range(top, bottom):
                        for xx in range(left, right):
                            at = source + vectors * ((yy + given) * (width + 2 * given) + xx + given) + j
                            low = np.int64(read_byte(at))
                            if plane == 0:
                                plus |= low
                            else:
                                sign = np.int64(read_byte(at + plane))
                                plus |= low & sign
                                minus &= low & ~sign
                    write_byte(place + j, as_byte(plus if plane == 0 else plus | minus))
                    if plane != 0:
                        write_byte(place + j + target_plane, as_byte(plus))


@register_jitable
def pool_float(op: int) -> None:
    """The largest of each window: (N, H, W, VECTORS x 8) floats -> (N, H', W', VECTORS x 8)."""
    height, width, channels = column(op, _P.INPUT_HEIGHT), column(op, _P.INPUT_WIDTH), 8 * column(op, _P.VECTORS)
    size, stride, padding = column(op, _P.SIZE), column(op, _P.STRIDE), column(op, _P.PADDING)
    wide = column(op, _P.WIDTH)
    for n in range(column(op, _P.IMAGES)):
        source = column(op, _P.INPUT) + n * column(op, _P.INPUT_IMAGE)
        target = column(op, _P.OUTPUT) + n * column(op, _P.OUTPUT_IMAGE)
        for y in range(column(op, _P.HEIGHT)):
            top, bottom = max(0, y * stride - padding), min(height, y * stride - padding + size)
            for x in range(wide):
                left, right = max(0, x * stride - padding), min(width, x * stride - padding + size)
                for c in range(channels):
                    largest = read_float(source + 4 * (channels * (top * width + left) + c))
                    for yy in range(top, bottom):
                        for xx in range(left, right):
                            largest = max(largest, read_float(source + 4 * (channels * (yy * width + xx) + c)))
                    write_float(target + 4 * (channels * (y * wide + x) + c), largest)


@register_jitable
def window_sum(op: int) -> None:
    """OUTPUT = RESIDUAL + SCALE_o S, S being the sum of the packed activations of each window (columns of `Conv`).

    COUNT holds the products of each class of border pixels; without planes S = 2 (bits set) - COUNT.
    """
    vectors, pixels = column(op, Conv.VECTORS), column(op, Conv.PIXELS)
    plane, residual = column(op, Conv.INPUT_PLANE), column(op, Conv.RESIDUAL)
    for n in range(column(op, Conv.IMAGES)):
        source = column(op, Conv.INPUT) + n * column(op, Conv.INPUT_IMAGE)
        target = column(op, Conv.OUTPUT) + n * column(op, Conv.OUTPUT_IMAGE)
        given = residual + n * column(op, Conv.RESIDUAL_IMAGE)
        for p in range(column(op, Conv.TILES)):
            record = pixels + 16 * p
            total = window_of(op, source + read_int32(record), plane)
            if plane == 0:
                total -= read_int32(column(op, Conv.COUNT) + 4 * (read_int32(record + 4) // vectors))
            index = read_int32(record + 8)
            for c in range(8 * vectors):
                value = np.float32(total) * read_float(column(op, Conv.SCALE) + 4 * c)
                if residual != 0:
                    value += read_float(given + index * column(op, Conv.RESIDUAL_PIXEL) + 4 * c)
                write_float(target + index * column(op, Conv.OUTPUT_PIXEL) + 4 * c, value)


@register_jitable
def window_of(op: int, origin: int, plane: int) -> int:
    """Of one window: 2 (bits set), or, with planes, the sum of the activations."""
    total = 0
    for word in range(column(op, Conv.BLOCKS)):
        at = origin + read_int64(column(op, Conv.OFFSETS) + 8 * word)
        low = read_int64(at) & read_int64(column(op, Conv.MASKS) + 8 * word)
        if plane == 0:
            total += 2 * popcount(low)
        else:
            total += 2 * popcount(low & read_int64(at + plane)) - popcount(low)
    return total


@register_jitable
def linear(op: int) -> None:
    """(N, C) -> logits (N, CLASSES): x W + BIAS, W of shape (C, CLASSES)."""
    channels, classes = column(op, _P.CHANNELS), column(op, _P.CLASSES)
    for n in range(column(op, _P.IMAGES)):
        source = column(op, _P.INPUT) + n * column(op, _P.INPUT_IMAGE)
        target = column(op, _P.OUTPUT) + n * column(op, _P.OUTPUT_IMAGE)
        for k in range(classes):
            write_float(target + 4 * k, read_float(column(op, _P.BIAS) + 4 * k))
        for c in range(channels):
            x = read_float(source + 4 * c)
            row = column(op, _P.WEIGHTS) + 4 * classes * c
            for k in range(classes):
                write_float(target + 4 * k, read_float(target + 4 * k) + x * read_float(row + 4 * k))
