"""Training as it went: a column of `_history.parquet` by epoch, through training and compression."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from orchestrator.analysis import pareto
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.picture_front_parts import values_text
from orchestrator.analysis.picture_labels import label_ends
from orchestrator.analysis.picture_style import (
    COLOURS,
    COLUMN_MM,
    DASHES,
    GREY,
    NOTE_PT,
    Scale,
    caption,
    check_file,
    dress,
    name_axes,
    new_figure,
    save,
    scale_of,
    set_ticks,
    settled_style,
    words_of,
)
from orchestrator.analysis.rows import equals, need, numbers
from orchestrator.analysis.settings import in_order, varied_leaves
from orchestrator.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PHASES = ("train", "compress")


@dataclass(frozen=True, slots=True)
class _Histories:
    """`lines`: setting, epoch, mean and std over seeds; `words` of each setting; those `told`, best first."""

    lines: pd.DataFrame
    words: dict[int, str]
    told: list[int]
    leaves: list[str]
    begins: float | None
    seeds: int


def history_picture(
    df: pd.DataFrame,
    history: pd.DataFrame,
    path: str | Path | None = None,
    *,
    objectives: Sequence[Objective],
    y: str = "val_accuracy",
    width_mm: float = COLUMN_MM,
) -> "Figure":
    """The mean of `y` over the seeds of each setting by epoch; compression goes on counting where training ended.

    The settings on the front of `objectives`, at most six of them and spread along it, are coloured and named, with one
    standard deviation shaded; the others are grey. Where there are no more than six settings, all are named.

    Args:
        df: trials, as `load` gives them.
        history: `_history.parquet`.
        path: where the picture is written; the suffix says how: .svg, .png or .pdf.
        objectives: whose front is named.
        y: a column of the history.
        width_mm: of the picture.

    Raises:
        TableError: an absent column, or no epoch with a value.
        OrchestratorError: matplotlib is not installed, or the file cannot be written.

    """
    check_file(path)
    found = _histories(in_order(df), history, y, objectives)
    scale = scale_of(y, found.lines["mean"].to_numpy())
    with settled_style():
        figure = new_figure(width_mm, 0.66 * width_mm if width_mm <= 1.3 * COLUMN_MM else 0.5 * width_mm)
        _draw(figure.add_subplot(), found, scale, width_mm)
    if path is not None:
        save(figure, Path(path))
    return figure


def _histories(df: pd.DataFrame, history: pd.DataFrame, y: str, objectives: Sequence[Objective]) -> _Histories:
    need(df, ["role", "status", "seed", *(f"stage_keys.{kind}" for kind in _PHASES)])
    need(history, ["key", "epoch", y])
    cells = df.loc[equals(df, "role", "cell") & equals(df, "status", "complete")]
    leaves = varied_leaves(cells)
    numbered = cells.assign(_setting=_setting_numbers(cells, leaves))
    epochs, begins = _by_epoch(numbered, history.dropna(subset=["epoch"]), y)
    if epochs.empty:
        msg = f"plot: no epoch of a complete trial has a {y} yet; there is nothing to draw"
        raise TableError(msg)
    groups = epochs.groupby(["_setting", "epoch"])["value"]
    lines = pd.DataFrame({"mean": groups.mean(), "std": groups.std().fillna(0.0)}).reset_index()
    firsts = numbered.drop_duplicates("_setting").set_index("_setting")
    words = {int(number): values_text(row, leaves) for number, row in firsts.iterrows()}  # pyright: ignore[reportArgumentType]
    told = _told(numbered, objectives)
    return _Histories(lines, words, told, leaves, begins, int(cells["seed"].nunique()))


def _setting_numbers(cells: pd.DataFrame, leaves: Sequence[str]) -> np.ndarray:
    if not leaves:
        return np.zeros(len(cells), dtype=np.int64)
    return cells.groupby(list(leaves), dropna=False, sort=True).ngroup().to_numpy()


def _by_epoch(cells: pd.DataFrame, history: pd.DataFrame, y: str) -> tuple[pd.DataFrame, float | None]:
    """Setting, seed, epoch and value of all trials; and after which epoch compression begins, if after one for all."""
    values = pd.DataFrame({"key": history["key"], "epoch": numbers(history, "epoch"), "value": numbers(history, y)})
    last = values.groupby("key")["epoch"].max()
    train = cells[["_setting", "seed", "stage_keys.train"]].set_axis(["_setting", "seed", "key"], axis=1)
    compress = cells[["_setting", "seed", "stage_keys.compress"]].set_axis(["_setting", "seed", "key"], axis=1)
    before = cells["stage_keys.train"].map(last).fillna(0.0)
    second = compress.assign(before=before).merge(values, on="key")
    second["epoch"] += second.pop("before")
    rows = pd.concat([train.merge(values, on="key"), second]).dropna(subset=["value"])
    ends = before.unique()
    return rows, float(ends[0]) if len(ends) == 1 and len(second) and ends[0] > 0 else None


def _told(cells: pd.DataFrame, objectives: Sequence[Objective]) -> list[int]:
    """The settings to be named: all where they are few, else of the front's some from its one end to the other."""
    if cells["_setting"].nunique() <= len(COLOURS):
        return sorted(set(cells["_setting"]))
    first = objectives[0]
    means = cells.groupby("_setting")[[one.column for one in objectives]].mean().dropna()
    front = pareto.front(means, objectives, role=None).sort_values(first.column, ascending=first.direction == "min")
    kept = np.unique(np.linspace(0, len(front) - 1, min(len(COLOURS), len(front))).round().astype(int))
    return [int(number) for number in front.index[kept]]


def _draw(axes: "Axes", found: _Histories, scale: Scale, width_mm: float) -> None:
    dress(axes)
    name_axes(axes, "epoch", scale.label)
    ends: list[tuple[float, float, str, str]] = []
    for number, line in found.lines.groupby("_setting"):
        at, mean, std = line["epoch"].to_numpy(), scale(line["mean"]), scale(line["std"])
        if number not in found.told:
            axes.plot(at, mean, color=GREY, linewidth=0.4, alpha=0.5, zorder=1)
            continue
        place = found.told.index(int(number))  # pyright: ignore[reportArgumentType]
        colour, dash = COLOURS[place], DASHES[place % len(DASHES)]
        axes.fill_between(
            at, scale.within(mean - std), scale.within(mean + std), color=colour, alpha=0.14, linewidth=0, zorder=2
        )
        axes.plot(at, mean, color=colour, linestyle=dash, linewidth=1.1, zorder=3)
        ends.append((float(at[-1]), float(mean[-1]), found.words[int(number)], colour))  # pyright: ignore[reportArgumentType]
    set_ticks(axes.xaxis, 0.0, whole=True)
    set_ticks(axes.yaxis, 0.0)
    first, last = float(found.lines["epoch"].min()), float(found.lines["epoch"].max())
    axes.set_xlim((first, last) if first < last else (first - 0.5, last + 0.5))
    caption(axes, _caption(found), width_mm)
    _mark_compression(axes, found)
    if found.leaves:
        label_ends(axes, ends)


def _mark_compression(axes: "Axes", found: _Histories) -> None:
    if found.begins is None:
        return
    axes.axvline(found.begins, color=GREY, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1.5)
    axes.annotate("compression", (found.begins, 0.02), xycoords=("data", "axes fraction"), xytext=(2, 0),
                  textcoords="offset points", fontsize=NOTE_PT, color=GREY, gid="label")  # fmt: skip


def _caption(found: _Histories) -> str:
    parts = [f"beside lines: {' / '.join(map(words_of, found.leaves))}"] if found.leaves else []
    if others := len(found.words) - len(found.told):
        parts.append(f"grey: {others} not on the front, or between")
    if found.seeds > 1:
        parts.append(f"shaded: s.d. of {found.seeds} seeds")
    return "; ".join(parts)
