"""A front as a person reads it, at the end of a sweep, while it runs and afterwards."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.screen import duration, number, plural, say, table_of, tell
from orchestrator.spec.leaves import optional_paths
from orchestrator.spec.model import Constraint
from orchestrator.words import LEFT_OUT

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 20
MOST_LEAVES = 8
"""More columns than these, beside the objectives, are not read across."""

_KINDS = (".method", ".name", ".strategy")
_STEP = re.compile(r"(?:^|,)\d_(\w+)")


def bounds_line(df: "pd.DataFrame", kept: "pd.DataFrame", where: Sequence[Constraint]) -> str:
    """What the bounds of a search leave of a table: `kept` of `df`."""
    from orchestrator.report.bounds import nearest

    bounds = " and ".join(map(str, where))
    if (kept["role"] == "cell").any():
        return f"Among the trials with {bounds}:"
    best = nearest(df, where)
    return f"No config keeps {bounds}{f'; the nearest there is: {best}' if best else ', as none is complete yet'}."


def bounded_front_report(
    terminal: Console, df: "pd.DataFrame", kept: "pd.DataFrame", front: "pd.DataFrame",
    objectives: Sequence[Objective], where: Sequence[Constraint], chosen_on: str = "", also: str = "",
) -> None:  # fmt: skip
    """The front of the rows that keep the bounds of a search, `kept` of `df`, with a word on the bounds.

    Without bounds, `front_report`; `also` stands behind that word.
    """
    if where:
        tell(terminal, f"{bounds_line(df, kept, where)}{also}")
    if not where or (kept["role"] == "cell").any():
        front_report(terminal, kept, front, objectives, chosen_on)


def front_report(
    terminal: Console, df: "pd.DataFrame", front: "pd.DataFrame", objectives: Sequence[Objective], chosen_on: str = ""
) -> None:
    """A front of `df` as a table: what varies among the cells, then the objectives, best first by the first of them.

    `chosen_on` names the column that stood in for `accuracy` when the front was chosen.
    """
    if front.empty:
        say(terminal, _why_none(df, objectives))
        return
    chosen = f"; chosen on {chosen_on}, the test accuracy is shown" if chosen_on else ""
    tell(terminal, f"Pareto front: {plural(len(front), 'point')}, {', '.join(map(_wish, objectives))}{chosen}")
    terminal.print(front_table(df, front, objectives, width=terminal.width))
    if left_out := front.attrs.get("left_out"):
        because: Mapping[str, int] = front.attrs["left_out_because"]
        reasons = ", ".join(f"{count} {LEFT_OUT[reason]}" for reason, count in because.items() if count)
        say(terminal, f"{plural(left_out, 'row')} could not be compared: {reasons}")


def _why_none(df: "pd.DataFrame", objectives: Sequence[Objective]) -> str:
    complete = df[df["status"] == "complete"]
    names = [one.column for one in objectives if one.column not in df.columns or complete[one.column].isna().all()]
    if complete.empty or not names:
        return "No trial has all objectives yet, so there is no front."
    told = f"{', '.join(names[:-1])} and {names[-1]} have" if names[1:] else f"{names[0]} has"
    return f"{told} no value in any complete trial, so there is no front."


def front_table(
    df: "pd.DataFrame", front: "pd.DataFrame", objectives: Sequence[Objective], shown: int = ROWS_SHOWN,
    width: int | None = None,
) -> Table:  # fmt: skip
    """The rows of a front, best first by the first objective: what varies among the cells, then the objectives.

    Where that takes more than `width`, the table is a tighter one with headings broken between their words. Of seeds
    that all rows have as many of, the caption tells.
    """
    first = objectives[0]
    ordered = front.sort_values(first.column, ascending=first.direction == "min", kind="stable")
    seeds = front["n_seeds"].unique().tolist() if "n_seeds" in front.columns else []
    known = [name for name in ("trial_id", "n_seeds") if name in front.columns and (name != "n_seeds" or seeds[1:])]
    columns, leaves = [*known, *(objective.column for objective in objectives)], varied(df)
    settings = Settings(df, leaves)
    rows = [
        [*settings.told(row), *(_cell(row, name) for name in columns)] for row in ordered.head(shown).to_dict("records")
    ]
    columns = [*settings.headings, *columns]
    notes = [_seeds_told(seeds)] if seeds else []
    notes += ["compared by what all seeds are expected to give"] if front.attrs.get("over") == "expected" else []
    notes += [f"{len(front) - shown} more points"] if len(front) > shown else []
    headings = [name.replace(".", ".\n") for name in columns]
    found = _filled(headings, rows, "; ".join(notes))
    if width is None or _natural(found) <= width:
        return found
    return _tight([heading.replace("_", "_\n") for heading in headings], rows, "; ".join(notes), width)


class Settings:
    """What tells the cells of a table apart: a column a leaf, or where these are many all of them in one.

    Of many a row has those alone in which it differs from others of the same kind: of the same method, say.
    """

    def __init__(self, df: "pd.DataFrame", leaves: Sequence[str]) -> None:
        self._leaves = leaves
        self._cells = df[df["role"] == "cell"]
        self._kinds = [name for name in leaves if name.endswith(_KINDS)]
        self._in_one = len(leaves) > MOST_LEAVES
        self._varied: dict[tuple[object, ...], Sequence[str]] = {}

    @property
    def headings(self) -> Sequence[str]:
        """Of the columns of `told`."""
        return ["setting"] if self._in_one else self._leaves

    def told(self, row: Mapping[Any, Any]) -> Sequence[str]:
        """What a row of these columns says."""
        if not self._in_one:
            return [_cell(row, name) for name in self._leaves]
        kinds = [_cell(row, name) for name in self._kinds if _is_known(row[name])]
        return [", ".join([*kinds, *map(partial(_leaf, row), self._among_its_like(row))])]

    def _among_its_like(self, row: Mapping[Any, Any]) -> Sequence[str]:
        kind = tuple(row[name] if _is_known(row[name]) else None for name in self._kinds)
        if kind not in self._varied:
            like = self._cells
            for name, value in zip(self._kinds, kind, strict=True):
                like = like[like[name].isna() if value is None else like[name] == value]
            others = [name for name in self._leaves if name not in self._kinds]
            self._varied[kind] = [name for name in others if like[name].nunique(dropna=False) > 1]
        return [name for name in self._varied[kind] if _is_known(row[name])]


def _is_known(value: object) -> bool:
    return value is not None and value == value


def _leaf(row: Mapping[Any, Any], name: str) -> str:
    """A leaf and its value; of a pipeline the names of its steps."""
    leaf, text = name.rpartition(".")[2], _cell(row, name)
    return " + ".join(_STEP.findall(text)) if leaf == "steps" else f"{leaf} {text}"


def _seeds_told(seeds: Sequence[int]) -> str:
    if seeds[1:]:
        return "mean ± standard deviation of the seeds"
    return f"mean ± standard deviation of {seeds[0]} seeds each" if seeds[0] > 1 else "one seed each"


def _filled(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Table:
    table = table_of(*headings)
    for row in rows:
        table.add_row(*row)
    table.caption = caption or None
    return table


def _tight(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str, width: int) -> Table:
    """A table without a frame, in which neither words of headings nor identifiers are broken, if that can be."""
    table = _filled(headings, rows, caption)
    table.show_edge = table.pad_edge = False
    least = [max(map(len, heading.split("\n"))) for heading in headings]
    for place, heading in enumerate(headings):
        if heading.startswith("trial_"):
            least[place] = max(least[place], *(len(row[place]) for row in rows))
    if sum(least) + 3 * (len(least) - 1) <= width:
        for column, wanted in zip(table.columns, least, strict=True):
            column.min_width = wanted
    return table


def _natural(table: Table) -> int:
    """The width that a table takes where nothing is broken."""
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table).maximum


def varied(df: "pd.DataFrame") -> list[str]:
    """The config columns in which the cells of a table differ.

    A null is a value of its own only in a leaf that may be null; elsewhere it says that the leaf had no effect.
    """
    cells = df[df["role"] == "cell"]
    leaves = [str(name) for name in df.columns if is_config_column(str(name))]
    optional = optional_paths()
    return [name for name in leaves if cells[name].nunique(dropna=name not in optional) > 1]


def _cell(row: Mapping[Any, Any], name: str) -> str:
    unit = COLUMNS[name].unit if name in COLUMNS else ""
    text = number(row[name], unit)
    if name.endswith("sha256"):
        return text[:12]
    spread = row.get(f"{name}_std")
    if not isinstance(spread, float) or spread != spread or not isinstance(row[name], float):
        return text
    if unit == "s":
        return f"{text} ± {duration(spread)}" if spread else text
    # As many decimals as the value has; a spread that is nothing in them says nothing.
    digits, _, sign = text.partition(" ")
    decimals = len(digits.partition(".")[2])
    shown = f"{spread * (100 if unit == 'fraction' else 1):.{decimals}f}"
    return f"{digits} ± {shown} {sign}".rstrip() if float(shown) else text


def _wish(objective: Objective) -> str:
    tolerance = f" within {100 * objective.tolerance:g} %" if objective.relative else f" within {objective.tolerance:g}"
    return f"{objective.column} {objective.direction}{tolerance if objective.tolerance else ''}"
