"""Two axes of a study against each other: the mean of a column over all else, as colour and as a number."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from orchestrator.analysis.picture_style import (
    COLOUR_MAP,
    COLUMN_MM,
    INK,
    LABEL_PT,
    TICK_PT,
    Scale,
    check_file,
    name_axes,
    new_figure,
    save,
    scale_of,
    settled_style,
    value_text,
    words_of,
)
from orchestrator.analysis.rows import Floats, commonest_place, equals, hashable, need, numbers
from orchestrator.analysis.settings import in_order, varied_leaves
from orchestrator.analysis.tables import COLUMNS, timed_by
from orchestrator.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_CELL_MM = 5.5
_SIDES_MM, _ENDS_MM = 30.0, 16.0
"""What axis labels and the bar of colours take of a figure's width and height."""

_SMALLEST_PT = 4.5
_DIGIT_SHARE = 0.62
"""Width of a digit as a share of the font's size (DejaVu Sans)."""

_DARK_BELOW = 0.5
"""Luminance of a cell under which its number is white."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """Means and counts, shape (values of y, values of x)."""

    means: Floats
    counts: Floats
    xs: list[object]
    ys: list[object]


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

    The best mean is framed where the column has a better direction. A pair of values without a complete cell is empty.
    Times count only where they were taken where most of them were.

    Args:
        df: trials, as `load` gives them.
        path: where the picture is written; the suffix says how: .svg, .png or .pdf.
        x: leaf along the abscissa; None: of the leaves that vary the first that is not `y`.
        y: leaf along the ordinate; None: as for `x`.
        value: a column of numbers.
        width_mm: of the picture.

    Raises:
        TableError: an absent column, fewer than two leaves that vary, nothing to draw, or more values than fit.
        OrchestratorError: matplotlib is not installed, or the file cannot be written.

    """
    check_file(path)
    rows = _complete(in_order(df), value)
    x, y = _leaves(rows, x, y)
    grid = _grid(rows, x, y, value)
    scale = scale_of(value, grid.means.ravel())
    with settled_style():
        figure = new_figure(width_mm, _height(grid, width_mm))
        _draw(figure, grid, scale, (x, y), value)
    if path is not None:
        save(figure, Path(path))
    return figure


def _complete(df: pd.DataFrame, value: str) -> pd.DataFrame:
    need(df, ["role", "status", value])
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


def _grid(rows: pd.DataFrame, x: str, y: str, value: str) -> _Grid:
    table = pd.DataFrame({"x": hashable(rows[x]), "y": hashable(rows[y]), "value": numbers(rows, value)})
    xs, ys = (sorted(table[name].dropna().unique().tolist(), key=_order) for name in ("x", "y"))
    if not xs or not ys:
        msg = f"plot: no complete cell has a value of {x if not xs else y}, so there is no grid to draw"
        raise TableError(msg)
    groups = table.groupby(["y", "x"])["value"]
    shape = pd.MultiIndex.from_product([ys, xs], names=["y", "x"])
    means, counts = (
        np.asarray(found.reindex(shape), dtype=np.float64).reshape(len(ys), len(xs))
        for found in (groups.mean(), groups.count())
    )
    return _Grid(means, counts, xs, ys)


def _order(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _height(grid: _Grid, width_mm: float) -> float:
    side = (width_mm - _SIDES_MM) / len(grid.xs)
    return _ENDS_MM + len(grid.ys) * min(max(0.6 * side, _CELL_MM), 14.0)


def _draw(figure: "Figure", grid: _Grid, scale: Scale, leaves: tuple[str, str], value: str) -> None:
    axes = figure.add_subplot()
    image = axes.imshow(scale(grid.means), cmap=COLOUR_MAP, aspect="auto", origin="lower")
    axes.set_xticks(range(len(grid.xs)), [value_text(one) for one in grid.xs])
    axes.set_yticks(range(len(grid.ys)), [value_text(one) for one in grid.ys])
    axes.tick_params(labelsize=TICK_PT, colors=INK, length=0)
    axes.spines[:].set_visible(False)
    name_axes(axes, *map(words_of, leaves))
    axes.set_title(f"{scale.label}, {_caption(grid)}", fontsize=LABEL_PT, color=INK, loc="left", pad=4)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=20)
    bar.ax.tick_params(labelsize=TICK_PT, colors=INK, length=2, width=0.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    _write_values(axes, image, scale(grid.means), _decimals(scale(grid.means), 1 if scale.unit == "%" else 0))
    _frame_best(axes, grid.means, value)


def _caption(grid: _Grid) -> str:
    counts = grid.counts[grid.counts > 0]
    fewest, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "single trials"
    return f"means of {most} trials" if fewest == most else f"means of {fewest} to {most} trials"


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
