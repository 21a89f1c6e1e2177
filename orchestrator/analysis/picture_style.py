"""What every picture shares: size, fonts, colours, names of axes, and how a file is written.

matplotlib is loaded when something is drawn, and nothing of its global state is left changed.
"""

import math
import textwrap
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from orchestrator.analysis.rows import Floats
from orchestrator.analysis.tables import COLUMNS, HISTORY_COLUMNS, STAGE_COLUMNS, Column, is_config_column
from orchestrator.errors import OrchestratorError, TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf")
COLUMN_MM = 85.0
"""Width of a column of a two-column paper."""

WIDTHS_MM = (40.0, 1000.0)
MM_PER_INCH = 25.4
DPI = 300

LABEL_PT, TICK_PT, NOTE_PT = 8.0, 7.0, 6.5
"""Sizes of axis labels, of tick labels, and of what stands beside points: printed at the width asked for."""

_LETTER_MM, _BESIDE_AXES_MM = 1.25, 16.0
"""Mean width of a letter of NOTE_PT, and what stands left of the axes."""

# Okabe and Ito, Color Universal Design, 2008: told apart with any colour vision. Its yellow is too pale for lines on
# white, and black is kept for the line of all labels.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
COLOUR_MAP = "cividis"
"""Reads the same to the colour-blind and in grey (Nunez, Anderton and Renslow, 2018)."""

INK, GREY, PALE = "#222222", "#808080", "#E6E6E6"

_NAMES = {
    "accuracy": "test accuracy",
    "val_accuracy": "validation accuracy",
    "wall_time_s": "busy time",
    "select_s": "time to choose the images",
    "packed_bytes": "packed file",
    "macs": "multiply-accumulates",
    "bops": "bit operations",
    "mac_cost": "weighed MACs",
    "params": "parameters",
    "labels": "labelled images",
    "loss": "training loss",
    "pfr": "prune factor ratio",
}
_SUFFIX_OF_UNIT = {"s": "_s", "ms": "_ms", "bytes": "_bytes", "images/s": "_per_s"}
_STEPS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((3 * 3600.0, "h"), (600.0, "min"), (0.0, "s")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (0.0, "bytes")),
    "1": ((1e9, "billions"), (1e6, "millions"), (0.0, "")),
}
"""From which largest value on a unit is replaced by which."""

_SIZE_OF_UNIT = {"h": 3600.0, "min": 60.0, "GB": 1e9, "MB": 1e6, "kB": 1e3, "billions": 1e9, "millions": 1e6}


@dataclass(frozen=True, slots=True)
class Scale:
    """How a column is drawn: its values are multiplied by `factor`, and its axis is called `label`."""

    factor: float
    label: str
    unit: str

    def __call__(self, values: Any) -> Floats:
        """Values as they are drawn."""
        return np.asarray(values, dtype=np.float64) * self.factor

    def within(self, values: Any) -> Floats:
        """Drawn values, cut at 0 % and 100 % where they are shares, which nothing can exceed."""
        array = np.asarray(values, dtype=np.float64)
        return np.clip(array, 0.0, 100.0) if self.unit == "%" else array

    def text(self, value: float, digits: int = 3) -> str:
        """A value of the column as it stands beside a point, its unit with it."""
        unit = {"points": " points", "%": " %"}.get(self.unit, f" {self.unit}" if self.unit else "")
        return f"{figure_text(value * self.factor, digits)}{unit}"


def figure_text(value: float, digits: int = 3) -> str:
    """A number in so many digits, without an exponent up to a million."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}" if abs(value) < 1e6 else f"{value:.{digits}g}"


def scale_of(column: str, values: Sequence[float] | Floats) -> Scale:
    """Name, unit and factor of a column whose values are these; nulls and infinities are passed over."""
    known = _known(column)
    unit = known.unit if known else ""
    array = np.asarray(values, dtype=np.float64)
    finite = np.abs(array[np.isfinite(array)])
    largest = float(finite.max()) if len(finite) else 0.0
    factor, shown = _unit(column, unit, largest)
    name = words_of(column)
    return Scale(factor, f"{name} ({shown})" if shown else name, shown)


def _unit(column: str, unit: str, largest: float) -> tuple[float, str]:
    if unit == "fraction":
        return 100.0, "points" if column.endswith(("_drop", "_gain")) else "%"
    if unit == "1" and column.endswith(("compression", "_compression_max", "_ratio")):
        return 1.0, "\N{MULTIPLICATION SIGN}"
    if unit in _STEPS:
        shown = next(name for least, name in _STEPS[unit] if largest >= least)
        return 1 / _SIZE_OF_UNIT.get(shown, 1.0), shown
    return 1.0, "" if column == "labels" else unit


def _known(column: str) -> Column | None:
    return COLUMNS.get(column) or HISTORY_COLUMNS.get(column) or STAGE_COLUMNS.get(column)


def words_of(column: str) -> str:
    """A column's or a leaf's name in words, without its unit."""
    section, _, leaf = column.rpartition(".") if is_config_column(column) else ("", "", column)
    if leaf == "name":
        return section
    if leaf in _NAMES:
        return _NAMES[leaf]
    known = _known(column)
    return leaf.removesuffix(_SUFFIX_OF_UNIT.get(known.unit, "") if known else "").replace("_", " ")


def value_text(value: object) -> str:
    """The value of a leaf in a few characters, a broken number in three digits; a dash for null."""
    if is_null(value):
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if value == round(value, 0) or abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("_", " ")


def is_null(value: object) -> bool:
    """Whether a value of a table is missing."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def check_file(path: str | Path | None) -> None:
    """Nothing where a picture can be written under this name.

    Raises:
        TableError: the suffix is none of SUFFIXES.

    """
    if path is not None and Path(path).suffix not in SUFFIXES:
        msg = f"plot: {path}: the suffix says the format; valid are {', '.join(SUFFIXES)}"
        raise TableError(msg)


def new_figure(width_mm: float, height_mm: float) -> "Figure":
    """An empty figure of this size, laid out so that nothing is cut off.

    Raises:
        TableError: a width that no paper has.

    """
    if not WIDTHS_MM[0] <= width_mm <= WIDTHS_MM[1]:
        msg = f"plot: a width of {width_mm:g} mm; valid are {WIDTHS_MM[0]:g} to {WIDTHS_MM[1]:g} (a column has 85)"
        raise TableError(msg)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    size = (width_mm / MM_PER_INCH, height_mm / MM_PER_INCH)
    return Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02), facecolor="white")


def dress(axes: "Axes", *, grid: bool = True) -> None:
    """Quiet lines: no frame at the top and right, a pale grid behind all."""
    axes.tick_params(labelsize=TICK_PT, colors=INK, length=2.5, width=0.6)
    axes.grid(visible=grid, color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)


def name_axes(axes: "Axes", x: str, y: str) -> None:
    """Set the names of both axes."""
    axes.set_xlabel(x, fontsize=LABEL_PT, color=INK)
    axes.set_ylabel(y, fontsize=LABEL_PT, color=INK)


def letters_across(width_mm: float) -> int:
    """How many letters of NOTE_PT there is room for above the axes, about."""
    return max(20, int((width_mm - _BESIDE_AXES_MM) / _LETTER_MM))


def caption(axes: "Axes", text: str, width_mm: float) -> None:
    """Small grey words above the axes, broken into lines where the picture is narrow."""
    axes.set_title(textwrap.fill(text, letters_across(width_mm)), fontsize=NOTE_PT, color=GREY, loc="left", pad=3)


def set_ticks(axis: "Axis", decades: float, most: int = 6, *, whole: bool = False) -> None:
    """Round numbers, apart from each other; logarithmic where `decades`, the powers of ten in view, is not 0.

    On a linear axis `whole` leaves integers alone.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=whole))
    if decades:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # pyright: ignore[reportAttributeAccessIssue]
        axis.set_major_locator(LogLocator(subs=_subs(decades), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}" if number >= 1000 else f"{number:g}"))


def _subs(decades: float) -> tuple[float, ...]:
    if decades < 1:
        return (1, 1.5, 2, 3, 4, 5, 7)
    return (1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)


@contextmanager
def settled_style() -> Generator[None]:
    """The library as it comes, whatever the user's own settings are; fonts stay text in a PDF (Type 42).

    Identifiers of an SVG are fixed, so that an equal table gives an equal file.

    Raises:
        OrchestratorError: matplotlib is not installed.

    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        msg = "matplotlib is not installed; figures need it: pip install matplotlib"
        raise OrchestratorError(msg) from error

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "orchestrator"})
        yield


def save(figure: "Figure", path: Path) -> None:
    """Write a figure; the suffix says how.

    Raises:
        OrchestratorError: the file cannot be written.

    """
    # Without a date an equal table gives an equal file.
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    try:
        with settled_style():
            figure.savefig(path, dpi=DPI, metadata=dated)
    except OSError as error:
        msg = f"{path}: the figure cannot be written: {error.strerror}"
        raise OrchestratorError(msg) from error
