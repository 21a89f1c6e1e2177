"""The leaves of a pipeline's steps, which are axes like others: `compress.steps.2_stq.pfr`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from orchestrator.spec.leaves import SectionFacts, fields, sections
from orchestrator.spec.yaml_nodes import Value

PIPELINE = "combine"
_PATH = re.compile(r"(?:compress\.)?steps\.([1-9]_\w+)\.(\w+)")


class StepLeaf(NamedTuple):
    """A leaf of the method of a step, by the step's name."""

    step: str
    leaf: str

    @property
    def number(self) -> int:
        """The step's place, from 1."""
        return int(self.step[0])


def step_leaf(path: str) -> StepLeaf | None:
    """The parts of `compress.steps.2_stq.pfr`, also without the section; None: it is another leaf."""
    found = _PATH.fullmatch(path)
    return StepLeaf(*found.groups()) if found else None


def step_facts(compress: SectionFacts) -> SectionFacts:
    """What a step can be: all that a compression can, but a pipeline."""
    methods = {name: owner for name, owner in compress.classes.items() if name != PIPELINE}
    return replace(compress, classes=methods, required=True)


def steps_of(compress: Value) -> Mapping[str, Mapping[str, Value]]:
    """The steps that the section of a study gives, by name; none where it is no pipeline, or a wrong one."""
    steps = compress.get("steps") if isinstance(compress, Mapping) else None
    found = steps.items() if isinstance(steps, Mapping) else ()
    return {name: leaves for name, leaves in found if isinstance(leaves, Mapping)}


def placed(section: Mapping[str, Value], leaf: str, value: Value) -> dict[str, Value]:
    """A section with a leaf, of its own or of a step, at a value."""
    inner = step_leaf(leaf)
    if inner is None:
        return {**section, leaf: value}
    steps = steps_of(section)
    given = section.get("steps")
    others = given if isinstance(given, Mapping) else {}
    return {**section, "steps": {**others, inner.step: {**steps.get(inner.step, {}), inner.leaf: value}}}


def sets(section: Value, leaf: str) -> bool:
    """Whether a section gives a leaf, its own or one of a step."""
    inner = step_leaf(leaf)
    if inner is not None:
        return inner.leaf in steps_of(section).get(inner.step, {})
    return isinstance(section, Mapping) and leaf in section


def methods_of_steps(base: Value, varied: Mapping[str, Sequence[Value]]) -> dict[str, frozenset[str]]:
    """The methods that each step can have in a study, by its name, from `base.compress` and the lists of the axes."""
    lists = {
        path: [item for one in values if isinstance(one, tuple) for item in one] for path, values in varied.items()
    }
    wholes = [base, *lists.get("compress", ()), *({"steps": item} for item in lists.get("compress.steps", ()))]
    found: dict[str, set[str]] = {}
    for name, leaves in (step for whole in wholes for step in steps_of(whole).items()):
        found.setdefault(name, set()).add(str(leaves.get("method")))
    for path, values in lists.items():
        inner = step_leaf(path)
        if inner is not None and inner.leaf == "method" and inner.step in found:
            found[inner.step].update(map(str, values))
    return {name: frozenset(methods) for name, methods in found.items()}


def step_paths(steps: Mapping[str, frozenset[str]]) -> list[str]:
    """The dotted path of every leaf that steps of these methods have."""
    facts = step_facts(sections()["compress"])
    return [
        f"compress.steps.{name}.{leaf}"
        for name, methods in steps.items()
        for leaf in dict.fromkeys(
            leaf for tag in sorted(methods & facts.classes.keys()) for leaf in fields(facts.classes[tag])
        )
    ]
