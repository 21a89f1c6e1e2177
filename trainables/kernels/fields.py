"""The operations that the compiled program knows, and the columns of the table that holds them.

A network is a table of int64, one row an operation; a column is a number or the address of an array. Strides are bytes.
"""

from enum import IntEnum


class Op(IntEnum):
    """What a row of the table does."""

    IMAGE = 0
    BINARY_WIDE = 1
    BINARY_TALL = 2
    TERNARY = 3
    PLANES = 4
    FLOAT = 5
    AFFINE = 6
    UNPACK = 7
    POOL_BITS = 8
    POOL_FLOAT = 9
    WINDOW_SUM = 10
    MEAN = 11
    LINEAR = 12


class Mode(IntEnum):
    """What a convolution does with its sums."""

    BITS = 0
    FLOAT = 1


class Conv(IntEnum):
    """The columns of a convolution, and of the sum over its windows."""

    KIND = 0
    IMAGES = 1
    BLOCKS = 2
    STARTS = 3
    TILES = 4
    RANGES = 5
    PIXELS = 6
    OFFSETS = 7
    MASKS = 8
    WEIGHTS = 9
    BLOCK_STRIDE = 10
    INPUT = 11
    INPUT_IMAGE = 12
    INPUT_PLANE = 13
    MODE = 14
    SCALE = 15
    BIAS = 16
    RESIDUAL = 17
    RESIDUAL_PIXEL = 18
    RESIDUAL_IMAGE = 19
    OUTPUT = 20
    OUTPUT_PIXEL = 21
    OUTPUT_IMAGE = 22
    BITS = 23
    BITS_IMAGE = 24
    BITS_PLANE = 25
    UPPER = 26
    LOWER = 27
    NEXT_SCALE = 28
    NEXT_BIAS = 29
    NEXT_UPPER = 30
    NEXT_LOWER = 31
    VECTORS = 32
    COUNT = 33
    BEYOND = 34
    ROW_ENDS = 35


class Pass(IntEnum):
    """The columns of every other operation; sizes without a prefix are those of the output."""

    KIND = 0
    IMAGES = 1
    INPUT = 2
    INPUT_IMAGE = 3
    INPUT_PLANE = 4
    INPUT_HEIGHT = 5
    INPUT_WIDTH = 6
    INPUT_PAD = 7
    OUTPUT = 8
    OUTPUT_IMAGE = 9
    BITS = 10
    BITS_IMAGE = 11
    BITS_PLANE = 12
    HEIGHT = 13
    WIDTH = 14
    PAD = 15
    CHANNELS = 16
    VECTORS = 17
    SCALE = 18
    BIAS = 19
    UPPER = 20
    LOWER = 21
    FLOOR = 22
    SIZE = 23
    STRIDE = 24
    PADDING = 25
    WEIGHTS = 26
    CLASSES = 27
    PITCH = 28


COLUMNS = 40
