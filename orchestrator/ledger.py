"""Durable commit of finished stages, and their replay.

Each driver run appends to a file of its own, `<root>/<run>.jsonl`: a header line, then one line a finished stage, one
for each attempt that failed and was followed by another, and one for each question and answer of a search that learns.
A line is eight hex digits of CRC-32, a space, and JSON; it is on disk before the stage is reported done: on this
machine's, where the root is elsewhere (`orchestrator.spool`).

The names of runs begin with a time that never goes back below one root, whatever the clock does: in the order of their
names, and of the lines in each, is what happened.
"""

import marshal
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from io import FileIO
from typing import Any, Literal

import msgspec

from orchestrator.durable import sync_folder
from orchestrator.errors import StoreError
from orchestrator.failures import SETTLED, Failure
from orchestrator.ledger_lines import (
    Form,
    Name,
    Number,
    Seconds,
    Time,
    Whole,
    form_of,
    is_plain,
    line,
    parsed,
    undamaged,
)
from orchestrator.memory import many_objects
from orchestrator.spool import Spool, ledgers
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath

LEDGER_VERSION = 1

StageStatus = Literal["complete", "failed", "infeasible", "paused", "stopped"]
"""A paused stage awaits its study's word; a stopped one is over for its study alone. Neither is in the ledger."""


class StageRecord(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What is kept of a finished stage. Times are seconds since 1970 (UTC); `busy_s` is what the stage itself took.

    `workload` and `images` say what the seconds were spent on, for later estimates. `attempt` counts from 1 within the
    run; `earlier` are the failures of the attempts before it. `memory_limit` (bytes) and `timeout_s` are what the
    attempt was given, None where it had no limit. `peak_memory_bytes` is the most that the worker's process held,
    `grown_memory_bytes` how much more that was than at the stage's beginning; `peak_gpu_bytes` what it held of a GPU
    that has `gpu_bytes`.
    """

    key: Name
    kind: str
    parent: Name | None
    seed: Whole
    status: StageStatus
    busy_s: Seconds
    started_at: Time
    finished_at: Time
    failure: Failure | None = None
    error: str | None = None
    metrics: Mapping[str, Number | Whole | None] = msgspec.field(default_factory=dict[str, float | int | None])
    history: Sequence[Mapping[str, Number]] = ()
    config: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    workload: str = ""
    images: Whole = 0
    artifact_sha256: str | None = None
    artifact_bytes: Whole | None = None
    parent_sha256: str | None = None
    host: str = ""
    machine: str = ""
    pid: Whole = 0
    threads: Whole = 1
    device: str = "cpu"
    versions: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    run: str = ""
    attempt: Whole = 1
    earlier: Sequence[Failure] = ()
    memory_limit: Whole | None = None
    timeout_s: Number | None = None
    peak_memory_bytes: Whole | None = None
    grown_memory_bytes: Whole | None = None
    peak_gpu_bytes: Whole | None = None
    gpu_bytes: Whole | None = None

    @property
    def settled(self) -> bool:
        """Whether running the stage again could not change the outcome."""
        return self.status != "failed" or self.failure in SETTLED


@dataclass(frozen=True, slots=True)
class Ask:
    """A point that a search asked for; `params` are its sampler's own names and numbers.

    `search` names the search that goes on where it stopped. `source` says whose idea the point was: the sampler's, the
    study's `first` grid, a trial that the store held already, or chance where the sampler repeated itself.
    """

    search: str
    number: int
    params: Mapping[str, Any]
    source: Literal["sampler", "first", "store", "chance"]


@dataclass(frozen=True, slots=True)
class Tell:
    """What a search was told of a point: losses, all to be made small, or None where it failed."""

    search: str
    number: int
    losses: Sequence[float] | None
    violations: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """A study stopped a stage at a rung: the fields of its record there. The stage's checkpoint stays for others."""

    search: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a stage that failed and was followed by another: the fields of its record."""

    record: Mapping[str, Any]


Event = Ask | Tell | Stop


class _StageLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    stage: StageRecord


_STAGE_LINES = msgspec.json.Decoder(_StageLine)
_EVENTS: Mapping[type[Event], str] = {Ask: "ask", Tell: "tell", Stop: "stop"}
_STAGE = form_of(StageRecord, "stage")
_ATTEMPT = "attempt"
_FORMS: Mapping[type[Event], Form] = {kind: form_of(kind, name) for kind, name in _EVENTS.items()}


class LedgerWriter:
    """Appends the finished stages of one run; each `commit` is on disk when it returns."""

    def __init__(self, root: AnyPath, run: str) -> None:
        self.run = run
        self._spool: Spool | None = None
        if isinstance(root, RemotePath):
            self._spool = Spool(root, run)
            self.path = self._spool.file
        else:
            self.path = root / f"{run}.jsonl"
        self._file: FileIO | None = None

    def commit(self, records: Iterable[StageRecord]) -> None:
        """Append `records` in one write and one fsync.

        Raises:
            StoreError: the ledger cannot be written.

        """
        self._write([{"stage": msgspec.structs.asdict(record)} for record in records])

    def attempted(self, records: Iterable[StageRecord]) -> None:
        """Append attempts that are followed by others; errors as of `commit`."""
        self._write([{_ATTEMPT: msgspec.structs.asdict(record)} for record in records])

    def note(self, events: Iterable[Event]) -> None:
        """Append what a search asked and was told; errors as of `commit`."""
        self._write([{_EVENTS[type(event)]: asdict(event)} for event in events])

    def _write(self, contents: Iterable[Mapping[str, Any]]) -> None:
        lines = b"".join(map(line, contents))
        if not lines:
            return
        try:
            _append(self._opened(), lines)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot append to the ledger: {error.strerror}") from error
        if self._spool:
            self._spool.appended(lines.count(b"\n"))

    def close(self) -> None:
        """Close the file; a later commit opens it again.

        Raises:
            StoreError: the root is elsewhere, and cannot be written.

        """
        if self._file is not None:
            file, self._file = self._file, None
            try:
                if self._spool:
                    self._spool.close()
            finally:
                file.close()

    def _opened(self) -> FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists()
            self._file = FileIO(self.path, "a")
            if self._spool:
                self._spool.hold(self._file)
            if fresh:
                _append(self._file, line({"ledger": LEDGER_VERSION}))
                sync_folder(self.path.parent)
        return self._file


def _append(file: FileIO, lines: bytes) -> None:
    """Write all of `lines` and wait until they are on disk; a disk that fills may take a part without an error."""
    while lines:
        lines = lines[file.write(lines) or 0 :]
    os.fsync(file.fileno())


@dataclass(frozen=True, slots=True)
class Replay:
    """The finished stages of all runs under one root, the searches' events, and what could not be read.

    `attempts` are those that failed and were followed by others, by key, the first one first.
    """

    records: Mapping[str, StageRecord]
    warnings: tuple[str, ...]
    events: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    attempts: Mapping[str, Sequence[StageRecord]] = field(default_factory=dict)


def replay(root: AnyPath) -> Replay:
    """Read every ledger under `root`; of the records of one stage a complete one stands, else a settled one.

    Among equals the latest stands: its output is the one that was published last. Which is the latest is known by the
    order of the ledgers' names and lines, not by a clock.
    A torn last line (the run was killed while writing) is passed over in silence; damage elsewhere is a warning, and
    the stages on those lines count as not done.

    Raises:
        StoreError: a ledger was written by another version, or cannot be read.

    """
    found = _Found({}, [], defaultdict(list), defaultdict(list))
    with many_objects():
        for path, lines in _read(root):
            for item in _contents(path, lines, found.warnings):
                found.take(item)
    return Replay(found.best, tuple(found.warnings), found.events, found.attempts)


@dataclass(slots=True)
class _Found:
    best: dict[str, StageRecord]
    warnings: list[str]
    events: defaultdict[str, list[Event]]
    attempts: defaultdict[str, list[StageRecord]]
    repeated: "Repeated" = field(default_factory=lambda: Repeated())

    def take(self, item: "StageRecord | Event | Attempt") -> None:
        """Keep what a line tells."""
        if isinstance(item, StageRecord):
            known = self.best.get(item.key)
            if known is None or precedes(item, known):
                self.best[item.key] = self.repeated.shared(item)
        elif isinstance(item, Attempt):
            self.attempts[item.record["key"]].append(StageRecord(**item.record))
        else:
            self.events[item.search].append(item)


class Repeated:
    """The values that most records of a study have in common: held once a record they would be half of the memory."""

    def __init__(self) -> None:
        self._known: dict[object, object] = {}

    def shared(self, record: StageRecord) -> StageRecord:
        """The record itself, its repeated values replaced by equal ones of earlier records."""
        for name in _TEXTS:
            value = getattr(record, name)
            msgspec.structs.force_setattr(record, name, self._known.setdefault(value, value))
        for name in _MAPPINGS:
            value = getattr(record, name)
            # Version 2 writes equal values as equal bytes; later ones also tell which objects are one.
            known = self._known.setdefault(marshal.dumps(value, 2), value)
            msgspec.structs.force_setattr(record, name, known)
        return record


_TEXTS = ("kind", "workload", "host", "machine", "device", "run")
_MAPPINGS = ("config", "versions")


def precedes(one: StageRecord, other: StageRecord) -> bool:
    """Whether the first of two records of a stage stands, as `replay` has it; of one run's it is the later one."""
    ours, theirs = _precedence(one), _precedence(other)
    return ours < theirs or (ours == theirs and one.run >= other.run)


def new_run(root: AnyPath) -> str:
    """A name for a run that begins now, behind those of all earlier ones.

    Raises:
        StoreError: the ledgers cannot be listed.

    """
    now = f"{datetime.now(UTC):{_STAMP}}"
    try:
        names = [path.name for path in root.glob("*.jsonl")]
    except OSError as error:
        raise StoreError(f"{root}: cannot list the ledgers: {error.strerror}") from error
    last = max((found[0] for name in names if (found := _STAMPED.match(name))), default="")
    if now <= last:  # the clock was set back, or is behind that of another machine
        now = f"{datetime.strptime(last, _STAMP) + timedelta(microseconds=1):{_STAMP}}"
    return f"{now}-{secrets.token_hex(4)}"


_STAMP = "%Y%m%dT%H%M%S.%f"
_STAMPED = re.compile(r"\d{8}T\d{6}\.\d{6}(?=-)")


def _read(root: AnyPath) -> Iterator[tuple[AnyPath, Iterable[bytes]]]:
    try:
        yield from ledgers(root)
    except OSError as error:
        raise StoreError(f"{error.filename or root}: cannot read the ledger: {error.strerror}") from error


def _precedence(record: StageRecord) -> tuple[bool, bool]:
    return record.status != "complete", not record.settled


def _contents(path: AnyPath, lines: Iterable[bytes], warnings: list[str]) -> Iterator[StageRecord | Event | Attempt]:
    for number, data in enumerate(lines, start=1):
        text = undamaged(data.removesuffix(b"\n"))
        content = None if text is None else _stage(text) or parsed(text)
        if isinstance(content, StageRecord):
            yield content
        elif content is not None:
            _refuse_foreign(content, path)
            yield from _items(content, f"{path}: line {number}")
        elif data.endswith(b"\n") and data != b"\n":  # a last line without an end was torn by a kill
            warnings.append(f"{path}: line {number} is damaged; its stage counts as not done")


def _stage(text: memoryview) -> StageRecord | None:
    """The finished stage that a line tells of; None where it is of another sort, or has to be looked at closely."""
    try:
        found = _STAGE_LINES.decode(text).stage
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if is_plain(found.config) else None


def _items(content: Mapping[str, Any], place: str) -> Iterator[StageRecord | Event | Attempt]:
    if "stage" in content:
        yield StageRecord(**_STAGE.checked(content["stage"], place))
    if _ATTEMPT in content:
        yield Attempt(_STAGE.checked(content[_ATTEMPT], place))
    for kind, name in _EVENTS.items():
        if name in content:
            found = _FORMS[kind].checked(content[name], place)
            if kind is Stop:
                _STAGE.checked(found["record"], place)
            yield kind(**found)


def _refuse_foreign(content: dict[str, Any], path: AnyPath) -> None:
    version = content.get("ledger", LEDGER_VERSION)
    if version != LEDGER_VERSION:
        raise StoreError(
            f"{path}: written with ledger version {version}, this is version {LEDGER_VERSION}. "
            "Use the version of the program that wrote it, or another --results folder."
        )
