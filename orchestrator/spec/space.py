"""The space of a study: which config a choice of axis values gives, and what is wrong with it.

A state has one entry per axis (the index of its value, or FIXED where the axis is not varied), and the seed's index
last. Everything is computed once per distinct values of what it depends on, so that a large grid costs little more
than its length.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter

from pydantic import ValidationError

from orchestrator.spec.expressions import Expression, ExpressionError
from orchestrator.spec.leaves import SectionFacts, Wrong, build, sections
from orchestrator.spec.model import StudySpec
from orchestrator.spec.pipelines import PIPELINE, placed, step_facts, step_leaf, steps_of
from orchestrator.spec.wording import show
from orchestrator.spec.yaml_nodes import Value
from trainables.config import Section, TrialConfig

FIXED = -1

State = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a combination; `key` is where in the study file it comes from."""

    key: str
    message: str


@dataclass(slots=True)
class _Found:
    cell: str
    advice: str
    times: int = 0

    def told(self) -> str:
        """The combination that shows a problem."""
        more = f"; and in {self.times - 1:,} more combinations" if self.times > 1 else ""
        return f"{f' (with {self.cell}{more})' if self.cell else ''}{self.advice}"


class _Faulty(Enum):
    """Stands for a section that could not be built; why has been noted."""

    FAULTY = "faulty"


FAULTY = _Faulty.FAULTY


@dataclass(slots=True)
class _Condition:
    expression: Expression
    key: str
    axis: int
    part: Callable[[State], object]
    known: dict[object, bool]


def _part(indices: Iterable[int]) -> Callable[[State], object]:
    found = sorted(set(indices))
    return itemgetter(*found) if found else lambda _: None


class Space:
    """A study's axes with their values; what is wrong with combinations is collected on the way."""

    def __init__(self, spec: StudySpec, values: Mapping[str, list[Value]]) -> None:
        self.spec = spec
        self.axes = spec.all_axes
        self.values = [values[axis.path] for axis in self.axes]
        self._found: dict[tuple[str, str], _Found] = {}
        self._facts = sections()
        self._index = {axis.path: number for number, axis in enumerate(self.axes)}
        self._touching = {name: [i for i, axis in enumerate(self.axes) if axis.section == name] for name in self._facts}
        self._parts = {name: _part(touching) for name, touching in self._touching.items()}
        self._built: dict[str, dict[object, Section | _Faulty | None]] = {name: {} for name in self._facts}
        self._same: dict[Section, Section] = {}
        self._configs: dict[tuple[int, ...], TrialConfig | None] = {}
        self.whens = self._ordered([self._condition(f"when.{path}", text, path) for path, text in spec.when])
        self.excludes = [self._condition(f"exclude[{i}]", text, None) for i, text in enumerate(spec.excludes)]

    def _condition(self, key: str, expression: Expression, path: str | None) -> _Condition:
        axis = FIXED if path is None else self._index[path]
        return _Condition(expression, key, axis, _part(self.reads(expression)), {})

    def reads(self, expression: Expression) -> set[int]:
        """The entries of a state that an expression depends on."""
        found: set[int] = set()
        for name in expression.names:
            section = name.partition(".")[0]
            if name == "seed":
                found.add(len(self.axes))
                continue
            tag = self._facts[section].tag
            paths = (name, section, f"{section}.{tag}", f"{section}.steps", f"{name.rpartition('.')[0]}.{tag}")
            found.update(self._index[path] for path in paths if path in self._index)
        return found

    def touching(self, section: str) -> set[int]:
        """The axes of a section."""
        return set(self._touching[section])

    def _ordered(self, conditions: list[_Condition]) -> list[_Condition]:
        """A condition after those of the axes that it reads."""
        waiting = list(conditions)
        ordered: list[_Condition] = []
        while waiting:
            pending = {condition.axis for condition in waiting}
            ready = [item for item in waiting if not pending & self.reads(item.expression)]
            if not ready:
                message = "the axes of `when` depend on each other (or on themselves) in a circle; break it"
                self._note(waiting[0].key, message, (), ())
                return ordered
            ordered.extend(ready)
            waiting = [item for item in waiting if item not in ready]
        return ordered

    def settle(self, state: State) -> State:
        """The state with the axes fixed whose `when` is false."""
        for condition in self.whens:
            if not self._holds(condition, state, otherwise=True):
                state = (*state[: condition.axis], FIXED, *state[condition.axis + 1 :])
        return state

    def varied(self, axis: int, state: State) -> bool:
        """Whether the `when` of an axis holds, given the axes that it reads."""
        return all(self._holds(item, state, otherwise=True) for item in self.whens if item.axis == axis)

    def depth(self, axis: int) -> int:
        """0 for an axis without a `when`; one more than the deepest axis that its `when` reads otherwise."""
        reads = [self.reads(item.expression) - {axis, len(self.axes)} for item in self.whens if item.axis == axis]
        return max((1 + self.depth(other) for found in reads for other in found), default=0) if reads else 0

    def default(self, path: str, leaves: Mapping[str, Value]) -> Value:
        """What a leaf is where nothing sets it.

        The method is that which `leaves` name, else the first of its section's methods that has the leaf.
        """
        section, _, leaf = path.partition(".")
        facts = self._facts[section]
        tag = leaves.get(f"{section}.{facts.tag}")
        if (inner := step_leaf(path)) is not None:
            facts, leaf = step_facts(facts), inner.leaf
            tag = steps_of(self.spec.base.get(section)).get(inner.step, {}).get(facts.tag)
        named = facts.classes.get(str(tag))
        found = [owner.model_fields[leaf] for owner in facts.classes.values() if leaf in owner.model_fields]
        info = named.model_fields.get(leaf) if named else next(iter(found), None)
        return None if info is None or info.is_required() else info.default

    def place_of(self, axis: int, value: Value) -> int:
        """The index of a value of an axis; one that a distribution gives for the first time is added."""
        values = self.values[axis]
        if value not in values:
            values.append(value)
        return values.index(value)

    def excluded_by(self, state: State) -> int:
        """The number of the first expression that removes a cell, or FIXED."""
        for number, condition in enumerate(self.excludes):
            if self._holds(condition, state, otherwise=False):
                return number
        return FIXED

    def _holds(self, condition: _Condition, state: State, *, otherwise: bool) -> bool:
        part = condition.part(state)
        if part not in condition.known:
            try:
                answer = condition.expression.holds(lambda name: self._leaf(name, state))
            except ExpressionError as error:
                self._note(condition.key, str(error), self.reads(condition.expression), state)
                answer = otherwise
            condition.known[part] = answer
        return condition.known[part]

    def _leaf(self, name: str, state: State) -> Value:
        """A leaf's value in a cell: varied, of the base, or the default; null where the cell has no such leaf."""
        if name == "seed":
            return self.spec.seeds[state[-1]]
        section, _, leaf = name.partition(".")
        tree = self._tree(self._facts[section], state)
        if tree is None:
            if self._facts[section].default is None:
                return None
            tree = {}
        facts = self._facts[section]
        if (inner := step_leaf(leaf)) is not None:
            facts, leaf, tree = step_facts(facts), inner.leaf, dict(steps_of(tree).get(inner.step, {}))
        if leaf in tree:
            return tree[leaf]
        owner = facts.of(tree)
        info = owner.model_fields.get(leaf) if owner else None
        return info.default if info is not None and not info.is_required() else None

    def _tree(self, facts: SectionFacts, state: State) -> dict[str, Value] | None:
        """What base and axes say of a section; None where it is absent."""
        base = self.spec.base.get(facts.name)
        tree = dict(base) if isinstance(base, Mapping) else None
        number = self._index.get(facts.name)
        if number is not None and state[number] != FIXED:
            whole = self.values[number][state[number]]
            tree = dict(whole) if isinstance(whole, Mapping) else None
            if tree is None:
                varied = [i for i in self._touching[facts.name] if i != number and state[i] != FIXED]
                return self._with_axes({}, varied, state) or None
        varied = [i for i in self._touching[facts.name] if self.axes[i].leaf]
        if chosen := [i for i in varied if state[i] != FIXED]:
            tree = self._with_axes(tree or {}, chosen, state)
        if tree is not None and (owner := facts.of(tree)) is not None:
            for i in varied:
                if state[i] == FIXED and self.axes[i].leaf not in owner.model_fields:
                    tree.pop(self.axes[i].leaf, None)
        return tree

    def _with_axes(self, tree: dict[str, Value], axes: Iterable[int], state: State) -> dict[str, Value]:
        """A section with the values of some axes; those of steps' leaves last, as another axis may give all steps."""
        for i in sorted(axes, key=lambda i: step_leaf(self.axes[i].leaf) is not None):
            tree = placed(tree, self.axes[i].leaf, self.values[i][state[i]])
        return tree

    def section(self, name: str, state: State) -> "Section | _Faulty | None":
        """The section's object, one for equal ones."""
        part = self._parts[name](state)
        known = self._built[name]
        if part not in known:
            known[part] = self._build(self._facts[name], state)
        return known[part]

    def _build(self, facts: SectionFacts, state: State) -> "Section | _Faulty | None":
        tree = self._tree(facts, state)
        if tree is None and not facts.required:
            return facts.default
        built, wrong = build(facts, tree or {})
        if built is not None:
            return self._same.setdefault(built, built)
        for item in wrong:
            advice = self._advice(facts, item.leaf, state) if item.unknown_key and facts.tag else ""
            self._note(self._place(facts, item, state), item.message, self._touching[facts.name], state, advice)
        return FAULTY

    def _place(self, facts: SectionFacts, wrong: Wrong, state: State) -> str:
        path = f"{facts.name}.{wrong.leaf}" if wrong.leaf else facts.name
        for candidate in (path, *self._told(facts, wrong, state), facts.name):
            number = self._index.get(candidate)
            if number is not None and state[number] != FIXED:
                return self.spec.key_of(candidate)
        return f"base.{path}"

    def _told(self, facts: SectionFacts, wrong: Wrong, state: State) -> list[str]:
        """Axes that a message names: what is wrong with a section as a whole, or with the steps of a pipeline, does."""
        axes = [self.axes[i] for i in self._touching[facts.name]]
        if wrong.leaf == "steps" and wrong.unknown_key:
            return self._steps_varied(facts, state)
        inner = [axis for axis in axes if not wrong.leaf or (wrong.leaf == "steps" and step_leaf(axis.leaf))]
        return [axis.path for axis in inner if axis.leaf in wrong.message]

    def _steps_varied(self, facts: SectionFacts, state: State) -> list[str]:
        touching = self._touching[facts.name]
        return [self.axes[i].path for i in touching if state[i] != FIXED and step_leaf(self.axes[i].leaf)]

    def _advice(self, facts: SectionFacts, leaf: str, state: State) -> str:
        inner = self._steps_varied(facts, state) if leaf == "steps" else []
        path = inner[0] if inner else f"{facts.name}.{leaf}"
        if path in self._index:
            condition = f"== '{PIPELINE}'" if inner else "== ..."
            return f'; vary it only where it applies, as in when: {{{path}: "{facts.name}.{facts.tag} {condition}"}}'
        return (
            "; make it an axis with a `when`, or make the whole section an axis: "
            f"{facts.name}: [{{{facts.tag}: ..., {leaf}: ...}}, ...]"
        )

    def config(self, state: State, names: Iterable[str]) -> TrialConfig | None:
        """The trial of a state from the named sections; None, and a problem noted, where it is impossible."""
        parts = {name: self.section(name, state) for name in names}
        identity = tuple(map(id, parts.values()))
        if identity in self._configs:
            return self._configs[identity]
        config = None
        if not any(part is FAULTY for part in parts.values()):
            try:
                config = TrialConfig(**parts)  # pyright: ignore[reportArgumentType]
            except ValidationError as error:
                self._impossible(error, list(parts), state)
        self._configs[identity] = config
        return config

    def _impossible(self, error: ValidationError, names: list[str], state: State) -> None:
        reason = error.errors(include_url=False)[0]
        message = str(reason.get("ctx", {}).get("error", reason["msg"]))
        named = [i for i, axis in enumerate(self.axes) if axis.section in names and axis.path in message]
        varied = [i for i in named if state[i] != FIXED] or [i for n in names for i in self._touching[n]][:1]
        key = (
            self.spec.key_of(self.axes[varied[0]].path)
            if varied
            else next(
                (f"base.{n}.{leaf}" for n in names for leaf in self._facts[n].leaves() if f"{n}.{leaf}" in message),
                "base",
            )
        )
        touching = {i for name in names for i in self._touching[name]}
        self._note(key, f"impossible combination: {message}", touching, state)

    def _note(self, key: str, message: str, numbers: Iterable[int], state: State, advice: str = "") -> None:
        """Keep a problem with the first combination that has it, and count the others."""
        varied = [i for i in sorted(numbers) if i < len(self.axes) and i < len(state) and state[i] != FIXED]
        cell = ", ".join(f"{self.axes[i].path}: {show(self.values[i][state[i]])}" for i in varied)
        first = self._found.setdefault((key, message), _Found(cell, advice))
        first.times += 1

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, each once, with one combination that shows it."""
        return [Problem(key, f"{message}{found.told()}") for (key, message), found in self._found.items()]
