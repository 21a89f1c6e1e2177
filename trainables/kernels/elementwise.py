"""Operations on one vector of eight channels at a time: BN with packing, and the mean over an image."""

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from trainables.kernels import vectors as v
from trainables.kernels.fields import Pass
from trainables.kernels.vectors import FLOATS, INT64, Builder, Value

_BYTES = 4 * v.LANES


def _columns(b: Builder, op: Value) -> dict[Pass, Value]:
    return {c: v.load(b, b.add(op, v.const(8 * c)), INT64, 8) for c in Pass}


def _activated(b: Builder, c: dict[Pass, Value], x: Value, j: Value) -> Value:
    """max(SCALE x + BIAS, FLOOR) of vector j of the channels."""
    offset = v.scaled(b, j, _BYTES)
    scale, bias, floor = (
        v.load(b, b.add(c[column], offset), FLOATS, 4) for column in (Pass.SCALE, Pass.BIAS, Pass.FLOOR)
    )
    z = v.multiply_add(b, x, scale, bias)
    return b.select(b.fcmp_ordered(">", z, floor), z, floor)


def _affine(b: Builder, op: Value) -> None:
    """Give z = max(SCALE x + BIAS, FLOOR) of (N, H, W, VECTORS x 8) as floats and as bits, each where asked."""
    c = _columns(b, op)
    padded = b.add(c[Pass.WIDTH], v.scaled(b, c[Pass.PAD], 2))
    with (
        cgutils.for_range(b, c[Pass.IMAGES]) as n,
        cgutils.for_range(b, c[Pass.HEIGHT]) as y,
        cgutils.for_range(b, c[Pass.WIDTH]) as x,
        cgutils.for_range(b, c[Pass.VECTORS]) as j,
    ):
        pixel = b.add(b.mul(y.index, c[Pass.WIDTH]), x.index)
        offset = v.scaled(b, b.add(b.mul(pixel, c[Pass.VECTORS]), j.index), _BYTES)
        address = v.add(b, c[Pass.INPUT], b.mul(n.index, c[Pass.INPUT_IMAGE]), offset)
        z = _activated(b, c, v.load(b, address, FLOATS, 4), j.index)
        with _asked(b, c[Pass.OUTPUT]):
            v.store(b, z, v.add(b, c[Pass.OUTPUT], b.mul(n.index, c[Pass.OUTPUT_IMAGE]), offset), 4)
        with _asked(b, c[Pass.BITS]):
            row = b.mul(b.add(y.index, c[Pass.PAD]), padded)
            place = b.mul(v.add(b, row, x.index, c[Pass.PAD]), c[Pass.VECTORS])
            _store_bits(b, c, z, j.index, v.add(b, b.mul(n.index, c[Pass.BITS_IMAGE]), place, j.index))


def _asked(b: Builder, column: Value) -> Any:
    return b.if_then(b.icmp_signed("!=", column, v.const(0)))


def _store_bits(b: Builder, c: dict[Pass, Value], z: Value, j: Value, place: Value) -> None:
    """One plane (+1 where z >= UPPER), or, where BITS_PLANE is set, two: not 0, and +1 (-1 where z <= LOWER)."""
    offset = v.scaled(b, j, _BYTES)
    plus = b.fcmp_ordered(">=", z, v.load(b, b.add(c[Pass.UPPER], offset), FLOATS, 4))
    minus = b.fcmp_ordered("<=", z, v.load(b, b.add(c[Pass.LOWER], offset), FLOATS, 4))
    address = b.add(c[Pass.BITS], place)
    with b.if_else(b.icmp_signed("!=", c[Pass.BITS_PLANE], v.const(0))) as (planes, signs):
        with planes:
            v.store_mask(b, b.or_(plus, minus), address)
            v.store_mask(b, plus, b.add(address, c[Pass.BITS_PLANE]))
        with signs:
            v.store_mask(b, plus, address)


def _mean(b: Builder, op: Value) -> None:
    """The mean over each image of max(SCALE x + BIAS, FLOOR): (N, H, W, VECTORS x 8) -> (N, VECTORS x 8)."""
    c = _columns(b, op)
    pixels = b.mul(c[Pass.INPUT_HEIGHT], c[Pass.INPUT_WIDTH])
    count = v.splat(b, b.sitofp(pixels, v.FLOAT))
    stride = v.scaled(b, c[Pass.VECTORS], _BYTES)
    with cgutils.for_range(b, c[Pass.IMAGES]) as n, cgutils.for_range(b, c[Pass.VECTORS]) as j:
        offset = v.scaled(b, j.index, _BYTES)
        first = v.add(b, c[Pass.INPUT], b.mul(n.index, c[Pass.INPUT_IMAGE]), offset)
        total = cgutils.alloca_once(b, FLOATS)
        b.store(v.zeros(FLOATS), total)
        with cgutils.for_range(b, pixels) as p:
            x = v.load(b, b.add(first, b.mul(p.index, stride)), FLOATS, 4)
            b.store(b.fadd(b.load(total), _activated(b, c, x, j.index)), total)
        mean = b.fdiv(b.load(total), count)
        v.store(b, mean, v.add(b, c[Pass.OUTPUT], b.mul(n.index, c[Pass.OUTPUT_IMAGE]), offset), 4)


def _function(emit: Callable[[Builder, Value], None]) -> Any:
    """The function of numba, of the address of a row of the table, whose code `emit` writes."""

    @intrinsic
    def run(_typing: Any, op: Any) -> Any:
        def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
            emit(builder, arguments[0])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return run


run_affine = _function(_affine)
run_mean = _function(_mean)
