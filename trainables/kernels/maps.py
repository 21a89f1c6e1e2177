"""Feature maps in memory, and the rows of the table before a batch size is known."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainables.kernels.fields import COLUMNS, Conv, Op, Pass
from trainables.kernels.layout import Array, vectors_of
from trainables.kernels.program import program

# words that read over the end of the last pixel stay within the buffer
_SLACK = 64
_ALIGN = 64


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """Memory of `planes` x N images of `image_bytes`; buffers of one `shape` may share it when they are not in use."""

    image_bytes: int
    planes: int
    shape: tuple[object, ...]

    def plane_bytes(self, images: int) -> int:
        """From one plane to the next, in a batch of `images`."""
        return -(-(self.image_bytes * images + _SLACK) // _ALIGN) * _ALIGN

    def allocate(self, images: int) -> Array:
        """Zeros, aligned to a cache line."""
        return aligned(np.zeros(self.planes * self.plane_bytes(images), np.uint8))


@dataclass(frozen=True, slots=True)
class Plane:
    """A column that holds the bytes between the planes of a buffer, or 0 where it has one."""

    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Bits:
    """Packed activations (N, height + 2 border, width + 2 border, vectors bytes); two planes are not 0, and +1."""

    channels: int
    height: int
    width: int
    border: int
    planes: int
    buffer: Buffer

    @classmethod
    def new(cls, channels: int, height: int, width: int, border: int, planes: int) -> "Bits":
        """A map of its own."""
        size = (height + 2 * border) * (width + 2 * border) * vectors_of(channels)
        return cls(
            channels, height, width, border, planes,
            Buffer(size, planes, ("bits", channels, height, width, border, planes)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Floats:
    """fp32 maps (N, height, width, vectors x 8); the channels beyond `channels` hold nothing of use."""

    channels: int
    height: int
    width: int
    buffer: Buffer

    @classmethod
    def new(cls, channels: int, height: int, width: int) -> "Floats":
        """A map of its own."""
        size = 32 * vectors_of(channels) * height * width
        return cls(channels, height, width, Buffer(size, 1, ("floats", size)))


@dataclass(frozen=True, slots=True)
class Padded:
    """fp32 maps (N, height + 2 border, width + 2 border, channels) with a border of zeros: for fp32 convolutions."""

    channels: int
    height: int
    width: int
    border: int
    buffer: Buffer

    @classmethod
    def new(cls, channels: int, height: int, width: int, border: int) -> "Padded":
        """A map of its own."""
        size = 4 * channels * (height + 2 * border) * (width + 2 * border)
        return cls(channels, height, width, border, Buffer(size, 1, ("padded", channels, height, width, border)))


T = TypeVar("T", bound=np.generic)
Cell = int | Array | Buffer | Plane


@dataclass(frozen=True, slots=True)
class Row:
    """One operation: what its columns hold; an array or a buffer stands for its address."""

    op: Op
    cells: Mapping[Conv, Cell] | Mapping[Pass, Cell]


@dataclass(slots=True)
class Prepared:
    """The table for one batch size and all memory that it points to: buffers, and the arrays in the cells of `rows`."""

    table: NDArray[np.int64]
    memory: Mapping[Buffer, Array]
    rows: Sequence[Row]

    def view(self, buffer: Buffer, shape: tuple[int, ...]) -> Array:
        """The fp32 numbers of a buffer."""
        return self.memory[buffer][: 4 * math.prod(shape)].view(np.float32).reshape(shape)

    def run(self) -> None:
        """All operations, in their order."""
        program()(self.table.ctypes.data, len(self.table))


def aligned(array: NDArray[T]) -> NDArray[T]:
    """The same numbers at an address that is a multiple of a cache line."""
    room = np.zeros(array.nbytes + _SLACK + _ALIGN, np.uint8)
    first = -room.ctypes.data % _ALIGN
    place = room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    place[...] = array
    return place


def place(rows: Sequence[Row]) -> list[Row]:
    """The rows with their arrays at aligned addresses, which all batch sizes share."""
    return [dataclasses.replace(row, cells={c: _placed(cell) for c, cell in row.cells.items()}) for row in rows]


def _placed(cell: Cell) -> Cell:
    return aligned(cell) if isinstance(cell, np.ndarray) else cell


def prepare(rows: Sequence[Row], images: int, keep: tuple[Buffer, ...] = ()) -> Prepared:
    """The table of placed rows for a batch; buffers in `keep` share their memory with no other."""
    memory = _allocate(rows, images, keep)
    table = aligned(np.zeros((len(rows), COLUMNS), np.int64))
    for number, row in enumerate(rows):
        table[number, Pass.KIND], table[number, Pass.IMAGES] = row.op, images
        for column, cell in row.cells.items():
            table[number, column] = _number(cell, images, memory)
    return Prepared(table, memory, rows)


def _number(cell: Cell, images: int, memory: Mapping[Buffer, Array]) -> int:
    if isinstance(cell, Plane):
        return cell.buffer.plane_bytes(images) if cell.buffer.planes > 1 else 0
    if isinstance(cell, Buffer):
        return memory[cell].ctypes.data
    return cell if isinstance(cell, int) else cell.ctypes.data


def _allocate(rows: Sequence[Row], images: int, keep: tuple[Buffer, ...]) -> dict[Buffer, Array]:
    """Memory of each buffer; one that is no more read is given to the next of its shape, which keeps caches warm."""
    last_use: dict[Buffer, int] = {}
    for number, row in enumerate(rows):
        last_use.update({cell: number for cell in row.cells.values() if isinstance(cell, Buffer)})
    memory: dict[Buffer, Array] = {}
    free: dict[tuple[object, ...], list[Array]] = {}
    for number, row in enumerate(rows):
        used = [cell for cell in row.cells.values() if isinstance(cell, Buffer)]
        for buffer in used:
            if buffer not in memory:
                spare = [] if buffer in keep else free.get(buffer.shape, [])
                memory[buffer] = spare.pop() if spare else buffer.allocate(images)
        for buffer in set(used) - set(keep):
            if last_use[buffer] == number:
                free.setdefault(buffer.shape, []).append(memory[buffer])
    return memory
