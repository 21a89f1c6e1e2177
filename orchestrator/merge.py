"""What other results roots have finished, brought into one: for parts of a study that ran without a shared folder."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.durable import publish
from orchestrator.errors import RunError, StoreError
from orchestrator.layout import Layout
from orchestrator.ledger import Replay, StageRecord, precedes, replay
from orchestrator.spool import whole_ledger, whole_ledgers


@dataclass(frozen=True, slots=True)
class Merged:
    """What was brought: ledgers and outputs copied, and bytes of the outputs.

    `absent` are the finished stages whose output is nowhere as it was written; it is made again where it is needed.
    """

    ledgers: int
    outputs: int
    output_bytes: int
    absent: tuple[str, ...]
    warnings: tuple[str, ...]


def merge(target: Layout, others: tuple[Layout, ...]) -> Merged:
    """Bring the ledgers and outputs of `others` to `target`; a second time there is nothing left to bring.

    An output is copied only where its hash is the one that its stage's record names, and before the ledger that says
    that it is there. Tables are written by the next sweep, of which all is cached.

    Raises:
        RunError: one of the others holds no results, or is the target itself.
        StoreError: a root cannot be read or written, or two ledgers of one name differ.

    """
    for other in others:
        if other.root.resolve() == target.root.resolve():
            raise RunError(f"{other.root}: is the root to merge into; name the others")
        if not _has_ledgers(other):
            raise RunError(f"{other.root}: is no results root: it has no .store/ledger")
    replays = [replay(layout.ledger) for layout in (target, *others)]
    copied, absent = _copy_outputs(target, others, replays)
    ledgers = sum(_copy_ledgers(target, other) for other in others)
    warnings = tuple(warning for found in replays for warning in found.warnings)
    return Merged(ledgers, len(copied), sum(copied), tuple(absent), warnings)


def _copy_outputs(target: Layout, others: tuple[Layout, ...], replays: list[Replay]) -> tuple[list[int], list[str]]:
    """The bytes of the outputs copied, and the keys of those that no root has as they were written."""
    copied: list[int] = []
    absent: list[str] = []
    for key, record in _standing(replays).items():
        sha256 = record.artifact_sha256
        if record.status != "complete" or sha256 is None:
            continue
        here = replays[0].records.get(key)
        if here is not None and here.artifact_sha256 == sha256 and target.artifacts.has(key):
            continue
        found = (other.artifacts.read(key, sha256) for other in others)
        data = next((data for data in found if data is not None), None)
        if data is None:
            absent.append(key)
            continue
        target.artifacts.write(key, data)
        copied.append(len(data))
    return copied, absent


def _standing(replays: list[Replay]) -> Mapping[str, StageRecord]:
    """Of each stage the record that will stand in the merged ledgers."""
    found: dict[str, StageRecord] = {}
    for one in replays:
        for key, record in one.records.items():
            if key not in found or precedes(record, found[key]):
                found[key] = record
    return found


def _has_ledgers(layout: Layout) -> bool:
    try:
        return layout.ledger.is_dir()
    except OSError as error:
        raise StoreError(f"{layout.root}: cannot be read: {error.strerror}") from error


def _copy_ledgers(target: Layout, other: Layout) -> int:
    """How many ledgers were new, or had grown since an earlier merge."""
    copied = 0
    for run, data in whole_ledgers(other.ledger):
        known = whole_ledger(target.ledger, run)
        if known.startswith(data):
            continue
        if not data.startswith(known):
            raise StoreError(
                f"{other.ledger / run}.jsonl and {target.ledger / run}.jsonl are two different ledgers of one name; "
                "remove the one that is not yours"
            )
        try:
            target.ledger.mkdir(parents=True, exist_ok=True)
            publish(target.ledger / f"{run}.jsonl", data)
        except OSError as error:
            raise StoreError(f"{target.ledger}: cannot be written: {error.strerror}; name another --results") from error
        copied += 1
    return copied
