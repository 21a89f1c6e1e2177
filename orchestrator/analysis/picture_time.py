"""Where the busy seconds of a study went, and what sharing stages saved, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from orchestrator.analysis.busy import Seconds, busy_seconds
from orchestrator.analysis.picture_style import (
    COLOURS,
    COLUMN_MM,
    INK,
    NOTE_PT,
    TICK_PT,
    check_file,
    dress,
    figure_text,
    new_figure,
    save,
    scale_of,
    set_ticks,
    settled_style,
)
from orchestrator.errors import TableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOING = {
    "select": "choosing images", "train": "training", "compress": "compressing", "evaluate": "evaluating",
    "latency": "timing latency", "all": "all",
}  # fmt: skip
_ROW_MM, _ENDS_MM = 8.5, 16.0
_BAR = 0.4
"""Height of a bar as a share of its row; words stand above it."""


def time_picture(
    df: pd.DataFrame,
    path: str | Path | None = None,
    *,
    stages: pd.DataFrame | None = None,
    latency: pd.DataFrame | None = None,
    width_mm: float = COLUMN_MM,
) -> "Figure":
    """A bar for each kind of stage: solid what it took, pale what each trial running its own path would have taken.

    Args:
        df: trials, as `load` gives them.
        path: where the picture is written; the suffix says how: .svg, .png or .pdf.
        stages: `_stages.parquet`; None: see `busy_seconds`.
        latency: `_latency.parquet`; its seconds are shared by nothing.
        width_mm: of the picture.

    Raises:
        TableError: as `busy_seconds`; also no stage has run yet.
        OrchestratorError: matplotlib is not installed, or the file cannot be written.

    """
    check_file(path)
    found = busy_seconds(df, stages)
    if latency is not None and len(latency) and "busy_s" in latency.columns:
        # One observation may be named by several rows: networks that are equal are timed once.
        own = latency.drop_duplicates("key") if "key" in latency.columns else latency
        found["latency"] = Seconds(float(own["busy_s"].sum()), float(own["busy_s"].sum()))
    if not found:
        msg = "plot: no stage has run yet; there is nothing to draw"
        raise TableError(msg)
    if len(found) > 1:
        found["all"] = Seconds(sum(one.once for one in found.values()), sum(one.each for one in found.values()))
    with settled_style():
        figure = new_figure(width_mm, _ENDS_MM + _ROW_MM * len(found))
        _draw(figure, found)
    if path is not None:
        save(figure, Path(path))
    return figure


def _draw(figure: "Figure", found: Mapping[str, Seconds]) -> None:
    axes = figure.add_subplot()
    dress(axes)
    axes.grid(visible=False, axis="y")
    kinds = list(found)
    once, each = np.array([found[kind].once for kind in kinds]), np.array([found[kind].each for kind in kinds])
    scale = scale_of("busy_s", each)
    places = np.arange(len(kinds))[::-1]
    colours = [INK if kind == "all" else COLOURS[0] for kind in kinds]
    axes.barh(places, scale(each), height=_BAR, color=colours, alpha=0.25, linewidth=0)
    axes.barh(places, scale(once), height=_BAR, color=colours, linewidth=0)
    for place, kind in zip(places, kinds, strict=True):
        words = axes.annotate(
            _words(found[kind]), (0, place + _BAR / 2), xytext=(0, 1), textcoords="offset points", va="bottom",
            fontsize=NOTE_PT, color=INK, gid="label",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        words.set_in_layout(False)
    axes.set_yticks(places, [_DOING[kind] for kind in kinds])
    set_ticks(axes.xaxis, 0.0, 5)
    axes.set_xlabel(f"busy time ({scale.unit}); pale: every trial its own path", fontsize=TICK_PT, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(0, float(scale(each.max()))), ylim=(-0.4, len(kinds) - 0.3))


def _words(one: Seconds) -> str:
    """`41 s, unshared 125 s` and how many times that is; where nothing is shared `41 s`."""
    scale = scale_of("busy_s", [one.each])
    took = scale.text(one.once)
    if one.each <= one.once * 1.005:
        return took
    return f"{took}, unshared {scale.text(one.each)} ({figure_text(one.each / one.once, 2)}\N{MULTIPLICATION SIGN})"
