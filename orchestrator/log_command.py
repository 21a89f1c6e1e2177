"""`orchestrator log`: its arguments, and what it says."""

import argparse
import sys
from pathlib import Path

from orchestrator.arguments import Subparsers, add_skip_damaged, command_parser
from orchestrator.loggers.registry import LOGGERS


def add_log_command(commands: Subparsers) -> None:
    """The command `log`."""
    log = command_parser(commands, "log", _log, "hand a study's trials to MLflow, Weights & Biases or TensorBoard")
    log.add_argument("table", metavar="RESULTS", help="results/<study>, or a Parquet file")
    log.add_argument("--to", required=True, choices=tuple(LOGGERS), help="the tool that is to have the runs")
    log.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder in which it keeps them")
    add_skip_damaged(log)


def _log(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from orchestrator.loggers.registry import open_logger
    from orchestrator.loggers.runs import Logged, log_runs
    from orchestrator.names import plain
    from orchestrator.report.source import HISTORY, read

    source = read(options.table, beside={HISTORY}, skip_damaged=options.skip_damaged)
    sys.stderr.write("".join(f"warning: {warning}\n" for warning in source.warnings))
    total = Logged(0, 0, 0, 0)
    for study, rows in source.trials.groupby("study", sort=False):
        logger = open_logger(options.to, plain(str(study), "the study"), options.out)
        try:
            total += log_runs(replace(source, trials=rows), logger)
        finally:
            logger.close()
    sys.stdout.write(f"{options.out}: {total}\n")
    sys.stdout.write(f"Look at it: {LOGGERS[options.to].look.format(out=options.out)}\n")
    return 0
