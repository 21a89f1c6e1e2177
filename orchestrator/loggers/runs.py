"""From a study's tables to the runs of a logger."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.analysis.settings import varied_leaves
from orchestrator.analysis.tables import COLUMNS, HISTORY_COLUMNS
from orchestrator.loggers.base import Logger, Run, Step, Value
from orchestrator.loggers.registry import open_logger
from orchestrator.names import plain
from orchestrator.report.source import Source

_TAGS = ("study", "role", "baseline", "status", "failure", "error", "hosts", "versions.orchestrator", "versions.torch")
_STAGES = ("train", "compress")
_NOT_LOGGED = ("epoch", "round", "labels", "candidates")


@dataclass(frozen=True, slots=True)
class Logged:
    """How many runs were written for the first time, written anew, there already; and trials without an end yet."""

    new: int
    renewed: int
    known: int
    open: int

    def __add__(self, other: "Logged") -> "Logged":
        return Logged(
            self.new + other.new, self.renewed + other.renewed, self.known + other.known, self.open + other.open
        )

    def __str__(self) -> str:
        parts = [f"{self.new} runs written"]
        parts += [f"{self.renewed} that had changed written anew"] if self.renewed else []
        parts += [f"{self.known} there already"] if self.known else []
        parts += [f"{self.open} trials have not ended yet, the same command takes them later"] if self.open else []
        return ", ".join(parts)


def hand_over(source: Source, tool: str, out: Path, *, renew: bool = True) -> Logged:
    """Write the ended trials of every study in a table where a tool finds them; see `log_runs`.

    Raises:
        RunError: the tool is not installed.
        TableError: a study or a trial has a name that leads out of `out`.
        StoreError: `out` cannot be written.

    """
    total = Logged(0, 0, 0, 0)
    for study, rows in source.trials.groupby("study", sort=False):
        logger = open_logger(tool, plain(str(study), "the study"), out)
        try:
            total += log_runs(replace(source, trials=rows), logger, renew=renew)
        finally:
            logger.close()
    return total


def log_runs(source: Source, logger: Logger, *, renew: bool = True) -> Logged:
    """Write every ended trial of a study that the logger does not have yet, or has in an earlier state.

    A trial changes after its end where a baseline or a latency comes later; its run is then replaced, or left as it is
    if `renew` is false.

    Raises:
        StoreError: the logger cannot write.

    """
    known = logger.written()
    new = renewed = there = 0
    for run in runs_of(source):
        if known.get(run.trial_id) == run.digest or (run.trial_id in known and not renew):
            there += 1
            continue
        logger.write(run)
        new, renewed = (new, renewed + 1) if run.trial_id in known else (new + 1, renewed)
    return Logged(new, renewed, there, int(source.trials["status"].isna().sum()))


def runs_of(source: Source) -> Iterator[Run]:
    """The trials that have ended, in the order of the table."""
    trials = source.trials
    leaves = varied_leaves(trials)
    histories = {} if isinstance(source.history, str) else _by_key(source.history)
    for row in trials.loc[trials["status"].notna()].to_dict("records"):
        yield _run(row, leaves, histories)


def _by_key(history: pd.DataFrame) -> dict[str, pd.DataFrame]:
    epochs = history.loc[history["epoch"].notna()]
    return {str(key): rows for key, rows in epochs.groupby("key")}


def _run(row: Mapping[Any, Any], leaves: list[str], histories: Mapping[str, pd.DataFrame]) -> Run:
    params = {name: value for name in ("seed", *leaves) if (value := _value(row[name])) is not None}
    named = [f"{name.rpartition('.')[2]}={value}" for name, value in params.items()]
    metrics = {name: number for name in _metrics(row) if (number := _number(row[name])) is not None}
    steps = [step for stage in _STAGES for step in _steps(stage, histories.get(str(row.get(f"stage_keys.{stage}"))))]
    tags = {name: str(row[name]) for name in _TAGS if name in row and not pd.isna(row[name])}
    ended = row.get("finished_at")
    return Run(
        study=str(row["study"]), trial_id=plain(str(row["trial_id"]), "the trial"), status=str(row["status"]),
        name=" ".join([_given(row.get("baseline")) or "", *named]).strip(), params=params, metrics=metrics,
        steps=tuple(steps), tags=tags, ended_s=0.0 if ended is None or pd.isna(ended) else ended.timestamp(),
    )  # fmt: skip


def _metrics(row: Mapping[Any, Any]) -> list[str]:
    return [name for name in row if name in COLUMNS and COLUMNS[name].direction is not None]


def _steps(stage: str, epochs: pd.DataFrame | None) -> Iterator[Step]:
    if epochs is None:
        return
    names = [name for name in epochs.columns if name in HISTORY_COLUMNS and name not in _NOT_LOGGED]
    names = [name for name in names if HISTORY_COLUMNS[name].dtype in ("double", "int64")]
    for row in epochs.sort_values("epoch")[["epoch", *names]].to_dict("records"):
        found = {f"{stage}/{name}": number for name in names if (number := _number(row[name])) is not None}
        yield Step(int(row["epoch"]), found)


def _number(value: Any) -> float | None:
    """A finite number, since loggers have no others."""
    if value is None or pd.isna(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _value(value: Any) -> Value | None:
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, str | int | float | bool) else str(value)


def _given(value: Any) -> str | None:
    return value if isinstance(value, str) else None
