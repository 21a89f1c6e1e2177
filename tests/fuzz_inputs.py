"""Hostile input made from valid input: bytes, text and trees with a few edits each."""

import copy
import math
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from hypothesis import strategies as st

T = TypeVar("T")
Draw = Any

WORDS: tuple[str, ...] = (
    "", " ", "null", "true", "-1", "0", "1e999", ".nan", "99999999999999999999", "../../x", "/etc/passwd", "a\0b",
    "\x1b[31m", "x" * 5000, "\N{CYRILLIC SMALL LETTER A}", "\N{RIGHT-TO-LEFT OVERRIDE}", "'", '"', "[", "]", "{", "}",
    ":", "#", "&a", "*a",
    "!!python/object:os.system", "<<:", "|", ">", "%", "@", "`", "__import__('os')", "\ud800", "\n", "\t", "---", "...",
    "compress.pfr", "model.name", "seed", "stq", "grid", "inf", "0x10", "1_000", "2001-01-01",
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 2**31, 2**63, 10**40, 0.5, -0.0, 1e308, -1e308, math.nan, math.inf, "", "x",
    "../../x", "/etc/passwd", "a\0b", "\x1b[31m", "y" * 3000, "resnet8", "complete", "failed", [], {}, [[]], [None],
    [0, -1], {"a": {}},
    [[[[[[[[[[1]]]]]]]]]], {"method": "stq"},
)  # fmt: skip

CHUNKS: tuple[bytes, ...] = (
    b"", b"\0", b"\xff" * 8, b"\n", b"\r\n", b'"', b",", b"{", b"}", b"../", b"PK\x03\x04", b"PKNN", b"PAR1",
    b"\x80\x05.",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"A" * 300, b"1e999", b"NaN",
)  # fmt: skip


@st.composite
def edited_bytes(draw: Draw, valid: Sequence[bytes], most: int = 4) -> bytes:
    """One of several valid inputs with up to `most` edits: bytes changed, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from((1, 1, 2, 4, 8, 64, 1000))))
        kind = draw(st.sampled_from(("change", "cut", "double", "put", "end")))
        if kind == "change" and start < len(data):
            data[start] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[start:stop]
        elif kind == "double":
            data[stop:stop] = data[start:stop]
        elif kind == "put":
            data[start:start] = draw(st.sampled_from(CHUNKS) | st.binary(max_size=8))
        elif kind == "end":
            del data[start:]
    return bytes(data)


@st.composite
def edited_text(draw: Draw, valid: Sequence[str], most: int = 4) -> str:
    """The same of text, by lines and by words."""
    lines = draw(st.sampled_from(valid)).splitlines(keepends=True)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        kind = draw(st.sampled_from(("cut", "double", "word", "word", "word", "swap", "insert")))
        if not lines or kind == "insert":
            lines.insert(at, draw(_words()) + "\n")
        elif kind == "cut":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = draw(_with_word(lines[at]))
    return "".join(lines)


def _words() -> st.SearchStrategy[str]:
    return st.sampled_from(WORDS) | st.text(max_size=12)


@st.composite
def _with_word(draw: Draw, line: str) -> str:
    start = draw(st.integers(0, len(line)))
    stop = min(len(line), start + draw(st.integers(0, 12)))
    return line[:start] + draw(_words()) + line[stop:]


@st.composite
def edited_tree(draw: Draw, valid: Sequence[Any], most: int = 3) -> Any:
    """JSON with up to `most` nodes replaced, taken away, doubled or given another name."""
    tree = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(tree))
        if not places:
            return tree
        owner, name = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(("value", "value", "value", "cut", "copy", "name")))
        if kind == "value":
            owner[name] = copy.deepcopy(
                draw(st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=9))
            )
        elif kind == "cut":
            del owner[name]
        elif kind == "copy":
            other, place = draw(st.sampled_from(places))
            owner[name] = copy.deepcopy(other[place])
        elif isinstance(owner, dict):
            owner[draw(_words())] = owner.pop(name)
    return tree


def _places(tree: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of a tree; a part that was copied into itself is not followed for ever."""
    if depth > 12:
        return []
    names: list[Any] = (
        list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    )
    found = [(tree, name) for name in names]
    for name in names:
        found += _places(cast("Any", tree)[name], depth + 1)
    return found
