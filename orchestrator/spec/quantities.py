"""Amounts with units, as a study says them: `2GiB`, `30min`."""

import math
import re
from collections.abc import Mapping

from orchestrator.spec.yaml_nodes import Value

BYTES: Mapping[str, int] = {
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
SECONDS: Mapping[str, int] = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", re.ASCII)
_LONGEST = 24


def size(value: Value) -> int | None:
    """Bytes; None where `value` is no size, such as a number without a unit."""
    found = _amount(value, BYTES)
    return None if found is None or found < 1 else int(found)


def seconds(value: Value) -> float | None:
    """Seconds of a duration, or of a plain number of them; None where `value` is none, or not above 0."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    found = float(value) if plain else _amount(value, SECONDS)  # pyright: ignore[reportArgumentType]
    return found if found is not None and 0 < found < math.inf else None


def show_bytes(count: int) -> str:
    """`2 GiB`, `1.5 GiB`, `300 MiB`."""
    unit, scale = next(((u, s) for u, s in (("TiB", 2**40), ("GiB", 2**30)) if count >= s), ("MiB", 2**20))
    return f"{count / scale:.4g} {unit}"


def _amount(value: Value, units: Mapping[str, int]) -> float | None:
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= _LONGEST else None
    scale = units.get(found[2]) if found else None
    return None if found is None or scale is None else float(found[1]) * scale
