"""What a person sees of a sweep that another process runs: a live picture on a terminal, plain lines elsewhere."""

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.fronts import front_table
from orchestrator.screen import ERRORS_SHOWN, LATENCY, PLAIN_EVERY_S, duration, plural, stage_bars, tell
from orchestrator.watch import Follower, Progress, Standing

FRONT_ROWS = 8
_LINES_OF_TABLE = 7
"""Of a table without its rows: frame, names, title and caption."""


class WatchScreen:
    """Shows one standing after another."""

    def __init__(self, console: Console, follower: Follower) -> None:
        self._console = console
        self._follower = follower
        self._live: Live | None = None
        self._printed = 0.0
        self._line = ""
        self._told = 0
        self._warned: tuple[str, ...] = ()

    @contextmanager
    def showing(self) -> Generator["WatchScreen"]:
        """Keep the live display up while the body runs, where there is a terminal; it is taken down in any case."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        try:
            yield self
        finally:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def show(self, standing: Standing, *, last: bool = False) -> None:
        """Bring the display up to date; plain lines come every few seconds, and only where something changed."""
        if self._live is not None:
            self._live.update(self.picture(standing), refresh=True)
            return
        for trouble in standing.troubles[self._told :]:
            tell(self._console, f"{trouble.count} {trouble.status}: {trouble.error}")
        self._told = len(standing.troubles)
        for warning in standing.left_out:
            if warning not in self._warned:
                tell(self._console, f"warning: {warning}")
        self._warned = standing.left_out
        line = progress_line(standing)
        if last or (line != self._line and time.monotonic() - self._printed >= PLAIN_EVERY_S):
            self._line, self._printed = line, time.monotonic()
            tell(self._console, f"{standing.study}: {line}{'' if last else f', {time_line(standing)}'}")

    def picture(self, standing: Standing) -> RenderableType:
        """Bars by stage, rate, what went wrong last, and the newest front, as far as the terminal has room."""
        runner = standing.runner
        where = f"run by process {runner.pid} on {runner.host}" if runner and runner.pid else "running"
        state = f"{where}; Ctrl-C leaves it running" if runner else "ended"
        lines: list[RenderableType] = [Text(f"{standing.study}, {state}", style="bold")]
        if standing.has_table:
            totals = {kind: one.total for kind, one in standing.stages.items()}
            done = {kind: one.done for kind, one in standing.stages.items()}
            lines.append(stage_bars(totals, done, {kind: _note(one) for kind, one in standing.stages.items()}))
        lines.append(Text(f"  {trials_line(standing)}"))
        if runner:
            lines.append(Text(f"  {time_line(standing)}", style="dim"))
        lines += [
            Text(f"  {one.count} {one.status}: {one.error}", style="red", overflow="ellipsis", no_wrap=True)
            for one in standing.troubles[-ERRORS_SHOWN:]
        ]
        lines += [Text(f"  {warning}", style="yellow") for warning in standing.left_out]
        if standing.draining:
            lines.append(Text("  stopping after what runs", style="yellow"))
        return Group(*lines, *self._front(self._console.height - len(lines) - len(standing.stages)))

    def _front(self, room: int) -> list[RenderableType]:
        """The newest front, as many of its rows as there is room for."""
        rows = min(FRONT_ROWS, room - _LINES_OF_TABLE)
        found = self._follower.front() if rows > 0 else None
        if found is None or found[1].empty:
            return []
        df, front, objectives = found
        return [
            Text(f"  front of {plural(len(front), 'point')} so far"),
            front_table(df, front, objectives, rows, self._console.width),
        ]


def _note(one: Progress) -> str:
    parts = [f"{one.ready} ready or running"] if one.ready else []
    return ", ".join(parts + ([f"{one.bad} failed"] if one.bad else []))


def progress_line(standing: Standing) -> str:
    """What is done, ready and failed, in one line."""
    if not standing.has_table:
        return trials_line(standing)
    kinds = ", ".join(
        f"{name} {one.done}/{one.total}{'+' * one.open_ended}{f' ({one.bad} failed)' if one.bad else ''}"
        for name, one in standing.stages.items()
    )
    ready = sum(one.ready for one in standing.stages.values())
    waiting = f", {ready} ready or running" if standing.runner and ready else ""
    total = f"{standing.total}{'+' * bool(standing.asked)}"
    return f"{standing.done}/{total} stages done: {kinds}{waiting}; {trials_line(standing)}"


def trials_line(standing: Standing) -> str:
    """How many trials have ended, and how."""
    if not standing.has_table:
        taken = ", ".join(f"{count} {kind}" for kind, count in standing.early.items())
        return f"no table yet; the store took {taken} since the sweep began" if taken else "no table yet; starting"
    counts = dict(standing.trials)
    open_still, complete = counts.pop("open", 0), counts.pop("complete", 0)
    known = f"{complete + open_still + sum(counts.values())}{'+' * bool(standing.asked)}"
    parts = [f"{complete}/{known} trials complete"]
    parts += [f"{count} {name}" for name, count in counts.items()]
    if measured := standing.early.get(LATENCY):
        parts.append(f"{plural(measured, 'latency', 'latencies')} measured")
    return ", ".join(parts)


def time_line(standing: Standing) -> str:
    """How long it has run, how fast, and how long it may still take."""
    parts = [f"{duration(standing.elapsed_s)} elapsed"] if standing.elapsed_s is not None else []
    if standing.per_minute is not None:
        parts.append(f"{standing.per_minute:.3g} stages/min")
    if standing.asked:
        parts.append(standing.asked)
    if standing.left_s is not None:
        parts.append(f"about {duration(standing.left_s)} left" if standing.left_s else "all trained")
    return ", ".join(parts) or "just begun"
