"""What the machine's vector units can do, and the shapes of the register tiles that suit them."""

from dataclasses import dataclass
from typing import Any, Literal

from numba.core.registry import cpu_target

Kind = Literal["binary_wide", "binary_tall", "ternary", "planes", "float"]
Level = Literal["avx512", "avx2", "plain"]


@dataclass(frozen=True, slots=True)
class Tile:
    """What one turn of the innermost loop computes: `pixels` x `vectors` of eight filters."""

    pixels: int
    vectors: int


# An AVX-512 core has 32 registers of eight 64-bit lanes, AVX2 has 16 of four; accumulators take most of them. On a
# plain CPU a vector of eight words is many instructions: small tiles keep the code, and its compilation, small.
TILES: dict[Level, dict[Kind, Tile]] = {
    "avx512": {
        "binary_wide": Tile(4, 4),
        "binary_tall": Tile(8, 2),
        "ternary": Tile(8, 2),
        "planes": Tile(4, 2),
        "float": Tile(8, 2),
    },
    "avx2": {
        "binary_wide": Tile(2, 2),
        "binary_tall": Tile(2, 2),
        "ternary": Tile(2, 2),
        "planes": Tile(1, 2),
        "float": Tile(4, 2),
    },
    "plain": {
        "binary_wide": Tile(1, 2),
        "binary_tall": Tile(1, 2),
        "ternary": Tile(1, 2),
        "planes": Tile(1, 2),
        "float": Tile(1, 2),
    },
}


def features() -> frozenset[str]:
    """Names of the CPU's features for which numba generates code, such as `avx2`."""
    context: Any = cpu_target.target_context
    _, _, listed = context.codegen().magic_tuple()
    return frozenset(name[1:] for name in listed.split(",") if name.startswith("+"))


def level() -> Level:
    """The best set of tiles that this CPU runs well."""
    have = features()
    if {"avx512f", "avx512bw", "avx512vl", "avx512vpopcntdq"} <= have:
        return "avx512"
    return "avx2" if "avx2" in have else "plain"


def tile(kind: Kind) -> Tile:
    """The tile of a kind of convolution on this CPU."""
    return TILES[level()][kind]
