"""The front of two objectives as a picture: every trial faint, the front as a staircase, baselines beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.picture_front_parts import (
    LOGARITHMIC_FROM,
    Content,
    FrontRequest,
    Line,
    baseline_words,
    brief_words,
    content_of,
    decades,
    line_words,
    near_and_far,
    values_text,
)
from orchestrator.analysis.picture_labels import Label, boxes_along, boxes_around, place_labels, settle
from orchestrator.analysis.picture_style import (
    COLOUR_MAP,
    COLOURS,
    COLUMN_MM,
    GREY,
    INK,
    LABEL_PT,
    MARKERS,
    NOTE_PT,
    TICK_PT,
    caption,
    check_file,
    dress,
    letters_across,
    name_axes,
    new_figure,
    save,
    scale_of,
    set_ticks,
    settled_style,
    words_of,
)
from orchestrator.analysis.rows import Floats, numbers
from orchestrator.analysis.settings import varied_leaves
from orchestrator.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RASTER_FROM = 2000
"""So many faint points are pixels in a PDF or SVG, which would otherwise be slow to open."""

_POINTS_ALONG = 9
"""Places along a line across at which its words may stand."""


def front_picture(df: pd.DataFrame, asked: FrontRequest, path: str | Path | None = None) -> "Figure":
    """Two objectives against each other.

    Single trials are faint dots; the members of the front, as means over the seeds with bars of one standard deviation,
    are joined by a staircase, since nothing is known to be reachable between two of them. A baseline is an open
    diamond, or a dotted line where its other coordinate is far outside. Which rows take part is as in `pareto.front`.
    A label that has no room is left out.

    Raises:
        TableError: as `pareto.front`; also nothing to draw, or more marks than can be told apart.
        OrchestratorError: matplotlib is not installed, or the file cannot be written.

    """
    check_file(path)
    if asked.x.column == asked.y.column:
        msg = f"plot: x and y are both {asked.x.column}; a front needs two objectives"
        raise TableError(msg)
    content = content_of(df, asked)
    with settled_style():
        figure = new_figure(asked.width_mm, asked.width_mm * (0.74 if _is_narrow(asked) else 0.58))
        _draw(figure, content)
    if path is not None:
        save(figure, Path(path))
    return figure


def _is_narrow(asked: FrontRequest) -> bool:
    return asked.width_mm <= 1.3 * COLUMN_MM


def _draw(figure: "Figure", content: Content) -> None:
    axes = figure.add_subplot()
    dress(axes)
    name_axes(axes, content.x.label, content.y.label)
    near, lines = near_and_far(content)
    _set_limits(axes, content, near, lines)
    _draw_trials(axes, content)
    corners = staircase(*content.at(content.members), content.asked.x)
    axes.plot(*corners, color=INK, linewidth=0.9, zorder=3, scalex=False, scaley=False)
    marks = _draw_means(figure, axes, content)
    axes.scatter(*content.at(near), s=34, marker="D", facecolors="none", edgecolors=INK, linewidths=0.7, zorder=4)
    for line in lines:
        draw = axes.axvline if line.axis == "x" else axes.axhline
        draw(line.at, color=GREY, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1.5)
    leaves = _label_leaves(content)
    if leaves:
        caption(axes, f"beside points: {' / '.join(map(words_of, leaves))}", content.asked.width_mm)
    _draw_legend(figure, content, marks, has_baselines=len(near) > 0)
    _write_labels(axes, content, (near, lines), corners, leaves)


def staircase(xs: Floats, ys: Floats, x: Objective) -> tuple[Floats, Floats]:
    """Corners of the line between what the members of a front, in order of x, reach and what nobody does.

    Where x is to be small, a member's y holds until the next one to its right; where x is to be large, from the one to
    its left on. The direction of y changes nothing: along a front a better x goes with a worse y.

    Args:
        xs: abscissae in ascending order, shape (members,).
        ys: ordinates, shape (members,).
        x: the objective along the abscissa.

    Returns:
        Abscissae and ordinates, each of shape (2 members - 1,).

    """
    corner_x, corner_y = (xs[1:], ys[:-1]) if x.direction == "min" else (xs[:-1], ys[1:])
    line_x, line_y = np.empty(2 * len(xs) - 1), np.empty(2 * len(xs) - 1)
    line_x[::2], line_y[::2] = xs, ys
    line_x[1::2], line_y[1::2] = corner_x, corner_y
    return line_x, line_y


def _set_limits(axes: "Axes", content: Content, near: pd.DataFrame, lines: Sequence[Line]) -> None:
    """Everything that is drawn is in view, with room at the edges for words."""
    spreads = content.spread(content.shown)
    for (axis, one, scale), means, spread in zip(content.axes, content.at(content.shown), spreads, strict=True):
        single = [scale(numbers(rows, one.column)) for rows in (content.trials, near)]
        across = [line.at for line in lines if line.axis == axis]
        values = np.concatenate([*single, means - spread, means + spread, np.array(across)])
        powers = decades(content, scale, one)
        low, high = float(values[values > 0].min() if powers else values.min()), float(values.max())
        set_ticks(getattr(axes, f"{axis}axis"), powers)
        limits = _with_margin(low, high, 0.11 if across else 0.07, logarithmic=bool(powers))
        (axes.set_xlim if axis == "x" else axes.set_ylim)(*limits)


def _with_margin(low: float, high: float, share: float, *, logarithmic: bool) -> tuple[float, float]:
    if logarithmic:
        factor = (high / low) ** share
        return low / factor, high * factor
    margin = share * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _draw_trials(axes: "Axes", content: Content) -> None:
    count = len(content.trials)
    axes.scatter(
        *content.at(content.trials), s=5, color=GREY, alpha=max(0.12, min(0.45, 60 / count)), linewidths=0, zorder=1,
        rasterized=count >= _RASTER_FROM,
    )  # fmt: skip


def _draw_means(figure: "Figure", axes: "Axes", content: Content) -> list[tuple[Any, str]]:
    """Means with their spread; gives handle and words of each mark."""
    asked, shown = content.asked, content.shown
    (xs, ys), (wide, high), beside = content.at(shown), content.spread(shown), content.beside
    barred = ~beside
    axes.errorbar(
        xs[barred], ys[barred], xerr=wide[barred], yerr=high[barred], fmt="none", ecolor=GREY, elinewidth=0.6, zorder=2
    )
    colours = _colours(figure, axes, shown, asked.colour)
    found: list[tuple[Any, str]] = []
    for i, (words, alike) in enumerate(_marks(shown, asked.mark)):
        positions = alike[barred[alike]]
        face = colours[positions] if colours is not None else COLOURS[i]
        handle: Any = axes.scatter(
            xs[positions], ys[positions], c=face, marker=MARKERS[i], s=18, edgecolors=INK, linewidths=0.4, zorder=5
        )
        # A sample with the colour of one of its points would say too much.
        found.append((handle if colours is None else _open_mark(MARKERS[i]), words))
    axes.scatter(xs[beside], ys[beside], c="white", marker="o", s=16, edgecolors=COLOURS[0], linewidths=0.7, zorder=5.2)
    single = content.of_one_seed(shown)
    axes.scatter(xs[single], ys[single], c="white", marker="o", s=4, linewidths=0, zorder=5.5)
    return found


def _open_mark(marker: str) -> Any:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"markerfacecolor": "none", "markersize": 4.2, "markeredgewidth": 0.7}
    return Line2D([], [], color=INK, linestyle="", marker=marker, **style)


def _marks(rows: pd.DataFrame, leaves: Sequence[str]) -> list[tuple[str, Any]]:
    """Words and positions of the rows of each mark."""
    if not leaves:
        return [("", np.arange(len(rows)))]
    groups = rows.groupby(list(leaves), dropna=False, sort=True).indices.values()
    if len(groups) > len(MARKERS):
        msg = (
            f"plot: {', '.join(leaves)}: {len(groups)} marks cannot be told apart, at most {len(MARKERS)}; "
            "draw fewer rows of the table"
        )
        raise TableError(msg)
    return [(values_text(rows.iloc[positions[0]], leaves), positions) for positions in groups]


def _colours(figure: "Figure", axes: "Axes", rows: pd.DataFrame, column: str | None) -> Any:
    """A colour for each row, with the bar that says which value it is; None where none is asked for."""
    if column is None:
        return None
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    scale = scale_of(column, numbers(rows, column))
    values = scale(numbers(rows, column))
    if not np.isfinite(values).any():
        msg = f"plot: no row that is drawn has a {column} to colour it by"
        raise TableError(msg)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    powers = float(np.log10(high / low)) if 0 < LOGARITHMIC_FROM * low <= high else 0.0
    colours = ScalarMappable(LogNorm(low, high) if powers else Normalize(low, high), COLOUR_MAP)
    bar = figure.colorbar(colours, ax=axes, pad=0.02, aspect=28)
    bar.set_label(scale.label, fontsize=LABEL_PT, color=INK)
    set_ticks(bar.ax.yaxis, powers)
    bar.ax.tick_params(labelsize=TICK_PT, colors=INK, length=2, width=0.5)
    return colours.to_rgba(values)


def _draw_legend(figure: "Figure", content: Content, marks: Sequence[tuple[Any, str]], *, has_baselines: bool) -> None:
    from matplotlib.lines import Line2D

    low, high = int(content.settings["n_seeds"].min()), int(content.settings["n_seeds"].max())
    seeds = str(high) if low == high else f"{low}\N{EN DASH}{high}"
    joined = f"front, mean ± s.d. of {seeds} seeds" if high > 1 else "front"
    alone = not (content.asked.mark or content.asked.colour)
    on_front: dict[str, Any] = {"marker": "o", "markerfacecolor": COLOURS[0]} if alone else {}
    entries: list[tuple[Any, str]] = [
        (Line2D([], [], color=INK, linewidth=0.9, markersize=4, markeredgewidth=0.4, **on_front), joined),
        (Line2D([], [], color=GREY, marker="o", markersize=2.4, linestyle="", markeredgewidth=0), "single trial"),
    ]
    if content.beside.any():
        open_style: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": COLOURS[0], "markeredgewidth": 0.7}
        entries.insert(1, (Line2D([], [], linestyle="", marker="o", markersize=4, **open_style), "beside it, mean"))
    if has_baselines:
        entries.append((_open_mark("D"), "baseline"))
    if content.of_one_seed(content.shown).any():
        ring: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": COLOURS[0], "markeredgewidth": 1.4}
        entries.append((Line2D([], [], linestyle="", marker="o", markersize=4, **ring), "of one seed"))
    entries += [(handle, words) for handle, words in marks if words]
    figure.legend(
        [handle for handle, _ in entries], [words for _, words in entries], loc="outside upper left",
        ncols=3 if _is_narrow(content.asked) else 6, frameon=False, fontsize=NOTE_PT, labelcolor=INK, handlelength=1.4,
        columnspacing=1.2, borderaxespad=0.2, handletextpad=0.5,
    )  # fmt: skip


def _label_leaves(content: Content) -> list[str]:
    if content.asked.label is not None:
        return list(content.asked.label)
    return [leaf for leaf in varied_leaves(content.members) if leaf not in content.asked.mark]


def _write_labels(
    axes: "Axes",
    content: Content,
    baselines: tuple[pd.DataFrame, Sequence[Line]],
    corners: tuple[Floats, Floats],
    leaves: Sequence[str],
) -> None:
    """Baselines first, which are few; then the ends of the front, then what lies between."""
    near, lines = baselines
    labels = [_line_label(axes, together, content) for together in _close_lines(axes, lines)]
    for name, rows in near.groupby("baseline", sort=False):
        labels.append(Label(baseline_words(str(name)), np.column_stack(content.at(rows)), GREY))
    if leaves:
        rows = content.members if content.asked.label is None else content.shown
        points = [
            Label(values_text(row, leaves), at[None, :])
            for (_, row), at in zip(rows.iterrows(), np.column_stack(content.at(rows)), strict=True)
        ]
        labels += [*points[:1], *points[1:][-1:], *points[1:-1]]
    obstacles = [
        boxes_around(axes, *content.at(content.shown), 2.6), boxes_around(axes, *content.at(near), 3.6),
        boxes_along(axes, *corners), *_bar_boxes(axes, content), *(_line_box(axes, line) for line in lines),
    ]  # fmt: skip
    place_labels(axes, labels, np.vstack(obstacles), boxes_around(axes, *content.at(content.trials), 1.2))


def _close_lines(axes: "Axes", lines: Sequence[Line]) -> list[list[Line]]:
    """Lines between which no words have room are labelled together."""
    settle(axes)
    room = 2 * NOTE_PT * axes.figure.dpi / 72
    found: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (line.axis, -line.at)):
        former = found[-1][-1] if found else None
        if former is not None and former.axis == line.axis and _pixels_between(axes, former, line) < room:
            found[-1].append(line)
        else:
            found.append([line])
    return found


def _pixels_between(axes: "Axes", one: Line, other: Line) -> float:
    low, high = axes.get_xlim()[0], axes.get_ylim()[0]
    ends = [(line.at, high) if line.axis == "x" else (low, line.at) for line in (one, other)]
    return float(np.abs(np.diff(axes.transData.transform(ends), axis=0)).max())


def _line_label(axes: "Axes", lines: Sequence[Line], content: Content) -> Label:
    """At the left or upper end of lines if there is room, else farther along them."""
    shares = np.linspace(0.02, 0.98, _POINTS_ALONG)
    points: list[Floats] = []
    for line in lines:
        across = np.full(_POINTS_ALONG, line.at)
        at = np.column_stack([shares, across] if line.axis == "y" else [across, shares[::-1]])
        transform = axes.get_yaxis_transform() if line.axis == "y" else axes.get_xaxis_transform()
        points.append(axes.transData.inverted().transform(transform.transform(at)))
    words = "; ".join(line_words(line, content) for line in lines)
    if len(words) > letters_across(content.asked.width_mm):
        words = brief_words(lines, content)
    return Label(words, np.vstack(points), GREY, along=lines[0].axis)


def _line_box(axes: "Axes", line: Line) -> Floats:
    ends = np.array([line.at, line.at])
    return boxes_along(axes, ends, np.array(axes.get_ylim())) if line.axis == "x" else boxes_along(
        axes, np.array(axes.get_xlim()), ends
    )  # fmt: skip


def _bar_boxes(axes: "Axes", content: Content) -> list[Floats]:
    """Boxes along the bars of spread."""
    barred = content.shown.loc[~content.beside]
    (xs, ys), (wide, high) = content.at(barred), content.spread(barred)
    left, low = axes.get_xlim()[0], axes.get_ylim()[0]
    found: list[Floats] = []
    for x, y, dx, dy in zip(xs, ys, wide, high, strict=True):
        found.append(boxes_along(axes, np.array([max(x - dx, left), x + dx]), np.array([y, y]), 0.4))
        found.append(boxes_along(axes, np.array([x, x]), np.array([max(y - dy, low), y + dy]), 0.4))
    return found
