"""Words beside points, placed where they cover neither each other nor what is drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from orchestrator.analysis.picture_style import GREY, INK, NOTE_PT
from orchestrator.analysis.rows import Floats, Mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISTANCES_PT = (3.5, 7.0, 11.0, 16.0, 22.0)
_DIRECTIONS = tuple(
    (math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (45, 135, 315, 225, 90, 270, 0, 180)
)
_BESIDE = {"y": ((0.0, 1.0), (0.0, -1.0)), "x": ((1.0, 0.0), (-1.0, 0.0))}
_CLOSE_PT = (1.8, 2.5)
_LEADER_PT = 9.0
"""A word farther from its point than this is tied to it by a line."""

_PAD_PT = 0.8
_STEPS = 12
"""Points of a line between words and their point at which it is seen whether it crosses others."""


@dataclass(frozen=True, slots=True)
class Label:
    """Words for one of some points, in the units of the axes, shape (points, 2): the first with room near it.

    `along` a line at a place on the axis "x" or "y", of which these are points, words stand close beside it.
    """

    text: str
    points: Floats
    colour: str = INK
    along: Literal["x", "y"] | None = None


@dataclass(frozen=True, slots=True)
class _Space:
    """Where words may stand, all in pixels: inside the frame, off what is taken, best off what is soft.

    `words` are the boxes of other labels, which are among what is taken: the line to a point crosses none of them.
    """

    frame: Floats
    taken: Floats
    words: Floats
    soft: Floats
    pixels: float

    def has_room(self, box: Floats, at: Floats) -> bool:
        within = (box[:2] >= self.frame[:2]).all() and (box[2:] <= self.frame[2:]).all()
        if not within or _meets(box, self.taken, _PAD_PT * self.pixels).any():
            return False
        way = at + np.linspace(0, 1, _STEPS)[:, None] * (np.clip(at, box[:2], box[2:]) - at)
        return not any(_meets(np.concatenate([step, step]), self.words, 0.0).any() for step in way)

    def covers(self, box: Floats) -> int:
        return int(_meets(box, self.soft, 0.0).sum())


@dataclass(frozen=True, slots=True)
class _Place:
    """A box in pixels for words about a point, and how far from it."""

    box: Floats
    at: Floats
    distance_pt: float


def place_labels(axes: "Axes", labels: Sequence[Label], avoid: Floats, rather_not: Floats | None = None) -> int:
    """Write the labels, earlier ones first, where there is room inside the axes; returns how many had none.

    The layout of the figure is settled by this: limits and ticks must have been set before.

    Args:
        axes: where the points are.
        labels: what to write.
        avoid: boxes in pixels, shape (n, 4) as x0, y0, x1, y1, which no word may touch.
        rather_not: boxes that a word touches only where it must.

    """
    figure = axes.figure
    settle(axes)
    pixels = figure.dpi / 72
    inside = axes.get_window_extent()
    frame = np.array([inside.x0, inside.y0, inside.x1, inside.y1])
    taken, soft = avoid, np.empty((0, 4)) if rather_not is None else rather_not
    missing = 0
    for label in labels:
        space = _Space(frame, taken, taken[len(avoid) :], soft, pixels)
        found = _best(axes.transData.transform(label.points), _extent(axes, label.text), space, label.along)
        if found is None:
            missing += 1
            continue
        taken = np.vstack([taken, found.box])
        _write(axes, label, found)
    return missing


def settle(axes: "Axes") -> None:
    """Compute the layout once and keep it, so that pixels measured now hold when the file is written."""
    figure = axes.get_figure(root=True)
    if figure is not None and figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def boxes_around(axes: "Axes", xs: Floats, ys: Floats, radius_pt: float) -> Floats:
    """Squares around points, in pixels, shape (points, 4)."""
    settle(axes)
    at = axes.transData.transform(np.column_stack([xs, ys]))
    radius = radius_pt * axes.figure.dpi / 72
    return np.column_stack([at - radius, at + radius])


def boxes_along(axes: "Axes", xs: Floats, ys: Floats, half_pt: float = 1.0) -> Floats:
    """Thin boxes along the horizontal and vertical pieces of a line, in pixels, shape (points - 1, 4)."""
    settle(axes)
    at = axes.transData.transform(np.column_stack([xs, ys]))
    half = half_pt * axes.figure.dpi / 72
    return np.column_stack([np.minimum(at[:-1], at[1:]) - half, np.maximum(at[:-1], at[1:]) + half])


def spread_apart(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights moved as little as may be (in sum of squares) so that neighbours are `gap` apart and inside the ends.

    Pools of neighbours that would overlap are moved as one (pool adjacent violators). Where there is no room for all,
    the gap shrinks.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    if not order:
        return []
    gap = min(gap, (high - low) / max(len(order) - 1, 1))
    pools: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        total, size = min(max(heights[i], low), high) - rank * gap, 1
        while pools and pools[-1][0] / pools[-1][1] > total / size:
            former = pools.pop()
            total, size = total + former[0], size + former[1]
        pools.append((total, size))
    bases = [total / size for total, size in pools for _ in range(size)]
    top = high - (len(order) - 1) * gap
    found = [0.0] * len(order)
    for rank, (i, base) in enumerate(zip(order, bases, strict=True)):
        found[i] = min(max(base, low), top) + rank * gap
    return found


def _extent(axes: "Axes", words: str) -> tuple[float, float]:
    text = axes.text(0, 0, words, fontsize=NOTE_PT)
    box = text.get_window_extent()
    text.remove()
    return box.width, box.height


def _best(points: Floats, size: tuple[float, float], space: _Space, along: str | None) -> _Place | None:
    """The nearest free place; of equally near ones at one point that which covers least."""
    directions = _DIRECTIONS if along is None else _BESIDE[along]
    for distance in _DISTANCES_PT if along is None else _CLOSE_PT:
        for at in points:
            boxes = [_box(at, size, direction, distance * space.pixels) for direction in directions]
            free = [box for box in boxes if space.has_room(box, at)]
            if free:
                return _Place(min(free, key=space.covers), at, distance)
    return None


def _box(at: Floats, size: tuple[float, float], direction: tuple[float, float], distance: float) -> Floats:
    """The box whose nearest edge or corner is `distance` away from the point."""
    half = np.array(size) / 2
    sign = np.array([0.0 if abs(part) < 1e-9 else math.copysign(1.0, part) for part in direction])
    centre = at + np.array(direction) * distance + sign * half
    return np.concatenate([centre - half, centre + half])


def _meets(box: Floats, others: Floats, pad: float) -> Mask:
    apart = (others[:, :2] >= box[2:] + pad) | (others[:, 2:] <= box[:2] - pad)
    return np.logical_not(apart.any(axis=1))


def _write(axes: "Axes", label: Label, place: _Place) -> None:
    box, to_data = place.box, axes.transData.inverted()
    if place.distance_pt > _LEADER_PT:
        ends = to_data.transform([place.at, np.clip(place.at, box[:2], box[2:])])
        axes.plot(*ends.T, color=GREY, linewidth=0.4, zorder=2.5, scalex=False, scaley=False)
    x, y = to_data.transform((box[:2] + box[2:]) / 2)
    axes.text(x, y, label.text, fontsize=NOTE_PT, color=label.colour, ha="center", va="center", zorder=6, gid="label")


def label_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Words to the right of the axes for lines that end at (x, y), each tied to its end in its colour.

    The layout of the figure is settled by this: limits and ticks must have been set before.

    Args:
        axes: where the lines are.
        ends: x, y, words and colour of each line.

    """
    words = [axes.annotate(text, (1.05, 0.5), xycoords="axes fraction", fontsize=NOTE_PT, color=INK, va="center",
                           annotation_clip=False, gid="label") for _, _, text, _ in ends]  # fmt: skip
    settle(axes)
    inside, pixels = axes.get_window_extent(), axes.figure.dpi / 72
    heights = [float(axes.transData.transform((x, y))[1]) for x, y, _, _ in ends]
    apart = spread_apart(heights, 1.15 * NOTE_PT * pixels, inside.y0, inside.y1)
    for (x, y, _, colour), text, height in zip(ends, words, apart, strict=True):
        share = (height - inside.y0) / inside.height
        text.set_position((1.05, share))
        turn = axes.transData.inverted().transform(axes.transAxes.transform([(1.01, 0.0), (1.045, share)]))
        axes.plot([x, turn[0, 0], turn[1, 0]], [y, y, turn[1, 1]], color=colour, linewidth=0.6, clip_on=False,
                  scalex=False, scaley=False, gid="tie")  # fmt: skip
