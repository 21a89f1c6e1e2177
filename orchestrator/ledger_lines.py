"""The lines of a ledger, and what may stand in them.

A line is eight hex digits of CRC-32, a space, and JSON. The sum tells damage; it does not tell who wrote the line. So
nothing of a line is believed: names are plain, numbers finite and of a size that tables hold, and all is of its type.
"""

import json
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from orchestrator.errors import StoreError

LARGEST = 2**63 - 1
"""Whole numbers in tables have 64 bits; nothing that is measured here is larger."""

YEAR_10000 = 253_402_300_800
"""The first second that no calendar here knows."""

DEEPEST = 20
"""Levels of a config."""

_NAME = re.compile(r"[0-9A-Za-z_-]{1,128}", re.ASCII)

Name = Annotated[str, Meta(pattern=rf"\A(?:{_NAME.pattern})\Z")]
Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Number = Annotated[float, Meta(ge=-(2.0**62), le=2.0**62)]
Seconds = Annotated[float, Meta(ge=0, le=2.0**62)]
Time = Annotated[float, Meta(ge=0, lt=YEAR_10000)]
"""What a decoder may take without a second look; it takes nothing that a form refuses."""


def line(content: Mapping[str, Any]) -> bytes:
    """One line with its sum.

    Raises:
        ValueError: a number is not finite; JSON has no word for it.
        TypeError: something in it is no plain value; `default=str` would hide a tensor in a metric.

    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


SUM = 9
"""Bytes before the JSON of a line."""


def undamaged(data: bytes) -> memoryview | None:
    """The JSON of a line without its end; None where the sum is another."""
    text = memoryview(data)[SUM:]
    return text if data[:SUM] == b"%08x " % zlib.crc32(text) else None


def parsed(text: memoryview) -> dict[str, Any] | None:
    """The content of a line; None where it was no line of a ledger."""
    try:
        content = json.loads(bytes(text), parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Form:
    """What the JSON of a flat dataclass looks like: a check for each field; `needed` are those without a default."""

    name: str
    checks: Mapping[str, Check]
    needed: frozenset[str]

    def checked(self, content: Any, place: str) -> dict[str, Any]:
        """The content, when it is of this form; `place` says where it stands.

        Raises:
            StoreError: a field is unknown, missing or of another type, or its value is none that a sweep writes.

        """
        if not isinstance(content, dict):
            raise StoreError(f"{place}: a {self.name} record is {_shown(content)}, no mapping{_ADVICE}")
        found = cast("dict[str, Any]", content)
        if unknown := sorted(found.keys() - self.checks.keys()):
            names = ascii(", ".join(unknown))[1:-1]
            raise StoreError(f"{place}: unknown fields {names}; a later version wrote this ledger")
        if missing := sorted(self.needed - found.keys()):
            raise StoreError(f"{place}: a {self.name} record is incomplete: {', '.join(missing)} not in it{_ADVICE}")
        for name, value in found.items():
            if not self.checks[name](value):
                raise StoreError(f"{place}: {name} is {_shown(value)}, which no sweep writes{_ADVICE}")
        return found


_ADVICE = ". Move this ledger out of the results root if it is not yours; what it finished counts as not done then."


def form_of(record: type, name: str) -> Form:
    """The form of a dataclass or struct whose fields are plain values, mappings or sequences."""
    checks = {one: _SPECIAL.get(one) or _check(hint) for one, hint in get_type_hints(record).items()}
    return Form(name, checks, frozenset(_needed(record)))


def _needed(record: type) -> list[str]:
    if issubclass(record, msgspec.Struct):
        return [one.name for one in msgspec.structs.fields(record) if one.required]
    return [one.name for one in fields(record) if one.default is MISSING and one.default_factory is MISSING]


def is_plain(value: Any) -> bool:
    """Whether `json.loads` gave it, no number of it is too large, and it is not too deep."""
    return _is_plain(value)


def _check(hint: Any) -> Check:
    """Whether what `json.loads` gave may stand in a field of this type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        either = [_check(one) for one in inner]
        return lambda value: any(fits(value) for fits in either)
    if origin is Literal:
        return lambda value: type(value) is str and value in inner
    if origin is Mapping:
        of = _check_all(inner[1])
        return lambda value: type(value) is dict and _are_texts(value) and of(value.values())
    if origin is Sequence:
        of = _check_all(inner[0])
        return lambda value: type(value) is list and of(value)
    return _PLAIN[hint]


def _check_all(hint: Any) -> Callable[[Collection[Any]], bool]:
    """Whether all of several values may stand in a field of this type; numbers, which are many, all at once."""
    kinds = {*get_args(hint)} or {hint}
    if kinds <= _NUMBERS.keys():
        types = frozenset().union(*(_NUMBERS[kind] for kind in kinds))
        return lambda values: types.issuperset(map(type, values)) and all(map(_is_sound, values))
    of = _check(hint)
    return lambda values: all(map(of, values))


_NUMBERS: Mapping[Any, frozenset[type]] = {
    float: frozenset({float, int}), int: frozenset({int}), type(None): frozenset({type(None)}),
}  # fmt: skip


def _is_sound(number: float | None) -> bool:
    """Whether a number has a place in a table; infinity, which JSON writes as 1e999, has none."""
    return number is None or -LARGEST <= number <= LARGEST


def _is_whole(value: Any) -> bool:
    return type(value) is int and _is_sound(value)


def _is_number(value: Any) -> bool:
    return type(value) in (float, int) and _is_sound(value)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(map(_is_text, values))


def _is_text(value: Any) -> bool:
    """Whether UTF-8 has it: a lone surrogate could be read and never be written again."""
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict):
        return depth < DEEPEST and all(_is_text(key) and _is_plain(item, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return depth < DEEPEST and all(_is_plain(item, depth + 1) for item in value)
    # a config may ask for any finite number, a learning rate of 1e30 too; it goes into tables as a float
    finite = type(value) is float and math.isfinite(value)
    return value is None or type(value) is bool or finite or _is_whole(value) or _is_text(value)


def _is_name(value: Any) -> bool:
    return type(value) is str and _NAME.fullmatch(value) is not None


def _is_time(value: Any) -> bool:
    return _is_number(value) and 0 <= value < YEAR_10000


_PLAIN: Mapping[Any, Check] = {
    str: _is_text, int: _is_whole, float: _is_number, type(None): lambda value: value is None, Any: _is_plain,
}  # fmt: skip
_SPECIAL: Mapping[str, Check] = {
    "key": _is_name,
    "parent": lambda value: value is None or _is_name(value),
    "started_at": _is_time,
    "finished_at": _is_time,
    "busy_s": lambda value: _is_number(value) and value >= 0,
}


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
