"""`orchestrator watch`: its arguments, and following until the sweep ends."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.arguments import Subparsers, add_skip_damaged, command_parser
from orchestrator.errors import TableError
from orchestrator.storage.places import AnyPath, named

if TYPE_CHECKING:
    from orchestrator.layout import Layout
    from orchestrator.watch import Standing

EXIT_FAILED_TRIALS, EXIT_RESUMABLE, EXIT_STOPPED = 1, 3, 130
LOOK_EVERY_S = 1.0


def add_watch_command(commands: Subparsers) -> None:
    """The command `watch`."""
    watch = command_parser(commands, "watch", _watch, "follow a running sweep from another terminal")
    watch.add_argument(
        "results", nargs="?", type=named, default=Path("results"), metavar="RESULTS",
        help="results root, or results/<study> (default: ./results)",
    )  # fmt: skip
    watch.add_argument("study", nargs="?", help="the study to follow (default: the one that runs)")
    add_skip_damaged(watch)


def _watch(options: argparse.Namespace) -> int:
    try:
        return _follow(options.results, options.study, skip_damaged=options.skip_damaged)
    except KeyboardInterrupt:
        return EXIT_STOPPED


def _follow(results: AnyPath, study: str | None, *, skip_damaged: bool) -> int:
    from orchestrator.screen import console
    from orchestrator.watch import Follower
    from orchestrator.watch_screen import WatchScreen

    layout, name = _chosen(results, study)
    if name is None:
        return _say_once(layout, layout.studies())
    follower = Follower(layout, name, skip_damaged=skip_damaged)
    standing = follower.look()
    if standing.runner is None:
        sys.stderr.write("".join(f"warning: {warning}\n" for warning in standing.left_out))
        return _say_once(layout, [name]) if standing.has_table else _nothing_yet(layout, name)
    with WatchScreen(console(), follower).showing() as screen:
        while standing.runner is not None:
            screen.show(standing)
            time.sleep(LOOK_EVERY_S)
            standing = follower.look()
        screen.show(standing, last=True)
    return _ended(standing)


def _chosen(results: AnyPath, study: str | None) -> "tuple[Layout, str | None]":
    """Where to look, and for which study; None where several have results and none runs.

    Raises:
        TableError: there is no study, or none of this name.

    """
    from orchestrator.analysis.tables import suggestion
    from orchestrator.layout import Layout
    from orchestrator.shards import runner_of
    from orchestrator.watch import known_studies

    if study is None and any((results / name).is_file() for name in ("trials.parquet", "_study.yaml")):
        results, study = results.resolve().parent, results.resolve().name
    layout = Layout(results)
    known = known_studies(layout)
    if not known:
        raise TableError(f"{results}: no study was begun here; run one with: orchestrator sweep smoke.yaml")
    if study is not None and study not in known:
        near = suggestion(study, known)
        raise TableError(f"{results}: no study {study!r}{near or '; begun here: ' + ', '.join(known)}")
    if study is not None:
        return layout, study
    since = {name: runner.since_s for name in known if (runner := runner_of(layout, name))}
    running = sorted(since, key=lambda name: since[name])
    if len(running) > 1:
        others = ", ".join(running[:-1])
        sys.stderr.write(f"following {running[-1]}, begun last; also running: {others} (name one to follow it)\n")
    return layout, running[-1] if running else known[0] if len(known) == 1 else None


def _say_once(layout: "Layout", names: list[str]) -> int:
    """No sweep runs: the state of these studies, once; the exit code is the outcome of the only one."""
    from orchestrator.reports import status_report
    from orchestrator.screen import console, say
    from orchestrator.watch import Follower

    say(console(), "No sweep is running.")
    status_report(console(), layout, names)
    return _outcome(Follower(layout, names[0]).look()) if len(names) == 1 else 0


def _nothing_yet(layout: "Layout", name: str) -> int:
    sys.stdout.write(f"{name}: no sweep is running, and none has left a table in {layout.study(name)}\n")
    return EXIT_RESUMABLE


def _ended(standing: "Standing") -> int:
    code = _outcome(standing)
    ends = {0: "finished", EXIT_FAILED_TRIALS: "finished; some trials failed", EXIT_RESUMABLE: "ended before its end"}
    sys.stdout.write(f"{standing.study}: {ends[code]}\n")
    if code == EXIT_RESUMABLE and (why := _unfinished(standing)):
        sys.stdout.write(f"{why}\n")
    if code == EXIT_RESUMABLE:
        sys.stdout.write("What was finished is kept; the same sweep goes on from there.\n")
    return code


def _unfinished(standing: "Standing") -> str:
    """What is left where all that was asked for is trained; empty where trials are open."""
    from orchestrator.screen import plural

    if standing.trials.get("open"):
        return ""
    missing = plural(standing.unmeasured, "latency is", "latencies are")
    return standing.asked or (f"All is trained; {missing} not measured." if standing.unmeasured else "")


def _outcome(standing: "Standing") -> int:
    """The exit code of the sweep itself: 3 where it is not through, 1 where trials failed."""
    if not standing.has_table or standing.trials.get("open") or standing.asked or standing.unmeasured:
        return EXIT_RESUMABLE
    return EXIT_FAILED_TRIALS if standing.trials.get("failed") else 0
