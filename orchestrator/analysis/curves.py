"""Learning curves: what a labelling strategy reaches with how many labels, and what it saves against another.

All functions take a table of trials as `orchestrator.load` gives it, and share these rules.

- A curve is a strategy in one setting: the rows that agree in `by`. By default `by` is `select.strategy` and every
  config leaf that varies, but for the budget: a leaf of `select` counts if it varies within one strategy. Leaves of the
  network that selects have no effect on random labels and are null there. A leaf outside `select` that is only either
  null or one value counts if the others do not tell the same settings apart.
- Points of a curve are the cells of the study, and the random labels, which may be cells or baselines; where both
  are there for one setting, budget and seed, the cell is taken. Other baselines belong to no curve.
- A seed's trajectory that ended early has one point at the labels that it used, whichever budgets beyond were asked.
- Rows are left out that are not complete (`status`), whose value or labels are null or infinite (`missing`), whose
  value is a time that was taken elsewhere than that of most rows or on several kinds of machines (`mixed_hosts`), and
  all-label rows of a setting without a curve (`setting`); `attrs["left_out"]` is their number and
  `attrs["left_out_because"]` splits it.
- The order of the rows changes nothing, to the last bit.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.points import ALL_LABELS, RANDOM, SECONDS, STRATEGY, Points, curves_of, learning_points
from orchestrator.analysis.repeats import mean_and_interval
from orchestrator.analysis.rows import Floats
from orchestrator.errors import TableError

By = str | Sequence[str] | None


def curve(
    df: pd.DataFrame, value: str = "accuracy", by: By = None, over: str = "seed", confidence: float = 0.95
) -> pd.DataFrame:
    """The mean of `value` over the seeds for each curve and number of labels.

    Args:
        df: trials, as `load` gives them.
        value: a column of numbers.
        by: columns that tell curves apart, with `select.strategy` always among them; see the rules above.
        over: what is averaged over; "seed" is the only choice.
        confidence: of Student's interval of the mean, see `repeats.mean_and_interval`.

    Returns:
        One row per curve and `labels`, in that order: the columns of `by`, `labels`, `mean`, `std` (n - 1 in the
        denominator), `n` (seeds), `low`, `high`, and the mean of each column of seconds that the table has. All labels
        are rows with the strategy `all_labels` and null `labels`. Seconds need the column `mixed_hosts`; rows that ran
        on different kinds of machines, or elsewhere than most rows, take no part in them, and
        `attrs["seconds_left_out"]` counts these.

    Raises:
        TableError: a column is absent or holds no numbers, no row selects, a seed occurs twice in one point, or a
            wrong `by`, `over` or `confidence`.

    """
    if over != "seed":
        msg = f"over={over!r} is not supported; valid is 'seed'"
        raise TableError(msg)
    points = learning_points(df, value, by)
    seconds = [name for name in SECONDS if name in points.rows.columns]
    keys, found = list[int](), list[dict[str, float]]()
    for number in range(len(points.curves)):
        for labels, seeds in _by_labels(points, number):
            keys.append(number)
            of_point = mean_and_interval(seeds["value"].to_numpy(), confidence)
            found.append({"labels": labels} | of_point | {name: seeds[name].mean() for name in seconds})
    table = _framed(points, keys, found, ["labels", *_STATISTICS, *seconds])
    table.attrs["seconds_left_out"] = points.seconds_left_out
    return table


def area(df: pd.DataFrame, value: str = "accuracy", by: By = None, confidence: float = 0.95) -> pd.DataFrame:
    """The normalised area under each learning curve: its mean height between two numbers of labels.

    For each seed the trapezoids between its points, divided by their width; then the mean over the seeds. So that
    areas compare, all seeds of all curves of a setting (what is equal in `by` outside `select`) are taken over the
    labels that they share, `labels_from` to `labels_to`, with a straight line between points.

    Args:
        df: as in `curve`.
        value: as in `curve`.
        by: as in `curve`.
        confidence: as in `curve`.

    Returns:
        One row per curve: the columns of `by`, `labels_from`, `labels_to`, `mean`, `std`, `n`, `low`, `high`. A seed
        with one number of labels has no area and is counted in `attrs["left_out_because"]["one_budget"]`; a curve of
        such seeds has n = 0 and a null mean, and so has one in a setting whose seeds share no range.

    Raises:
        TableError: as `curve`; also no seed with two numbers of labels.

    """
    points = learning_points(df, value, by)
    curves = [i for i in range(len(points.curves)) if points.curves[STRATEGY].iloc[i] != ALL_LABELS]
    seeds = {i: _seeds(points, i) for i in curves}
    lines = {i: [line for line in seeds[i] if len(line) > 1] for i in curves}
    if not any(lines.values()):
        msg = f"area of {value}: a curve needs two budgets or more, and every seed of the table has one; add budgets"
        raise TableError(msg)
    found = [_area(lines, points, i, confidence) for i in curves]
    points.left_out["one_budget"] = sum(len(seeds[i]) - len(lines[i]) for i in curves)
    return _framed(points, curves, found, ["labels_from", "labels_to", *_STATISTICS])


def savings(df: pd.DataFrame, value: str = "accuracy", against: str = RANDOM, by: By = None) -> pd.DataFrame:
    """How many labels another strategy, random by default, needs for what each strategy reaches.

    At each point of a curve: `labels_against`, where the mean curve of `against`, straight between its points, first
    reaches the mean of this one, and `saved` = 1 - labels / labels_against. That is negative where `against` needs
    fewer labels. Where the curve of `against` rises and falls, its first crossing counts: that is what was
    measured, unsmoothed, and a lucky early point of `against` can only make the saving smaller.

    All means of a row are over the same seeds: those of the point that `against` has too. Points of `against` that lack
    one of them take no part, so that in an unfinished study a saving may be unknown, and is never that of other seeds.

    The curve of `against` is that of the same setting: equal in `by`, but that a leaf of `select` which is null for
    `against` may have any value; among several the one with the most equal leaves.

    Args:
        df: as in `curve`.
        value: a column that is better when larger.
        against: a strategy of the table.
        by: as in `curve`.

    Returns:
        One row per curve, but for those of `against` and all labels, and number of labels: the columns of `by`,
        `labels`, `mean`, `n` (seeds behind the row's means), `labels_against`, `saved`, `unknown`. Where `saved` is
        null `unknown` says why: the mean is `above` all of the curve of `against`, or `below` its beginning, or that
        curve is `absent`, or no point of it has these `seeds`.

    Raises:
        TableError: as `curve`; also no row of `against`.

    """
    points = learning_points(df, value, by)
    others = curves_of(points, against)
    if not others or against == ALL_LABELS:
        known = [name for name in dict.fromkeys(points.curves[STRATEGY]) if name not in (ALL_LABELS, against)]
        advice = f"valid are {', '.join(map(repr, known))}" if known else "no row is complete"
        msg = f"savings: no complete row of the strategy {against!r} to compare with; {advice}, or add it to the study"
        raise TableError(msg)
    keys, found = list[int](), list[dict[str, object]]()
    for i in range(len(points.curves)):
        if points.curves[STRATEGY].iloc[i] in (against, ALL_LABELS):
            continue
        other = _counterpart(points, i, others)
        theirs = None if other is None else _by_labels(points, other)
        for labels, seeds in _by_labels(points, i):
            keys.append(i)
            found.append({"labels": labels} | _saving(labels, seeds, theirs))
    return _framed(points, keys, found, ["labels", "mean", "n", "labels_against", "saved", "unknown"])


_STATISTICS = ("mean", "std", "n", "low", "high")
_TYPES = {"labels": "Int64", "n": "int64", "unknown": "str"}


def _framed(
    points: Points, keys: Sequence[int], found: Sequence[Mapping[str, object]], columns: Sequence[str]
) -> pd.DataFrame:
    """Rows with the values of `by` of their curves in front."""
    table = pd.DataFrame(list(found), columns=list(columns)).astype(
        {name: _TYPES.get(name, "float64") for name in columns}
    )
    frame = pd.concat([points.curves.iloc[list(keys)].reset_index(drop=True), table], axis=1)
    frame.attrs["left_out"] = sum(points.left_out.values())
    frame.attrs["left_out_because"] = points.left_out
    return frame


def _own(points: Points, number: int) -> pd.DataFrame:
    return points.rows.loc[points.rows["curve"] == number]


def _seeds(points: Points, number: int) -> list[Floats]:
    """Labels and values of each seed of a curve, shape (points, 2), labels ascending."""
    return [rows[["labels", "value"]].to_numpy(dtype=np.float64) for _, rows in _own(points, number).groupby("seed")]


def _by_labels(points: Points, number: int) -> list[tuple[float, pd.DataFrame]]:
    """The seeds at each number of labels of a curve, ascending."""
    groups = [seeds for _, seeds in _own(points, number).groupby("labels", dropna=False)]
    return [(float(seeds["labels"].iloc[0]), seeds) for seeds in groups]


def _line(curve: Sequence[tuple[float, pd.DataFrame]], seeds: frozenset[int]) -> Floats:
    """Labels and means over these seeds at the points of a curve that have them all, shape (points, 2)."""
    having = [(labels, rows.loc[rows["seed"].isin(seeds)]) for labels, rows in curve]
    return np.array([(labels, _mean(rows)) for labels, rows in having if len(rows) == len(seeds)])


def _mean(seeds: pd.DataFrame) -> float:
    return math.fsum(seeds["value"]) / len(seeds)


def _area(lines: Mapping[int, Sequence[Floats]], points: Points, number: int, confidence: float) -> dict[str, float]:
    alike = [line for i, own in lines.items() if points.settings[i] == points.settings[number] for line in own]
    start = max((line[0, 0] for line in alike), default=math.nan)
    stop = min((line[-1, 0] for line in alike), default=math.nan)
    shared = start < stop
    areas = [_height(line, start, stop) for line in lines[number]] if shared else []
    ends = {"labels_from": start, "labels_to": stop} if shared else {"labels_from": math.nan, "labels_to": math.nan}
    return ends | mean_and_interval(np.array(areas), confidence)


def _height(line: Floats, start: float, stop: float) -> float:
    """Mean height of a line through points between two of its abscissae."""
    inside = line[(line[:, 0] > start) & (line[:, 0] < stop), 0]
    at = np.concatenate([[start], inside, [stop]])
    return float(np.trapezoid(np.interp(at, line[:, 0], line[:, 1]), at) / (stop - start))


def _counterpart(points: Points, number: int, others: Sequence[int]) -> int | None:
    """The curve of `others` to compare one with, if there is any."""
    inside = [name for name in points.by if name.startswith("select.") and name != STRATEGY]
    own = points.curves[inside].iloc[number]
    best: tuple[int, int] | None = None
    for other in others:
        if points.settings[other] != points.settings[number]:
            continue
        theirs = points.curves[inside].iloc[other]
        asked = theirs.notna()
        equal = int((theirs[asked] == own[asked]).sum())
        if equal == asked.sum() and (best is None or equal > best[0]):
            best = (equal, other)
    return best[1] if best else None


def _saving(
    labels: float, own: pd.DataFrame, against: Sequence[tuple[float, pd.DataFrame]] | None
) -> dict[str, object]:
    theirs = frozenset(seed for _, rows in against or () for seed in rows["seed"])
    shared = theirs & frozenset(own["seed"])
    line = _line(against, shared) if against and shared else np.empty((0, 2))
    compared = own.loc[own["seed"].isin(shared)] if len(line) else own
    mean = _mean(compared)
    lacking = (math.nan, "absent" if against is None else "seeds")
    needed, unknown = first_crossing(line, mean) if len(line) else lacking
    saved: dict[str, object] = {"labels_against": needed, "saved": 1 - labels / needed, "unknown": unknown}
    return {"mean": mean, "n": len(compared)} | saved


def first_crossing(line: npt.NDArray[np.float64], height: float) -> tuple[float, str | None]:
    """Where a line through points (n, 2) first reaches a height, or why that is not known: `above` or `below` it."""
    at, values = line.T
    if values[0] > height:
        return math.nan, "below"
    if values.max() < height:
        return math.nan, "above"
    i = int(np.argmax(values >= height))
    if values[i] == height:
        return float(at[i]), None
    share = (height - values[i - 1]) / (values[i] - values[i - 1])
    return float(at[i - 1] + share * (at[i] - at[i - 1])), None
