"""The small parts of a study file: its name, seeds and objectives."""

import re
from collections.abc import Mapping
from typing import cast

from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, Objective, parse_objectives
from orchestrator.analysis.tables import is_config_column
from orchestrator.errors import Fault, TableError
from orchestrator.spec.leaves import uncompared
from orchestrator.spec.model import KEEP, MAX_CELLS, Keep
from orchestrator.spec.wording import meant, show
from orchestrator.spec.yaml_nodes import Node, Value

MAX_SEED = 2**32 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_TAKEN = ("reference",)
_TIMED = ("latency_ms", "latency_iqr_ms", "latency_ratio", "latency_same_runtime_ratio", "runtime_agreement")


def is_study_name(text: str) -> bool:
    """Whether a study may be called so."""
    return _NAME.fullmatch(text) is not None


def study_name(node: Node, faults: list[Fault]) -> str:
    """A name that is a folder of its own below the results."""
    name = node.plain()
    if not isinstance(name, str) or not is_study_name(name):
        message = f"{show(name)} must be text: a letter or digit, then at most 63 of A-Z a-z 0-9 . _ -"
        faults.append(node.fault("study", message))
    elif name in _TAKEN:
        faults.append(node.fault("study", f"{show(name)} is taken by the committed tables; choose another name"))
    return str(name)


def seeds(node: Node | None, faults: list[Fault]) -> tuple[int, ...]:
    """A count N (0 to N-1) or a list; absent: 0 alone."""
    if node is None:
        return (0,)
    value = node.plain()
    if _whole(value, 1, MAX_CELLS):
        return tuple(range(cast("int", value)))
    if not isinstance(value, tuple) or not value:
        message = f"{show(value)} must be a count of 1 to {MAX_CELLS:,}, or a list such as [0, 1, 2]"
        faults.append(node.fault("seeds", message))
        return ()
    known: set[Value] = set()
    for number, (seed, item) in enumerate(zip(value, cast("tuple[Node, ...]", node.value), strict=True)):
        if not _whole(seed, 0, MAX_SEED):
            message = f"{show(seed)} must be a whole number of 0 to {MAX_SEED}"
            faults.append(item.fault(f"seeds[{number}]", message))
        elif seed in known:
            faults.append(item.fault(f"seeds[{number}]", f"{show(seed)} is there twice"))
        else:
            known.add(seed)
    return cast("tuple[int, ...]", value)


def objectives(node: Node | None, faults: list[Fault], *, timed: bool = True) -> tuple[Objective, ...]:
    """What the front is taken over; absent: accuracy, compression and time. `timed`: latencies are measured."""
    if node is None:
        return parse_objectives(DEFAULT_OBJECTIVES)
    entries = node.mapping("objectives", faults)
    if isinstance(node.value, Mapping) and not entries:
        faults.append(node.fault("objectives", "names no column; write for example {accuracy: max, compression: max}"))
    found: list[Objective] = []
    for column, item in entries.items():
        try:
            found += parse_objectives({column: item.plain()})
        except TableError as error:
            message = str(error).removeprefix(f"objective {column}: ")
            faults.append(item.key_fault(f"objectives.{column}", message))
        if is_config_column(column) and (message := uncompared(column)):
            faults.append(item.key_fault(f"objectives.{column}", message))
        if column in _TIMED and not timed:
            message = "is only measured where base.latency is set, as in base: {latency: {runtimes: [openvino]}}"
            faults.append(item.key_fault(f"objectives.{column}", message))
    return tuple(found)


def keep(node: Node | None, faults: list[Fault]) -> Keep:
    """Which outputs stay after the study's end; absent: all."""
    if node is not None and not isinstance(node.value, Mapping):
        faults.append(node.fault("artifacts", f"{show(node.plain())} must be a mapping such as {{keep: front}}"))
        return "all"
    item = node.only("artifacts", ("keep",), faults).get("keep") if node else None
    if item is None:
        return "all"
    value = item.plain()
    if value not in KEEP:
        message = f"{show(value)} must be one of {', '.join(KEEP)}{meant(str(value), KEEP)}"
        faults.append(item.fault("artifacts.keep", message))
        return "all"
    return value


def count(node: Node | None, key: str, bounds: tuple[int, int], faults: list[Fault]) -> int | None:
    """A whole number within bounds, both included; None where the key is absent or faulty."""
    if node is None:
        return None
    value = node.plain()
    if _whole(value, *bounds):
        return cast("int", value)
    low, high = bounds
    faults.append(node.fault(key, f"{show(value)} must be a whole number of {low:,} to {high:,}"))
    return None


def _whole(value: Value, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
