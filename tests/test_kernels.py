"""The bit kernels, each against torch or brute force on small shapes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from trainables.kernels import rows
from trainables.kernels.convolutions import (
    Geometry,
    Next,
    ToBits,
    ToFloats,
    bit_convolution,
    float_convolution,
    window_sums,
)
from trainables.kernels.fields import Op
from trainables.kernels.layout import NEVER, Doubles, first_at_least, vectors_of
from trainables.kernels.maps import Bits, Buffer, Floats, Padded, Prepared, Row, place, prepare
from trainables.kernels.target import TILES, level

few = settings(max_examples=40, deadline=None)


def write_bits(memory: Prepared, bits: Bits, values: Tensor) -> None:
    """Put activations -1, 0, +1 of shape (N, C, H, W) into a map."""
    n, c, h, w = values.shape
    planes = [values > 0] if bits.planes == 1 else [values != 0, values > 0]
    packed = np.zeros((bits.planes, n, h + 2 * bits.border, w + 2 * bits.border, vectors_of(c)), np.uint8)
    inside = slice(bits.border, bits.border + h), slice(bits.border, bits.border + w)
    for plane, truth in enumerate(planes):
        wide = np.zeros((n, h, w, 8 * vectors_of(c)), np.uint8)
        wide[..., :c] = truth.permute(0, 2, 3, 1).numpy()
        packed[plane][:, inside[0], inside[1]] = np.packbits(wide, axis=-1, bitorder="little")
    stride = bits.buffer.plane_bytes(n)
    for plane in range(bits.planes):
        flat = packed[plane].reshape(-1)
        memory.memory[bits.buffer][plane * stride : plane * stride + flat.size] = flat


def read_bits(memory: Prepared, bits: Bits, n: int) -> Tensor:
    """Activations of a map; its border and the bits that fill up a byte are checked to be 0."""
    h, w, v = bits.height + 2 * bits.border, bits.width + 2 * bits.border, vectors_of(bits.channels)
    stride = bits.buffer.plane_bytes(n)
    planes = [
        np.unpackbits(
            memory.memory[bits.buffer][p * stride : p * stride + n * h * w * v].view(np.uint8).reshape(n, h, w, v),
            axis=-1,
            bitorder="little",
        ).astype(np.int64)
        for p in range(bits.planes)
    ]
    values = 2 * planes[0] - 1 if bits.planes == 1 else planes[0] * (2 * planes[1] - 1)
    border = np.ones((h, w), bool)
    border[bits.border : h - bits.border, bits.border : w - bits.border] = False
    assert not planes[0][:, border].any()
    assert not planes[0][..., bits.channels :].any()
    inner = values[:, ~border].reshape(n, bits.height, bits.width, -1)[..., : bits.channels]
    return torch.from_numpy(inner).permute(0, 3, 1, 2)


def read_floats(memory: Prepared, floats: Floats, n: int) -> Tensor:
    shape = (n, floats.height, floats.width, 8 * vectors_of(floats.channels))
    view = memory.view(floats.buffer, shape)[..., : floats.channels].astype(np.float32)
    return torch.from_numpy(view).permute(0, 3, 1, 2)


def write_floats(memory: Prepared, floats: Floats, values: Tensor) -> None:
    shape = (len(values), floats.height, floats.width, 8 * vectors_of(floats.channels))
    memory.view(floats.buffer, shape)[..., : floats.channels] = values.permute(0, 2, 3, 1).numpy()


def prepared(row: Row, n: int) -> Prepared:
    """A table of one row."""
    return prepare(place([row]), n)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Tensor, Tensor, Geometry, int, int]:
    """Activations, weights (both -1, 0, +1), the window, the planes and the border of the input."""
    source = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    size = draw(st.sampled_from((1, 3, 5)))
    padding = draw(st.integers(0, size // 2))
    height, width = (draw(st.integers(size, 9)) for _ in range(2))
    channels, filters = (draw(st.sampled_from((1, 5, 8, 16, 20, 39, 40, 64, 77, 80, 129))) for _ in range(2))
    planes, ternary = draw(st.integers(1, 2)), draw(st.booleans())
    n = draw(st.integers(1, 3))
    x = signs((n, channels, height, width), planes == 2, source)
    w = signs((filters, channels, size, size), ternary, source)
    return x, w, Geometry(size, draw(st.integers(1, 2)), padding), planes, padding + draw(st.integers(0, 1))


def signs(shape: tuple[int, ...], zeros: bool, source: torch.Generator) -> Tensor:
    low = torch.randint(2, shape, generator=source) * 2 - 1
    return low * torch.randint(2, shape, generator=source) if zeros else low


def sums(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """What the kernels have to count, in torch's own convolution."""
    return F.conv2d(x.double(), w.double(), stride=geometry.stride, padding=geometry.padding)


def map_like(values: Tensor | NDArray[np.generic]) -> Floats:
    """An fp32 map for values of shape (N, C, H, W)."""
    _, channels, height, width = values.shape
    return Floats.new(channels, height, width)


def target_like(values: Tensor | NDArray[np.generic], border: int, planes: int) -> Bits:
    """A map of packed activations for values of shape (N, C, H, W)."""
    _, channels, height, width = values.shape
    return Bits.new(channels, height, width, border, planes)


@given(convolutions())
@few
def test_sums_are_exact_for_every_shape_stride_border_and_number_of_values(
    case: tuple[Tensor, Tensor, Geometry, int, int],
) -> None:
    x, w, geometry, planes, border = case
    expected = sums(x, w, geometry)
    source = target_like(x, border, planes)
    output = map_like(expected)
    ones = np.ones(len(w))
    row = bit_convolution(source, w.numpy().astype(np.int8), geometry, ToFloats(ones, 0 * ones, None, output, None))
    memory = prepared(row, len(x))
    write_bits(memory, source, x)
    memory.run()
    assert torch.equal(read_floats(memory, output, len(x)).double(), expected)


@given(convolutions(), st.integers(0, 1 << 30))
@few
def test_thresholds_give_the_activation_of_bn_also_for_negative_and_zero_scales_and_at_ties(
    case: tuple[Tensor, Tensor, Geometry, int, int], seed: int
) -> None:
    x, w, geometry, planes, border = case
    draw = np.random.default_rng(seed)
    expected = sums(x, w, geometry).numpy()
    # whole numbers as means and zero shifts: many sums lie on a threshold exactly
    scale, mean = draw.integers(-1, 2, len(w)).astype(float), draw.integers(-4, 5, len(w)).astype(float)
    shift = draw.integers(-1, 2, len(w)).astype(float)
    bound = 1.0 if planes == 2 else 0.0

    def z(total: Doubles) -> Doubles:
        return scale * (total - mean) + shift

    source = target_like(x, border, planes)
    target = target_like(expected, int(draw.integers(0, 2)), planes)
    row = bit_convolution(source, w.numpy().astype(np.int8), geometry, ToBits(z, scale < 0, bound, target))
    memory = prepared(row, len(x))
    write_bits(memory, source, x)
    memory.run()
    wanted = z(expected.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    activation = np.where(wanted >= bound, 1, -1 if planes == 1 else np.where(wanted <= -bound, -1, 0))
    assert torch.equal(read_bits(memory, target, len(x)), torch.from_numpy(activation))


@given(convolutions(), st.booleans())
@few
def test_a_convolution_adds_the_residual_and_gives_the_next_activation_and_the_map(
    case: tuple[Tensor, Tensor, Geometry, int, int], stored: bool
) -> None:
    x, w, geometry, planes, border = case
    source_of_numbers = torch.Generator().manual_seed(1)
    expected = sums(x, w, geometry)
    residual = torch.randint(-3, 4, tuple(expected.shape), generator=source_of_numbers).float()
    scale, shift, after, beyond = (
        torch.randint(-2, 3, (4, len(w)), generator=source_of_numbers).double().view(4, -1, 1, 1).unbind()
    )
    y = scale * expected + shift + residual
    source, given_map, output = target_like(x, border, planes), map_like(y), map_like(y)
    target = target_like(y, 1, planes)
    bound = 2.0 if planes == 2 else 0.0
    following = Next(after.flatten().numpy(), beyond.flatten().numpy(), bound, target)
    finish = ToFloats(
        scale.flatten().numpy(), shift.flatten().numpy(), given_map, output if stored else None, following
    )
    memory = prepared(bit_convolution(source, w.numpy().astype(np.int8), geometry, finish), len(x))
    write_bits(memory, source, x)
    write_floats(memory, given_map, residual)
    memory.run()
    z = after * y + beyond
    activation = torch.where(z >= bound, 1, -1 if planes == 1 else torch.where(z <= -bound, -1, 0))
    assert torch.equal(read_bits(memory, target, len(x)), activation)
    if stored:
        assert torch.equal(read_floats(memory, output, len(x)).double(), y)


@given(convolutions())
@few
def test_window_sums_count_what_lies_in_the_image(case: tuple[Tensor, Tensor, Geometry, int, int]) -> None:
    x, w, geometry, planes, border = case
    total = sums(x, torch.ones_like(w[:1]), geometry)
    scale = np.arange(len(w), dtype=float)
    expected = total * torch.from_numpy(scale).view(1, -1, 1, 1) + 1
    source, residual = target_like(x, border, planes), map_like(expected)
    output = map_like(expected)
    memory = prepared(window_sums(source, geometry, scale, residual, output), len(x))
    write_bits(memory, source, x)
    write_floats(memory, residual, torch.ones_like(expected).float())
    memory.run()
    assert torch.equal(read_floats(memory, output, len(x)).double(), expected)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (7, 2, 3), (1, 2, 0)])
@pytest.mark.parametrize("filters", [1, 16, 39])
def test_fp32_convolution(size: int, stride: int, padding: int, filters: int) -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn((2, 3, 9, 8), generator=source)
    w = torch.randn((filters, 3, size, size), generator=source)
    expected = F.conv2d(x.double(), w.double(), stride=stride, padding=padding)
    padded, output = Padded.new(3, 9, 8, padding), map_like(expected)
    target = target_like(expected, 1, 1)
    ones = np.ones(filters)
    finish = ToFloats(2 * ones, ones, None, output, Next(-ones, 0 * ones, 0.0, target))
    placed = place([rows.image(padded), float_convolution(padded, w.numpy(), Geometry(size, stride, padding), finish)])
    memory = prepare(placed, 2)
    images = np.ascontiguousarray(x.numpy())
    memory.table[0, rows.Pass.INPUT] = images.ctypes.data
    memory.run()
    torch.testing.assert_close(read_floats(memory, output, 2).double(), 2 * expected + 1, rtol=1e-5, atol=1e-5)
    assert torch.equal(read_bits(memory, target, 2), torch.where(-(2 * expected + 1) >= 0, 1, -1))


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0)])
def test_the_largest_activation_of_a_window(planes: int, size: int, stride: int, padding: int) -> None:
    x = signs((3, 21, 7, 6), planes == 2, torch.Generator().manual_seed(0))
    expected = F.max_pool2d(x.float(), size, stride, padding).long()
    source, target = target_like(x, 1, planes), target_like(expected, 0, planes)
    memory = prepared(rows.pool_bits(source, target, size, stride, padding), 3)
    write_bits(memory, source, x)
    memory.run()
    assert torch.equal(read_bits(memory, target, 3), expected)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_the_largest_float_of_a_window(size: int, stride: int, padding: int) -> None:
    x = torch.randn((2, 11, 7, 6), generator=torch.Generator().manual_seed(0))
    expected = F.max_pool2d(x, size, stride, padding)
    source, target = Floats.new(11, 7, 6), map_like(expected)
    memory = prepared(rows.pool_float(source, target, size, stride, padding), 2)
    write_floats(memory, source, x)
    memory.run()
    assert torch.equal(read_floats(memory, target, 2), expected)


@pytest.mark.parametrize("planes", [1, 2])
def test_packing_and_unpacking(planes: int) -> None:
    x = torch.randint(-3, 4, (2, 13, 4, 5), generator=torch.Generator().manual_seed(0)).float()
    bound = 2.0 if planes == 2 else 0.0
    expected = torch.where(x >= bound, 1, -1 if planes == 1 else torch.where(x <= -bound, -1, 0))
    source, target = Floats.new(13, 4, 5), Bits.new(13, 4, 5, 1, planes)
    back, wide = Floats.new(13, 4, 5), Padded.new(13, 4, 5, 2)
    ones = np.ones(13)
    placed = place(
        [rows.pack(source, Next(ones, 0 * ones, bound, target)), rows.unpack(target, back), rows.unpack(target, wide)]
    )
    memory = prepare(placed, 2)
    write_floats(memory, source, x)
    memory.run()
    assert torch.equal(read_bits(memory, target, 2), expected)
    assert torch.equal(read_floats(memory, back, 2).long(), expected)
    padded = torch.from_numpy(memory.view(wide.buffer, (2, 8, 9, 13)).copy()).permute(0, 3, 1, 2)
    assert torch.equal(padded.long(), F.pad(expected, (2, 2, 2, 2)))


@pytest.mark.parametrize("relu", [False, True])
def test_bn_and_the_mean_and_the_linear_layer(relu: bool) -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn((3, 21, 4, 5), generator=source)
    scale, shift = torch.randn((2, 21), generator=source).double().unbind()
    weights, bias = torch.randn((7, 21), generator=source), torch.randn(7, generator=source)
    y = x.double() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    y = y.relu() if relu else y
    given_map, affine = Floats.new(21, 4, 5), Floats.new(21, 4, 5)
    features = Buffer(32 * vectors_of(21), 1, ("mean",))
    placed = place(
        [
            rows.affine(given_map, None, affine, scale.numpy(), shift.numpy(), relu),
            rows.mean(given_map, features, scale.numpy(), shift.numpy(), relu),
            rows.linear(features, weights.numpy(), bias.numpy()),
        ]
    )
    memory = prepare(placed, 3)
    logits = np.zeros((3, 7), np.float32)
    memory.table[2, rows.Pass.OUTPUT] = logits.ctypes.data
    write_floats(memory, given_map, x)
    memory.run()
    torch.testing.assert_close(read_floats(memory, affine, 3).double(), y, rtol=1e-5, atol=1e-5)
    expected = F.linear(y.mean((2, 3)), weights.double(), bias.double())
    torch.testing.assert_close(torch.from_numpy(logits).double(), expected, rtol=1e-5, atol=1e-5)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(-9, 9)), min_size=1, max_size=6),
    st.floats(-5, 5),
    st.integers(1, 30),
)
@settings(deadline=None)
def test_a_threshold_is_the_first_sum_that_reaches_the_bound(
    lines: list[tuple[float, float]], bound: float, limit: int
) -> None:
    scale, shift = np.array(lines).T

    def z(d: Doubles) -> Doubles:
        return scale * d + shift

    found = first_at_least(z, bound, limit, len(lines))
    for o, threshold in enumerate(found):
        reached = [d for d in range(-limit, limit + 1) if scale[o] * d + shift[o] >= bound]
        first = min(reached, default=NEVER)
        assert threshold == (-NEVER if first == -limit else first)


def test_operations_have_numbers_of_their_own_and_tiles_fit_the_registers() -> None:
    assert len({int(op) for op in Op}) == len(Op)
    for kind, tile in TILES["avx512"].items():
        sums_of = 2 if kind == "planes" else 1
        assert sums_of * math.prod((tile.pixels, tile.vectors)) + 2 * tile.vectors < 32
    assert level() in TILES
