"""`orchestrator merge`: results of several machines as one."""

import argparse

from orchestrator.arguments import Subparsers, add_results, command_parser
from orchestrator.storage.places import named


def add_merge_command(commands: Subparsers) -> None:
    """The command and its arguments."""
    parser = command_parser(commands, "merge", _merge, "bring what other results roots have finished into --results")
    parser.add_argument(
        "roots", nargs="+", type=named, metavar="ROOT", help="results root to bring stages from: a folder or a URI"
    )
    add_results(parser)


def _merge(options: argparse.Namespace) -> int:
    from orchestrator.layout import Layout
    from orchestrator.merge import merge
    from orchestrator.reports import merge_report
    from orchestrator.screen import console

    found = merge(Layout(options.results), tuple(map(Layout, options.roots)))
    merge_report(console(), found, options.results)
    return 0
