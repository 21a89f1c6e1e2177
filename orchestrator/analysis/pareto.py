"""Non-dominated rows of a table of trials.

A row dominates another if it is at least as good in every objective and better in one (Pareto dominance; Deb et al.,
NSGA-II, 2002, for ranks). The sorting is moocore's: O(n log n) up to three objectives.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, Objective, parse_objectives
from orchestrator.analysis.repeats import mean_over_seeds
from orchestrator.analysis.rows import Floats, Mask, commonest_place, equals, need, numbers
from orchestrator.analysis.tables import ROLES, timed_by
from orchestrator.errors import TableError

Objectives = Mapping[str, object] | Sequence[Objective]
Role = Literal["cell", "baseline"]


def front(
    df: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    over: Literal["seed"] | None = None,
    by: str | Sequence[str] | None = None,
    select_on: str | None = None,
    role: Role | None = "cell",
) -> pd.DataFrame:
    """The rows that no other row dominates, in the order of `df`; equal rows all stay.

    A tolerance puts the objective's values on a grid before they are compared: a linear grid of that step for an
    amount, a logarithmic one of ratio 1 + p for a percentage p. Within a grid cell values are equal, so a difference
    beyond the tolerance always counts and a smaller one counts only across the border of two cells. "Within the
    tolerance" itself is not transitive and would make the front depend on the order of the rows; the grid is fixed,
    so other rows, duplicates and order change nothing. Rows that the grid makes equal are ties: all of them stay.

    Args:
        df: trials, as `load` gives them.
        objectives: as `parse_objectives` takes them; None is accuracy, compression and wall time (5 %).
        over: "seed" replaces the seeds of a cell by their mean first, see `repeats.mean_over_seeds`; a cell with fewer
            seeds than the others stays, and `n_seeds` tells.
        by: columns; each combination of their values has a front of its own.
        select_on: the column that decides in place of `accuracy`, such as `val_accuracy`, so that the test accuracy of
            the members is a report and chose nothing.
        role: "cell" leaves baselines out; None takes every row, and asks for none of the columns `role`, `status` and
            `mixed_hosts`: they are heeded where they exist.

    Returns:
        The rows. `attrs["left_out"]` is the number of rows that could not be compared and `attrs["left_out_because"]`
        splits it: `status` (not complete), `mixed_hosts` (an objective is a time and the row's stages ran on different
        kinds of machines, or it was timed elsewhere than most rows), `missing` (an objective is null or NaN). Infinite
        values are compared.

    Raises:
        TableError: a wrong objective, or a column that is absent.

    """
    wanted = _wanted(df, objectives, select_on)
    mask, left_out = _comparable(df, wanted, role)
    rows = df.loc[mask]
    if over is not None:
        rows = mean_over_seeds(rows, _reported(df, wanted, select_on), over=over)
        defined = _defined(rows, wanted)
        left_out["missing"] += int((~defined).sum())
        rows = rows.loc[defined]
    found = rows.loc[_front_mask(rows, wanted, by)].copy()
    found.attrs["left_out"] = sum(left_out.values())
    found.attrs["left_out_because"] = left_out
    return found


def rank(
    df: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    select_on: str | None = None,
    role: Role | None = "cell",
) -> pd.Series:
    """The rank of each row: 0 on the front, 1 on the front of what remains without it, and so on.

    Equal rows have equal ranks; tolerances and the rows left out are those of `front`, and the latter have no rank.
    O(n^2 log n) at worst from three objectives on.

    Returns:
        Integers on the index of `df`, null for the rows left out.

    Raises:
        TableError: as `front`.

    """
    wanted = _wanted(df, objectives, select_on)
    mask, _ = _comparable(df, wanted, role)
    ranks = np.zeros(len(df), dtype=np.int64)
    if mask.any():
        ranks[mask] = moocore.pareto_rank(_losses(df.loc[mask], wanted))
    return pd.Series(pd.arrays.IntegerArray(ranks, ~mask), index=df.index, name="rank")


def hypervolume(
    df: pd.DataFrame,
    reference: Mapping[str, float],
    objectives: Objectives | None = None,
    *,
    role: Role | None = "cell",
) -> float:
    """Volume that the rows dominate, up to a reference point, in the product of the objectives' units.

    Tolerances play no part. A row that is not better than the reference in every objective adds nothing; one that is
    and has an infinite value makes the volume infinite.
    Source: Zitzler and Thiele, PPSN 1998, by moocore.

    Args:
        df: trials, as `load` gives them.
        reference: for each objective the worst value that counts.
        objectives: as in `front`.
        role: as in `front`.

    Raises:
        TableError: as `front`; also a reference that lacks an objective or is not finite.

    """
    wanted = _wanted(df, objectives, None)
    point = np.array([float(reference.get(objective.column, np.nan)) for objective in wanted])
    if not np.isfinite(point).all():
        msg = f"hypervolume: reference {dict(reference)} must hold a finite number for {', '.join(_names(wanted))}"
        raise TableError(msg)
    mask, _ = _comparable(df, wanted, role)
    signs = _signs(wanted)
    losses, reference_losses = _values(df.loc[mask], wanted) * signs, point * signs
    # moocore cannot take infinities from three objectives on.
    inside = losses[(losses < reference_losses).all(axis=1)]
    if np.isinf(inside).any():
        return math.inf
    return float(moocore.hypervolume(inside, ref=reference_losses)) if len(inside) else 0.0


def _wanted(df: pd.DataFrame, objectives: Objectives | None, select_on: str | None) -> tuple[Objective, ...]:
    """The objectives that decide, all of them columns of `df`."""
    known = [str(name) for name in df.columns]
    if objectives is None or isinstance(objectives, Mapping):
        wanted = parse_objectives(DEFAULT_OBJECTIVES if objectives is None else objectives, also=known)
    else:
        wanted = _parsed(objectives)
    if select_on is not None:
        wanted = _with_selection(wanted, select_on, known)
    need(df, _names(wanted))
    return wanted


def _parsed(given: Iterable[object]) -> tuple[Objective, ...]:
    wanted = tuple(one for one in given if isinstance(one, Objective))
    if not wanted or wanted != tuple(given):
        msg = f"objectives: {given!r} is neither a mapping as {{'accuracy': 'max'}} nor what parse_objectives gives"
        raise TableError(msg)
    return wanted


def _with_selection(wanted: tuple[Objective, ...], select_on: str, known: Sequence[str]) -> tuple[Objective, ...]:
    if "accuracy" not in _names(wanted):
        msg = f"select_on={select_on!r} stands in for the objective accuracy, which is not among {_names(wanted)}"
        raise TableError(msg)
    parse_objectives({select_on: "max"}, also=known)
    return tuple(replace(one, column=select_on) if one.column == "accuracy" else one for one in wanted)


def _reported(df: pd.DataFrame, wanted: Sequence[Objective], select_on: str | None) -> list[str]:
    """Columns whose spread over seeds is told: the objectives, and the accuracy that chose nothing."""
    silent = ["accuracy"] if select_on is not None and "accuracy" in df.columns else []
    return list(dict.fromkeys([*_names(wanted), *silent]))


def _comparable(df: pd.DataFrame, wanted: Sequence[Objective], role: Role | None) -> tuple[Mask, dict[str, int]]:
    """Which rows take part, shape (rows,), and how many of the asked role do not, by reason."""
    clocks = {columns for name in _names(wanted) if (columns := timed_by(name))}
    on_time = timed_by("wall_time_s") in clocks
    if role is not None:
        _need_guards(df, role, ("role", "status", "mixed_hosts") if on_time else ("role", "status"))
    keep = np.ones(len(df), dtype=np.bool_) if role is None else equals(df, "role", role)
    passed = {
        "status": equals(df, "status", "complete"),
        "mixed_hosts": ~equals(df, "mixed_hosts", True) if on_time and "mixed_hosts" in df.columns else keep,
        "missing": _defined(df, wanted),
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


def _front_mask(rows: pd.DataFrame, wanted: Sequence[Objective], by: str | Sequence[str] | None) -> Mask:
    losses = _losses(rows, wanted)
    mask = np.zeros(len(rows), dtype=np.bool_)
    for members in _groups(rows, by):
        mask[members] = moocore.is_nondominated(losses[members], keep_weakly=True)
    return mask


def _groups(rows: pd.DataFrame, by: str | Sequence[str] | None) -> list[npt.NDArray[np.intp]]:
    """Positions of the rows of each group; no empty groups."""
    if by is None or rows.empty:
        return [np.arange(len(rows))] if len(rows) else []
    keys = [by] if isinstance(by, str) else list(by)
    need(rows, keys)
    codes = rows[keys].groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _losses(rows: pd.DataFrame, wanted: Sequence[Objective]) -> Floats:
    """Values on their grids, all to be made small and finite, shape (rows, objectives)."""
    values = _values(rows, wanted)
    gridded = [on_grid(values[:, i], one.tolerance, relative=one.relative) for i, one in enumerate(wanted)]
    losses = np.stack(gridded, axis=1) * _signs(wanted)
    # moocore uses infinities as sentinels from three objectives on; dominance needs no more than the order.
    for i in np.flatnonzero(~np.isfinite(losses).all(axis=0)):
        losses[:, i] = np.unique(losses[:, i], return_inverse=True)[1]
    return losses


def on_grid(values: Floats, tolerance: float, *, relative: bool) -> Floats:
    """The number of the grid cell of each value: monotone in the value, -+inf as they are.

    Linear: round(v / tolerance). Logarithmic: round(ln|v| / ln(1 + tolerance)), counted away from zero with the sign
    of v; zero has a cell of its own. Two values of one cell differ by at most the tolerance.
    """
    if tolerance == 0:
        return values
    if not relative:
        with np.errstate(over="ignore"):  # a quotient beyond the range of floats is its own last cell
            return np.rint(values / tolerance)
    step = np.log1p(tolerance)
    smallest = np.rint(np.log(np.nextafter(0.0, 1.0)) / step)
    sizes = np.where(values == 0, 1.0, np.abs(values))
    return np.sign(values) * (np.rint(np.log(sizes) / step) - smallest + 1)


def _values(df: pd.DataFrame, wanted: Sequence[Objective]) -> Floats:
    return np.stack([numbers(df, name) for name in _names(wanted)], axis=1)


def _defined(df: pd.DataFrame, wanted: Sequence[Objective]) -> Mask:
    return np.logical_not(np.isnan(_values(df, wanted)).any(axis=1))


def _names(wanted: Sequence[Objective]) -> list[str]:
    return [one.column for one in wanted]


def _signs(wanted: Sequence[Objective]) -> Floats:
    return np.array([-1.0 if one.direction == "max" else 1.0 for one in wanted])
