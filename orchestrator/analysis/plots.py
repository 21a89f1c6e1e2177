"""Learning curves as a figure."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from orchestrator.analysis.curves import By, curve
from orchestrator.analysis.picture_labels import label_ends
from orchestrator.analysis.picture_style import (
    COLOURS,
    DASHES,
    GREY,
    INK,
    LABEL_PT,
    MARKERS,
    MM_PER_INCH,
    NOTE_PT,
    TICK_PT,
    Scale,
    check_file,
    dress,
    new_figure,
    save,
    scale_of,
    set_ticks,
    settled_style,
)
from orchestrator.analysis.points import ALL_LABELS, RANDOM, STRATEGY
from orchestrator.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X_LABELS = {
    "labels": "labelled images",
    "select_s": "time to choose the images (s)",
    "wall_time_s": "time to choose the images and train (s)",
}
BANDS = {"interval": "95 % interval", "std": "standard deviation"}

_MOST_PANELS = 12
_PANEL_MM, _LEGEND_FROM_MM = 40.0, 120.0
_SHORT = 18
"""Characters of a label that may stand at the end of its line."""

_WIDE = 30
"""Times that the largest abscissa holds the smallest from where on the axis is logarithmic."""


@dataclass(frozen=True, slots=True)
class _Style:
    colour: str
    dash: Any = "-"
    marker: str = "o"
    order: float = 3


@dataclass(frozen=True, slots=True)
class _Sheet:
    """What all panels share: the curves, the names of their columns, and the styles by label."""

    table: pd.DataFrame
    by: list[str]
    x: str
    band: str
    scale: Scale
    width_mm: float | None
    styles: dict[str, _Style] = field(default_factory=dict[str, _Style])


def plot(
    df: pd.DataFrame,
    path: str | Path | None = None,
    value: str = "accuracy",
    x: Literal["labels", "select_s", "wall_time_s"] = "labels",
    by: By = None,
    band: Literal["interval", "std"] = "interval",
    width_mm: float | None = None,
) -> "Figure":
    """The learning curves of a table: a colour and a mark for each, random in grey, all labels as a line across.

    Each setting (what differs outside `select`) has a panel of its own. The curves are those of `curves.curve`, the
    legend lists them from the highest end to the lowest. An axis on which values lie far apart is logarithmic. Where
    random labels take less than a hundredth of the time of others, they are a line across at their most labels.

    Args:
        df: trials, as `load` gives them.
        path: where the figure is written; the suffix says how: .svg, .png or .pdf.
        value: a column of numbers; fractions are drawn in percent.
        x: what the curves run along: labels, or mean seconds.
        by: as in `curves.curve`.
        band: what is shaded around the mean: Student's 95 % interval of the mean, or a standard deviation of the seeds
            on each side.
        width_mm: of the figure; None: as wide as its panels need beside a legend. Where there is no room for a legend
            at the right it stands below, and short labels of a single panel stand at the ends of their lines.

    Raises:
        TableError: as `curve`; also an unknown `x`, `band` or suffix, nothing to draw, or more than can be told apart.
        OrchestratorError: matplotlib is not installed, or the file cannot be written.

    """
    _check(x, band, path)
    table = curve(df, value, by)
    if x not in table.columns:
        msg = f"plot: x={x!r} needs the columns {x} and mixed_hosts; load them too"
        raise TableError(msg)
    names = list(table.columns[: list(table.columns).index("labels")])
    scale = scale_of(value, table["mean"].to_numpy())
    sheet = _styled(_Sheet(table, names, x, band, scale, width_mm))
    with settled_style():
        figure = _drawn(sheet, scale.label)
    if path is not None:
        save(figure, Path(path))
    return figure


def _check(x: str, band: str, path: str | Path | None) -> None:
    if x not in X_LABELS:
        msg = f"plot: unknown x {x!r}; valid are {', '.join(X_LABELS)}"
        raise TableError(msg)
    if band not in BANDS:
        msg = f"plot: unknown band {band!r}; valid are {', '.join(BANDS)}"
        raise TableError(msg)
    check_file(path)


def _styled(sheet: _Sheet) -> _Sheet:
    """A style for each label that occurs, the same in all panels."""
    table, names = sheet.table, [_label(row, sheet.by) for _, row in sheet.table.iterrows()]
    lines = [
        name for name, strategy in zip(names, table[STRATEGY], strict=True) if strategy not in (RANDOM, ALL_LABELS)
    ]
    different = list(dict.fromkeys(lines))
    most = len(COLOURS) * len(DASHES)
    if len(different) > most:
        msg = f"plot: {len(different)} curves cannot be told apart, at most {most}; draw fewer rows of the table"
        raise TableError(msg)
    for i, name in enumerate(different):
        dash, colour = divmod(i, len(COLOURS))
        sheet.styles[name] = _Style(COLOURS[colour], DASHES[dash], MARKERS[colour])
    chance = dict.fromkeys(name for name, strategy in zip(names, table[STRATEGY], strict=True) if strategy == RANDOM)
    for i, name in enumerate(chance):
        sheet.styles[name] = _Style(GREY, DASHES[i % len(DASHES)], "o", order=2)
    return sheet


def _label(row: pd.Series, by: Sequence[str]) -> str:
    """`least confidence, proxy resnet8, no replay ratio`; random labels have no leaves where those are null."""
    leaves = [name for name in by if name.startswith("select.") and name != STRATEGY]
    chance = row[STRATEGY] in (RANDOM, ALL_LABELS)
    parts = [_leaf(name, row[name]) for name in leaves if not (chance and pd.isna(row[name]))]
    return ", ".join([_words(str(row[STRATEGY])), *parts])


def _leaf(name: str, value: object) -> str:
    leaf = _words(name.rpartition(".")[2])
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return f"no {leaf}"
    return f"{leaf} {value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else f"{leaf} {value}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _drawn(sheet: _Sheet, y_label: str) -> "Figure":
    panels = list(_panels(sheet))
    columns, lines, figure = _laid_out(len(panels), sheet.width_mm)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    handles: dict[str, tuple[float, Any]] = {}
    for axes, (title, rows) in zip(grid, panels, strict=False):
        axes.set_title(title, fontsize=LABEL_PT, color=INK)
        for name, height, handle in _draw_panel(axes, rows, sheet):
            handles.setdefault(name, (height, handle))
    for axes in grid[len(panels) :]:
        axes.remove()
    shown = list(grid[: len(panels)])
    _dress(shown, sheet)
    for axes in shown[::columns]:
        axes.set_ylabel(y_label, fontsize=LABEL_PT, color=INK)
    for axes in shown[-columns:]:
        axes.set_xlabel(X_LABELS[sheet.x], fontsize=LABEL_PT, color=INK)
        axes.tick_params(labelbottom=True)
    if _is_narrow(sheet.width_mm) and len(panels) == 1 and max(map(len, handles)) <= _SHORT:
        _label_lines(shown[0], handles, sheet)
    else:
        _legend(figure, handles, sheet)
    return figure


def _laid_out(panels: int, width_mm: float | None) -> tuple[int, int, "Figure"]:
    """Columns and lines of panels, and the figure for them."""
    columns = 2 if panels == 4 else min(panels, 3)
    if width_mm is not None:
        columns = max(1, min(columns, int(width_mm / _PANEL_MM)))
    lines = math.ceil(panels / columns)
    size = (6.6, 3.8) if panels == 1 else (1.9 + 2.7 * columns, 0.5 + 2.5 * lines)
    wide, high = size[0] * MM_PER_INCH, size[1] * MM_PER_INCH
    if width_mm is None:
        return columns, lines, new_figure(wide, high)
    beside = 0.74 if _is_narrow(width_mm) else 0.62
    return columns, lines, new_figure(width_mm, 12 + beside * lines * width_mm / columns)


def _is_narrow(width_mm: float | None) -> bool:
    """Whether a legend at the right would leave no room for the panels."""
    return width_mm is not None and width_mm < _LEGEND_FROM_MM


def _panels(sheet: _Sheet) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and curves of each setting."""
    outside = [name for name in sheet.by if not name.startswith("select.")]
    if sheet.table.empty:
        msg = "plot: no row of a curve is complete yet; there is nothing to draw"
        raise TableError(msg)
    if sheet.table[sheet.x].notna().sum() == 0:
        msg = f"plot: no row has a {sheet.x} that compares with the others"
        raise TableError(msg)
    if not outside:
        yield "", sheet.table
        return
    groups = list(sheet.table.groupby(outside, dropna=False))
    if len(groups) > _MOST_PANELS:
        msg = (
            f"plot: {len(groups)} settings of {', '.join(outside)}, at most {_MOST_PANELS} fit into a figure; "
            "draw fewer rows of the table"
        )
        raise TableError(msg)
    for _, rows in groups:
        yield ", ".join(_leaf(name, rows[name].iloc[0]) for name in outside), rows


def _draw_panel(axes: "Axes", rows: pd.DataFrame, sheet: _Sheet) -> Iterator[tuple[str, float, Any]]:
    """Label, last height and handle of each line that was drawn."""
    for _, own in rows.groupby([_label(row, sheet.by) for _, row in rows.iterrows()], sort=False):
        name, strategy = _label(own.iloc[0], sheet.by), str(own[STRATEGY].iloc[0])
        heights = sheet.scale(own["mean"])
        if strategy == ALL_LABELS:
            yield name, heights[-1], axes.axhline(heights[-1], color=INK, linewidth=1, linestyle=(0, (5, 2)), zorder=1)
        elif strategy == RANDOM and _is_free(rows, sheet.x):
            label = f"{name}, {own['labels'].iloc[-1]:,} labels"
            yield label, heights[-1], axes.axhline(heights[-1], color=GREY, linewidth=1.2, zorder=1)
        elif own[sheet.x].notna().any():
            yield name, heights[-1], _draw_curve(axes, own, sheet, sheet.styles[name])


def _is_free(rows: pd.DataFrame, x: str) -> bool:
    chance = rows[STRATEGY] == RANDOM
    others = rows.loc[~chance & (rows[STRATEGY] != ALL_LABELS), x]
    return x == "select_s" and bool(rows.loc[chance, x].max() < others.max() / 100)


def _draw_curve(axes: "Axes", own: pd.DataFrame, sheet: _Sheet, style: _Style) -> Any:
    own = own.loc[own[sheet.x].notna()].sort_values(sheet.x)
    at, mean = own[sheet.x].to_numpy(dtype=np.float64), sheet.scale(own["mean"])
    low, high = _edges(own, sheet)
    axes.fill_between(at, low, high, color=style.colour, alpha=0.14, linewidth=0, zorder=style.order - 1)
    (line,) = axes.plot(
        at, mean, color=style.colour, linestyle=style.dash, linewidth=1.5, marker=style.marker, markersize=4,
        markeredgecolor="white", markeredgewidth=0.5, zorder=style.order,
    )  # fmt: skip
    return line


def _edges(own: pd.DataFrame, sheet: _Sheet) -> tuple[Any, Any]:
    low, high = own["low"], own["high"]
    if sheet.band == "std":
        low, high = own["mean"] - own["std"], own["mean"] + own["std"]
    return sheet.scale.within(sheet.scale(low)), sheet.scale.within(sheet.scale(high))


def _dress(panels: Sequence["Axes"], sheet: _Sheet) -> None:
    """Limits, ticks and grid. The means and a spread around them are in view; a wide interval is cut off."""
    low, high = _heights(sheet)
    margin = 0.05 * (high - low) or 1.0
    decades = _decades(sheet)
    for axes in panels:
        axes.set_ylim(low - margin, high + margin)
        set_ticks(axes.xaxis, decades)
        dress(axes)


def _heights(sheet: _Sheet) -> tuple[float, float]:
    spread = sheet.table["std"].fillna(0)
    low, high = (sheet.table["mean"] - spread).min(), (sheet.table["mean"] + spread).max()
    bottom, top = sheet.scale.within(sheet.scale([low, high]))
    return float(bottom), float(top)


def _decades(sheet: _Sheet) -> float:
    """Powers of ten between the ends of the curves, 0 where the axis is linear."""
    free = (sheet.table[STRATEGY] == RANDOM) & _is_free(sheet.table, sheet.x)
    at = sheet.table.loc[~free & (sheet.table[STRATEGY] != ALL_LABELS), sheet.x].dropna()
    wide = at.min() > 0 and at.max() >= _WIDE * at.min()
    return math.log10(at.max() / at.min()) if wide else 0.0


def _label_lines(axes: "Axes", handles: dict[str, tuple[float, Any]], sheet: _Sheet) -> None:
    axes.set_title(_caption(sheet).replace("\n", " "), fontsize=NOTE_PT, color=GREY, loc="left", pad=3)
    ends: list[tuple[float, float, str, str]] = []
    for name, (height, line) in handles.items():
        across = len(line.get_xdata()) == 2 and line.get_transform() != axes.transData
        end = axes.get_xlim()[1] if across else float(line.get_xdata()[-1])
        ends.append((end, height, name, line.get_color()))
    label_ends(axes, ends)


def _legend(figure: "Figure", handles: dict[str, tuple[float, Any]], sheet: _Sheet) -> None:
    ordered = sorted(handles.items(), key=lambda item: -item[1][0])
    narrow = _is_narrow(sheet.width_mm)
    caption = _caption(sheet).replace("\n", " ") if narrow else _caption(sheet)
    legend = figure.legend(
        [handle for _, (_, handle) in ordered], [_wrapped(name) for name, _ in ordered],
        loc="outside lower left" if narrow else "outside right upper", ncols=2 if narrow else 1, frameon=False,
        fontsize=TICK_PT, labelcolor=INK, handlelength=2.4, title=caption, title_fontsize=NOTE_PT, alignment="left",
    )  # fmt: skip
    legend.get_title().set_color(GREY)


def _wrapped(label: str) -> str:
    """Lines broken between the leaves."""
    unbroken = label.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return textwrap.fill(unbroken, 30, break_long_words=False)


def _caption(sheet: _Sheet) -> str:
    fewest, most = int(sheet.table["n"].min()), int(sheet.table["n"].max())
    if most == 1:
        return "one seed"
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    return f"mean of {seeds},\nshaded: {BANDS[sheet.band]}"
