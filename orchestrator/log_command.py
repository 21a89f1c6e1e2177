"""`orchestrator log`: its arguments, and what it says."""

import argparse
import sys
from pathlib import Path

from orchestrator.arguments import Subparsers, add_skip_damaged, command_parser
from orchestrator.loggers.registry import LOGGERS
from orchestrator.storage.places import named


def add_log_command(commands: Subparsers) -> None:
    """The command `log`."""
    log = command_parser(commands, "log", _log, "hand a study's trials to MLflow, Weights & Biases or TensorBoard")
    log.add_argument("table", type=named, metavar="RESULTS", help="results/<study>, or a Parquet file")
    log.add_argument("--to", required=True, choices=tuple(LOGGERS), help="the tool that is to have the runs")
    log.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder in which it keeps them")
    add_skip_damaged(log)


def _log(options: argparse.Namespace) -> int:
    from orchestrator.loggers.runs import hand_over
    from orchestrator.report.source import HISTORY, read

    source = read(options.table, beside={HISTORY}, skip_damaged=options.skip_damaged)
    sys.stderr.write("".join(f"warning: {warning}\n" for warning in source.warnings))
    total = hand_over(source, options.to, options.out)
    sys.stdout.write(f"{options.out}: {total}\n")
    sys.stdout.write(f"Look at it: {LOGGERS[options.to].look.format(out=options.out)}\n")
    return 0
