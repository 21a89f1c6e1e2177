"""How the weights of a layer become bytes and back: fp32, signs, trits or two values a filter.

| storage | bytes of n weights in O filters | numbers beside them (fp32) |
| --- | --- | --- |
| fp32 | 4n | none |
| signs, layer, filter | ceil(n / 8), +1 is 1 | no scale, one, O scales |
| trits, trits_layer, trits_filter | ceil(n / 5), five trits a byte (3^5 = 243) | no scale, one, O scales |
| two_values | ceil(n / 8), the larger value is 1 | O larger, then O smaller values |
| codes2 to codes8 | ceil(b n / 8), high bits first | G steps, then the bytes below |

Behind the steps of codes stand G zeros, a byte each, and where filters are not grouped as they stand each one's group,
1 or 2 bytes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainables.errors import PackedFileError
from trainables.models.grids import Grid

Storage = Literal[
    "fp32", "signs", "layer", "filter", "trits", "trits_layer", "trits_filter", "two_values",
    "codes2", "codes3", "codes4", "codes5", "codes6", "codes7", "codes8",
]  # fmt: skip

CODES: Mapping[Storage, int] = {
    "codes2": 2, "codes3": 3, "codes4": 4, "codes5": 5, "codes6": 6, "codes7": 7, "codes8": 8,
}  # fmt: skip
"""Bits of a code."""

BITS: dict[Storage, int] = {
    **dict.fromkeys(("signs", "layer", "filter", "two_values"), 1),
    **dict.fromkeys(("trits", "trits_layer", "trits_filter"), 2),
    **CODES,
}
"""Of a weight, as `Compact.bits` has them; fp32 has none."""

TRITS_A_BYTE = 5
_PLACES = 3 ** np.arange(TRITS_A_BYTE, dtype=np.int64)
_LARGEST = 3**TRITS_A_BYTE - 1


def filter_scales(name: str, weight: Tensor, bits: int) -> Tensor | None:
    """a_o of each filter of a layer with 1 or 2 bits a weight, shape (O,); None where its two values are free.

    A ternary filter of zeros alone may have any scale: it gets that of the first other filter, or 1.

    Raises:
        ValueError: the layer holds more values in a filter than `bits` can tell apart.

    """
    flat = weight.flatten(1)
    magnitude = flat.abs()
    scale = magnitude.amax(1)
    near = (magnitude == scale[:, None]) | ((flat == 0) if bits == 2 else torch.zeros_like(flat, dtype=torch.bool))
    if bits in (1, 2) and bool(near.all()):
        return scale if bits == 1 else _without_zeros(scale)
    if bits == 1 and bool(((flat == flat.amax(1, keepdim=True)) | (flat == flat.amin(1, keepdim=True))).all()):
        return None
    levels = {1: "two", 2: "three symmetric"}.get(bits, "so many")
    msg = f"layer {name} cannot be stored with {bits} bit a weight: it holds more than {levels} values in a filter"
    raise ValueError(msg)


def _without_zeros(scale: Tensor) -> Tensor:
    positive = scale[scale > 0]
    return torch.where(scale > 0, scale, positive[0] if len(positive) else 1.0)


def encode(weight: Tensor, bits: int | None, scales: Tensor | None) -> tuple[Storage, bytes]:
    """How a weight is stored, and its bytes; `bits` None is fp32, `scales` as in `filter_scales`."""
    if bits is None:
        return "fp32", floats(weight)
    if scales is None:
        upper, lower = weight.flatten(1).amax(1), weight.flatten(1).amin(1)
        larger = weight.flatten(1) == upper[:, None]
        return "two_values", _bits(larger) + floats(upper) + floats(lower)
    text = _bits(weight >= 0) if bits == 1 else _trits(weight.sign())
    kinds: Sequence[Storage] = ("signs", "layer", "filter") if bits == 1 else ("trits", "trits_layer", "trits_filter")
    if bool((scales == 1).all()):
        return kinds[0], text
    if bool((scales == scales[0]).all()):
        return kinds[1], text + floats(scales[:1])
    return kinds[2], text + floats(scales)


def encode_codes(weight: Tensor, grid: Grid) -> tuple[Storage, bytes]:
    """How a weight on `grid` is stored, and its bytes, the grid's included.

    Raises:
        ValueError: a weight lies beside the grid.

    """
    codes = grid.codes(weight).numpy().astype(np.uint8)
    bits = np.unpackbits(codes.reshape(-1, 1), axis=1)[:, 8 - grid.bits :]
    beside = floats(torch.tensor(grid.steps)) + bytes(grid.zeros)
    numbers = index_bytes(torch.tensor(grid.groups, dtype=torch.int64), group_bytes(grid))
    kinds: Mapping[int, Storage] = {bits: kind for kind, bits in CODES.items()}
    return kinds[grid.bits], np.packbits(bits.ravel()).tobytes() + beside + numbers


def group_bytes(grid: Grid) -> int:
    """Bytes that tell a filter's group; 0 where its place does."""
    return 0 if not grid.groups else 1 if len(grid.steps) <= 256 else 2


def code_bytes(kind: Storage, weights: int, filters: int, groups: int, width: int) -> int:
    """Bytes of a layer's weight of codes in `groups`, each filter's group told in `width` bytes."""
    return math.ceil(CODES[kind] * weights / 8) + 5 * groups + width * filters


def stored_bytes(kind: Storage, weights: int, filters: int) -> int:
    """Bytes of a layer's weight, numbers beside it included; of one on a grid see `code_bytes`."""
    per_byte = {None: 1 / 4, 1: 8, 2: TRITS_A_BYTE}[BITS.get(kind)]
    return math.ceil(weights / per_byte) + 4 * _numbers(kind, filters)


def _numbers(kind: Storage, filters: int) -> int:
    """Numbers beside the weights."""
    if kind == "two_values":
        return 2 * filters
    return {"layer": 1, "trits_layer": 1, "filter": filters, "trits_filter": filters}.get(kind, 0)


def floats(tensor: Tensor) -> bytes:
    """Little-endian fp32."""
    return tensor.detach().contiguous().numpy().astype("<f4").tobytes()


def index_bytes(index: Tensor, width: int) -> bytes:
    """Whole numbers, little-endian, `width` bytes each (at most 3)."""
    whole = index.cpu().numpy().astype("<u4").view(np.uint8).reshape(-1, 4)
    return np.ascontiguousarray(whole[:, :width]).tobytes()


def _bits(ones: Tensor) -> bytes:
    return np.packbits(ones.numpy().ravel()).tobytes()


def _trits(signs: Tensor) -> bytes:
    digits = signs.numpy().ravel().astype(np.int64) + 1
    digits = np.pad(digits, (0, -len(digits) % TRITS_A_BYTE))
    return (digits.reshape(-1, TRITS_A_BYTE) @ _PLACES).astype(np.uint8).tobytes()


class Reader:
    """Takes numbers off the front of a blob, which must be long enough."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._place = 0

    def weight(self, kind: Storage, shape: Sequence[int]) -> Tensor:
        """A layer's weight, shape (O, ...).

        Raises:
            PackedFileError: a byte holds no five trits.

        """
        count, filters = math.prod(shape), shape[0]
        if kind == "fp32":
            return self.floats(count).view(*shape)
        levels = (self._trits(count) if BITS[kind] == 2 else self._bits(count)).view(filters, -1)
        beside = self.floats(_numbers(kind, filters))
        if kind == "two_values":
            return torch.where(levels > 0, beside[:filters, None], beside[filters:, None]).view(*shape)
        return (levels * beside[:, None]).view(*shape) if len(beside) else levels.view(*shape)

    def codes(self, kind: Storage, shape: Sequence[int], groups: int, width: int) -> tuple[Tensor, Grid]:
        """A layer's weight of codes, shape (O, ...), and its grid.

        Raises:
            PackedFileError: what is read is no grid.

        """
        bits, count = CODES[kind], math.prod(shape)
        ones = np.unpackbits(self._take(math.ceil(bits * count / 8)), count=bits * count).reshape(count, bits)
        codes = torch.from_numpy(ones.astype(np.float32) @ (2.0 ** np.arange(bits - 1, -1, -1, dtype=np.float32)))
        steps, zeros = self.floats(groups).tolist(), self._take(groups).tolist()
        places: list[int] = self.index(shape[0], width).tolist() if width else []
        grid = Grid(bits, tuple(steps), tuple(zeros), tuple(places))
        fault = grid.fault() or (not width and shape[0] % groups and f"{groups} groups of {shape[0]} filters")
        if fault:
            msg = f"the packed file holds {fault}"
            raise PackedFileError(msg)
        return grid.values(codes.view(shape[0], -1)).view(*shape), grid

    def floats(self, count: int) -> Tensor:
        """Fp32 numbers, shape (count,)."""
        return torch.from_numpy(self._take(4 * count).view("<f4").astype(np.float32))

    def index(self, count: int, width: int) -> Tensor:
        """Whole numbers of `width` bytes, int64, shape (count,)."""
        whole = np.zeros((count, 4), np.uint8)
        whole[:, :width] = self._take(width * count).reshape(count, width)
        return torch.from_numpy(whole.view("<u4").ravel().astype(np.int64))

    def double(self) -> float:
        """One fp64 number."""
        return float(self._take(8).view("<f8")[0])

    def _bits(self, count: int) -> Tensor:
        """Numbers +1 and -1."""
        ones = np.unpackbits(self._take(math.ceil(count / 8)), count=count)
        return torch.from_numpy(ones.astype(np.float32) * 2 - 1)

    def _trits(self, count: int) -> Tensor:
        """Numbers -1, 0 and +1."""
        packed = self._take(math.ceil(count / TRITS_A_BYTE))
        if packed.size and packed.max() > _LARGEST:
            msg = f"the packed file holds the byte {packed.max()} where five trits stand (at most {_LARGEST})"
            raise PackedFileError(msg)
        digits = packed[:, None] // _PLACES.astype(np.uint8) % np.uint8(3)
        return torch.from_numpy(digits.ravel()[:count].astype(np.float32) - 1)

    def _take(self, count: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
        taken = np.frombuffer(self._blob, np.uint8, count, self._place)
        self._place += count
        return taken
