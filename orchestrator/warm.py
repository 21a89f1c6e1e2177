"""Finished trials of the store that lie in the space of a study, whatever study they were run for.

A trial is put together from the leaves that its stages' keys hold. It lies in the space if the config that the space
gives for its values has the very path that was run: what was guessed on the way is proven by the key.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.growth import Records, Row, Rows
from orchestrator.ledger import StageRecord
from orchestrator.plan import Planner
from orchestrator.spec.cells import Cell
from orchestrator.spec.model import Axis, Distribution
from orchestrator.spec.pipelines import step_leaf
from orchestrator.spec.space import FIXED, Space, State
from orchestrator.spec.yaml_nodes import Value
from trainables.config import TrialConfig

Leaves = Mapping[str, Any]


def fitting(
    space: Space, planner: Planner, rows: Rows, records: Records
) -> Iterator[tuple[TrialConfig, State, Sequence[Row]]]:
    """Configs of the space that the store holds finished, with a row for each seed, in the order they were finished."""
    finished = [record for record in records.values() if record.kind == "evaluate" and record.status == "complete"]
    found: defaultdict[int, list[Row]] = defaultdict(list)
    places: dict[int, tuple[TrialConfig, State]] = {}
    for record in sorted(finished, key=lambda one: (one.finished_at, one.key)):
        state = _state(space, _leaves(record, records))
        config = space.config(state, TrialConfig.model_fields) if state else None
        if config is None or state is None or space.excluded_by(state) != FIXED:
            continue
        trial = planner.trial(Cell(config, (), record.seed))
        if trial.path[-1] == record.key and (row := rows.of(trial, records)) is not None:
            places.setdefault(id(config), (config, state))
            found[id(config)].append(row)
    for identity, (config, state) in places.items():
        yield config, state, found[identity]


def _leaves(record: StageRecord | None, records: Records) -> Leaves:
    """Leaves by path, from the end of the path to its root; those at their defaults are not there."""
    found: dict[str, Any] = {}
    while record is not None:
        for section, leaves in record.config.items():
            if isinstance(leaves, Mapping):
                found |= {f"{section}.{name}": value for name, value in leaves.items() if record.kind != "select"}
                found |= _of_step(leaves)
        if record.kind == "select" and record.parent is None:
            found |= {f"select.{name}": value for name, value in record.config.get("select", {}).items()}
            found |= {f"data.{name}": value for name, value in record.config.get("data", {}).items()}
        if "labels" in record.config:
            found["select.budget"] = record.config["labels"]
        record = records.get(record.parent or "")
    return found


def _of_step(compress: Mapping[str, Any]) -> Leaves:
    """The leaves of a pipeline's step, whose name no key holds, by its number."""
    if "number" not in compress or "text" not in compress:
        return {}
    return {f"compress.steps.{compress['number']}.{name}": one for name, one in json.loads(compress["text"]).items()}


def _told_as(path: str) -> str:
    """The path of an axis as `_leaves` has it."""
    inner = step_leaf(path)
    return f"compress.steps.{inner.number}.{inner.leaf}" if inner else path


def _state(space: Space, leaves: Leaves) -> State | None:
    """A state that may have given these leaves; None where a value lies outside."""
    state = [0] * len(space.axes) + [0]
    for place, axis in enumerate(space.spec.axes):
        index = _index(space, place, axis, leaves)
        if index is None:
            return None
        state[place] = index
    first = len(space.spec.axes)
    for group in space.spec.zips:
        places = range(first, first + len(group))
        rows = zip(*(space.values[place] for place in places), strict=True)
        matching = [i for i, values in enumerate(rows) if _same(group, values, leaves)]
        if not matching:
            return None
        for place in places:
            state[place] = matching[0]
        first += len(group)
    return space.settle(tuple(state))


def _index(space: Space, place: int, axis: Axis, leaves: Leaves) -> int | None:
    """The index of an axis's value; 0 where the leaves do not tell it, as with one that has no effect."""
    values, path = axis.values, _told_as(axis.path)
    if isinstance(values, Distribution):
        value = leaves.get(path)
        if value is None:
            default = space.default(axis.path, leaves)
            known = isinstance(default, int | float) and values.low <= default <= values.high
            return space.place_of(place, default if known else values.low)
        inside = values.low <= value <= values.high and values.rounded(value) == value
        return space.place_of(place, value) if inside else None
    if path not in leaves and axis.leaf:
        default = space.default(axis.path, leaves)
        return values.index(default) if default in values else 0
    matching = [i for i, one in enumerate(values) if _same((axis,), (one,), leaves)]
    return matching[0] if matching else None


def _same(axes: Sequence[Axis], values: Sequence[Value], leaves: Leaves) -> bool:
    """Whether leaves have the values of some axes; a leaf at its default is not told."""
    for axis, value in zip(axes, values, strict=True):
        if not axis.leaf:
            wanted = value if isinstance(value, Mapping) else {}
            if any(leaves.get(f"{axis.path}.{name}", one) != one for name, one in wanted.items()):
                return False
        elif (path := _told_as(axis.path)) in leaves and _plain(leaves[path]) != value:
            return False
    return True


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
