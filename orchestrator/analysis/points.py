"""From a table of trials to the points of learning curves: which rows take part, and which curve each belongs to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.rows import Mask, commonest_place, equals, hashable, need, numbers
from orchestrator.analysis.tables import is_config_column, timed_by
from orchestrator.errors import TableError

STRATEGY, BUDGET, RANDOM, ALL_LABELS = "select.strategy", "select.budget", "random", "all_labels"

SECONDS = (
    "select_s", "select_train_s", "select_score_s", "select_query_s", "train_s", "compress_s", "wall_time_s",
)  # fmt: skip

NETWORK_LEAVES = tuple(
    f"select.{name}"
    for name in (
        "proxy", "proxy_width", "proxy_image_size", "replay_ratio", "epochs", "schedule", "pool_cap", "oversample",
        "dropout", "passes",
    )
)  # fmt: skip
"""What chance does not heed, as long as asking does not end by the accuracy of a network (`select.patience`)."""

_GUARDS = (STRATEGY, BUDGET, "labels", "seed", "role", "baseline", "status")
_LAST = {RANDOM: 1, ALL_LABELS: 2}
_POINT = ["_curve", "seed", "_budget"]
_ORDER = ["_curve", "_labels", "seed", "_budget", "role"]


@dataclass(frozen=True, slots=True)
class Points:
    """The points of all curves, ordered by curve, labels and seed, whatever the order of the rows was.

    Args:
        by: columns that tell the curves apart, `select.strategy` first.
        curves: the values of `by`, one row per curve; `all_labels` is a strategy here.
        settings: number of the setting of each curve, shape (curves,): what is equal in all of `by` outside `select`.
        rows: `curve`, `seed`, `labels` (float, NaN for `all_labels`), `value`, and the seconds that the table has, NaN
            where they do not compare.
        left_out: rows that could not take part, by reason.
        seconds_left_out: rows in `rows` whose seconds do not compare with those of the others.

    """

    by: list[str]
    curves: pd.DataFrame
    settings: npt.NDArray[np.int64]
    rows: pd.DataFrame
    left_out: dict[str, int]
    seconds_left_out: int


def learning_points(df: pd.DataFrame, value: str, by: str | Sequence[str] | None) -> Points:
    """The points of the curves of `value`; see `orchestrator.analysis.curves.curve` for the rules.

    Raises:
        TableError: a column is absent or holds no numbers, no row selects, `by` names an axis of the curve, or a seed
            occurs twice in one point of a curve.

    """
    need(df, [*_GUARDS, value])
    asked = None if by is None else _asked(df, by)
    leaves = [str(name) for name in df.columns if _is_leaf(str(name))]
    carried = list(dict.fromkeys([*leaves, *(asked or ()), "role", "seed"]))
    table, left_out = _comparable(df, value, carried)
    table = _without_network_leaves(table)
    names = _telling(table) if asked is None else asked
    table = table.assign(_setting=_codes(table, [name for name in names if not name.startswith("select.")]))
    unknown = _without_curve(table)
    left_out["setting"] = int(unknown.sum())
    table = table.loc[~unknown].copy()
    table["_curve"] = _codes(table, names)
    rows = _once_a_seed(table.sort_values(_ORDER, ascending=[name != "role" for name in _ORDER]))
    first = rows.drop_duplicates("_curve")
    points, elsewhere = _with_seconds(df, rows)
    settings = first["_setting"].to_numpy(dtype=np.int64)
    return Points(names, first[names].reset_index(drop=True), settings, points, left_out, elsewhere)


def curves_of(points: Points, strategy: str) -> list[int]:
    """Numbers of the curves of a strategy."""
    return [i for i, name in enumerate(points.curves[STRATEGY]) if name == strategy]


def _members(df: pd.DataFrame) -> Mask:
    """Rows of a curve: cells that select, random labels, all labels; other baselines are no labelling strategy."""
    selects = df[STRATEGY].notna().to_numpy(dtype=np.bool_)
    if not selects.any():
        msg = f"no row has a {STRATEGY}: the study labels every image; its config needs a section `select`"
        raise TableError(msg)
    reference = equals(df, "baseline", RANDOM) | equals(df, "baseline", ALL_LABELS)
    return (selects & equals(df, "role", "cell")) | reference


def _comparable(df: pd.DataFrame, value: str, carried: Sequence[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of curves with the columns of `carried`, and how many lack something, by reason.

    Own columns begin with an underscore: `_value`, `_labels` and `_budget` (float, NaN for all labels) and `_position`,
    the row's place in `df`. Lists have become tuples.
    """
    member, every = _members(df), equals(df, "baseline", ALL_LABELS)
    strategy = df[STRATEGY].astype(object).mask(equals(df, "baseline", RANDOM), RANDOM).mask(every, ALL_LABELS)
    axes = {"_labels": np.where(every, np.nan, numbers(df, "labels"))}
    axes["_budget"] = np.where(every, np.nan, numbers(df, BUDGET))
    measured = axes | {"_value": numbers(df, value), "_position": np.arange(len(df))}
    defined = np.isfinite(measured["_value"]) & (every | np.isfinite(axes["_labels"] + axes["_budget"]))
    complete = member & equals(df, "status", "complete")
    left_out = {"status": int((member & ~complete).sum()), "missing": int((complete & ~defined).sum())}
    keep = _timed_alike(df, complete & defined, value)
    left_out["mixed_hosts"] = int((complete & defined & ~keep).sum())
    table = pd.DataFrame({name: hashable(df[name]) for name in carried} | {STRATEGY: strategy.astype("str")})
    return table.assign(**measured).loc[keep].reset_index(drop=True), left_out


def _timed_alike(df: pd.DataFrame, keep: Mask, name: str) -> Mask:
    """The rows of `keep` in which a column compares with the others: all but where it is a time taken elsewhere."""
    clock = timed_by(name)
    if clock == timed_by("wall_time_s"):
        need(df, ["mixed_hosts"])
        keep = keep & ~equals(df, "mixed_hosts", True)
    return keep & commonest_place(df, keep, clock)


def _without_network_leaves(table: pd.DataFrame) -> pd.DataFrame:
    """Random rows with nulls where a leaf has no effect on them, so that one draw of labels is one curve."""
    patient = table["select.patience"].notna() if "select.patience" in table.columns else False
    idle = (table[STRATEGY] == RANDOM) & ~np.asarray(patient, dtype=np.bool_)
    names = [name for name in NETWORK_LEAVES if name in table.columns]
    return table.assign(**{name: table[name].mask(idle) for name in names})


def _telling(table: pd.DataFrame) -> list[str]:
    """The leaves that vary: outside `select` from any curve to another, inside it within one strategy.

    A leaf of `select` that differs from strategy to strategy alone tells nothing that the strategy does not, nor does
    one outside that is null where another leaf robs it of its effect.
    """
    rows = table.loc[table[STRATEGY] != ALL_LABELS]
    strategies = [own for _, own in rows.groupby(STRATEGY)]
    leaves = [name for name in table.columns if _is_leaf(name) and name not in (STRATEGY, BUDGET)]
    inside = [name for name in leaves if name.startswith("select.")]
    varying = {name for own in strategies for name in _varying(own, inside)}
    varying |= set(_needed(table, _varying(rows, [name for name in leaves if name not in inside])))
    return [STRATEGY, *(name for name in leaves if name in varying)]


def _needed(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The leaves without those that have one value, or none, and without which the others tell as many settings."""
    kept = list(names)
    settings = len(set(_codes(table, kept)))
    for name in reversed(names):
        others = [other for other in kept if other != name]
        if table[name].nunique() == 1 and len(set(_codes(table, others))) == settings:
            kept = others
    return kept


def _asked(df: pd.DataFrame, by: str | Sequence[str]) -> list[str]:
    names = list(dict.fromkeys([STRATEGY, *([by] if isinstance(by, str) else by)]))
    need(df, names)
    for name in names:
        if name in (BUDGET, "labels", "seed"):
            msg = f"by: {name} runs along the curve and cannot tell curves apart; leave it out"
            raise TableError(msg)
    return names


def _is_leaf(name: str) -> bool:
    return name == "study" or is_config_column(name)


def _varying(table: pd.DataFrame, names: Iterable[str]) -> list[str]:
    return [name for name in names if table[name].nunique(dropna=False) > 1]


def _without_curve(table: pd.DataFrame) -> Mask:
    """Rows of all labels in a setting in which no curve was taken."""
    of_curve = (table[STRATEGY] != ALL_LABELS).to_numpy(dtype=np.bool_)
    return ~np.isin(table["_setting"], table.loc[of_curve, "_setting"])


def _codes(table: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Number of each row's combination of values, in the order of the values and not of the rows, shape (rows,)."""
    if not names or table.empty:
        return np.zeros(len(table), dtype=np.int64)
    ranks = pd.DataFrame({name: _ranks(table[name]) for name in names})
    return np.asarray(ranks.groupby(list(names), sort=True).ngroup(), dtype=np.int64)


def _ranks(column: pd.Series) -> list[int]:
    """Numbers before text, null after both; random labels and all labels at the end of the strategies."""
    values = [None if null else value for value, null in zip(column.tolist(), column.isna(), strict=True)]
    rank = {value: i for i, value in enumerate(sorted(set(values), key=_order))}
    return [rank[value] for value in values]


def _order(value: object) -> tuple[int, float, str]:
    if value is None:
        return (2, 0, "")
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, _LAST.get(str(value), 0), str(value))


def _once_a_seed(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each curve, seed and number of labels, of rows in order.

    Random labels may stand in the table twice, as cells of the grid and as baselines: the cell speaks.
    """
    cell = table["role"] == "cell"
    asked = pd.MultiIndex.from_frame(table[_POINT])
    table = table.loc[cell | ~asked.isin(asked[cell])]
    repeated = table.duplicated([*_POINT, "_labels", "_value"]) & table[STRATEGY].isin([RANDOM, ALL_LABELS])
    table = table.loc[~repeated]
    _check_seeds(table)
    # A trajectory that ended early is one point, however many budgets beyond it were asked.
    return table.drop_duplicates(["_curve", "seed", "_labels"])


def _check_seeds(table: pd.DataFrame) -> None:
    twice = table.loc[table.duplicated(_POINT, keep=False)]
    if twice.empty:
        return
    rows = next(rows for _, rows in twice.groupby(_POINT, dropna=False))
    differing = _varying(rows, filter(_is_leaf, rows.columns))
    advice = f"these rows differ in {', '.join(differing)}: name it in by, or keep one value of it"
    if not differing:
        advice = "these rows differ in no config column: load study and all config columns, or drop repeated rows"
    first = rows.iloc[0]
    where = f"{first[STRATEGY]}" if np.isnan(first["_labels"]) else f"{first[STRATEGY]} at {first['_labels']:g} labels"
    msg = f"curve {where}: seed {first['seed']} occurs twice; {advice}"
    raise TableError(msg)


def _with_seconds(df: pd.DataFrame, rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Points with the seconds that compare, and how many points have none that do."""
    own = {"_curve": "curve", "seed": "seed", "_labels": "labels", "_value": "value"}
    points = rows[list(own)].rename(columns=own).reset_index(drop=True)
    if "mixed_hosts" not in df.columns:
        return points, 0
    places = df.iloc[rows["_position"]]
    alike = _timed_alike(places, np.ones(len(places), dtype=np.bool_), "wall_time_s")
    present = [name for name in SECONDS if name in df.columns]
    seconds = {name: np.where(alike, numbers(places, name), np.nan) for name in present}
    return points.assign(**seconds), int((~alike).sum())
