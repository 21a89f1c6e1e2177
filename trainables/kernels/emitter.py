"""A convolution on a register tile: `pixels` outputs of `vectors` x 8 filters, kept in registers over the whole window.

The window of an output pixel is a list of words (64 bits of packed activations, or one float) at fixed offsets from its
first. A word is spread over the lanes and meets the words of eight filters at once. Sums of one-bit kinds count
disagreements: with n products of which v are -1, the sum is n - 2 v. What lies outside the image is 0 bits in the
padded buffer; what these add to v is known for each class of border pixels and stands in its biases and thresholds.

The last word of a row of the window may hold bits of the pixel to its right. Against binary weights, which are 0 there,
they would count, the same for each filter; so v starts at minus their number. This costs scalar instructions, whose
units are idle, where a mask would cost vector instructions, whose units are not.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from trainables.kernels import target
from trainables.kernels import vectors as v
from trainables.kernels.fields import Conv, Mode
from trainables.kernels.target import Kind, Tile
from trainables.kernels.vectors import FLOATS, INT32, INT64, LANES, WORDS, Builder, Value

PIXEL_BYTES = 16
WORD_BYTES = 8 * LANES
FLOAT_BYTES = 4 * LANES
BINARY: tuple[Kind, Kind] = ("binary_wide", "binary_tall")
# vectors of weights that one word of the window meets: bits; non-zero and sign; the same; floats
WEIGHT_PLANES: dict[Kind, int] = {"binary_wide": 1, "binary_tall": 1, "ternary": 2, "planes": 2, "float": 1}


class _Registers:
    """A grid of variables that LLVM keeps in registers."""

    def __init__(self, b: Builder, tile: Tile, kind: Value) -> None:
        self.builder = b
        self.slots = [[cgutils.alloca_once(b, kind) for _ in range(tile.vectors)] for _ in range(tile.pixels)]
        self.kind = kind

    def clear(self) -> None:
        for i, j in self.places():
            self.put(i, j, v.zeros(self.kind))

    def places(self) -> Iterator[tuple[int, int]]:
        """Vector by vector, so that what belongs to a vector is loaded once."""
        return ((i, j) for j in range(len(self.slots[0])) for i in range(len(self.slots)))

    def get(self, i: int, j: int) -> Value:
        return self.builder.load(self.slots[i][j])

    def put(self, i: int, j: int, value: Value) -> None:
        self.builder.store(value, self.slots[i][j])

    def increase(self, i: int, j: int, value: Value) -> None:
        self.put(i, j, self.builder.add(self.get(i, j), value))


class _Emitter:
    """Writes the loops of one kind of convolution into a function of numba."""

    def __init__(self, b: Builder, kind: Kind, op: Value) -> None:
        self.b = b
        self.kind: Kind = kind
        self.tile = target.tile(kind)
        self.columns = {c: v.load(b, b.add(op, v.const(8 * c)), INT64, 8) for c in Conv}
        self.sums = _Registers(b, self.tile, FLOATS if kind == "float" else WORDS)
        self.nonzero = _Registers(b, self.tile, WORDS) if kind == "planes" else None
        self.real = _Registers(b, self.tile, FLOATS)

    def loops(self) -> None:
        """Blocks of filters outermost: their weights stay in the nearest cache while all pixels pass."""
        b, c = self.b, self.columns
        with cgutils.for_range(b, c[Conv.BLOCKS]) as block:
            self.start = v.load_int32(b, v.add(b, c[Conv.STARTS], v.scaled(b, block.index, 4)))
            self.weights = v.add(b, c[Conv.WEIGHTS], b.mul(block.index, c[Conv.BLOCK_STRIDE]))
            with cgutils.for_range(b, c[Conv.IMAGES]) as image, cgutils.for_range(b, c[Conv.TILES]) as tile:
                self.image = image.index
                self.one_tile(tile.index)

    def one_tile(self, index: Value) -> None:
        b, c = self.b, self.columns
        record = v.add(b, c[Conv.PIXELS], v.scaled(b, index, PIXEL_BYTES * self.tile.pixels))
        self.pixels = [v.add(b, record, v.const(PIXEL_BYTES * i)) for i in range(self.tile.pixels)]
        bounds = v.add(b, c[Conv.RANGES], v.scaled(b, index, 16))
        first, last, top, bottom = (v.load_int32(b, v.add(b, bounds, v.const(4 * place))) for place in range(4))
        origin = v.add(b, c[Conv.INPUT], b.mul(self.image, c[Conv.INPUT_IMAGE]))
        inputs = [v.add(b, origin, self.pixel(i, 0)) for i in range(self.tile.pixels)]
        self.sums.clear()
        if self.nonzero is not None:
            self.nonzero.clear()
        if self.kind in BINARY:
            self.discount(inputs, top, bottom)
        self.window(inputs, first, last)
        if self.kind == "float":
            self.store_floats()
            return
        thresholds = b.icmp_signed("==", c[Conv.MODE], v.const(Mode.BITS))
        with b.if_else(thresholds) as (bits, floats):
            with bits:
                self.store_bits()
            with floats:
                self.store_floats()

    def pixel(self, i: int, place: int) -> Value:
        """A number of the record of pixel i: 0 input offset, 1 class offset, 2 index, 3 offset of its output bits."""
        return v.load_int32(self.b, v.add(self.b, self.pixels[i], v.const(4 * place)))

    def discount(self, inputs: list[Value], top: Value, bottom: Value) -> None:
        """Start the sums at minus the set bits beyond the ends of the rows `top` ... `bottom` - 1 of the window."""
        b, c = self.b, self.columns
        with self.asked(Conv.BEYOND):
            strangers = [cgutils.alloca_once(b, INT64) for _ in inputs]
            for stranger in strangers:
                b.store(v.const(0), stranger)
            beyond = v.load(b, c[Conv.BEYOND], INT64, 8)
            with cgutils.for_range(b, bottom, start=top) as row:
                at = v.load(b, v.add(b, c[Conv.ROW_ENDS], v.scaled(b, row.index, 8)), INT64, 8)
                for address, stranger in zip(inputs, strangers, strict=True):
                    word = b.and_(v.load(b, v.add(b, address, at), INT64, 1), beyond)
                    b.store(b.sub(b.load(stranger), b.ctpop(word)), stranger)
            for i, j in self.sums.places():
                self.sums.put(i, j, v.splat(b, b.load(strangers[i])))

    def window(self, inputs: list[Value], first: Value, last: Value) -> None:
        """Add up the words `first` ... `last` - 1 of the windows that begin at the addresses `inputs`."""
        b, c = self.b, self.columns
        size = FLOAT_BYTES if self.kind == "float" else WORD_BYTES
        planes = WEIGHT_PLANES[self.kind]
        with cgutils.for_range(b, last, start=first) as word:
            at = v.load(b, v.add(b, c[Conv.OFFSETS], v.scaled(b, word.index, 8)), INT64, 8)
            row = v.add(b, self.weights, v.scaled(b, word.index, size * planes * self.tile.vectors))
            kind = FLOATS if self.kind == "float" else WORDS
            weights = [
                [v.load(b, v.add(b, row, v.const(size * (planes * j + q))), kind, size) for q in range(planes)]
                for j in range(self.tile.vectors)
            ]
            for i, address in enumerate(inputs):
                self.meet(i, v.add(b, address, at), weights)

    def meet(self, i: int, address: Value, weights: list[list[Value]]) -> None:
        """Let the word at `address`, of pixel i, meet the weights."""
        b = self.b
        if self.kind == "float":
            x = v.splat(b, v.load(b, address, v.FLOAT, 4))
            for j, (w,) in enumerate(weights):
                self.sums.put(i, j, v.multiply_add(b, x, w, self.sums.get(i, j)))
            return
        x = v.splat(b, v.load(b, address, INT64, 1))
        if self.nonzero is not None:
            self.meet_planes(i, x, address, weights, self.nonzero)
            return
        for j, w in enumerate(weights):
            differ = b.xor(x, w[0]) if self.kind in BINARY else b.and_(w[0], b.xor(x, w[1]))
            self.sums.increase(i, j, v.popcount(b, differ))

    def meet_planes(self, i: int, x: Value, address: Value, weights: list[list[Value]], nonzero: _Registers) -> None:
        """Count the products that are not 0, and those of them that are -1."""
        b = self.b
        sign = v.splat(b, v.load(b, v.add(b, address, self.columns[Conv.INPUT_PLANE]), INT64, 1))
        for j, w in enumerate(weights):
            both = b.and_(x, w[0])
            nonzero.increase(i, j, v.popcount(b, both))
            self.sums.increase(i, j, v.popcount(b, b.and_(both, b.xor(sign, w[1]))))

    def counted(self, i: int, j: int) -> Value:
        """Disagreements v, or, with planes, minus the sum of the products."""
        total = self.sums.get(i, j)
        if self.nonzero is None:
            return total
        return self.b.sub(self.b.add(total, total), self.nonzero.get(i, j))

    def store_bits(self) -> None:
        """The next activation by thresholds: +1 where v <= UPPER and, with planes, -1 where v >= LOWER."""
        b = self.b
        for i, j in self.sums.places():
            place = self.constant(i, j, WORD_BYTES)
            count = self.counted(i, j)
            upper = v.load(b, v.add(b, self.columns[Conv.UPPER], place), WORDS, 8)
            plus = b.icmp_signed("<=", count, upper)
            if self.nonzero is None:
                self.store_plane(i, j, plus)
                continue
            lower = v.load(b, v.add(b, self.columns[Conv.LOWER], place), WORDS, 8)
            self.store_planes(i, j, plus, b.icmp_signed(">=", count, lower))

    def store_plane(self, i: int, j: int, plus: Value) -> None:
        v.store_mask(self.b, plus, self.bits(i, j))

    def store_planes(self, i: int, j: int, plus: Value, minus: Value) -> None:
        address = self.bits(i, j)
        v.store_mask(self.b, self.b.or_(plus, minus), address)
        v.store_mask(self.b, plus, v.add(self.b, address, self.columns[Conv.BITS_PLANE]))

    def bits(self, i: int, j: int) -> Value:
        """Address of the byte of eight output channels."""
        b, c = self.b, self.columns
        return v.add(b, c[Conv.BITS], b.mul(self.image, c[Conv.BITS_IMAGE]), self.pixel(i, 3), self.start, v.const(j))

    def constant(self, i: int, j: int, size: int) -> Value:
        """Offset of a vector of `size` bytes in a table (classes, channels)."""
        return v.scaled(self.b, v.add(self.b, self.pixel(i, 1), self.start, v.const(j)), size)

    def channel(self, column: Conv, j: int) -> Value:
        """Eight floats of a table (channels)."""
        b = self.b
        offset = v.scaled(b, v.add(b, self.start, v.const(j)), FLOAT_BYTES)
        return v.load(b, v.add(b, self.columns[column], offset), FLOATS, 4)

    def store_floats(self) -> None:
        """Store y = SCALE v + BIAS + residual in memory and as bits of the next activation, each where asked."""
        b, c = self.b, self.columns
        for i, j in self.sums.places():
            bias = v.load(b, v.add(b, c[Conv.BIAS], self.constant(i, j, FLOAT_BYTES)), FLOATS, 4)
            self.real.put(i, j, v.multiply_add(b, self.as_float(i, j), self.channel(Conv.SCALE, j), bias))
        with self.asked(Conv.RESIDUAL):
            for i, j in self.sums.places():
                address = self.float_address(i, j, (Conv.RESIDUAL, Conv.RESIDUAL_IMAGE, Conv.RESIDUAL_PIXEL))
                self.real.put(i, j, b.fadd(self.real.get(i, j), v.load(b, address, FLOATS, 4)))
        with self.asked(Conv.OUTPUT):
            for i, j in self.sums.places():
                address = self.float_address(i, j, (Conv.OUTPUT, Conv.OUTPUT_IMAGE, Conv.OUTPUT_PIXEL))
                v.store(b, self.real.get(i, j), address, 4)
        with self.asked(Conv.BITS):
            for i, j in self.sums.places():
                self.store_next(i, j)

    def as_float(self, i: int, j: int) -> Value:
        if self.kind == "float":
            return self.sums.get(i, j)
        return self.b.sitofp(self.b.trunc(self.counted(i, j), ir.VectorType(INT32, LANES)), FLOATS)

    def store_next(self, i: int, j: int) -> None:
        """The next activation of z = NEXT_SCALE y + NEXT_BIAS: +1 where z >= NEXT_UPPER, -1 where z <= NEXT_LOWER."""
        b = self.b
        z = v.multiply_add(b, self.real.get(i, j), self.channel(Conv.NEXT_SCALE, j), self.channel(Conv.NEXT_BIAS, j))
        plus = b.fcmp_ordered(">=", z, self.channel(Conv.NEXT_UPPER, j))
        if self.nonzero is None:
            self.store_plane(i, j, plus)
        else:
            self.store_planes(i, j, plus, b.fcmp_ordered("<=", z, self.channel(Conv.NEXT_LOWER, j)))

    def float_address(self, i: int, j: int, columns: tuple[Conv, Conv, Conv]) -> Value:
        b = self.b
        base, image, pixel = (self.columns[column] for column in columns)
        channel = v.scaled(b, v.add(b, self.start, v.const(j)), FLOAT_BYTES)
        return v.add(b, base, b.mul(self.image, image), b.mul(self.pixel(i, 2), pixel), channel)

    @contextmanager
    def asked(self, column: Conv) -> Generator[None]:
        """Code that runs where the column holds an address."""
        with self.b.if_then(self.b.icmp_signed("!=", self.columns[column], v.const(0))):
            yield


def convolution(kind: Kind) -> Any:
    """The function of numba, of the address of a row of the table, that runs a convolution of this kind."""

    @intrinsic
    def run(_typing: Any, op: Any) -> Any:
        def codegen(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
            _Emitter(builder, kind, arguments[0]).loops()
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return run
