"""`orchestrator methods`: which compression methods there are, what they leave and what they cannot do."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator.arguments import Subparsers, command_parser
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from trainables.method_config import CompressBase

_ROWS = {
    "does": "does",
    "source": "source",
    "stored": "stored as",
    "runtimes": "runs on",
    "limits": "limits",
}


def add_methods_command(commands: Subparsers) -> None:
    """The command `methods`."""
    methods = command_parser(
        commands, "methods", _methods, "the compression methods: source, settings, what they leave, their limits"
    )
    methods.add_argument("method", nargs="?", help="only this one, with its settings")
    methods.add_argument("--json", action="store_true", help="print JSON")


def _methods(options: argparse.Namespace) -> int:
    from trainables.method_config.facts import METHOD_FACTS

    if options.method is not None and options.method not in METHOD_FACTS:
        from orchestrator.spec.wording import meant

        raise OrchestratorError(f"{options.method!r} is no compression method{meant(options.method, METHOD_FACTS)}")
    names = [options.method] if options.method else list(METHOD_FACTS)
    if options.json:
        told = [{"method": name, **asdict(METHOD_FACTS[name]), "settings": settings(name)} for name in names]
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    else:
        _show(names, whole=options.method is not None)
    return 0


def settings(method: str) -> list[dict[str, Any]]:
    """The leaves of a method: name, default and meaning."""
    properties: Mapping[str, Mapping[str, Any]] = config_of(method).model_json_schema()["properties"]
    return [
        {"leaf": f"compress.{name}", "default": facts.get("default"), "meaning": facts.get("description", "")}
        for name, facts in properties.items()
        if name != "method"
    ]


def config_of(method: str) -> "type[CompressBase]":
    """The config class of a method."""
    from orchestrator.spec.leaves import sections

    return sections()["compress"].classes[method]  # pyright: ignore[reportReturnType]


def _show(names: list[str], *, whole: bool) -> None:
    from rich.table import Table

    from orchestrator.screen import console
    from trainables.method_config.facts import METHOD_FACTS

    terminal = console()
    table = Table("method", "", "", show_lines=False, header_style="bold")
    for name in names:
        facts = asdict(METHOD_FACTS[name])
        for number, (field, title) in enumerate(_ROWS.items()):
            last = number == len(_ROWS) - 1
            table.add_row(name if number == 0 else "", title, facts[field], end_section=last)
    terminal.print(table)
    if whole:
        leaves = Table("leaf", "default", "meaning", header_style="bold")
        for leaf in settings(names[0]):
            leaves.add_row(leaf["leaf"], json.dumps(leaf["default"]), leaf["meaning"])
        terminal.print(leaves)
