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
    """The leaves of a method that a study may set: name, values, default and meaning."""
    from orchestrator.spec.leaves import fields, want

    owner = config_of(method)
    properties: Mapping[str, Mapping[str, Any]] = owner.model_json_schema()["properties"]
    return [
        {
            "leaf": f"compress.{name}",
            "values": "a mapping" if properties[name].get("type") == "object" else want(owner, name),
            "default": properties[name].get("default"),
            "meaning": properties[name].get("description", ""),
        }
        for name in fields(owner)
        if name != "method"
    ]


def config_of(method: str) -> "type[CompressBase]":
    """The config class of a method."""
    from orchestrator.spec.leaves import sections

    return sections()["compress"].classes[method]  # pyright: ignore[reportReturnType]


def _show(names: list[str], *, whole: bool) -> None:
    from rich.table import Table
    from rich.text import Text

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
        leaves = Table("leaf", "default", "meaning, and what it takes", header_style="bold")
        for leaf in settings(names[0]):
            told = Text(leaf["meaning"]).append(f"\n{leaf['values']}", style="dim")
            leaves.add_row(leaf["leaf"], Text(_as_words(leaf["default"])), told)
        terminal.print(leaves)


def _as_words(default: Any) -> str:
    """A leaf's default as a study writes it; of a list the words alone."""
    if isinstance(default, list) and default:
        return ", ".join(map(str, default))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return default if isinstance(default, str) else json.dumps(default)
