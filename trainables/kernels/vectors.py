"""Vectors of eight lanes in LLVM's intermediate language: what numba's own types cannot say.

Addresses are 64-bit integers. LLVM legalises a vector of eight 64-bit words for any CPU: one register of AVX-512,
two of AVX2, smaller ones elsewhere.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 8
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
FLOAT = ir.FloatType()
WORDS = ir.VectorType(INT64, LANES)
FLOATS = ir.VectorType(FLOAT, LANES)

Value = Any  # a value of the program being built; llvmlite has no type hints
Builder = Any  # llvmlite.ir.IRBuilder


def const(value: int) -> Value:
    """A 64-bit integer."""
    return ir.Constant(INT64, value)


def add(b: Builder, *terms: Value) -> Value:
    """The sum of 64-bit integers."""
    total = terms[0]
    for term in terms[1:]:
        total = b.add(total, term)
    return total


def scaled(b: Builder, value: Value, factor: int) -> Value:
    """`value` x `factor`, 64 bits."""
    return b.mul(value, const(factor))


def load(b: Builder, address: Value, kind: Value, align: int) -> Value:
    """What lies at an address."""
    value = b.load(b.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def store(b: Builder, value: Value, address: Value, align: int) -> None:
    """Put a value at an address."""
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = align


def load_int32(b: Builder, address: Value) -> Value:
    """A 32-bit integer, widened to 64."""
    return b.sext(load(b, address, INT32, 4), INT64)


def splat(b: Builder, value: Value) -> Value:
    """A vector whose lanes all hold `value`."""
    kind = ir.VectorType(value.type, LANES)
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(INT32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def zeros(kind: Value) -> Value:
    """A vector of zeros."""
    return ir.Constant(kind, None)


def popcount(b: Builder, words: Value) -> Value:
    """The set bits of each word."""
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(WORDS, [WORDS]), "llvm.ctpop.v8i64")
    return b.call(function, [words])


def multiply_add(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """Give x y + z, in one rounding where the CPU has it, else in two."""
    kind = ir.FunctionType(FLOATS, [FLOATS, FLOATS, FLOATS])
    return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.fmuladd.v8f32"), [x, y, z])


def store_mask(b: Builder, mask: Value, address: Value) -> None:
    """Eight truth values as the bits of one byte, lane 0 lowest."""
    store(b, b.bitcast(mask, ir.IntType(8)), address, 1)
