"""`orchestrator sql`: its arguments, and how it shows an answer. Heavy libraries are imported when it runs."""

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.arguments import Subparsers, add_results, add_skip_damaged, command_parser

if TYPE_CHECKING:
    import pyarrow as pa

Value = str | int | float | bool | list[object] | None


def add_sql_command(commands: Subparsers) -> None:
    """The command `sql`."""
    about = "ask the tables of all studies with SQL: trials, stages, history, latency"
    sql = command_parser(commands, "sql", _sql, about)
    sql.add_argument("statement", help="one SELECT; a column with a dot stands in double quotes")
    sql.add_argument("--study", help="only the tables of this study (default: all of the results root)")
    add_skip_damaged(sql)
    form = sql.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON, one object a line")
    add_results(sql)


def _sql(options: argparse.Namespace) -> int:
    from orchestrator.sql import query, sources

    given = sources(options.results, options.study, skip_damaged=options.skip_damaged)
    sys.stderr.write("".join(f"warning: {warning}\n" for warning in given.warnings))
    found = query(options.statement, given)
    if options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(found.column_names)
        writer.writerows(_rows(found))
    elif options.json:
        for row in _rows(found):
            sys.stdout.write(json.dumps(dict(zip(found.column_names, map(_finite, row), strict=True))) + "\n")
    else:
        from orchestrator.answers import answer_report
        from orchestrator.screen import console

        answer_report(console(), found, _rows(found))
    return 0


def _rows(found: "pa.Table") -> Iterator[tuple[Value, ...]]:
    for batch in found.to_batches(max_chunksize=10_000):
        columns = [[_plain(value) for value in column.to_pylist()] for column in batch.columns]
        yield from zip(*columns, strict=True)


def _plain(value: object) -> Value:
    """A value as JSON and CSV can hold it; sums of integers come as decimals."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _finite(value: Value) -> Value:
    """JSON knows no infinities and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
