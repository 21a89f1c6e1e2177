"""What another process can know of a sweep: from the tables, the lock and the ledger, which it only reads."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.errors import TableError
from orchestrator.layout import Layout
from orchestrator.ledger import replay
from orchestrator.locks import Holder
from orchestrator.screen import STAGE_KINDS
from orchestrator.shards import locked_studies, runner_of
from orchestrator.storage.places import AnyPath
from orchestrator.words import brief

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.analysis.objectives import Objective
    from orchestrator.report.source import Study
    from orchestrator.spec.model import StudySpec

BAD = ("failed", "infeasible")
LEDGER_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Stages of one kind: of those `done` some are `bad`, of those `open` some are `ready`, as they wait for nothing.

    What is neither done nor open lies below a failed stage and is left out.

    `open_ended`: rounds of selection are known only once they are reached, so that the total may grow.
    """

    total: int
    done: int
    bad: int
    open: int
    ready: int
    open_ended: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Trials that ended in the same way, and how."""

    count: int
    status: str
    error: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a study is.

    `trials` counts rows by status, unfinished ones as `open`. `elapsed_s`, `per_minute` (stages) and `left_s` are of
    the run that holds the lock and null where they are not known; `has_table` is false until that run has written one.
    `early` counts the stages of any study that the root's ledger took since the run began, by kind. `left_out` names
    tables that cannot be read. `asked` says how far a search has asked, and is empty where it will ask no more.
    `unmeasured` counts latencies that the study wants of its finished trials and that nobody has taken.
    """

    study: str
    runner: Holder | None
    has_table: bool
    stages: Mapping[str, Progress] = field(default_factory=dict[str, Progress])
    trials: Mapping[str, int] = field(default_factory=dict[str, int])
    elapsed_s: float | None = None
    per_minute: float | None = None
    left_s: float | None = None
    draining: bool = False
    troubles: tuple[Trouble, ...] = ()
    early: Mapping[str, int] = field(default_factory=dict[str, int])
    left_out: tuple[str, ...] = ()
    asked: str = ""
    unmeasured: int = 0

    @property
    def done(self) -> int:
        """Stages that have ended."""
        return sum(one.done for one in self.stages.values())

    @property
    def total(self) -> int:
        """Stages of the study, as far as they are known."""
        return sum(one.total for one in self.stages.values())


class Follower:
    """Looks at one study again and again; files that did not change are not read again."""

    def __init__(self, layout: Layout, study: str, *, skip_damaged: bool = False) -> None:
        self._layout = layout
        self._study = study
        self._skip_damaged = skip_damaged
        self._left_out: dict[AnyPath, str] = {}
        self._folder = layout.study(study)
        self._seen: dict[AnyPath, tuple[int, pd.DataFrame]] = {}
        self._asked: tuple[tuple[Objective, ...], Study] | None = None
        self._early: tuple[float, Mapping[str, int]] = (0.0, {})
        self._spec: StudySpec | None = None

    def look(self) -> Standing:
        """How the study stands at this moment.

        Raises:
            TableError: its table is no table of trials, or damaged and not to be skipped.
            StoreError: another version wrote the ledger.

        """
        runner = runner_of(self._layout, self._study)
        # An older table is that of an earlier run, of another plan perhaps.
        began = runner.since_s if runner else None
        trials = self._table("trials.parquet", began)
        stages = self._table("_stages.parquet", began)
        elapsed = None if began is None else max(0.0, time.time() - began)
        if trials is None or stages is None:
            return Standing(
                self._study, runner, has_table=False, elapsed_s=elapsed, early=self._since(began),
                left_out=tuple(self._left_out.values()),
            )  # fmt: skip
        asked = _asked(trials, self._known_spec())
        progress = _progress(trials, stages)
        if asked:
            progress = {kind: replace(one, open_ended=True) for kind, one in progress.items()}
        own = _of_run(stages, began)
        per_minute = 60 * len(own) / elapsed if elapsed and len(own) else None
        all_trained = not any(one.ready for one in progress.values())
        return Standing(
            self._study, runner, True, progress, _counts(trials), elapsed, per_minute,
            _left_s(progress, stages, own) if runner and not asked else None, self._is_draining(own),
            _troubles(trials), self._since(began) if runner and all_trained else {}, tuple(self._left_out.values()),
            asked, _unmeasured(trials, self._table("_latency.parquet", began)),
        )  # fmt: skip

    def _known_spec(self) -> "StudySpec | None":
        """The study that is followed; None where it cannot be read."""
        from orchestrator.report.source import study_beside

        if self._spec is None:
            self._spec = study_beside(self._folder).spec
        return self._spec

    def front(self) -> "tuple[pd.DataFrame, pd.DataFrame, tuple[Objective, ...]] | None":
        """The trials, their front and its objectives, of the table that was seen last; None where there is none."""
        from orchestrator.report.bounds import within
        from orchestrator.report.source import objectives_of, read

        trials = self._seen.get(self._folder / "trials.parquet")
        if trials is None:
            return None
        try:
            if self._asked is None:
                source = read(self._folder, beside=())
                self._asked = objectives_of(source, {}), source.study
            objectives, study = self._asked
            front = within(trials[1], study.where).pareto.front(objectives, over=study.over, seeds=study.seeds)
        except TableError:
            return None
        return trials[1], front, objectives

    def _table(self, name: str, since: float | None) -> "pd.DataFrame | None":
        """A table, None where it is not there, older than `since`, or damaged and to be skipped."""
        from orchestrator.analysis.load import load

        path = self._folder / name
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return None
        if since is not None and changed < since * 1e9:
            return None
        if path not in self._seen or self._seen[path][0] != changed:
            self._left_out.pop(path, None)
            try:
                self._seen[path] = changed, load(path)
            except TableError as error:
                if not self._skip_damaged:
                    raise TableError(f"{error} --skip-damaged follows without it") from error
                self._left_out[path] = f"left out: {error}"
                return None
        return self._seen[path][1]

    def _since(self, began: float | None) -> Mapping[str, int]:
        """Stages that the ledger took since then, by kind; the whole ledger is read, and that not often."""
        read_at, known = self._early
        if began is None:
            return {}
        if time.monotonic() - read_at >= LEDGER_EVERY_S:
            records = replay(self._layout.ledger).records.values()
            known = Counter(record.kind for record in records if record.finished_at >= began)
            self._early = time.monotonic(), known
        return known

    def _is_draining(self, own: "pd.DataFrame") -> bool:
        return any(self._layout.drain(str(run)).exists() for run in own["run"].dropna().unique())


def _asked(trials: "pd.DataFrame", spec: "StudySpec | None") -> str:
    """How far a search has asked; empty where nothing more will be asked.

    One that learns adds its baselines last, also where the space is used up before all was asked for.
    """
    if spec is None:
        return ""
    roles = Counter(trials["role"])
    wanted, asked = spec.search.trials or 0, -(-roles["cell"] // len(spec.seeds))
    if spec.search.sampled and asked < wanted and not roles["baseline"]:
        return f"{asked:,} of {wanted:,} configs asked for"
    if spec.search.repeats == "adaptive" and trials["status"].isna().any():
        return f"{roles['cell']:,} trials so far, more seeds where they decide"
    return ""


def _unmeasured(trials: "pd.DataFrame", latency: "pd.DataFrame | None") -> int:
    """Latencies that finished trials want, beside a dense parent that is finished, less those that were taken."""
    columns = ["latency.runtimes", "latency.batch", "dense_accuracy"]
    if latency is None or not set(columns) <= set(trials.columns):
        return 0
    complete = trials.loc[trials["status"] == "complete"].drop_duplicates("stage_keys.evaluate")
    taken = latency.groupby("stage_keys.evaluate").size()
    asking = complete.dropna(subset=columns)
    settings = (asking["latency.runtimes"].str.count(",") + 1) * (
        asking["latency.batch"].astype(str).str.count(",") + 1
    )
    found = asking["stage_keys.evaluate"].map(taken).fillna(0)
    return int((settings - found).clip(lower=0).sum())


def _progress(trials: "pd.DataFrame", stages: "pd.DataFrame") -> dict[str, Progress]:
    """By kind of stage: of every trial's path, what the table of stages holds."""
    ended, bad = set(stages["key"]), set(stages.loc[stages["status"].isin(BAD), "key"])
    found: dict[str, Progress] = {}
    unfinished = trials.loc[trials["status"].isna()]
    above: list[str] = []
    for kind in STAGE_KINDS:
        column = f"stage_keys.{kind}"
        if column not in trials.columns:
            continue
        rounds = set(stages.loc[stages["stage"] == kind, "key"]) if kind == "select" else set[str]()
        keys = set(trials[column].dropna()) | rounds
        waiting = unfinished.loc[unfinished[column].notna() & ~unfinished[column].isin(ended)]
        ready = waiting.loc[_has_parent(waiting, above, ended), column].nunique()
        if keys:
            open_ended = kind == "select" and len(waiting) > 0
            open_still = waiting[column].nunique()
            found[kind] = Progress(len(keys), len(keys & ended), len(keys & bad), open_still, ready, open_ended)
        above.insert(0, column)
    return found


def _has_parent(rows: "pd.DataFrame", above: list[str], ended: set[str]) -> "pd.Series":
    """Whether the stage before has ended; there is none before the first."""
    parents = rows[above].bfill(axis=1).iloc[:, 0] if above else rows["status"]
    return parents.isna() | parents.isin(ended)


def _counts(trials: "pd.DataFrame") -> dict[str, int]:
    counts = Counter(trials["status"].fillna("open"))
    return {name: counts[name] for name in ("complete", *BAD, "stopped", "open") if counts[name]}


def _of_run(stages: "pd.DataFrame", began: float | None) -> "pd.DataFrame":
    """What the present run has ended: stages of the study that were finished since it began."""
    import pandas as pd

    since = pd.Timestamp(began or 0, unit="s", tz="UTC")
    return stages.loc[stages["finished_at"] >= since]


def _left_s(progress: Mapping[str, Progress], stages: "pd.DataFrame", own: "pd.DataFrame") -> float | None:
    """Open stages times the mean of their kind, over as many at once as were busy so far; None while a kind is new."""
    means = stages.loc[stages["status"] == "complete"].groupby("stage")["busy_s"].mean()
    open_still = {kind: one.open for kind, one in progress.items() if one.open}
    if own.empty or any(kind not in means.index for kind in open_still):
        return None
    span = (own["finished_at"].max() - own["started_at"].min()).total_seconds()
    at_once = max(1.0, float(own["busy_s"].sum()) / span) if span > 0 else 1.0
    return sum(count * float(means[kind]) for kind, count in open_still.items()) / at_once


def _troubles(trials: "pd.DataFrame") -> tuple[Trouble, ...]:
    """The last ones at the end."""
    bad = trials.loc[trials["status"].isin(BAD)].sort_values("finished_at")
    found = Counter((str(status), brief(str(error))) for status, error in zip(bad["status"], bad["error"], strict=True))
    return tuple(Trouble(count, status, error) for (status, error), count in found.items())


def known_studies(layout: Layout) -> list[str]:
    """Studies that have a table here, or a folder, or that were begun."""
    begun = {path.parent.name for path in layout.root.glob("*/_study.yaml")}
    return sorted({*layout.studies(), *begun, *locked_studies(layout)})
