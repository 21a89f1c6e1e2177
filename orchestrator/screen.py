"""What a person sees: progress while a sweep runs, tables at its end. Plain lines where the output is no terminal."""

import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from orchestrator.ledger import StageRecord
from orchestrator.locks import Holder
from orchestrator.plan import Plan
from orchestrator.runner.base import Missing
from orchestrator.spec.quantities import show_bytes
from orchestrator.spec.resources import Demand
from orchestrator.words import brief, harmless, signature
from trainables.keys import Stage

PLAIN_EVERY_S = 5.0
ERRORS_SHOWN = 3
RUNNING_SHOWN = 6
STAGE_KINDS = ("select", "train", "compress", "evaluate")
LATENCY = "latency"


def duration(seconds: float) -> str:
    """Seconds for a person: 0.512 s, 42.1 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 cell`, `2,000 cells`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def number(value: object, unit: str = "") -> str:
    """A table's number in as many digits as mean something; fractions as per cent."""
    if value is None or value != value:
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    if unit == "s":
        return duration(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(slots=True)
class _Alike:
    """Errors that differ in numbers, keys and paths alone: the first of them, and how many there are."""

    first: str
    count: int = 0


class SweepScreen:
    """Follows a sweep; see `orchestrator.sweep.SweepObserver`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._started = time.monotonic()
        self._printed = 0.0
        self._remaining_s = 0.0
        self._totals: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._running: dict[str, Stage] = {}
        self._errors: dict[tuple[str, str], _Alike] = {}
        self._left_out = 0
        self._stopped = 0
        self._asked = ""
        self._draining = False
        self._ends_early = False

    @contextmanager
    def showing(self) -> Generator["SweepScreen"]:
        """Keep the live display up while the body runs; it is taken down whatever happens."""
        try:
            yield self
        finally:
            if self._live is not None:
                self._live.update(self._picture())
                self._live.stop()
                self._live = None

    def warned(self, message: str) -> None:
        """Print a warning above the display."""
        tell(self._console, f"warning: {message}", style="yellow")

    def waiting(self, holder: Holder) -> None:
        """Say that another process runs this plan."""
        where = f"process {holder.pid} on {holder.host}"
        self._say(f"this study is being run by {where}; waiting for it (Ctrl-C leaves it running)")

    def warm(self, configs: int) -> None:
        """Say what a search knows before it asks."""
        self._say(f"the search was told {plural(configs, 'config')} that other studies have finished")

    def started(self, plan: Plan, todo: Missing) -> None:
        """Open the display for so many stages."""
        self._totals = Counter(stage.kind for stage in todo.stages)
        self._asked = plan.asked_line if plan.grows else ""
        self._say(f"{plan.spec.study}: {plan_line(plan, todo)}")
        self._open()

    def grown(self, plan: Plan, todo: Missing) -> None:
        """A search added trials."""
        self._asked = plan.asked_line
        self._totals = self._done + Counter(stage.kind for stage in todo.stages)

    def measuring(self, observations: int, machine: str, remaining_s: float) -> None:
        """Open the display, where it is not, for so many latencies; nothing else runs meanwhile."""
        self._totals[LATENCY] = observations
        self._remaining_s = remaining_s
        self._say(f"measuring {plural(observations, 'latency', 'latencies')} on this machine alone: {machine}")
        self._open()

    def measured(self, record: StageRecord, remaining_s: float) -> None:
        """One more latency is on disk."""
        self._remaining_s = remaining_s
        self._done[LATENCY] += 1
        if self._live is None and time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self._say(f"{self._done[LATENCY]}/{self._totals[LATENCY]} latencies measured, {self._time_left()}")

    def _open(self) -> None:
        if self._console.is_terminal and self._live is None:
            self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=4)
            self._live.start()

    def handed_out(self, stages: Sequence[Stage]) -> None:
        """A worker was given these stages."""
        self._running |= {stage.key: stage for stage in stages}

    def finished(self, records: Sequence[StageRecord], left_out: Sequence[str], remaining_s: float) -> None:
        """These stages are on disk; others below a failed one are left out."""
        self._remaining_s = remaining_s
        self._left_out += len(left_out)
        for key in left_out:
            self._running.pop(key, None)
        for record in records:
            self._running.pop(record.key, None)
            self._done[record.kind] += 1
            if record.status == "stopped":
                self._stopped += 1
            elif record.status != "complete":
                self._failed(record)
        if self._live is None and time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._print_plain()

    def retried(self, record: StageRecord, demand: Demand) -> None:
        """An attempt failed; the stage is handed out again, by a later run where this one ends."""
        self._running.pop(record.key, None)
        reason = brief(record.error or "no reason was kept")
        more = f" with {show_bytes(demand.memory)}" if record.failure == "oom" and demand.memory else ""
        more += f" with {duration(demand.timeout_s)}" if record.failure == "timeout" and demand.timeout_s else ""
        stage = f"stage {record.kind} {record.key[:12]} (seed {record.seed})"
        then = "the same command goes on from there" if self._draining else f"it is handed out again{more}"
        self.warned(f"{stage} {record.failure}: {reason}; {then}")

    def handed_back(self, stages: Sequence[str]) -> None:
        """These stages go back untouched."""
        for key in stages:
            self._running.pop(key, None)

    def stopping(self, reason: str) -> None:
        """The sweep ends early of itself."""
        self._ends_early = True
        self.warned(reason)

    def draining(self, urgent: bool) -> None:
        """No further work is handed out."""
        self._draining = True
        what = (
            "what runs stops at the end of its epoch and leaves a checkpoint"
            if urgent
            else "what runs is finished and kept"
        )
        pressed = not (urgent or self._ends_early)
        self._say(f"stopping: {what}; {'another ' if pressed else ''}Ctrl-C stops at once")

    def _say(self, text: str) -> None:
        tell(self._console, text)

    def _failed(self, record: StageRecord) -> None:
        reason = brief(record.error or record.status)
        same = self._errors.setdefault((record.status, signature(reason)), _Alike(reason))
        same.count += 1
        if self._live is None and same.count == 1:
            self.warned(f"stage {record.kind} {record.key[:12]} (seed {record.seed}) {record.status}: {reason}")

    def _print_plain(self) -> None:
        self._printed = time.monotonic()
        self._say(f"{self._counts()}, {len(self._running)} with the workers, {self._time_left()}")

    def _counts(self) -> str:
        counts = Counter[str]()
        for (status, _), same in self._errors.items():
            counts[status] += same.count
        bad = "".join(f", {count} {status}" for status, count in counts.items())
        bad += f", {self._left_out} below them left out" if counts else ""
        early = f", {self._stopped} stopped early" if self._stopped else ""
        return f"{self._done.total()}/{self._totals.total()} stages done{early}{bad}"

    def _time_left(self) -> str:
        elapsed = duration(time.monotonic() - self._started)
        if not self._done:
            return f"{elapsed} elapsed, {'first stages are running' if self._running else 'starting workers'}"
        if self._asked:
            return f"{elapsed} elapsed, {self._asked}"
        return f"{elapsed} elapsed, about {duration(max(0.0, self._remaining_s))} left"

    def _picture(self) -> RenderableType:
        bars = stage_bars(self._totals, self._done)
        lines = [Text(f"  {self._time_left()}", style="dim")]
        running = sorted(self._running.values(), key=lambda stage: STAGE_KINDS.index(stage.kind))
        lines += [Text(f"  {stage_line(stage)}", style="dim") for stage in running[:RUNNING_SHOWN]]
        if self._left_out:
            lines.append(
                Text(f"  left out below failed or infeasible ones: {plural(self._left_out, 'stage')}", style="red")
            )
        lines += [
            Text(f"  {same.count} {status}: {same.first}", style="red")
            for (status, _), same in list(self._errors.items())[-ERRORS_SHOWN:]
        ]
        if self._draining:
            lines.append(Text("  stopping after what runs", style="yellow"))
        return Group(bars, *lines)


def stage_bars(totals: Mapping[str, int], done: Mapping[str, int], notes: Mapping[str, str] | None = None) -> Table:
    """A bar for each kind of stage of which there are any, and what is noted of it."""
    bars = Table.grid(padding=(0, 2))
    for kind in (*STAGE_KINDS, LATENCY):
        if total := totals.get(kind, 0):
            finished = done.get(kind, 0)
            bar = ProgressBar(total=total, completed=finished, width=32)
            bars.add_row(kind, bar, f"{finished}/{total}", *([notes.get(kind, "")] if notes else []))
    return bars


def tell(terminal: Console, text: str, style: str = "") -> None:
    """Print a message: on a terminal wrapped between words, in a pipe as one line that can be searched."""
    terminal.print(text, style=style, highlight=False, markup=False, soft_wrap=not terminal.is_terminal)


def say(terminal: Console, text: str) -> None:
    """Print a line as it is: no markup, no colours of numbers, no wrapping."""
    terminal.print(text, highlight=False, markup=False, soft_wrap=True)


def table_of(*columns: str, title: str | None = None, numbers: bool = True) -> Table:
    """An empty table; with `numbers` all columns but the first stand to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for position, name in enumerate(columns):
        table.add_column(name, justify="right" if numbers and position else "left", overflow="fold")
    return table


def stage_line(stage: Stage) -> str:
    """A stage in a few words."""
    config = stage.config
    network = f"{config.model.name}/{config.model.width}" if config.model.ours else config.model.name
    parts = [stage.kind, network, config.data.name, f"seed {stage.seed}"]
    if stage.kind != "train" and config.compress is not None:
        leaves = config.compress.model_dump(exclude_defaults=True, exclude={"method", "epochs", "lr"})
        parts += [config.compress.method, *(f"{name} {value}" for name, value in leaves.items())]
    return " ".join(parts)


def plan_line(plan: Plan, todo: Missing) -> str:
    """`42 cells + 9 baselines, 93 stages to run (231 unshared), 0 cached`."""
    baselines = len(plan.trials) - plan.cells
    asked = f"{plan.search_line}; so far " if plan.grows else ""
    return (
        f"{asked}{plural(plan.cells, 'cell')} + {plural(baselines, 'baseline')}, "
        f"{plural(len(todo.stages), 'stage')} to run, {len(todo.done)} cached, "
        f"{plan.unshared().total() - len(plan.stages)} saved by sharing"
    )


class _PlainConsole(Console):
    """Shows text as it is: what a table holds is neither markup nor something that the terminal obeys."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of it; those by which rich itself moves the cursor are left alone."""
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=harmless(part.text))

    def on_broken_pipe(self) -> None:
        """Let the command end as it does wherever the reader of a pipe has left; rich would say that trials failed."""
        raise BrokenPipeError


def console() -> Console:
    """The terminal, or plain text where there is none; tables are never cut to 80 columns in a pipe."""
    return _PlainConsole(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
