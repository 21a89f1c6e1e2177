"""The section `search` of a study file: what chooses the cells, how many, and on what it may look."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.tables import COLUMNS, suggestion
from orchestrator.errors import Fault
from orchestrator.spec.axes import AxisReader
from orchestrator.spec.guide import GuideError, guiding
from orchestrator.spec.model import (
    MAX_CELLS,
    REPEATS,
    SEARCH_NAMES,
    Axis,
    Constraint,
    Distribution,
    Repeats,
    SearchName,
    SearchSpec,
)
from orchestrator.spec.rungs import rungs
from orchestrator.spec.settings import MAX_SEED, count
from orchestrator.spec.wording import meant, show
from orchestrator.spec.yaml_nodes import Node, Value

KEYS = ("name", "trials", "seed", "repeats", "where", "first", "rungs")
_BOUND = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=)\s*(\S+)\s*")


def search_section(node: Node | None, faults: list[Fault]) -> SearchSpec:
    """The section without `first`, which is read with the axes."""
    entries = node.only("search", KEYS, faults) if node else {}
    name = _word(entries, "name", SEARCH_NAMES, faults)
    trials = count(entries.get("trials"), "search.trials", (1, MAX_CELLS), faults)
    seed = count(entries.get("seed"), "search.seed", (0, MAX_SEED), faults)
    repeats = _word(entries, "repeats", REPEATS, faults)
    found = SearchSpec(
        cast("SearchName", name),
        trials,
        seed or 0,
        cast("Repeats", repeats),
        _where(entries, faults),
        rungs=rungs(entries.get("rungs"), faults),
    )
    if "name" not in entries or entries["name"].plain() == name:
        _check_effects(found, entries, node, faults)
    return found


def first_grid(
    node: Node | None, axes: Sequence[Axis], reader: AxisReader, faults: list[Fault]
) -> Mapping[str, tuple[Value, ...]] | None:
    """`search.first`: `grid`, or values for some of the free axes; None where it is absent."""
    entry = node.value.get("first") if node is not None and isinstance(node.value, Mapping) else None
    if entry is None or entry.value is None:
        return None
    given = {} if entry.plain() == "grid" else reader.listed("search.first", entry)
    for path in given:
        if path not in [axis.path for axis in axes]:
            message = f"is no free axis of this study{meant(path, [axis.path for axis in axes])}"
            faults.append(entry.fault(f"search.first.{path}", message))
    for axis in axes:
        if isinstance(axis.values, Distribution) and axis.path not in given:
            message = f"must give values for {axis.path}, which is a distribution, as in {{{axis.path}: [...]}}"
            faults.append(entry.fault("search.first", message))
        faults += [
            entry.fault(f"search.first.{axis.path}", f"{show(value)} {outside}")
            for value in given.get(axis.path, ())
            if (outside := _outside(axis, value))
        ]
    return given


def _outside(axis: Axis, value: Value) -> str:
    """Why a value is no point of an axis; empty where it is one."""
    if not isinstance(axis.values, Distribution):
        return "" if value in axis.values else f"is no value of the axis: {', '.join(map(show, axis.values))}"
    low, high = axis.values.low, axis.values.high
    inside = isinstance(value, int | float) and low <= value <= high
    return "" if inside else f"lies outside the axis, which reaches from {show(low)} to {show(high)}"


def check_guided(found: SearchSpec, objectives: Sequence[Objective], node: Node | None, faults: list[Fault]) -> None:
    """What chooses trials may read no test image, and nothing that is only known after all training."""
    if not (found.sampled or found.repeats == "adaptive"):
        return
    for one in objectives:
        try:
            guiding(one)
        except GuideError as error:
            entries = node.value if node is not None and isinstance(node.value, Mapping) else {}
            place = entries.get(one.column) or node
            fault = f"objectives.{one.column}"
            faults.append(place.key_fault(fault, str(error)) if place else Fault(str(error), fault))


def _word(entries: Mapping[str, Node], key: str, known: Sequence[str], faults: list[Fault]) -> str:
    node = entries.get(key)
    if node is None:
        return known[0]
    value = node.plain()
    if value in known:
        return str(value)
    faults.append(node.fault(f"search.{key}", f"{show(value)} is not known{meant(str(value), known)}"))
    return known[0]


def _check_effects(found: SearchSpec, entries: Mapping[str, Node], node: Node | None, faults: list[Fault]) -> None:
    """A key that is needed must be there; one that changes nothing is refused."""
    if found.drawn and "trials" not in entries and node:
        faults.append(node.fault("search.trials", f"is required for {found.name}: how many configs to ask for"))
    if not found.drawn and "trials" in entries:
        message = "has no effect on a grid; remove it or use another name"
        faults.append(entries["trials"].key_fault("search.trials", message))
    for key in ("where", "first"):
        if key in entries and not found.sampled:
            message = f"guides a search that learns ({', '.join(SEARCH_NAMES[2:])}) and has no effect on {found.name}"
            faults.append(entries[key].key_fault(f"search.{key}", message))
    if found.rungs and found.sampled:
        message = f"stop trials of a grid or of random cells; {found.name} learns from whole trials"
        faults.append(entries["rungs"].key_fault("search.rungs", message))
    if found.repeats == "adaptive" and found.sampled:
        message = f"spends the seeds of a grid or of random cells; {found.name} runs every config under all seeds"
        faults.append(entries["repeats"].fault("search.repeats", message))
    if found.name == "qmc" and found.where:
        message = "has no effect on qmc, which spreads its points without looking at results"
        faults.append(entries["where"].key_fault("search.where", message))


def _where(entries: Mapping[str, Node], faults: list[Fault]) -> tuple[Constraint, ...]:
    node = entries.get("where")
    if node is None:
        return ()
    items = node.value if isinstance(node.value, tuple) else (node,)
    found = [_constraint(item, number, faults) for number, item in enumerate(items)]
    return tuple(one for one in found if one)


def _constraint(node: Node, number: int, faults: list[Fault]) -> Constraint | None:
    key, text = f"search.where[{number}]", node.plain()
    parts = _BOUND.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        message = f'{show(text)} is no bound; write a column, >= or <=, and a number, as in "accuracy >= 0.9"'
        faults.append(node.fault(key, message))
        return None
    column, sense, told = parts.groups()
    try:
        bound = _finite(told)
        guided = guiding(Objective(column, COLUMNS[column].direction or "max" if column in COLUMNS else "max"))
    except (ValueError, GuideError) as error:
        unknown = f"{column} {error}" if isinstance(error, GuideError) else f"{show(told)} is no number"
        faults.append(node.fault(key, unknown + (suggestion(column, COLUMNS) if column not in COLUMNS else "")))
        return None
    if bound > 1 and guided.column in COLUMNS and COLUMNS[guided.column].unit == "fraction":
        meant_share = f"; did you mean {bound / 100:g}?" if bound <= 100 else ""
        faults.append(node.fault(key, f"{column} is a fraction, at most 1, and never {show(told)}{meant_share}"))
        return None
    return Constraint(guided.column, ">=" if sense == ">=" else "<=", bound)


def _finite(told: str) -> float:
    """A number.

    Raises:
        ValueError: it is none, or not finite.

    """
    if not math.isfinite(bound := float(told)):
        raise ValueError(told)
    return bound
