"""`python -m orchestrator.loggers.follow TABLE TOOL OUT`: hands trials to another tool as they end.

A process of its own beside a sweep, of lower priority: whatever the tool does, it neither slows nor fails the sweep.
Its input tells when the sweep has ended, or died: then the last trials are handed over, and those that have changed.
"""

import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.analysis.load import TABLE
from orchestrator.errors import OrchestratorError
from orchestrator.loggers.runs import Logged, hand_over
from orchestrator.report.source import HISTORY, read
from orchestrator.storage.places import AnyPath, located

EVERY_S = 5.0
REST = 10.0
"""After a pass it rests so many times as long as that took: a large study is not read again and again."""

NICER = 10


def follow(table: AnyPath, tool: str, out: Path, ended: Callable[[float], bool]) -> Logged:
    """Hand over what has ended, again and again, until `ended` says so; it is asked to wait so many seconds.

    Returns:
        What the last pass did.

    Raises:
        OrchestratorError: the last pass could not read the table, or not write where the tool keeps its runs.

    """
    seen, rest = 0, EVERY_S
    while not ended(rest):
        changed = _changed(table)
        if changed in (0, seen):
            continue
        began = time.monotonic()
        try:
            hand_over(read(table, beside={HISTORY}, skip_damaged=True), tool, out, renew=False)
            seen = changed
        except OrchestratorError:
            # Tables may be replaced while they are read; what stays wrong is told by the last pass.
            pass
        rest = max(EVERY_S, REST * (time.monotonic() - began))
    return hand_over(read(table, beside={HISTORY}), tool, out)


def _changed(table: AnyPath) -> int:
    """When the table of trials was written, in ns; 0 where there is none."""
    try:
        return (table / TABLE).stat().st_mtime_ns
    except OSError:
        return 0


def main(arguments: list[str]) -> int:
    """Follow the sweep whose end closes the standard input; the exit code is 0, or 2 with the reason in words."""
    table, tool, out = arguments
    os.nice(NICER)

    def ended(seconds: float) -> bool:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return bool(ready) and sys.stdin.readline() == ""

    try:
        total = follow(located(table), tool, Path(out), ended)
    except OrchestratorError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{total}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
