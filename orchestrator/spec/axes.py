"""The axes of a study file, free and zipped: their values, checked one by one."""

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal

from orchestrator.errors import Fault
from orchestrator.spec.leaves import OBSERVED, SectionFacts, check_leaf, foreign, is_real, leaf_paths, sections
from orchestrator.spec.model import MAX_CELLS, Axis, Distribution
from orchestrator.spec.pipelines import StepLeaf, step_facts, step_leaf
from orchestrator.spec.wording import kind, meant, show
from orchestrator.spec.yaml_nodes import Node, Scalar, Value
from trainables.config import Section

FORMS = "[a, b, c], {range: [first, last, step]}, or {uniform | loguniform | int_uniform: [low, high]}"
NO_AXIS = "is no part of a trial's identity, so it is no axis; set it once under base, where it takes lists"
PIPELINE_FORM = "as {1_expand: {method: expand}, 2_stq: {method: stq}}"
_KINDS = ("uniform", "loguniform", "int_uniform")


class AxisReader:
    """Reads axes; every fault goes to `faults`.

    `tags` are the methods that a section can have in this study (compress: stq, ...): a value is checked against
    those that have its leaf. `steps` are the methods that each step of the study's pipelines can have, by its name.
    """

    def __init__(
        self, tags: Mapping[str, frozenset[str]], steps: Mapping[str, frozenset[str]], faults: list[Fault], *,
        drawn: bool,
    ) -> None:  # fmt: skip
        self._facts = sections()
        self._known = [*leaf_paths(), *self._facts]
        self._tags = tags
        self._steps = steps
        self._faults = faults
        self._drawn_from = drawn

    def free(self, node: Node | None) -> tuple[Axis, ...]:
        """The axes of `axes:`."""
        entries = node.mapping("axes", self._faults) if node else {}
        return self._axes("axes", entries)

    def zipped(self, node: Node | None) -> tuple[tuple[Axis, ...], ...]:
        """The groups of `zip:`, one mapping or a list of mappings."""
        if node is None:
            return ()
        groups = node.value if isinstance(node.value, tuple) else (node,)
        found = (self._group(group) for group in groups)
        return tuple(group for group in found if group)

    def listed(self, where: str, node: Node) -> dict[str, tuple[Value, ...]]:
        """Values of axes, lists alone, by path."""
        found = self._axes(where, node.mapping(where, self._faults))
        return {axis.path: axis.values for axis in found if not isinstance(axis.values, Distribution)}

    def _group(self, node: Node) -> tuple[Axis, ...]:
        entries = node.mapping("zip", self._faults)
        if isinstance(node.value, Mapping) and len(entries) < 2:
            self._faults.append(node.fault("zip", "needs at least two axes that vary together"))
        axes = self._axes("zip", entries)
        lengths = {axis.path: len(axis.values) for axis in axes if not isinstance(axis.values, Distribution)}
        if len(lengths) < len(axes):
            self._faults.append(node.fault("zip", "a distribution cannot be zipped; write lists"))
        elif len(set(lengths.values())) > 1:
            told = ", ".join(f"{path} has {length}" for path, length in lengths.items())
            self._faults.append(node.fault("zip", f"the lists must be equally long: {told}"))
        return axes

    def _axes(self, where: str, entries: Mapping[str, Node]) -> tuple[Axis, ...]:
        found = [self._axis(where, path, node) for path, node in entries.items()]
        return tuple(axis for axis in found if axis)

    def _axis(self, where: str, path: str, node: Node) -> Axis | None:
        key = f"{where}.{path}"
        if (inner := step_leaf(path)) is not None:
            if inner.step not in self._steps:
                self._faults.append(node.key_fault(key, self._no_step(inner)))
                return None
        elif path not in self._known:
            self._faults.append(node.key_fault(key, f"unknown leaf{meant(path, self._known)}"))
            return None
        if path.partition(".")[0] in OBSERVED:
            self._faults.append(node.key_fault(key, NO_AXIS))
            return None
        before = len(self._faults)
        values = self._distribution(key, path, node) if isinstance(node.value, Mapping) else self._list(key, node)
        if values is None or len(self._faults) > before:
            return None
        if isinstance(values, Distribution):
            return Axis(path, values)
        checked = tuple(self._checked(key, path, number, item) for number, item in enumerate(values))
        if where == "axes":
            self._once(key, values)
        return Axis(path, checked) if len(self._faults) == before else None

    def _no_step(self, inner: StepLeaf) -> str:
        if not self._steps:
            return f"is a leaf of the step {inner.step}, and no compress of this study has steps (method combine)"
        return f"{inner.step} is no step of this study's pipelines{meant(inner.step, self._steps)}"

    def _list(self, key: str, node: Node) -> tuple[Node, ...] | None:
        if not isinstance(node.value, tuple):
            message = f"{show(node.plain())} is no list of values; an axis is {FORMS}"
            self._faults.append(node.fault(key, message))
            return None
        if not node.value:
            self._faults.append(node.fault(key, "an empty axis; give it at least one value or remove it"))
        return node.value

    def _once(self, key: str, values: Iterable[Node]) -> None:
        first: dict[str, Node] = {}
        for number, node in enumerate(values):
            name = json.dumps(_comparable(node.plain()), sort_keys=True)
            if name in first:
                message = f"{show(node.plain())} is there twice (as {show(first[name].plain())} before)"
                self._faults.append(node.fault(f"{key}[{number}]", message))
            first.setdefault(name, node)

    def _distribution(self, key: str, path: str, node: Node) -> tuple[Node, ...] | Distribution | None:
        entries = node.only(key, ("range", *_KINDS), self._faults)
        if len(entries) != 1:
            self._faults.append(node.fault(key, f"must be one of {FORMS}"))
            return None
        kind, bounds = next(iter(entries.items()))
        numbers = self._numbers(f"{key}.{kind}", bounds, 3 if kind == "range" else 2)
        if numbers is None:
            return None
        if kind == "range":
            return self._range(f"{key}.range", bounds, *numbers)
        return self._drawn(f"{key}.{kind}", path, kind, bounds, numbers)

    def _numbers(self, key: str, node: Node, count: int) -> list[float] | None:
        items = node.plain()
        found = [item for item in items if _is_number(item)] if isinstance(items, tuple) else []
        if not isinstance(items, tuple) or len(items) != count or len(found) != count:
            names = "[first, last, step]" if count == 3 else "[low, high]"
            self._faults.append(node.fault(key, f"{show(items)} must be {count} numbers {names}"))
            return None
        return found  # pyright: ignore[reportReturnType]

    def _range(self, key: str, node: Node, first: float, last: float, step: float) -> tuple[Node, ...] | None:
        """Both ends included, computed in decimals: 0.3 is 0.3."""
        if not all(map(math.isfinite, (first, last, step))):
            return None  # told already, at the number
        start, stop, width = (Decimal(repr(number)) for number in (first, last, step))
        if width == 0 or (stop - start) / width < 0:
            self._faults.append(node.fault(key, f"no step of {show(step)} leads from {show(first)} to {show(last)}"))
            return None
        steps = (stop - start) / width
        if steps >= MAX_CELLS:
            self._faults.append(
                node.fault(key, f"has {int(steps) + 1:,} values; at most {MAX_CELLS:,} cells are planned")
            )
            return None
        whole = all(isinstance(number, int) for number in (first, last, step))
        values = (start + index * width for index in range(int(steps) + 1))
        return tuple(
            Node(int(value) if whole else float(value), node.line, node.column, origin=node.origin) for value in values
        )

    def _drawn(self, key: str, path: str, kind: str, node: Node, ends: list[float]) -> Distribution | None:
        low, high = ends
        before = len(self._faults)
        if not self._drawn_from:
            self._faults.append(
                node.fault(
                    key,
                    "a distribution needs a search that draws, as in search: {name: random, trials: N}; "
                    "a grid takes a list or a range",
                )
            )
        if not low < high:
            self._faults.append(node.fault(key, f"the low end {show(low)} must be below the high end {show(high)}"))
        if kind == "loguniform" and low <= 0:
            self._faults.append(node.fault(key, f"the low end {show(low)} of a logarithmic axis must be above 0"))
        if kind == "int_uniform" and not all(isinstance(end, int) for end in ends):
            self._faults.append(node.fault(key, f"{show(low)} and {show(high)} must be whole numbers"))
        for end in ends:
            self._checked(
                key,
                path,
                None,
                Node(end if kind == "int_uniform" else float(end), node.line, node.column, origin=node.origin),
            )
        if len(self._faults) > before:
            return None
        return Distribution(
            "int_uniform" if kind == "int_uniform" else "loguniform" if kind == "loguniform" else "uniform", low, high
        )

    def _checked(self, key: str, path: str, number: int | None, node: Node) -> Value:
        place = key if number is None else f"{key}[{number}]"
        name, _, leaf = path.partition(".")
        facts, tags = self._facts[name], self._tags.get(name, frozenset())
        if not leaf:
            check_section_node(facts, node, place, self._faults)
            return node.plain()
        if (inner := step_leaf(path)) is not None:
            facts, tags, leaf = step_facts(facts), self._steps[inner.step], inner.leaf
        value = node.plain()
        if leaf == "steps" and (wrong_steps := step_faults(facts, node, place)):
            self._faults.extend(wrong_steps)
            return value
        owner = owner_of(facts, leaf, tags)
        if owner is None:
            self._faults.append(node.fault(place, not_here(facts, leaf, tags)))
            return value
        self._faults.extend(node.fault(place, wrong.message) for wrong in check_leaf(facts, owner, leaf, value))
        real = is_real(owner, leaf) and isinstance(value, int) and not isinstance(value, bool)
        return float(value) if real and abs(value) < 1e300 else value  # pyright: ignore[reportArgumentType]


def owner_of(facts: SectionFacts, leaf: str, tags: frozenset[str]) -> type[Section] | None:
    """The class against which a leaf is checked: of the possible ones the first that has it."""
    possible = [owner for tag, owner in facts.classes.items() if not facts.tag or not tags or tag in tags]
    return next((owner for owner in possible if leaf in owner.model_fields), None)


def not_here(facts: SectionFacts, leaf: str, tags: frozenset[str]) -> str:
    """Why none of the methods of a study has a leaf."""
    owner = facts.classes[sorted(tags)[0]] if len(tags) == 1 else None
    homes = [tag for tag, other in facts.classes.items() if leaf in other.model_fields]
    if homes and owner is None:
        return f"belongs to {facts.tag} {' and '.join(homes)}, and this study has {', '.join(sorted(tags))}"
    return foreign(facts, leaf, owner)


def check_section_node(facts: SectionFacts, node: Node, key: str, faults: list[Fault]) -> None:
    """A whole section as the value of an axis: its tag, keys and values."""
    if node.value is None and not facts.required:
        return
    entries = node.mapping(key, faults)
    if not isinstance(node.value, Mapping):
        return
    tag = entries[facts.tag].plain() if facts.tag in entries else None
    if facts.tag and tag is None:
        faults.append(node.fault(f"{key}.{facts.tag}", f"is required: one of {', '.join(facts.classes)}"))
        return
    check_entries(facts, entries, key, frozenset({str(tag)}) if facts.tag else frozenset(), faults)


def check_entries(
    facts: SectionFacts, entries: Mapping[str, Node], key: str, tags: frozenset[str], faults: list[Fault]
) -> None:
    """Each leaf of a section by itself, against the methods that it can have."""
    known = frozenset(tags & facts.classes.keys())
    for leaf, node in entries.items():
        owner = owner_of(facts, leaf, known)
        place = f"{key}.{leaf}"
        if owner is None:
            faults.append(node.key_fault(place, not_here(facts, leaf, known)))
            continue
        if leaf == "steps" and (wrong_steps := step_faults(facts, node, place)):
            faults.extend(wrong_steps)
            continue
        faults.extend(node.fault(place, wrong.message) for wrong in check_leaf(facts, owner, leaf, node.plain()))


def step_faults(facts: SectionFacts, steps: Node, key: str) -> list[Fault]:
    """What is wrong with the steps of a pipeline, each by itself; their order and number are seen by `check_leaf`."""
    if not isinstance(steps.value, Mapping):
        return [
            steps.fault(key, f"{show(steps.plain())} is {kind(steps.plain())}; a mapping is wanted, {PIPELINE_FORM}")
        ]
    inner, faults = step_facts(facts), list[Fault]()
    for name, node in steps.value.items():
        check_section_node(inner, node, f"{key}.{name}", faults)
    return faults


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(value: Value) -> object:
    """Equal for values that make equal configs: 1 and 1.0, but not true and 1."""
    if isinstance(value, Mapping):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_comparable(item) for item in value]
    return (
        float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else _plain(value)
    )


def _plain(value: Scalar) -> Scalar:
    return 0.0 if value == 0 and isinstance(value, float) else value
