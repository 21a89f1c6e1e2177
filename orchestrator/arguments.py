"""The arguments that several commands have. Imports nothing heavy."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.storage.places import named

ArgumentGroup = Any  # nor to a group of arguments
Subparsers = Any  # argparse gives its collection of subparsers no public name


def command_parser(
    commands: Subparsers, name: str, run: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    """The parser of the command `name`, which `run` carries out; `about` is a line of help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(command=run)
    return parser


def add_study(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that reads a study, and the results root that it is about."""
    add_study_file(parser)
    add_results(parser)


def add_study_file(parser: argparse.ArgumentParser) -> None:
    """A study, what is changed of it, and whether it may name code."""
    parser.add_argument("study", help="study file; a bare name is also looked up among the shipped studies")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="override a leaf of the study",
    )
    add_allow_code(
        parser, "let the study name a model of your own as package.module:function, which is then imported and run"
    )


def add_allow_code(parser: argparse.ArgumentParser, about: str) -> None:
    """Leave to run a user's own code."""
    parser.add_argument("--allow-code", action="store_true", help=about)


def add_results(parser: argparse.ArgumentParser) -> None:
    """Where results lie."""
    parser.add_argument(
        "--results", type=named, default=Path("results"), metavar="ROOT",
        help="results root: a folder, or a URI as s3://BUCKET/PREFIX (default: ./results)",
    )  # fmt: skip


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Where data sets lie."""
    parser.add_argument(
        "--data-root",
        type=named,
        default=Path("data"),
        metavar="DIR",
        help="folder or URI of data sets (default: ./data)",
    )


def add_objectives(parser: argparse.ArgumentParser, default: str = "the objectives of the study") -> None:
    """`--max COLUMN[:TOLERANCE]` and `--min`."""
    for direction, better in (("max", "larger"), ("min", "smaller")):
        parser.add_argument(
            f"--{direction}", action="append", default=[], metavar="COLUMN[:TOLERANCE]",
            help=f"{better} is better (default: {default})",
        )  # fmt: skip


def add_skip_damaged(parser: argparse.ArgumentParser) -> None:
    """`--skip-damaged`."""
    about = "leave out files that cannot be read, with a warning"
    parser.add_argument("--skip-damaged", action="store_true", help=about)


ALL_ADVICE = " (--all takes all trials)"


def add_all(parser: argparse.ArgumentParser) -> None:
    """`--all`: the bounds of a search do not count."""
    parser.add_argument("--all", action="store_true", help="also take what misses the bounds (where) of the search")


def add_over(parser: argparse.ArgumentParser) -> None:
    """`--over`: how the seeds of a setting are put together before they are compared."""
    parser.add_argument(
        "--over", choices=("seed", "expected", "none"),
        help="compare means over the seeds, means that all seeds are expected to give, or single rows (default: seed; "
        "expected where the study has adaptive repeats)",
    )  # fmt: skip


def asked_objectives(options: argparse.Namespace) -> dict[str, object]:
    """What `--max COLUMN[:TOLERANCE]` and `--min` ask for, as `parse_objectives` takes it."""
    asked: dict[str, object] = {}
    for direction in ("max", "min"):
        for text in getattr(options, direction):
            column, _, tolerance = text.partition(":")
            asked[column] = {direction: tolerance} if tolerance else direction
    return asked


def add_shard(parser: argparse.ArgumentParser) -> None:
    """`--shard I/N`."""
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="only this part of a study that is parted into N")


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part such as 1/4 or 4/4: I of N, with I from 1 to N")
    return int(number), int(of)


def count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentTypeError: `text` is none.

    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
