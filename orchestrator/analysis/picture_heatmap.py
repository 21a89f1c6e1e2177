"""Two axes of a study against each other: the mean of a column over all else, as colour and as a number."""

import itertools
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from orchestrator.analysis.bins import places
from orchestrator.analysis.picture_style import (
    COLOUR_MAP,
    COLUMN_MM,
    INK,
    LABEL_PT,
    NOTE_PT,
    TICK_PT,
    Scale,
    check_file,
    letters_across,
    name_axes,
    new_figure,
    save,
    scale_of,
    settled_style,
    words_of,
)
from orchestrator.analysis.repeats import cell_numbers
from orchestrator.analysis.rows import Floats, commonest_place, equals, need, numbers
from orchestrator.analysis.settings import in_order, varied_leaves
from orchestrator.analysis.tables import COLUMNS, is_config_column, timed_by
from orchestrator.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_CELL_MM = 5.5
_SIDES_MM, _ENDS_MM = 30.0, 16.0
"""What axis labels and the bar of colours take of a figure's width and height."""

_MOST_ROWS = 12
_LINE_MM = 3.5
"""Height of a further line above the cells."""

_GAP_PX = 3.0
"""Between the labels of neighbouring columns."""

_SMALLEST_PT = 4.5
_DIGIT_SHARE = 0.62
"""Width of a digit as a share of the font's size (DejaVu Sans)."""

_DARK_BELOW = 0.5
"""Luminance of a cell under which its number is white."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """Means and counts, shape (places of y, places of x); what is written at the places; the leaves in bins."""

    means: Floats
    counts: Floats
    xs: list[str]
    ys: list[str]
    binned: list[str]


def heatmap_picture(
    df: pd.DataFrame,
    path: str | Path | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    value: str = "accuracy",
    width_mm: float = COLUMN_MM,
) -> "Figure":
    """The mean of `value` over the complete cells of the grid that agree in two leaves, whatever else differs.

    The seeds of a setting are averaged first, so that one with more of them weighs no more.
    The best mean is framed where the column has a better direction. A pair of values without a complete cell is empty.
    A leaf with more numbers than fit, as a sampled one has, is put into at most eight bins. Times count only where they
    were taken where most of them were.

    Args:
        df: trials, as `load` gives them.
        path: where the picture is written; the suffix says how: .svg, .png or .pdf.
        x: leaf along the abscissa; None: of the leaves that vary the first that is not `y`.
        y: leaf along the ordinate; None: as for `x`.
        value: a column of numbers.
        width_mm: of the picture.

    Raises:
        TableError: an absent column, a leaf as `value`, fewer than two leaves that vary, nothing to draw, or more
            values than fit.
        OrchestratorError: matplotlib is not installed, or the file cannot be written.

    """
    check_file(path)
    rows = _complete(in_order(df), value)
    x, y = _leaves(rows, x, y)
    grid = _grid(rows, x, y, value, max(1, int((width_mm - _SIDES_MM) / _CELL_MM)))
    scale = scale_of(value, grid.means.ravel())
    title = textwrap.wrap(f"{scale.label}, {_caption(grid)}", int(letters_across(width_mm) * NOTE_PT / LABEL_PT))
    with settled_style():
        figure = new_figure(width_mm, _height(grid, width_mm) + _LINE_MM * (len(title) - 1))
        _draw(figure, grid, scale, (x, y), title, value)
    if path is not None:
        save(figure, Path(path))
    return figure


def _complete(df: pd.DataFrame, value: str) -> pd.DataFrame:
    need(df, ["role", "status", value])
    if is_config_column(value):
        known = [name for name, column in COLUMNS.items() if column.direction and name in df and df[name].notna().any()]
        msg = f"plot: {value} is a setting, which a heat map takes as x or y; value columns are {', '.join(known)}"
        raise TableError(msg)
    keep = equals(df, "role", "cell") & equals(df, "status", "complete") & ~np.isnan(numbers(df, value))
    clock = timed_by(value)
    if clock == timed_by("wall_time_s"):
        keep = keep & ~equals(df, "mixed_hosts", True)
    rows = df.loc[keep & commonest_place(df, keep, clock)]
    if rows.empty:
        msg = f"plot: no complete cell has a {value} yet; there is nothing to draw"
        raise TableError(msg)
    return rows


def _leaves(rows: pd.DataFrame, x: str | None, y: str | None) -> tuple[str, str]:
    need(rows, [name for name in (x, y) if name is not None])
    others = [name for name in varied_leaves(rows) if name not in (x, y)]
    if len(others) < (x is None) + (y is None):
        msg = "plot: a heat map needs two leaves that vary among the cells; name them with --x and --y"
        raise TableError(msg)
    found = x or others.pop(0), y or others.pop(0)
    if found[0] == found[1]:
        msg = f"plot: x and y are both {x}; a heat map needs two leaves"
        raise TableError(msg)
    return found


def _grid(rows: pd.DataFrame, x: str, y: str, value: str, most: int) -> _Grid:
    along, up = places(rows[x], most), places(rows[y], _MOST_ROWS)
    if not along.labels or not up.labels:
        msg = f"plot: no complete cell has a value of {y if along.labels else x}, so there is no grid to draw"
        raise TableError(msg)
    table = pd.DataFrame({"x": along.codes, "y": up.codes, "value": numbers(rows, value)})
    # A setting counts once, however many seeds it has.
    settings = table.assign(setting=cell_numbers(rows) if "seed" in rows.columns else range(len(rows)))
    means = settings.groupby("setting").agg({"y": "first", "x": "first", "value": "mean"})
    groups, trials = (one.groupby(["y", "x"])["value"] for one in (means, table))
    size = len(up.labels), len(along.labels)
    shape = pd.MultiIndex.from_product([range(size[0]), range(size[1])], names=["y", "x"])
    means, counts = (
        np.asarray(found.reindex(shape), dtype=np.float64).reshape(size) for found in (groups.mean(), trials.count())
    )
    binned = [name for name, axis in ((x, along), (y, up)) if axis.binned]
    return _Grid(means, counts, along.labels, up.labels, binned)


def _height(grid: _Grid, width_mm: float) -> float:
    side = (width_mm - _SIDES_MM) / len(grid.xs)
    return _ENDS_MM + len(grid.ys) * min(max(0.6 * side, _CELL_MM), 14.0)


def _draw(figure: "Figure", grid: _Grid, scale: Scale, leaves: tuple[str, str], title: list[str], value: str) -> None:
    axes = figure.add_subplot()
    image = axes.imshow(scale(grid.means), cmap=COLOUR_MAP, aspect="auto", origin="lower")
    axes.set_xticks(range(len(grid.xs)), grid.xs)
    axes.set_yticks(range(len(grid.ys)), grid.ys)
    axes.tick_params(labelsize=TICK_PT, colors=INK, length=0)
    axes.spines[:].set_visible(False)
    name_axes(axes, *map(words_of, leaves))
    axes.set_title("\n".join(title), fontsize=LABEL_PT, color=INK, loc="left", pad=4)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=20)
    bar.ax.tick_params(labelsize=TICK_PT, colors=INK, length=2, width=0.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    _turn_labels(figure, axes)
    _make_room(figure, axes)
    _write_values(axes, image, scale(grid.means), _decimals(scale(grid.means), 1 if scale.unit == "%" else 0))
    _frame_best(axes, grid.means, value)


def _caption(grid: _Grid) -> str:
    counts = grid.counts[grid.counts > 0]
    fewest, most = int(counts.min()), int(counts.max())
    told = f"means of {most} trials" if fewest == most else f"means of {fewest} to {most} trials"
    binned = f"; {' and '.join(map(words_of, grid.binned))} binned" if grid.binned else ""
    return ("single trials" if most == 1 else told) + binned


def _turn_labels(figure: "Figure", axes: "Axes") -> None:
    """Upright where labels of neighbouring columns would touch; the figure grows by their length."""
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    if all(left.x1 + _GAP_PX <= right.x0 for left, right in itertools.pairwise(boxes)):
        return
    axes.tick_params(axis="x", labelrotation=90)
    longer = max(box.width - box.height for box in boxes)
    figure.set_figheight(figure.get_figheight() + longer / figure.dpi)


def _make_room(figure: "Figure", axes: "Axes") -> None:
    """Let the figure grow where the name of the ordinate is longer than few rows are high."""
    figure.draw_without_rendering()
    box = axes.yaxis.label.get_window_extent()
    beyond = max(-box.y0, box.y1 - figure.bbox.height)
    if beyond > 0:
        figure.set_figheight(figure.get_figheight() + 2 * beyond / figure.dpi + 0.04)


def _write_values(axes: "Axes", image: "AxesImage", means: Floats, decimals: int) -> None:
    """Every mean in its cell, in digits that tell the cells apart, as large as the cells allow."""
    words = [[f"{mean:,.{decimals}f}" if np.isfinite(mean) else "" for mean in line] for line in means]
    size = min(TICK_PT, _size_that_fits(axes, max(len(word) for line in words for word in line), means.shape))
    if size < _SMALLEST_PT:
        size_told = f"{means.shape[1]} x {means.shape[0]}"
        msg = f"plot: {size_told} numbers do not fit into the picture; draw fewer values, or --width 180"
        raise TableError(msg)
    colours = np.asarray(image.to_rgba(means), dtype=np.float64)
    for row, line in enumerate(words):
        for column, word in enumerate(line):
            ink = "white" if _luminance(colours[row, column]) < _DARK_BELOW else INK
            axes.text(column, row, word, ha="center", va="center", fontsize=size, color=ink)


def _size_that_fits(axes: "Axes", digits: int, shape: tuple[int, ...]) -> float:
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()
    box = axes.get_window_extent()
    wide, high = box.width / shape[1], box.height / shape[0]
    points = 72 / axes.figure.dpi
    return min(0.92 * wide * points / (digits * _DIGIT_SHARE), 0.75 * high * points)


def _decimals(means: Floats, least: int) -> int:
    """A tenth to a hundredth of the range shows; whole numbers from a thousand on."""
    finite = means[np.isfinite(means)]
    spread = float(finite.max() - finite.min()) or abs(float(finite.max())) or 1.0
    return int(np.clip(np.ceil(-np.log10(spread / 100)) - 1, least, 4)) if np.abs(finite).max() < 1000 else 0


def _luminance(colour: Floats) -> float:
    """Relative luminance of an sRGB colour, shape (4,), in [0, 1] (ITU-R BT.709 weights; gamma left out)."""
    return float(np.asarray(colour)[:3] @ np.array([0.2126, 0.7152, 0.0722]))


def _frame_best(axes: "Axes", means: Floats, value: str) -> None:
    direction = COLUMNS[value].direction if value in COLUMNS else None
    if direction is None:
        return
    from matplotlib.patches import Rectangle

    best = int(np.nanargmax(means) if direction == "max" else np.nanargmin(means))
    row, column = np.unravel_index(best, means.shape)
    axes.add_patch(
        Rectangle((float(column) - 0.47, float(row) - 0.45), 0.94, 0.9, fill=False, edgecolor="#D55E00", linewidth=1.2)
    )
