"""Which rows of a table of trials take part in a comparison, and their objectives as numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.expected import expected_values, of_first_seeds, seed_order
from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, Objective, objective_of, parse_objectives
from orchestrator.analysis.repeats import Positions, cell_numbers, mean_over_seeds, with_intervals
from orchestrator.analysis.rows import Floats, Mask, commonest_place, equals, need, numbers
from orchestrator.analysis.tables import ROLES, timed_by
from orchestrator.errors import TableError

Objectives = Mapping[str, object] | Sequence[Objective | str]
Role = Literal["cell", "baseline"]
Over = Literal["seed", "expected"] | None
By = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared: the arguments that all analyses of `df.pareto` share.

    Attributes:
        objectives: columns with their directions, as `parse_objectives` takes them; names alone take the direction of
            the column table; None is accuracy, compression and wall time (5 %).
        over: "seed" replaces the seeds of a cell by their mean first, see `repeats.mean_over_seeds`; a cell with fewer
            seeds than the others stays, and `n_seeds` tells. "expected" gives the same means and compares what all
            seeds are expected to give, see `seed_model`: a cell that has the kind seeds alone is no better for it. A
            trial that failed, or lacks a finite objective, counts as not run, and so do the seeds after it.
        by: columns; each combination of their values is compared within itself.
        select_on: the column that decides in place of `accuracy`, such as `val_accuracy`.
        role: "cell" leaves baselines out; None takes every row, and asks for none of the columns `role`, `status` and
            `mixed_hosts`: they are heeded where they exist.
        seeds: those of the study in its order, for "expected"; None: those of the table, see `expected.seed_order`.

    """

    objectives: Objectives | None = None
    over: Over = None
    by: By = None
    select_on: str | None = None
    role: Role | None = "cell"
    seeds: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """The rows that take part in a comparison: all of `table` (trials, or means of cells) at `positions`.

    `values` are their objectives in the order of `wanted`, shape (taking part, objectives), no NaN; `trials` are the
    positions in the given frame of the rows that take part, and `part` says which of `values` each of these is. With
    `over="seed"` several trials share one; a trial of a cell without a defined mean has -1.
    """

    table: pd.DataFrame
    positions: Positions
    values: Floats
    wanted: tuple[Objective, ...]
    trials: Positions
    part: Positions
    left_out: Mapping[str, int]

    def rows(self, mask: Mask | Positions) -> pd.DataFrame:
        """Those of the rows, with `attrs["left_out"]` and `attrs["left_out_because"]`."""
        found = self.table.iloc[self.positions[mask]].copy()
        found.attrs["left_out"] = sum(self.left_out.values())
        found.attrs["left_out_because"] = dict(self.left_out)
        return found

    def of_trials(self, values: npt.NDArray[Any], df: pd.DataFrame) -> tuple[npt.NDArray[Any], Mask]:
        """What belongs to the rows that take part, spread to the rows of `df`; and where there is none."""
        placed = self.part >= 0
        spread, absent = np.zeros(len(df), dtype=values.dtype), np.ones(len(df), dtype=np.bool_)
        spread[self.trials[placed]] = values[self.part[placed]]
        absent[self.trials[placed]] = False
        return spread, absent

    def groups(self, by: By) -> list[Positions]:
        """Which of `values` belong to each combination of the columns `by`, in order of first appearance.

        Raises:
            TableError: a column is absent.

        """
        if by is not None:
            need(self.table, [by] if isinstance(by, str) else by)
        if by is None or not len(self.values):
            return [np.arange(len(self.values))] if len(self.values) else []
        codes = group_numbers(self.table.iloc[self.positions], by)
        order = np.argsort(codes, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def compared(df: pd.DataFrame, question: Question) -> Compared:
    """The rows of `df` that can be compared, or the means of their cells.

    Raises:
        TableError: a wrong objective, or a column that is absent.

    """
    wanted = wanted_of(df, question.objectives, question.select_on)
    values = values_of(df, wanted)
    mask, left_out = _comparable(df, wanted, question.role, np.logical_not(np.isnan(values).any(axis=1)))
    trials = np.flatnonzero(mask)
    if question.over is None:
        kept = values if len(trials) == len(df) else values[trials]
        return Compared(df, trials, kept, wanted, trials, np.arange(len(trials)), left_out)
    if question.over not in ("seed", "expected"):
        raise TableError(f"over={question.over!r} is not supported; valid are 'seed' and 'expected'")
    seeds = _all_seeds(df, question) if question.over == "expected" else None
    if seeds is not None:
        trials, left_out = _first_seeds(df, trials, values[trials], seeds, left_out)
    rows = df.iloc[trials]
    own = cell_numbers(rows)
    cells = mean_over_seeds(rows, _reported(df, wanted, question.select_on), cells=own)
    if seeds is not None:
        means = expected_values(rows, own, values[trials], wanted, seeds) if len(rows) else values[trials]
        return Compared(cells, np.arange(len(means)), means, wanted, trials, own, left_out)
    means = values_of(cells, wanted)
    defined = ~np.isnan(means).any(axis=1)
    left_out["missing"] += int((~defined).sum())
    place = np.where(defined, np.cumsum(defined) - 1, -1)[own]
    return Compared(cells, np.flatnonzero(defined), means[defined], wanted, trials, place, left_out)


def _all_seeds(df: pd.DataFrame, question: Question) -> Sequence[int]:
    need(df, ["seed"])
    return seed_order(df) if question.seeds is None else question.seeds


def _first_seeds(
    df: pd.DataFrame, trials: Positions, values: Floats, seeds: Sequence[int], left_out: dict[str, int]
) -> tuple[Positions, dict[str, int]]:
    """Those of the trials that no seed is missing before, and how many are left out with the others."""
    finite = np.isfinite(values).all(axis=1)
    kept = trials[finite]
    rows = df.iloc[kept]
    first = of_first_seeds(rows, cell_numbers(rows), seeds)
    missing = left_out["missing"] + int((~finite).sum())
    return kept[first], {**left_out, "missing": missing, "gap": int((~first).sum())}


def told(df: pd.DataFrame, taking_part: Compared, mask: Mask, question: Question, confidence: float) -> pd.DataFrame:
    """Those of the rows that take part, shape (taking part,); means of cells with their intervals.

    `attrs["over"]` says so where not these means were compared, but expected ones.
    """
    found = taking_part.rows(mask)
    if question.over is None:
        return found
    if question.over == "expected":
        found.attrs["over"] = question.over
    kept = np.append(np.where(mask, np.cumsum(mask) - 1, -1), -1)
    seen = _reported(df, taking_part.wanted, question.select_on)
    return with_intervals(found, df.iloc[taking_part.trials], kept[taking_part.part], seen, confidence)


def wanted_of(df: pd.DataFrame, objectives: Objectives | None, select_on: str | None) -> tuple[Objective, ...]:
    """The objectives that decide, all of them columns of `df`.

    Raises:
        TableError: a wrong objective, or a column that is absent.

    """
    known = [str(name) for name in df.columns]
    if objectives is None or isinstance(objectives, Mapping):
        wanted = parse_objectives(DEFAULT_OBJECTIVES if objectives is None else objectives, also=known)
    else:
        wanted = _listed([objectives] if isinstance(objectives, str) else objectives, known)
    if select_on is not None:
        wanted = _with_selection(wanted, select_on, known)
    need(df, names(wanted))
    return wanted


def _listed(given: Iterable[object], known: Sequence[str]) -> tuple[Objective, ...]:
    listed = list(given)
    if not listed or not all(isinstance(one, Objective | str) for one in listed):
        msg = f"objectives: {given!r} must be a mapping as {{'accuracy': 'max'}}, names of columns, or Objectives"
        raise TableError(msg)
    wanted = tuple(one if isinstance(one, Objective) else objective_of(str(one), also=known) for one in listed)
    twice = [name for name, times in Counter(names(wanted)).items() if times > 1]
    if twice:
        raise TableError(f"objectives: {', '.join(twice)} named more than once; name each column once")
    return wanted


def _with_selection(wanted: tuple[Objective, ...], select_on: str, known: Sequence[str]) -> tuple[Objective, ...]:
    if "accuracy" not in names(wanted):
        msg = f"select_on={select_on!r} stands in for the objective accuracy, which is not among {names(wanted)}"
        raise TableError(msg)
    parse_objectives({select_on: "max"}, also=known)
    return tuple(replace(one, column=select_on) if one.column == "accuracy" else one for one in wanted)


def _reported(df: pd.DataFrame, wanted: Sequence[Objective], select_on: str | None) -> list[str]:
    """Columns whose spread over seeds is told: the objectives, and the accuracy that chose nothing."""
    silent = ["accuracy"] if select_on is not None and "accuracy" in df.columns else []
    return list(dict.fromkeys([*names(wanted), *silent]))


def _comparable(
    df: pd.DataFrame, wanted: Sequence[Objective], role: Role | None, defined: Mask
) -> tuple[Mask, dict[str, int]]:
    """Which rows take part, shape (rows,), and how many of the asked role do not, by reason."""
    clocks = {columns for name in names(wanted) if (columns := timed_by(name))}
    on_time = timed_by("wall_time_s") in clocks
    if role is not None:
        _need_guards(df, role, ("role", "status", "mixed_hosts") if on_time else ("role", "status"))
    keep = np.ones(len(df), dtype=np.bool_) if role is None else equals(df, "role", role)
    passed = {
        "status": equals(df, "status", "complete"),
        "mixed_hosts": ~equals(df, "mixed_hosts", True) if on_time and "mixed_hosts" in df.columns else keep,
        "missing": defined,
    }
    left_out: dict[str, int] = {}
    for reason, mask in passed.items():
        left_out[reason] = int((keep & ~mask).sum())
        keep = keep & mask
    for clock in sorted(clocks):
        alike = keep & commonest_place(df, keep, clock)
        left_out["mixed_hosts"] += int((keep & ~alike).sum())
        keep = alike
    return keep, left_out


def _need_guards(df: pd.DataFrame, role: Role, guards: Sequence[str]) -> None:
    if role not in ROLES:
        msg = f"role {role!r} is unknown; valid are {', '.join(ROLES)} and None for every row"
        raise TableError(msg)
    absent = [name for name in guards if name not in df.columns]
    if absent:
        msg = (
            f"role {role!r} needs the column(s) {', '.join(absent)}, which this frame lacks: load them too, "
            "or pass role=None to compare every row"
        )
        raise TableError(msg)


def group_numbers(rows: pd.DataFrame, by: str | Sequence[str]) -> Positions:
    """The number of each row's combination of the columns `by`, in order of first appearance."""
    keys = [by] if isinstance(by, str) else list(by)
    return np.asarray(rows[keys].groupby(keys, dropna=False, sort=False).ngroup(), dtype=np.intp)


def values_of(df: pd.DataFrame, wanted: Sequence[Objective]) -> Floats:
    """The objectives as they are, NaN for null, shape (rows, objectives)."""
    return np.stack([numbers(df, name) for name in names(wanted)], axis=1)


def names(wanted: Sequence[Objective]) -> list[str]:
    """The columns."""
    return [one.column for one in wanted]
