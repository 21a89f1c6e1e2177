"""Where the busy seconds of a study went, and what sharing stages saved, as numbers and as a picture."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

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
from orchestrator.analysis.rows import need
from orchestrator.analysis.settings import in_order
from orchestrator.errors import TableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("select", "train", "compress", "evaluate")
_SECONDS = {"train": "train_s", "compress": "compress_s", "evaluate": "measure_s"}
_DOING = {
    "select": "choosing images", "train": "training", "compress": "compressing", "evaluate": "evaluating",
    "latency": "timing latency", "all": "all",
}  # fmt: skip
_ROW_MM, _ENDS_MM = 7.0, 16.0


@dataclass(frozen=True, slots=True)
class Seconds:
    """Busy seconds of one kind of stage: as it ran, and if each trial had run its own path."""

    once: float
    each: float


def busy_seconds(df: pd.DataFrame, stages: pd.DataFrame | None = None) -> dict[str, Seconds]:
    """Busy seconds by kind of stage, in the order of the path; kinds that never ran are left out.

    A stage that several trials share took its seconds once; had each trial run its own path, it would have taken them
    once a trial. Stages that were cached count with what they took when they ran.

    Args:
        df: trials, as `load` gives them.
        stages: `_stages.parquet`; None takes the seconds of the trials' own columns, which do not tell the rounds of a
            selection apart.

    Raises:
        TableError: a column is absent, or a study selects images and `stages` is None.

    """
    need(df, [f"stage_keys.{kind}" for kind in STAGES])
    df = in_order(df)
    busy, parent, kind_of = _own_columns(df) if stages is None else _of_stages(stages)
    visits = Counter[str]()
    for row in df[[f"stage_keys.{kind}" for kind in STAGES]].itertuples(index=False):
        visits.update(_path(list(row), parent, busy))
    once, each = defaultdict[str, float](float), defaultdict[str, float](float)
    for key, count in visits.items():
        once[kind_of[key]] += busy[key]
        each[kind_of[key]] += count * busy[key]
    return {kind: Seconds(once[kind], each[kind]) for kind in STAGES if kind in once}


_Facts = tuple[Mapping[str, float], Mapping[str, str | None], Mapping[str, str]]


def _of_stages(stages: pd.DataFrame) -> _Facts:
    need(stages, ["key", "stage", "parent", "busy_s"])
    busy: dict[str, float] = {}
    parents: dict[str, str | None] = {}
    kinds: dict[str, str] = {}
    columns = (stages[name] for name in ("key", "stage", "parent", "busy_s"))
    for key, kind, parent, seconds in zip(*columns, strict=True):
        busy[key], kinds[key] = (0.0 if seconds != seconds else float(seconds)), kind
        parents[key] = parent if isinstance(parent, str) else None
    return busy, parents, kinds


def _own_columns(df: pd.DataFrame) -> _Facts:
    if df["stage_keys.select"].notna().any():
        msg = "plot: rounds of selection share time in ways that only _stages.parquet tells; give results/<study>"
        raise TableError(msg)
    need(df, list(_SECONDS.values()))
    busy: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for kind, column in _SECONDS.items():
        own = df[[f"stage_keys.{kind}", column]].dropna()
        for key, seconds in own.itertuples(index=False):
            busy[key], kinds[key] = float(seconds), kind
    return busy, {}, kinds


def _path(keys: list[object], parent: Mapping[str, str | None], busy: Mapping[str, float]) -> list[str]:
    """The stages of a trial that ran, rounds before the last one with them; always in the same order."""
    found = dict.fromkeys(key for key in keys if isinstance(key, str))
    for key in list(found):
        above = parent.get(key)
        while above is not None and above not in found:
            found[above] = None
            above = parent.get(above)
    return [key for key in found if key in busy]


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
    axes.barh(places, scale(each), height=0.62, color=colours, alpha=0.25, linewidth=0)
    axes.barh(places, scale(once), height=0.62, color=colours, linewidth=0)
    for place, kind in zip(places, kinds, strict=True):
        end = float(scale(found[kind].each))
        words = axes.text(end, place, f"  {_words(found[kind])}", va="center", fontsize=NOTE_PT, color=INK, gid="label")
        words.set_in_layout(False)
    axes.set_yticks(places, [_DOING[kind] for kind in kinds])
    set_ticks(axes.xaxis, 0.0, 5)
    axes.set_xlabel(f"busy time ({scale.unit}); pale: every trial its own path", fontsize=TICK_PT, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, float(scale(each.max())))
    _make_room(figure)


def _words(one: Seconds) -> str:
    """`41 s, unshared 125 s` and how many times that is; where nothing is shared `41 s`."""
    scale = scale_of("busy_s", [one.each])
    took = scale.text(one.once)
    if one.each <= one.once * 1.005:
        return took
    return f"{took}, unshared {scale.text(one.each)} ({figure_text(one.each / one.once, 2)}\N{MULTIPLICATION SIGN})"


def _make_room(figure: "Figure") -> None:
    """Widen the axis until the words at the bars' ends are inside."""
    (axes,) = figure.axes
    figure.draw_without_rendering()
    inside = axes.get_window_extent().width
    bars, scale = [text.get_position()[0] for text in axes.texts], inside / axes.get_xlim()[1]
    widths = [text.get_window_extent().width for text in axes.texts]
    # Words keep their width in pixels: the bars alone shrink.
    shrunk = min((inside - width) / (bar * scale) for bar, width in zip(bars, widths, strict=True) if bar > 0)
    axes.set_xlim(0, axes.get_xlim()[1] / max(min(shrunk, 1.0), 0.1))
