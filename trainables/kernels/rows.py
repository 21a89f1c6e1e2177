"""Rows of the table for everything that is no convolution."""

import numpy as np
from numpy.typing import NDArray

from trainables.kernels.convolutions import Next, bounds
from trainables.kernels.fields import Op, Pass
from trainables.kernels.layout import LANES, Doubles, vectors_of
from trainables.kernels.maps import Bits, Buffer, Cell, Floats, Padded, Plane, Row


def image(output: Padded) -> Row:
    """Images (N, C, H, W) into the padded map that the first convolution reads; each call sets INPUT."""
    return Row(
        Op.IMAGE,
        {
            Pass.INPUT_IMAGE: 4 * output.channels * output.height * output.width,
            **_sizes(output.height, output.width, output.channels),
            Pass.PAD: output.border,
            Pass.OUTPUT: output.buffer,
            Pass.OUTPUT_IMAGE: output.buffer.image_bytes,
        },
    )


def affine(
    source: Floats, following: Next | None, output: Floats | None, scale: Doubles, shift: Doubles, relu: bool
) -> Row:
    """Write scale x + shift, ReLU where asked, to `output`, or the bits of the activation `following` on it."""
    return Row(
        Op.AFFINE,
        {
            Pass.INPUT: source.buffer,
            Pass.INPUT_IMAGE: source.buffer.image_bytes,
            **_sizes(source.height, source.width, source.channels),
            **_affine(scale, shift, relu),
            **_output(output),
            **_following(following),
        },
    )


def pack(source: Floats, following: Next) -> Row:
    """The activation of scale x + shift."""
    return affine(source, following, None, following.scale, following.shift, relu=False)


def unpack(source: Bits, output: Padded | Floats) -> Row:
    """Packed activations as floats."""
    padded = isinstance(output, Padded)
    return Row(
        Op.UNPACK,
        {
            **_input(source),
            **_sizes(output.height, output.width, output.channels),
            Pass.PAD: output.border if padded else 0,
            Pass.PITCH: output.channels if padded else LANES * vectors_of(output.channels),
            Pass.OUTPUT: output.buffer,
            Pass.OUTPUT_IMAGE: output.buffer.image_bytes,
        },
    )


def pool_bits(source: Bits, output: Bits, size: int, stride: int, padding: int) -> Row:
    """The largest activation of each window."""
    return Row(
        Op.POOL_BITS,
        {
            **_input(source),
            **_sizes(output.height, output.width, output.channels),
            **_pooling(size, stride, padding),
            Pass.PAD: output.border,
            Pass.BITS: output.buffer,
            Pass.BITS_IMAGE: output.buffer.image_bytes,
            Pass.BITS_PLANE: Plane(output.buffer),
        },
    )


def pool_float(source: Floats, output: Floats, size: int, stride: int, padding: int) -> Row:
    """The largest value of each window."""
    return Row(
        Op.POOL_FLOAT,
        {
            Pass.INPUT: source.buffer,
            Pass.INPUT_IMAGE: source.buffer.image_bytes,
            Pass.INPUT_HEIGHT: source.height,
            Pass.INPUT_WIDTH: source.width,
            **_sizes(output.height, output.width, output.channels),
            **_pooling(size, stride, padding),
            **_output(output),
        },
    )


def mean(source: Floats, output: Buffer, scale: Doubles, shift: Doubles, relu: bool) -> Row:
    """The mean over each image of scale x + shift, ReLU where asked."""
    return Row(
        Op.MEAN,
        {
            Pass.INPUT: source.buffer,
            Pass.INPUT_IMAGE: source.buffer.image_bytes,
            Pass.INPUT_HEIGHT: source.height,
            Pass.INPUT_WIDTH: source.width,
            Pass.VECTORS: vectors_of(source.channels),
            **_affine(scale, shift, relu),
            Pass.OUTPUT: output,
            Pass.OUTPUT_IMAGE: output.image_bytes,
        },
    )


def linear(source: Buffer, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> Row:
    """Logits x W^T + bias; W has shape (classes, C); each call sets OUTPUT."""
    return Row(
        Op.LINEAR,
        {
            Pass.INPUT: source,
            Pass.INPUT_IMAGE: source.image_bytes,
            Pass.CHANNELS: weights.shape[1],
            Pass.CLASSES: weights.shape[0],
            Pass.WEIGHTS: np.ascontiguousarray(weights.T),
            Pass.BIAS: bias,
            Pass.OUTPUT_IMAGE: 4 * len(weights),
        },
    )


def _input(source: Bits) -> dict[Pass, Cell]:
    return {
        Pass.INPUT: source.buffer,
        Pass.INPUT_IMAGE: source.buffer.image_bytes,
        Pass.INPUT_PLANE: Plane(source.buffer),
        Pass.INPUT_HEIGHT: source.height,
        Pass.INPUT_WIDTH: source.width,
        Pass.INPUT_PAD: source.border,
    }


def _sizes(height: int, width: int, channels: int) -> dict[Pass, Cell]:
    return {
        Pass.HEIGHT: height,
        Pass.WIDTH: width,
        Pass.CHANNELS: channels,
        Pass.VECTORS: vectors_of(channels),
    }


def _pooling(size: int, stride: int, padding: int) -> dict[Pass, Cell]:
    return {Pass.SIZE: size, Pass.STRIDE: stride, Pass.PADDING: padding}


def _output(output: Floats | None) -> dict[Pass, Cell]:
    if output is None:
        return {}
    return {Pass.OUTPUT: output.buffer, Pass.OUTPUT_IMAGE: output.buffer.image_bytes}


def _following(following: Next | None) -> dict[Pass, Cell]:
    if following is None:
        return {Pass.UPPER: 0, Pass.LOWER: 0}
    upper, lower = bounds(following)
    return {
        Pass.UPPER: upper,
        Pass.LOWER: lower,
        Pass.PAD: following.bits.border,
        Pass.BITS: following.bits.buffer,
        Pass.BITS_IMAGE: following.bits.buffer.image_bytes,
        Pass.BITS_PLANE: Plane(following.bits.buffer),
    }


def _affine(scale: Doubles, shift: Doubles, relu: bool) -> dict[Pass, Cell]:
    wide = np.zeros((3, vectors_of(len(scale)) * LANES), np.float32)
    wide[0, : len(scale)], wide[1, : len(scale)] = scale, shift
    wide[2] = 0.0 if relu else -np.inf
    return {Pass.SCALE: wide[0], Pass.BIAS: wide[1], Pass.FLOOR: wide[2]}
