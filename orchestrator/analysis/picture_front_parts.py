"""What a picture of a front shows: the trials, the mean of each setting, and the baselines beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from orchestrator.analysis import pareto
from orchestrator.analysis.comparison import Question, compared
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.picture_style import COLUMN_MM, Scale, scale_of, value_text
from orchestrator.analysis.repeats import mean_over_seeds
from orchestrator.analysis.rows import Floats, Mask, equals, need, numbers
from orchestrator.analysis.settings import in_order, varied_leaves
from orchestrator.errors import TableError

LOGARITHMIC_FROM = 4.0
"""Times that the largest value holds the smallest from where on sizes and times are drawn on a logarithmic axis."""

_FAR = 0.5
"""A baseline farther outside the trials than this share of their range is a line across, not a point."""

_ALIKE = 0.1
"""The same as a share of the value, where that is equal in all trials."""

_MOST_LINES = 4

_BASELINES = {
    "dense": "dense",
    "dense_finetuned": "dense, trained on",
    "binary": "one bit, unpruned",
    "random": "random labels",
    "all_labels": "all labels",
}


@dataclass(frozen=True, slots=True)
class FrontRequest:
    """What to draw: two objectives, and which columns shape, colour and label the points.

    Args:
        x: objective along the abscissa.
        y: objective along the ordinate.
        mark: leaves; each combination of their values has a mark of its own, and all means are drawn.
        colour: a column of numbers that colours the means, with a bar beside the picture.
        label: leaves whose values stand beside points; None takes those in which the members of the front differ.
        means: whether the means of all settings are drawn, also without marks and colours.
        width_mm: of the picture.
        over: how the seeds of a setting are put together to choose the front, as in `pareto.front`.
        seeds: as in `pareto.front`.

    """

    x: Objective
    y: Objective
    mark: Sequence[str] = ()
    colour: str | None = None
    label: Sequence[str] | None = None
    means: bool = False
    width_mm: float = COLUMN_MM
    over: Literal["seed", "expected"] = "seed"
    seeds: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A baseline as a line across: the axis on which it has its place, the place as drawn, and the baseline."""

    axis: Literal["x", "y"]
    at: float
    value: float
    row: pd.Series


@dataclass(frozen=True, slots=True)
class Content:
    """Single trials, and the means over seeds of each setting (`member`: on the front) and baseline."""

    asked: FrontRequest
    trials: pd.DataFrame
    settings: pd.DataFrame
    baselines: pd.DataFrame
    x: Scale
    y: Scale

    @property
    def axes(self) -> tuple[tuple[Literal["x", "y"], Objective, Scale], ...]:
        """Name, objective and scale of both."""
        return ("x", self.asked.x, self.x), ("y", self.asked.y, self.y)

    @property
    def members(self) -> pd.DataFrame:
        """The front, from left to right."""
        return self.settings.loc[self.settings["member"]].sort_values([self.asked.x.column, self.asked.y.column])

    @property
    def shown(self) -> pd.DataFrame:
        """The means that are drawn: the members; with marks, colours or all means asked for, all."""
        return self.settings if self.asked.mark or self.asked.colour or self.asked.means else self.members

    @property
    def beside(self) -> Mask:
        """Which of them are drawn as points beside the front, shape (rows,)."""
        alone = self.asked.means and not (self.asked.mark or self.asked.colour)
        return ~self.shown["member"].to_numpy(dtype=np.bool_) & alone

    def of_one_seed(self, rows: pd.DataFrame) -> Mask:
        """Which means stand on a single seed while others have several, shape (rows,)."""
        several = self.settings["n_seeds"].max() > 1
        return (rows["n_seeds"] == 1).to_numpy(dtype=np.bool_) & bool(several)

    def at(self, rows: pd.DataFrame) -> tuple[Floats, Floats]:
        """Where rows are drawn, shapes (rows,)."""
        return self.x(numbers(rows, self.asked.x.column)), self.y(numbers(rows, self.asked.y.column))

    def spread(self, rows: pd.DataFrame) -> tuple[Floats, Floats]:
        """The standard deviations of means as drawn, 0 where there is one seed."""
        x, y = (scale(rows[f"{one.column}_std"]) for _, one, scale in self.axes)
        return np.nan_to_num(x), np.nan_to_num(y)


def content_of(df: pd.DataFrame, asked: FrontRequest) -> Content:
    """What there is to draw of a table of trials; which rows take part is as in `pareto.front`.

    Raises:
        TableError: as `pareto.front`; also an absent column, or nothing to draw.

    """
    df, both = in_order(df), (asked.x, asked.y)
    names = [one.column for one in both]
    need(df, [*names, *asked.mark, *(asked.label or ()), *([asked.colour] if asked.colour else [])])
    taking_part = compared(df, Question(both, asked.over, seeds=asked.seeds))
    trials = df.iloc[taking_part.trials]
    if trials.empty:
        msg = f"plot: no complete trial has both {names[0]} and {names[1]} yet; there is nothing to draw"
        raise TableError(msg)
    settings = mean_over_seeds(trials, [*names, *([asked.colour] if asked.colour else [])])
    settings["member"] = False
    members = taking_part.positions[pareto.front_mask(taking_part, None)]
    settings.loc[members, "member"] = True
    x, y = (scale_of(name, numbers(settings, name)) for name in names)
    return Content(asked, trials, settings, _baselines(df, names), x, y)


def _baselines(df: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    if "baseline" not in df.columns:
        return pd.DataFrame(columns=[*names, "baseline"])
    rows = df.loc[equals(df, "role", "baseline") & equals(df, "status", "complete")].dropna(subset=names, how="all")
    return mean_over_seeds(rows, names)


def near_and_far(content: Content) -> tuple[pd.DataFrame, list[Line]]:
    """Baselines among the trials, and those that are lines across because the other coordinate is far off or null."""
    rows = content.baselines
    inside = {axis: _is_near(content, rows, scale, one) for axis, one, scale in content.axes}
    lines: list[Line] = []
    for (axis, one, scale), (other, _, _) in zip(content.axes, reversed(content.axes), strict=True):
        values = [(float(row[one.column]), row) for _, row in rows.loc[inside[axis] & ~inside[other]].iterrows()]
        lines += [Line(axis, float(scale(value)), value, row) for value, row in values]
    return rows.loc[inside["x"] & inside["y"]], _fewer(lines, content)


def _is_near(content: Content, rows: pd.DataFrame, scale: Scale, one: Objective) -> Mask:
    own, others = scale(numbers(rows, one.column)), scale(numbers(content.trials, one.column))
    if decades(content, scale, one):
        own, others = np.log(np.maximum(own, np.finfo(np.float64).tiny)), np.log(others)
    margin = _FAR * (others.max() - others.min()) or _ALIKE * abs(others.max())
    return (own >= others.min() - margin) & (own <= others.max() + margin)


def _fewer(lines: list[Line], content: Content) -> list[Line]:
    """Where there are many, those that drops of accuracy are taken against; if still many, the best of each name."""
    if len(lines) > _MOST_LINES:
        lines = [line for line in lines if line.row["baseline"] == "dense_finetuned"] or lines
    if len(lines) <= _MOST_LINES:
        return lines
    best: dict[tuple[str, str], Line] = {}
    for line in lines:
        one = content.asked.x if line.axis == "x" else content.asked.y
        sign = 1 if one.direction == "max" else -1
        known = best.setdefault((line.axis, str(line.row["baseline"])), line)
        if sign * line.value > sign * known.value:
            best[line.axis, str(line.row["baseline"])] = line
    return list(best.values())


def decades(content: Content, scale: Scale, one: Objective) -> float:
    """Powers of ten between the ends of an axis, 0 where it is linear: fractions always are."""
    values = scale(numbers(content.trials, one.column))
    wide = scale.unit not in ("%", "points") and values.min() > 0 and values.max() >= LOGARITHMIC_FROM * values.min()
    return float(np.log10(values.max() / values.min())) if wide else 0.0


def baseline_words(name: str) -> str:
    """A baseline's name in words."""
    return _BASELINES.get(name, name.replace("_", " "))


def line_words(line: Line, content: Content) -> str:
    """The name of a baseline that is a line, what tells it from its like, and its value."""
    words = baseline_words(str(line.row["baseline"]))
    alike = content.baselines.loc[content.baselines["baseline"] == line.row["baseline"]]
    leaves = [leaf for leaf in (content.asked.mark or varied_leaves(alike)) if alike[leaf].nunique() > 1]
    told = f"{words} ({values_text(line.row, leaves)})" if leaves else words
    return f"{told}, {_scale_of(line, content).text(line.value)}"


def brief_words(lines: Sequence[Line], content: Content) -> str:
    """The names of several lines, each once, with their values."""
    values: dict[str, list[str]] = {}
    for line in lines:
        told = _scale_of(line, content).text(line.value)
        values.setdefault(baseline_words(str(line.row["baseline"])), []).append(told)
    return "; ".join(f"{name}, {', '.join(told)}" for name, told in values.items())


def _scale_of(line: Line, content: Content) -> Scale:
    return content.x if line.axis == "x" else content.y


def values_text(row: pd.Series, leaves: Sequence[str]) -> str:
    """The values of some leaves, apart by strokes."""
    return " / ".join(value_text(row[name]) for name in leaves)
