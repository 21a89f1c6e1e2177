"""Reading and writing at addresses in numba code."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _reader(kind: Any) -> Any:
    @intrinsic
    def read(_typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], context.get_value_type(kind).as_pointer())
            value = builder.load(pointer)
            value.align = 1 if kind.bitwidth != _FLOAT_BITS else _FLOAT_BITS // 8
            return value

        return kind(types.int64), codegen

    return read


def _writer(kind: Any) -> Any:
    @intrinsic
    def write(_typing: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], context.get_value_type(kind).as_pointer())
            builder.store(arguments[1], pointer).align = kind.bitwidth // 8
            return context.get_dummy_value()

        return types.void(types.int64, kind), codegen

    return write


_FLOAT_BITS = 32
read_int64 = _reader(types.int64)
read_int32 = _reader(types.int32)
read_byte = _reader(types.uint8)
read_float = _reader(types.float32)
write_byte = _writer(types.uint8)
write_float = _writer(types.float32)


def _popcount(_typing: Any, word: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), codegen


def _as_byte(_typing: Any, value: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.trunc(arguments[0], ir.IntType(8))

    return types.uint8(types.int64), codegen


def _column(_typing: Any, row: Any, index: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, index = arguments
        word = ir.IntType(64)
        address = builder.add(row, builder.mul(index, ir.Constant(word, 8)))
        return builder.load(builder.inttoptr(address, word.as_pointer()))

    return types.int64(types.int64, types.int64), codegen


# a column of the row at an address, the set bits of a 64-bit word, and the lowest eight bits of an integer
column: Any = intrinsic(_column)
popcount: Any = intrinsic(_popcount)
as_byte: Any = intrinsic(_as_byte)
