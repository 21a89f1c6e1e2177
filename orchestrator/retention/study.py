"""Removal of one study: its folder, and what it alone needs."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import RunError
from orchestrator.layout import Layout
from orchestrator.ledger import Replay
from orchestrator.locks import Holder, holder
from orchestrator.planning import Site
from orchestrator.retention.removal import Removed, remove
from orchestrator.retention.rubbish import TEMPORARY, Piece, below
from orchestrator.retention.wishes import STUDY, Wish, wish_of, wishes
from orchestrator.shards import runner_of
from orchestrator.spec.settings import is_study_name
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath

_OURS = (
    re.compile(r"trials\.parquet|_[a-z]+\.parquet|_study\.yaml"),
    re.compile(r"_report/report\.html"),
    re.compile(r"_labelling(\.\d+)?/round-\d+\.(json|safetensors)"),
    re.compile(rf"(.*/)?{TEMPORARY.pattern}"),
)
"""What the commands write into a study's folder, by path."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """What goes with a study: outputs and checkpoints of its own, then its files; what is there of others' stays.

    `stages` counts its finished stages, which the ledger remembers. `reasons` say why outputs stay.
    """

    pieces: Sequence[Piece]
    foreign: Sequence[str]
    stages: int
    reasons: Sequence[str]


def check_begun(layout: Layout, study: str) -> None:
    """Nothing where a study of this name was begun here.

    Raises:
        RunError: there is none of this name, or it leads elsewhere.

    """
    folder = layout.study(study) if is_study_name(study) else None
    known = sorted(path.parent.name for path in layout.root.glob(f"*/{STUDY}"))
    if folder is None or study not in known:
        raise RunError(f"{layout.root}: no study {study!a}; it has {', '.join(known) or 'none'}")
    if isinstance(folder, Path) and folder.is_symlink():
        raise RunError(f"{folder} is a link to {folder.readlink()}; remove what it leads to where that lies")


def leaving(study: str, site: Site, replayed: Replay) -> Leaving:
    """What would go with a study; to be asked for under its lock and `removal.alone`."""
    layout = site.layout
    own, others = wish_of(study, site, replayed), wishes(site, replayed, but=study)
    unknown = [one for one in others if one.unknown]
    why = "its outputs and checkpoints stay until `orchestrator gc`, as the plan of {} is not known: {}"
    reasons = [why.format(one.study, one.unknown) for one in unknown]
    own_files, foreign = _files(layout, study)
    pieces = [] if unknown else [*_stored(own, others, layout)]
    shared = frozenset[str]().union(*(one.owned for one in others))
    done = sum(key in replayed.records for key in own.owned - shared)
    return Leaving([*pieces, *own_files], foreign, done, reasons)


def _stored(own: Wish, others: Sequence[Wish], layout: Layout) -> Iterator[Piece]:
    """Outputs and checkpoints that no other study wants."""
    outputs = own.owned.difference(*(one.outputs for one in others))
    begun = own.owned.difference(*(one.begun for one in others))
    for one in layout.artifacts.keys():
        if one.key in outputs:
            yield Piece("output", f".store/artifacts/{one.key}", one.bytes)
    for one in layout.checkpoints.keys():
        if one.key in begun:
            yield Piece("checkpoint", f".store/checkpoints/{one.key}", one.bytes)


def _files(layout: Layout, study: str) -> tuple[list[Piece], list[str]]:
    """Those of ours in the order in which they go, so that a removal that was cut off can be repeated; and others'."""
    folder = layout.study(study)
    ours, foreign = list[Piece](), list[str]()
    for path in _walk(folder):
        name = below(folder, path)
        if not _is_link(path) and any(one.fullmatch(name) for one in _OURS):
            ours.append(Piece("file", f"{study}/{name}", path.stat().st_size))
        else:
            foreign.append(f"{study}/{name}")
    return sorted(ours, key=lambda piece: piece.path.endswith(f"/{STUDY}")), foreign


def _walk(folder: AnyPath) -> Iterator[AnyPath]:
    """Every file and link below a folder; links are not followed."""
    if isinstance(folder, RemotePath):
        yield from (path for path, _ in folder.files(recursive=True))
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _is_link(path: AnyPath) -> bool:
    return isinstance(path, Path) and path.is_symlink()


def remove_study(study: str, found: Leaving, layout: Layout) -> Removed:
    """Remove it, and its folders where nothing is left in them.

    Raises:
        StoreError: a file cannot be removed; the same command goes on from there.

    """
    removed = remove(layout, found.pieces)
    folder = layout.study(study)
    if isinstance(folder, RemotePath):  # where a folder is there by its files alone
        return removed
    for place in (*sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()), folder):
        if not any(place.iterdir()):
            place.rmdir()
    return removed


def refuse_running(layout: Layout, study: str, other: Holder | None = None) -> None:
    """Nothing where nobody runs the study, `other` who holds its lock included, or is at its labels.

    Raises:
        RunError: somebody is.

    """
    if runs := other or runner_of(layout, study, but=study):
        raise RunError(f"study {study} is run by process {runs.pid} on {runs.host}; wait for it, or stop it")
    if labels := holder(layout.lock(f"_labelling-{study}")):
        raise RunError(f"{study}: process {labels.pid} on {labels.host} is at its labels; wait for it, or stop it")
