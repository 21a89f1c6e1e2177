"""`orchestrator plot`: its arguments, and which picture they ask for. Heavy libraries are imported to draw one."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.arguments import ALL_ADVICE, Subparsers, add_all, add_skip_damaged, command_parser
from orchestrator.errors import TableError
from orchestrator.storage.places import named

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.analysis.objectives import Objective
    from orchestrator.report.source import Source

COLUMN_MM = 85.0

_MEANT_FOR: Mapping[str, tuple[str, ...]] = {
    "front": ("x", "y", "mark", "colour", "label", "means", "all"),
    "curves": ("x", "y"),
    "heatmap": ("x", "y", "value"),
    "time": (),
}
"""The options of each kind, beside those of all."""

_BESIDE: Mapping[str, tuple[str, ...]] = {
    "front": (),
    "curves": ("_history.parquet",),
    "heatmap": (),
    "time": ("_stages.parquet", "_latency.parquet"),
}
"""The tables that a kind reads beside the trials."""


def add_plot_command(commands: Subparsers) -> None:
    """The command `plot`."""
    plot = command_parser(commands, "plot", _plot, "draw a study as a picture for a paper")
    plot.add_argument("table", type=named, metavar="RESULTS", help="results/<study>, or a Parquet file")
    plot.add_argument(
        "--kind", required=True, choices=tuple(_PICTURES),
        help="front of two objectives; learning or training curves; heat map of two axes; where the time went",
    )  # fmt: skip
    plot.add_argument("--out", required=True, type=Path, metavar="FILE", help="picture to write: .png, .svg or .pdf")
    plot.add_argument("--x", metavar="COLUMN", help="abscissa: an objective, an axis, or what a curve runs along")
    plot.add_argument("--y", metavar="COLUMN", help="ordinate: an objective, an axis, or the column of a curve")
    plot.add_argument("--value", metavar="COLUMN", help="heatmap: what is averaged (default: the first objective)")
    plot.add_argument("--mark", action="append", metavar="LEAF", help="front: a mark for each of its values")
    plot.add_argument("--colour", metavar="COLUMN", help="front: what colours the points")
    plot.add_argument("--label", action="append", metavar="LEAF", help="front: what stands beside the points")
    plot.add_argument("--means", action="store_true", help="front: the mean of every setting, not of its members alone")
    add_all(plot)
    plot.add_argument(
        "--width", type=float, default=COLUMN_MM, metavar="MM", help="of the picture (default: 85, a column; 180: two)"
    )
    add_skip_damaged(plot)


def _plot(options: argparse.Namespace) -> int:
    from orchestrator.analysis.picture_style import check_file
    from orchestrator.report.source import read

    _refuse_others(options)
    check_file(options.out)
    source = read(options.table, beside=_BESIDE[options.kind], skip_damaged=options.skip_damaged)
    sys.stderr.write("".join(f"warning: {warning}\n" for warning in source.warnings))
    _PICTURES[options.kind](options, source)
    sys.stdout.write(f"{options.out}: {options.kind} of {options.table}, {options.width:g} mm wide\n")
    return 0


def _refuse_others(options: argparse.Namespace) -> None:
    """An option that the kind does not have is a mistake, not nothing."""
    for name in dict.fromkeys(name for names in _MEANT_FOR.values() for name in names):
        if getattr(options, name) not in (None, False) and name not in _MEANT_FOR[options.kind]:
            kinds = ", ".join(kind for kind, names in _MEANT_FOR.items() if name in names)
            raise TableError(f"plot: --{name} belongs to --kind {kinds}; leave it out of {options.kind}")


def _front(options: argparse.Namespace, source: "Source") -> None:
    from orchestrator.analysis.picture_front import front_picture
    from orchestrator.analysis.picture_front_parts import FrontRequest
    from orchestrator.report.bounds import within

    x, y = _two_objectives(options, source)
    study = source.study
    asked = FrontRequest(
        x,
        y,
        tuple(options.mark or ()),
        options.colour,
        options.label,
        options.means,
        options.width,
        study.over,
        study.seeds,
    )
    trials = source.trials
    if study.where and not options.all:
        trials = within(trials, study.where)
        sys.stdout.write(f"Among the trials with {' and '.join(map(str, study.where))}{ALL_ADVICE}\n")
    front_picture(trials, asked, options.out)


def _two_objectives(options: argparse.Namespace, source: "Source") -> "tuple[Objective, Objective]":
    """Those named, with the study's tolerances, else the first two of the study: the first is the ordinate."""
    from orchestrator.analysis.objectives import objective_of
    from orchestrator.report.source import objectives_of

    studied = {one.column: one for one in objectives_of(source, {})}
    named = {
        axis: studied.get(column) or objective_of(column, also=map(str, source.trials.columns))
        for axis in ("x", "y")
        if (column := getattr(options, axis)) is not None
    }
    taken = {one.column for one in named.values()}
    others = [one for one in studied.values() if one.column not in taken]
    for axis in ("y", "x"):
        if axis not in named:
            if not others:
                raise TableError(f"plot: the study has no second objective; name one with --{axis}")
            named[axis] = others.pop(0)
    return named["x"], named["y"]


def _curves(options: argparse.Namespace, source: "Source") -> None:
    """Learning curves where images are selected, else training as it went."""
    from orchestrator.analysis import plots
    from orchestrator.analysis.picture_history import history_picture
    from orchestrator.analysis.points import STRATEGY
    from orchestrator.report.source import objectives_of

    if STRATEGY in source.trials.columns and source.trials[STRATEGY].notna().any():
        value = options.y or "accuracy"
        plots.plot(source.trials, options.out, value, options.x or "labels", width_mm=options.width)
        return
    if options.x not in (None, "epoch"):
        raise TableError(f"plot: --x {options.x}: the study selects no images, so its curves run along epoch alone")
    if isinstance(source.history, str):
        why = "a single file has none; give results/<study>" if source.folder is None else source.history
        raise TableError(f"plot: curves of training need _history.parquet: {why}")
    history_picture(
        source.trials, source.history, options.out, objectives=objectives_of(source, {}),
        y=options.y or _trained_on(source.history), width_mm=options.width,
    )  # fmt: skip


def _trained_on(history: "pd.DataFrame") -> str:
    """Validation accuracy, unless nothing was validated."""
    has_validation = "val_accuracy" in history.columns and history["val_accuracy"].notna().any()
    return "val_accuracy" if has_validation else "loss"


def _heatmap(options: argparse.Namespace, source: "Source") -> None:
    from orchestrator.analysis.picture_heatmap import heatmap_picture
    from orchestrator.report.source import objectives_of

    value = options.value or objectives_of(source, {})[0].column
    heatmap_picture(source.trials, options.out, x=options.x, y=options.y, value=value, width_mm=options.width)


def _time(options: argparse.Namespace, source: "Source") -> None:
    from orchestrator.analysis.picture_time import time_picture

    stages, latency = (None if isinstance(part, str) else part for part in (source.stages, source.latency))
    time_picture(source.trials, options.out, stages=stages, latency=latency, width_mm=options.width)


_PICTURES: Mapping[str, Callable[[argparse.Namespace, "Source"], None]] = {
    "front": _front,
    "curves": _curves,
    "heatmap": _heatmap,
    "time": _time,
}
