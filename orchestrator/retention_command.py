"""`orchestrator gc` and `orchestrator rm`: their arguments, and what they say."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.arguments import Subparsers, add_allow_code, add_data_root, add_results, command_parser
from orchestrator.errors import RunError

if TYPE_CHECKING:
    from orchestrator.planning import Site
    from orchestrator.retention.rubbish import Found, Piece
    from orchestrator.retention.study import Leaving

SHOWN = 10


def add_retention_commands(commands: Subparsers) -> None:
    """The commands `gc` and `rm`."""
    gc = command_parser(commands, "gc", _gc, "remove what no study of a results root wants")
    gc.add_argument("--checkpoints", action="store_true", help="also those of studies that do not run")
    rm = command_parser(commands, "rm", _rm, "remove a study, and what it alone needs")
    rm.add_argument("study", help="its name")
    rm.add_argument("--yes", action="store_true", help="do not ask")
    for parser in (gc, rm):
        parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
        add_results(parser)
        add_data_root(parser)
        add_allow_code(parser, "let the plans of studies with models of your own be made; their code is not run")


def _site(options: argparse.Namespace) -> "Site":
    from orchestrator.layout import Layout
    from orchestrator.planning import Site

    if not options.results.is_dir():
        raise RunError(f"{options.results}: no such folder; name the results root with --results")
    code_folder = Path.cwd() if options.allow_code else None
    return Site(Layout(options.results.resolve()), options.data_root.resolve(), code_folder)


def _gc(options: argparse.Namespace) -> int:
    from orchestrator.ledger import replay
    from orchestrator.retention.removal import alone, remove
    from orchestrator.retention.rubbish import rubbish
    from orchestrator.retention.wishes import wishes

    site = _site(options)
    with alone(site.layout):
        replayed = replay(site.layout.ledger)
        found = rubbish(site.layout, wishes(site, replayed), replayed, checkpoints=options.checkpoints)
        if not options.dry_run:
            remove(site.layout, found.pieces)
    _say_gc(found, removed=not options.dry_run)
    return 0


def _say_gc(found: "Found", *, removed: bool) -> None:
    from orchestrator.retention.rubbish import KINDS

    _say(*(f"warning: {reason}" for reason in found.reasons))
    verb = "removed" if removed else "would go"
    for kind in KINDS:
        going, (stay, size) = found.of(kind), found.stay.get(kind, (0, 0))
        if going or stay:
            kept = f"; {_counted(kind, stay)} stay{'s' * (stay == 1)}, {_size(size)}" if stay else ""
            _say(f"{_counted(kind, len(going))} {verb}, {_size(sum(piece.bytes for piece in going))}{kept}")
    total = sum(piece.bytes for piece in found.pieces)
    _say(f"{_size(total)} {'freed' if removed else 'would be freed'}" if found.pieces else "nothing to remove")


def _rm(options: argparse.Namespace) -> int:
    from orchestrator.ledger import replay
    from orchestrator.locks import study_lock
    from orchestrator.retention.removal import alone
    from orchestrator.retention.study import check_begun, leaving, refuse_running, remove_study

    site, study = _site(options), options.study
    layout = site.layout
    check_begun(layout, study)
    with study_lock(layout.lock(study), "") as other:
        refuse_running(layout, study, other)
        _say_rm(study, leaving(study, site, replay(layout.ledger)))
        if options.dry_run:
            return 0
        if not (options.yes or _confirmed(study)):
            _say("nothing was removed")
            return 0
        # While somebody thought about it, other sweeps may have begun, shards of this study among them.
        with alone(layout):
            refuse_running(layout, study)
            removed = remove_study(study, leaving(study, site, replay(layout.ledger)), layout)
    _say(f"removed: {removed.files:,} files, {_size(removed.bytes)}")
    return 0


def _say_rm(study: str, found: "Leaving") -> None:
    _say(*(f"warning: {reason}" for reason in found.reasons))
    for kind in ("output", "checkpoint", "file"):
        going = [piece for piece in found.pieces if piece.kind == kind]
        if going:
            _say(
                f"{_counted(kind, len(going))} of {study}, {_size(sum(piece.bytes for piece in going))}{_names(going)}"
            )
    if found.foreign:
        _say(f"not ours, stays: {', '.join(found.foreign[:SHOWN])}{', ...' * (len(found.foreign) > SHOWN)}")
    if found.stages:
        _say(
            f"the ledger remembers its {found.stages:,} finished stages: swept again, the study has its rows at once, "
            "and computes an output anew where one is needed"
        )


def _names(pieces: "Sequence[Piece]") -> str:
    names = [piece.path for piece in pieces if piece.kind == "file"]
    return f": {', '.join(names)}" if 0 < len(names) <= SHOWN else ""


def _confirmed(study: str) -> bool:
    if not sys.stdin.isatty():
        raise RunError("rm asks first, and there is no terminal to ask; add --yes to remove, or --dry-run to look")
    _say(f"Remove study {study}? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _counted(kind: str, count: int) -> str:
    return f"{count:,} {kind}{'' if count == 1 else 's'}"


def _size(size: float) -> str:
    """Bytes for a person, by powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _say(*lines: str, end: str = "\n") -> None:
    sys.stdout.write("".join(f"{line}{end}" for line in lines))
    sys.stdout.flush()
