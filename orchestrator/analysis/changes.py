"""Two tables of trials: what came to the front, what fell off it, and what that is worth."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.comparison import By, Compared, Objectives, Over, Question, Role, compared, told
from orchestrator.analysis.dominance import losses_of, nondominated, signs
from orchestrator.analysis.pareto import front_mask, reference_of, volume
from orchestrator.analysis.repeats import Positions
from orchestrator.analysis.rows import Floats, Mask, need


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` finds.

    Attributes:
        trials: the rows of both fronts, `change` and `beaten` first. `new`: on the second front alone; `kept`: on both,
            as the second table has it; `gone`: on the first front alone, as the first table has it. `beaten` says
            whether a row of the other front dominates it: the others are the front of both tables together.
        hypervolume: `before`, `after`, `change` (after - before) and `relative_change` (change / before), one row, or
            with `by` one for each group, the columns of `by` first.
        reference: the point up to which all volumes are taken.

    """

    trials: pd.DataFrame
    hypervolume: pd.DataFrame
    reference: Mapping[str, float]


def compare(
    df: pd.DataFrame,
    other: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    reference: Mapping[str, float] | None = None,
    over: Over = None,
    by: By = None,
    select_on: str | None = None,
    role: Role | None = "cell",
    confidence: float = 0.95,
) -> Comparison:
    """What changes on the front from `df` to `other`: each has a front of its own, and these are compared.

    A trial is the same in both if `trial_id` is (equal configs and seeds have equal ids, in every study); with
    `over="seed"` a cell is the same if it shares a trial, so that a cell which got more seeds stays itself.

    Args:
        df: trials, before.
        other: trials, after.
        objectives: as in `pareto.front`, for both; directions and tolerances are the same.
        reference: for each objective the worst value that counts; None is the worst finite value of the rows of both
            tables that can be compared.
        over: as in `pareto.front`.
        by: each combination of these columns is compared within itself.
        select_on: as in `pareto.front`; it also stands in for accuracy in the volumes.
        role: as in `pareto.front`.
        confidence: as in `pareto.front`.

    Returns:
        See `Comparison`. `trials.attrs["left_out"]` counts the rows of both that could not be compared.

    Raises:
        TableError: as `pareto.front` and `pareto.hypervolume`, for either table; also no column `trial_id`.

    """
    question = Question(objectives, over, by, select_on, role)
    need(df, ["trial_id"])
    need(other, ["trial_id"])
    before, after = (_Side.of(frame, question) for frame in (df, other))
    wanted = before.taking_part.wanted
    point = _worst(before, after) if reference is None else reference_of(reference, wanted)
    groups = _groups(before, after)
    beaten = _beaten(before, after, groups)
    gone = before.front & ~before.shares_a_trial_with(after)
    kept = after.shares_a_trial_with(before)
    old = told(df, before.taking_part, gone, question, confidence)
    new = told(other, after.taking_part, after.front, question, confidence)
    new = _labelled(new, np.where(kept[after.front], "kept", "new"), beaten[1][after.front])
    old = _labelled(old, np.full(len(old), "gone"), beaten[0][gone])
    trials = pd.concat([part for part in (new, old) if len(part)] or [new], ignore_index=True)
    trials.attrs.update(_left_out(before.taking_part, after.taking_part))
    names_of_objectives = [one.column for one in wanted]
    return Comparison(
        trials, _volumes(before, after, groups, point), dict(zip(names_of_objectives, point.tolist(), strict=True))
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two tables; `front` says which of the rows that take part are on it."""

    df: pd.DataFrame
    question: Question
    taking_part: Compared
    front: Mask

    @staticmethod
    def of(df: pd.DataFrame, question: Question) -> "_Side":
        taking_part = compared(df, question)
        return _Side(df, question, taking_part, front_mask(taking_part, question.by))

    def shares_a_trial_with(self, other: "_Side") -> Mask:
        """Which of the rows that take part share a trial with a row on the front of `other`."""
        theirs = other.taking_part
        on_front = np.append(other.front, False)[theirs.part]
        ids = set(other.df["trial_id"].iloc[theirs.trials[on_front]].tolist())
        ours = self.taking_part
        shared = self.df["trial_id"].iloc[ours.trials].isin(ids).to_numpy(dtype=np.bool_)
        mask = np.zeros(len(self.front), dtype=np.bool_)
        mask[ours.part[shared & (ours.part >= 0)]] = True
        return mask


def _worst(before: _Side, after: _Side) -> Floats:
    """The worst finite value of each objective; 0 where there is none."""
    sign = signs(before.taking_part.wanted)
    values = np.concatenate([before.taking_part.values, after.taking_part.values])
    losses = np.where(np.isfinite(values), values * sign, -np.inf)
    worst = losses.max(axis=0, initial=-np.inf)
    return np.where(np.isfinite(worst), worst, 0.0) * sign


@dataclass(frozen=True, slots=True)
class _Group:
    """The values of `by`, and which of the rows that take part belong to them, before and after."""

    names: pd.DataFrame
    before: Positions
    after: Positions


def _groups(before: _Side, after: _Side) -> list[_Group]:
    nobody = np.zeros(0, dtype=np.intp)
    old, new = (dict(_members(side)) for side in (before, after))
    names = {name: of[0] for side in (new, old) for name, of in side.items()}
    return [
        _Group(row, old[name][1] if name in old else nobody, new[name][1] if name in new else nobody)
        for name, row in names.items()
    ]


def _members(side: _Side) -> Iterator[tuple[tuple[object, ...], tuple[pd.DataFrame, Positions]]]:
    """Each group of one table: its name, its values of `by` as a row, and its members."""
    by, taking_part = side.question.by, side.taking_part
    keys = [] if by is None else [by] if isinstance(by, str) else list(by)
    for members in taking_part.groups(by):
        row = taking_part.table.iloc[taking_part.positions[members[:1]]][keys]
        yield tuple(None if pd.isna(value) else value for value in row.iloc[0].tolist()), (row, members)


def _beaten(before: _Side, after: _Side, groups: Sequence[_Group]) -> tuple[Mask, Mask]:
    """Which rows of each front a row of the other front dominates, shapes (taking part,)."""
    count = len(before.front)
    values = np.concatenate([before.taking_part.values, after.taking_part.values])
    losses = losses_of(values, before.taking_part.wanted)
    beaten = np.zeros(len(losses), dtype=np.bool_)
    for group in groups:
        fronts = group.before[before.front[group.before]], group.after[after.front[group.after]] + count
        own = np.concatenate(fronts)
        beaten[own] = ~nondominated(losses[own])
    return beaten[:count], beaten[count:]


def _volumes(before: _Side, after: _Side, groups: Sequence[_Group], point: Floats) -> pd.DataFrame:
    wanted, rows = before.taking_part.wanted, list[dict[str, float]]()
    nobody = np.zeros(0, dtype=np.intp)
    named = [group.names.reset_index(drop=True) for group in groups]
    if before.question.by is None and not groups:
        groups, named = [_Group(pd.DataFrame(), nobody, nobody)], [pd.DataFrame()]
    for group in groups:
        old = volume(before.taking_part.values[group.before], point, wanted)
        new = volume(after.taking_part.values[group.after], point, wanted)
        change = new - old if math.isfinite(new) or math.isfinite(old) else math.nan
        relative = change / old if 0 < old < math.inf else math.nan
        rows.append({"before": old, "after": new, "change": change, "relative_change": relative})
    volumes = pd.DataFrame(rows, columns=["before", "after", "change", "relative_change"], dtype=np.float64)
    return pd.concat([pd.concat(named, ignore_index=True), volumes], axis=1) if named else volumes


def _labelled(rows: pd.DataFrame, change: npt.NDArray[np.str_], beaten: Mask) -> pd.DataFrame:
    rows.insert(0, "beaten", beaten)
    rows.insert(0, "change", change)
    return rows


def _left_out(before: Compared, after: Compared) -> dict[str, object]:
    because = {reason: count + after.left_out[reason] for reason, count in before.left_out.items()}
    return {"left_out": sum(because.values()), "left_out_because": because}
