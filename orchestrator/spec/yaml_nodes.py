"""YAML 1.2 text -> plain values with their places; the one file that reads YAML.

The tree is built from parser events, so that nothing but maps, lists, text, numbers, truth values and null can come
out: tags and aliases are faults, and depth and length are bounded before anything is built.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from orchestrator.errors import Fault
from orchestrator.spec.wording import meant, show

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_DIGITS = 40
MAX_KEY = 100

Scalar = str | int | float | bool | None
Value = Scalar | tuple["Value", ...] | Mapping[str, "Value"]

_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_BASES = {"0o": 8, "0x": 16}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place (1-based; 0: unknown) and that of its key; `origin` names the override it came from."""

    value: "Scalar | tuple[Node, ...] | Mapping[str, Node]"
    line: int = 0
    column: int = 0
    key_line: int = 0
    key_column: int = 0
    origin: str = ""

    def fault(self, key: str, message: str) -> Fault:
        """A fault of the value."""
        return Fault(self._told(message), key, self.line, self.column)

    def key_fault(self, key: str, message: str) -> Fault:
        """A fault of the key."""
        return Fault(self._told(message), key, self.key_line or self.line, self.key_column or self.column)

    def _told(self, message: str) -> str:
        return f"{message} (from {self.origin})" if self.origin else message

    def plain(self) -> Value:
        """The value alone."""
        if isinstance(self.value, tuple):
            return tuple(item.plain() for item in self.value)
        if isinstance(self.value, Mapping):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    def mapping(self, key: str, faults: list[Fault]) -> Mapping[str, "Node"]:
        """The entries of a mapping; anything else is a fault and has none."""
        if isinstance(self.value, Mapping):
            return self.value
        faults.append(self.fault(key, f"{show(self.plain())} must be a mapping of keys to values"))
        return {}

    def only(
        self, key: str, known: tuple[str, ...], faults: list[Fault], elsewhere: Mapping[str, str] | None = None
    ) -> Mapping[str, "Node"]:
        """The entries of a mapping with these keys alone; `elsewhere` says where another one belongs."""
        homes = elsewhere or {}
        found = self.mapping(key, faults)
        prefix = f"{key}." if key else ""
        faults.extend(
            node.key_fault(f"{prefix}{name}", homes.get(name) or f"unknown key{meant(name, known)}")
            for name, node in found.items()
            if name not in known
        )
        return {name: node for name, node in found.items() if name in known}


def read(path: Path) -> tuple[str, list[Fault]]:
    """The text of a study file, or why it is none."""
    try:
        if not path.is_file():
            return "", [Fault("is not a regular file" if path.exists() else "no such file")]
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        return "", [Fault(f"cannot be read: {getattr(error, 'strerror', None) or error}")]
    if len(data) > MAX_BYTES:
        size = path.stat().st_size
        return "", [Fault(f"has {size:,} bytes; a study has at most {MAX_BYTES:,}. Is this the right file?")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return "", [Fault("not UTF-8 text; is this a binary file?", line=line, column=1)]
    return text, []


def parse(text: str, origin: str = "") -> tuple[Node | None, list[Fault]]:
    """The document as a tree, or None, and all faults found on the way."""
    if faults := _indented_by_tabs(text):
        return None, faults
    builder = _Builder(origin)
    try:
        root = builder.document(iter(YAML(typ="safe", pure=True).parse(text)))
    except _StopError:
        root = None
    except MarkedYAMLError as error:
        builder.faults.append(_syntax_fault(error))
        root = None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        builder.faults.append(Fault("a control character; is this a binary file?", line=line, column=1))
        root = None
    except (YAMLError, ValueError, OverflowError) as error:
        builder.faults.append(Fault(f"not valid YAML: {error}"))
        root = None
    return root, builder.faults


def _indented_by_tabs(text: str) -> list[Fault]:
    lines = enumerate(text.splitlines(), start=1)
    return [
        Fault("a tab in the indentation; YAML is indented with spaces", line=number, column=line.index("\t") + 1)
        for number, line in lines
        if "\t" in line[: len(line) - len(line.lstrip())] and line.strip()
    ][:10]


def _syntax_fault(error: MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    said = " ".join(str(part) for part in (error.context, error.problem) if part)
    if "'\\t'" in said:
        said = "a tab where YAML wants spaces"
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return Fault(f"YAML syntax: {said}", line=line, column=column)


class _StopError(Exception):
    """The document is beyond the bounds; the fault has been noted."""


@dataclass
class _Builder:
    origin: str
    faults: list[Fault] = field(default_factory=list[Fault])

    def document(self, events: Iterator[Event]) -> Node | None:
        root = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    self._refuse(event, "", "a second document; a study is one document")
                    raise _StopError
                root = self._node(next(events), events, "", 0)
            elif isinstance(event, StreamEndEvent):
                break
        return root

    def _node(self, event: Event, events: Iterator[Event], path: str, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._refuse(event, path, f"nested deeper than {MAX_DEPTH} levels")
            raise _StopError
        if isinstance(event, AliasEvent):
            self._refuse(event, path, f"the alias *{event.anchor} is not supported; write the value out")
            return self._at(event, None)
        if isinstance(event, NodeEvent) and getattr(event, "tag", None) is not None:
            self._refuse(event, path, f"the tag {show(str(getattr(event, 'tag', '')))} is not supported; remove it")
        if isinstance(event, SequenceStartEvent):
            return self._at(event, self._sequence(events, path, depth))
        if isinstance(event, MappingStartEvent):
            return self._at(event, self._mapping(events, path, depth))
        if not isinstance(event, ScalarEvent):
            raise _StopError
        return self._at(event, self._scalar(event, path))

    def _sequence(self, events: Iterator[Event], path: str, depth: int) -> tuple[Node, ...]:
        items: list[Node] = []
        for event in events:
            if not isinstance(event, NodeEvent):
                break
            items.append(self._node(event, events, f"{path}[{len(items)}]", depth + 1))
        return tuple(items)

    def _mapping(self, events: Iterator[Event], path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key in events:
            if not isinstance(key, NodeEvent):
                break
            name = self._key(key, path)
            place = f"{path}.{name}" if path else name
            node = self._node(next(events), events, place, depth + 1)
            if name in entries:
                first = entries[name].key_line
                self._refuse(key, place, f"this key stands twice in the mapping (first on line {first}); keep one")
                continue
            line, column = self._place(key)
            entries[name] = replace(node, key_line=line, key_column=column)
        return entries

    def _key(self, event: Event, path: str) -> str:
        text = str(event.value) if isinstance(event, ScalarEvent) and event.tag is None else ""
        if text.isprintable() and 0 < len(text) <= MAX_KEY:
            return text
        self._refuse(event, path, f"a key must be plain text of 1 to {MAX_KEY} printable characters")
        raise _StopError

    def _scalar(self, event: ScalarEvent, path: str) -> Scalar:
        text = str(event.value)
        if event.style not in (None, ""):
            return text
        if len(text) > MAX_DIGITS and (_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text)):
            self._refuse(event, path, f"a number of {len(text)} characters; at most {MAX_DIGITS} are read")
            return 0
        value = resolve(text)
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(event, path, f"{text} is no finite number")
        return value

    def _at(self, event: Event, value: "Scalar | tuple[Node, ...] | Mapping[str, Node]") -> Node:
        line, column = self._place(event)
        return Node(value, line, column, origin=self.origin)

    def _place(self, event: Event) -> tuple[int, int]:
        """Where something stands in the file; what an override says stands in none."""
        return _start(event) if not self.origin else (0, 0)

    def _refuse(self, event: Event, path: str, message: str) -> None:
        line, column = _start(event)
        self.faults.append(Fault(message, path, line, column))


def _start(event: Event) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def resolve(text: str) -> Scalar:
    """A plain scalar in YAML 1.2's core schema: `0.1` a number, `true` a truth value, `no` text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text[2:], _BASES[text[:2]]) if text[:2] in _BASES else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
