"""`orchestrator compare`: its arguments, and what it says. Heavy libraries are imported when it runs."""

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING

from orchestrator.arguments import (
    ALL_ADVICE,
    Subparsers,
    add_all,
    add_objectives,
    add_over,
    add_skip_damaged,
    asked_objectives,
    command_parser,
)
from orchestrator.errors import TableError
from orchestrator.storage.places import AnyPath, named

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.analysis.changes import Comparison
    from orchestrator.analysis.objectives import Objective
    from orchestrator.report.source import Study
    from orchestrator.spec.model import Constraint


def add_compare_command(commands: Subparsers) -> None:
    """The command `compare`."""
    compare = command_parser(
        commands, "compare", _compare, "what is new on the front of B, and what fell off that of A"
    )
    compare.add_argument("before", type=named, metavar="A", help="results/<study>, or a Parquet file")
    compare.add_argument("after", type=named, metavar="B", help="the same, to compare with it")
    add_objectives(compare, "the objectives of both studies, where they agree")
    add_over(compare)
    add_all(compare)
    compare.add_argument("--select-on", choices=("val_accuracy",), help="choose on it in place of accuracy")
    compare.add_argument(
        "--reference", action="append", default=[], metavar="COLUMN=VALUE",
        help="worst value that counts in the hypervolumes (default: the worst of both tables)",
    )  # fmt: skip
    add_skip_damaged(compare)
    form = compare.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print the trials as CSV")
    form.add_argument("--json", action="store_true", help="print one JSON object: hypervolume, reference and trials")


def _compare(options: argparse.Namespace) -> int:
    from orchestrator.analysis.changes import compare
    from orchestrator.analysis.objectives import parse_objectives
    from orchestrator.report.bounds import within
    from orchestrator.report.source import study_beside

    before, after = (_loaded(path, skip_damaged=options.skip_damaged) for path in (options.before, options.after))
    known = [str(name) for name in (*before.columns, *after.columns)]
    asked = asked_objectives(options)
    studies = study_beside(options.before), study_beside(options.after)
    paths = f"{options.before} and {options.after}"
    objectives = parse_objectives(asked, also=known) if asked else _studied(*studies, paths)
    usual = "expected" if any(study.over == "expected" for study in studies) else "seed"
    over = None if options.over == "none" else options.over or usual
    if where := _bounds(*studies, paths, everything=options.all):
        before, after = within(before, where), within(after, where)
    found = compare(
        before, after, objectives, reference=_reference(options.reference), over=over, select_on=options.select_on
    )
    if options.csv:
        found.trials.to_csv(sys.stdout, index=False)
    elif options.json:
        sys.stdout.write(json.dumps(_as_json(found)) + "\n")
    else:
        from orchestrator.answers import comparison_report
        from orchestrator.screen import console

        comparison_report(console(), found, objectives, str(options.before), str(options.after))
    return 0


def _studied(before: "Study", after: "Study", paths: str) -> "tuple[Objective, ...]":
    """The objectives that both studies have, else the default ones."""
    from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, parse_objectives

    for why in filter(None, dict.fromkeys((before.warning, after.warning))):
        sys.stderr.write(f"warning: {why}\n")
    if set(before.objectives) == set(after.objectives):
        return before.objectives
    usual = parse_objectives(DEFAULT_OBJECTIVES)
    columns = ", ".join(one.column for one in usual)
    sys.stderr.write(f"{paths} have different objectives; compared by {columns} (else: --max, --min)\n")
    return usual


def _bounds(before: "Study", after: "Study", paths: str, *, everything: bool) -> "tuple[Constraint, ...]":
    """The bounds that both searches have; none where they differ."""
    if everything or not (before.where or after.where):
        return ()
    if before.where != after.where:
        sys.stderr.write(f"{paths} have different bounds in their searches; compared are all trials\n")
        return ()
    sys.stderr.write(f"Among the trials with {' and '.join(map(str, before.where))}{ALL_ADVICE}\n")
    return before.where


def _loaded(path: AnyPath, *, skip_damaged: bool) -> "pd.DataFrame":
    from orchestrator.report.source import readable_trials

    df, left_out = readable_trials(path, skip_damaged=skip_damaged)
    sys.stderr.write("".join(f"warning: {line}\n" for line in left_out))
    return df


def _reference(given: list[str]) -> dict[str, float] | None:
    point: dict[str, float] = {}
    for text in given:
        column, _, value = text.partition("=")
        try:
            point[column] = float(value)
        except ValueError as error:
            raise TableError(f"--reference {text}: write COLUMN=VALUE, as in accuracy=0.1") from error
    return point or None


def _as_json(found: "Comparison") -> dict[str, object]:
    volume = {str(name): value if math.isfinite(value) else None for name, value in found.hypervolume.iloc[0].items()}
    trials = json.loads(found.trials.to_json(orient="records", double_precision=15, date_format="iso"))
    return {"hypervolume": volume, "reference": dict(found.reference), "trials": trials}
