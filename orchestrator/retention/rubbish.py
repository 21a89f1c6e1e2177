"""What lies in a results root that no study wants."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.durable import Stored
from orchestrator.layout import Layout
from orchestrator.ledger import Replay
from orchestrator.retention.wishes import Wish
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath

Kind = Literal["output", "checkpoint", "temporary file", "drain mark", "file"]
KINDS: tuple[Kind, ...] = ("output", "checkpoint", "temporary file", "drain mark")

YOUNG_S = 3600.0
"""What is written or committed takes seconds: whatever is older and belongs to nobody was left by somebody killed."""

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
"""What a whole file is called until it is published."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file that may go; `path` relative to the root."""

    kind: Kind
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """What may go, how much stays of each kind (files, bytes), and why things stay that would have gone."""

    pieces: Sequence[Piece]
    stay: dict[Kind, tuple[int, int]] = field(default_factory=dict[Kind, tuple[int, int]])
    reasons: Sequence[str] = ()

    def of(self, kind: Kind) -> list[Piece]:
        """Those of one kind."""
        return [piece for piece in self.pieces if piece.kind == kind]


def rubbish(layout: Layout, wishes: Sequence[Wish], replayed: Replay, *, checkpoints: bool = False) -> Found:
    """What no study wants; with `checkpoints` also those that a study which does not run could go on from.

    Whatever is of a study that runs stays, and so does what was written within the last hour, unless the ledger has it
    and nobody runs: a stage that has just finished, elsewhere or by a clock that goes wrong, is nobody's rubbish.
    """
    now, running = time.time(), [wish for wish in wishes if wish.runs is not None]
    unknown = [wish for wish in wishes if wish.unknown]
    reasons = [
        f"every output and checkpoint stays, as the plan of {one.study} is not known: {one.unknown}" for one in unknown
    ]
    done = {key for key, record in replayed.records.items() if record.status == "complete"}

    def is_settled(stored: Stored, known: bool) -> bool:
        return (known and not running) or now - stored.modified_s > YOUNG_S

    pieces: list[Piece] = []
    stay: dict[Kind, tuple[int, int]] = {}
    wanted = frozenset().union(*(wish.outputs for wish in wishes))
    stores: tuple[tuple[Kind, Iterable[Stored], frozenset[str], str], ...] = (
        ("output", layout.artifacts.keys(), wanted, "artifacts"),
        ("checkpoint", layout.checkpoints.keys(), _begun(wishes, done, checkpoints=checkpoints), "checkpoints"),
    )
    for kind, stored, needed, folder in stores:
        left = [0, 0]
        for one in stored:
            known = one.key in done or kind == "checkpoint"
            if one.key in needed or unknown or not is_settled(one, known):
                left = [left[0] + 1, left[1] + one.bytes]
            else:
                pieces.append(Piece(kind, f".store/{folder}/{one.key}", one.bytes))
        stay[kind] = left[0], left[1]
    pieces += _temporary(layout, now)
    pieces += [] if running else _drains(layout, now)
    return Found(pieces, stay, reasons)


def _begun(wishes: Sequence[Wish], done: Set[str], *, checkpoints: bool) -> frozenset[str]:
    """Stages whose checkpoints a study may go on from; one that runs may be doing finished stages again."""
    running = (wish.begun for wish in wishes if wish.runs is not None)
    waiting = (wish.begun for wish in wishes if wish.runs is None and not checkpoints)
    return frozenset().union(*running, frozenset().union(*waiting) - done)


def _temporary(layout: Layout, now: float) -> Iterator[Piece]:
    """Files that were being written when their writer was killed."""
    for path in _hidden(layout.root):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            facts = path.stat()
            if now - facts.st_mtime > YOUNG_S:
                yield Piece("temporary file", below(layout.root, path), facts.st_size)


def _hidden(root: AnyPath) -> Iterator[AnyPath]:
    """Files whose names begin with a dot, where we write any."""
    if isinstance(root, RemotePath):
        yield from (path for path, _ in root.files(recursive=True) if path.name.startswith("."))
        return
    for pattern in (".*", ".store/.*", ".store/*/.*", "*/.*"):
        yield from root.glob(pattern)


def _drains(layout: Layout, now: float) -> Iterator[Piece]:
    """Marks of runs that were killed while they drained; to be asked for where nobody runs."""
    for path in layout.drain("x").parent.glob("*"):
        facts = path.stat()
        if now - facts.st_mtime > YOUNG_S:
            yield Piece("drain mark", below(layout.root, path), facts.st_size)


def below(folder: AnyPath, path: AnyPath) -> str:
    """The path relative to a folder above it, with slashes."""
    if isinstance(path, RemotePath) and isinstance(folder, RemotePath):
        return path.path.removeprefix(folder.path).lstrip("/")
    return str(path).removeprefix(str(folder)).lstrip("/")
