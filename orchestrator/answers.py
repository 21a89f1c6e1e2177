"""What a person reads of `orchestrator sql` and `orchestrator compare`."""

import math
from collections.abc import Iterable, Sequence

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.analysis.changes import Comparison
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.screen import number, plural, say
from orchestrator.spec.leaves import optional_paths
from orchestrator.words import LEFT_OUT

ROWS_SHOWN = 100
_ORDER = {"new": 0, "gone": 1, "kept": 2}


def answer_report(terminal: Console, found: pa.Table, rows: Iterable[Sequence[object]]) -> None:
    """The answer to an SQL statement, its first rows as a table; `rows` are the values of `found`."""
    table = Table()
    for field in found.schema:
        numeric = str(field.type).startswith(("int", "uint", "double", "float", "decimal"))
        table.add_column(_heading(field.name), justify="right" if numeric else "left", overflow="fold")
    for _, row in zip(range(ROWS_SHOWN), rows, strict=False):
        table.add_row(*(Text(number(value)) for value in row))
    terminal.print(table)
    shown = f", {ROWS_SHOWN} shown; --csv or --json print all" if found.num_rows > ROWS_SHOWN else ""
    say(terminal, f"{plural(found.num_rows, 'row')}{shown}")


def comparison_report(
    terminal: Console, found: Comparison, objectives: Sequence[Objective], before: str, after: str
) -> None:
    """Both fronts as one table, how many points came and went, and both hypervolumes."""
    units = {one.column: COLUMNS[one.column].unit for one in objectives if one.column in COLUMNS}
    new, kept, gone = (int((found.trials["change"] == kind).sum()) for kind in ("new", "kept", "gone"))
    if len(found.trials):
        terminal.print(_fronts(found, objectives, units))
    if len(found.trials) > ROWS_SHOWN:
        say(terminal, f"{len(found.trials) - ROWS_SHOWN} more rows: --csv or --json print all")
    say(terminal, f"{before}: {plural(kept + gone, 'point')} on the front; {after}: {kept + new}")
    say(terminal, f"{new} new, {kept} kept, {gone} gone")
    volume = found.hypervolume.iloc[0]
    relative = float(volume["relative_change"])
    percent = f", {100 * relative:+.2f} %" if math.isfinite(relative) else ""
    say(terminal, f"hypervolume {volume['before']:.6g} -> {volume['after']:.6g} ({volume['change']:+.6g}{percent})")
    point = (f"{name} {number(value, units.get(name, ''))}" for name, value in found.reference.items())
    say(terminal, f"  up to {', '.join(point)}")
    if left_out := found.trials.attrs["left_out"]:
        because = found.trials.attrs["left_out_because"]
        reasons = ", ".join(f"{count} {LEFT_OUT[reason]}" for reason, count in because.items() if count)
        say(terminal, f"{plural(left_out, 'row')} of both could not be compared: {reasons}")


def _fronts(found: Comparison, objectives: Sequence[Objective], units: dict[str, str]) -> Table:
    """The trials: new ones, then those that are gone, then the others; the best by the first objective first."""
    trials, first = found.trials, objectives[0]
    known = [name for name in ("trial_id", "n_seeds") if name in trials.columns]
    shown = list(dict.fromkeys([*_varied(found), *known, *(one.column for one in objectives)]))
    table = Table(caption="* dominated by the front of the other table", caption_justify="left")
    table.add_column("change")
    for name in shown:
        table.add_column(_heading(name), justify="right", overflow="fold")
    ordered = trials.sort_values(first.column, ascending=first.direction == "min", kind="stable")
    ordered = ordered.sort_values("change", key=lambda kinds: kinds.map(_ORDER), kind="stable")
    for row in ordered.head(ROWS_SHOWN).to_dict("records"):
        cells = (Text(number(row[name], units.get(name, ""))) for name in shown)
        table.add_row(f"{row['change']}{' *' if row['beaten'] else ''}", *cells)
    return table


def _varied(found: Comparison) -> list[str]:
    """Config columns in which the trials differ; a null counts only in a leaf that may be null."""
    optional = optional_paths()
    leaves = [str(name) for name in found.trials.columns if is_config_column(str(name))]
    told = [name for name in leaves if not name.startswith("latency.")]
    return [name for name in told if found.trials[name].nunique(dropna=name not in optional) > 1]


def _heading(name: str) -> Text:
    return Text(name.replace(".", ".\n"))
