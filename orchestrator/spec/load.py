"""A study file -> StudySpec. All faults are reported at once, each with line, column, key and the valid values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from orchestrator.analysis.objectives import Objective
from orchestrator.errors import Fault, SpecError
from orchestrator.spec import demands, settings
from orchestrator.spec.axes import AxisReader, check_entries
from orchestrator.spec.cells import combinations, impossible
from orchestrator.spec.devices import cuda_here
from orchestrator.spec.expressions import Expression, ExpressionError, parse_expression
from orchestrator.spec.leaves import OBSERVED, SectionFacts, leaf_paths, options, sections, want
from orchestrator.spec.model import MAX_CELLS, StudySpec
from orchestrator.spec.overrides import TOP, apply
from orchestrator.spec.pipelines import methods_of_steps, sets, step_facts, step_leaf, step_paths
from orchestrator.spec.search import check_guided, first_grid, search_section
from orchestrator.spec.wording import meant, show
from orchestrator.spec.yaml_nodes import Node, Value, parse, read
from trainables.model_names import is_code

MAX_FAULTS = 50
OWN_CODE = (
    "is code of your own. With --allow-code it is imported and run in the workers, from the working folder or as "
    "installed, and the SHA-256 of its sources becomes part of every key"
)


def shipped_studies() -> Path:
    """The folder of the studies that come with the project: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def load_spec(
    name: str, overrides: Sequence[str] = (), *, allow_code: bool = True, elsewhere: bool = False
) -> StudySpec:
    """Read a study by path, or by bare name from the working folder or else from the shipped studies.

    Nothing of a model of the user's own is imported here; without `allow_code` a study that names one is refused. A
    study that runs `elsewhere` keeps `device: auto` in its text.

    Raises:
        SpecError: the file is absent, unreadable or wrong, or an override is; it holds every fault found.

    """
    path = _find(name)
    text, faults = read(path)
    return _parsed(text, str(path), faults, overrides, allow_code=allow_code, elsewhere=elsewhere)


def parse_spec(text: str, source: str, *, allow_code: bool = True) -> StudySpec:
    """The study of a text that was read from `source`; errors as of `load_spec`."""
    return _parsed(text, source, [], (), allow_code=allow_code, elsewhere=False)


def _parsed(
    text: str, source: str, faults: list[Fault], overrides: Sequence[str], *, allow_code: bool, elsewhere: bool
) -> StudySpec:
    root = None
    if not faults:
        root, faults = parse(text)
    if root is None or not isinstance(root.value, Mapping):
        raise SpecError(source, faults[:MAX_FAULTS] or [_no_study(root)])
    misread = {(fault.line, fault.column) for fault in faults}
    root = apply(root, overrides, faults)
    reader = _Reader(root, faults, elsewhere=elsewhere)
    spec = reader.spec(source, _question(text))
    if not allow_code:
        reader.refuse_code()
    if faults or spec is None:
        raise SpecError(source, _in_order(faults, misread))
    return spec


def _no_study(root: Node | None) -> Fault:
    if root is None or root.value is None:
        return Fault("the file is empty; a study needs at least study: and base: (see the shipped ones)")
    return root.fault("", f"{show(root.plain())} is no study; a study is a mapping with the keys {', '.join(TOP)}")


def _in_order(faults: list[Fault], misread: set[tuple[int, int]]) -> list[Fault]:
    """By place; where a value could not be read, what else is wrong with it says nothing."""
    places: set[tuple[int, int]] = set()
    found: list[Fault] = []
    for fault in dict.fromkeys(faults):
        place = (fault.line, fault.column)
        if place not in places:
            found.append(fault)
        places |= {place} & misread
    found.sort(key=lambda fault: (not fault.line, fault.line, fault.column))
    if len(found) > MAX_FAULTS:
        return [*found[:MAX_FAULTS], Fault(f"and {len(found) - MAX_FAULTS:,} more")]
    return found


def _find(name: str) -> Path:
    given = Path(name)
    bare = given.name == name
    places = [given, given.with_name(f"{given.name}.yaml")] if given.name else [given]
    if bare and name:
        places += [shipped_studies() / place for place in places]
    try:
        found = next((place for place in places if place.is_file()), None)
        if found is None and (bare or not given.exists()):
            raise SpecError(name or "''", [Fault(_absent(name))])
    except (OSError, ValueError) as error:
        raise SpecError(show(name), [Fault(f"no usable file name: {error}")]) from error
    return found or given


def _absent(name: str) -> str:
    shipped = [path.name for path in shipped_studies().glob("*.yaml")]
    near = meant(Path(name).name, shipped) if shipped else ""
    return f"no such study, neither a file nor a shipped one{near}"


def _question(text: str) -> str:
    """The first line of the header comment; lines for editors are passed over."""
    for line in text.removeprefix("\ufeff").splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        told = stripped.lstrip("#").strip()
        if told and not told.startswith(("yaml-language-server", "!")):
            return told
    return ""


class _Reader:
    """Turns the tree into a study, part by part; `faults` grows."""

    def __init__(self, root: Node, faults: list[Fault], *, elsewhere: bool) -> None:
        self.root = root
        self.faults = faults
        self.elsewhere = elsewhere
        self.facts = sections()
        self.entries = root.only("", TOP, faults, {name: f"belongs under base, as base.{name}" for name in self.facts})
        self.base = self._mapping("base")
        self.leaves = leaf_paths()
        self.varied: dict[str, list[Node]] = {}
        for _, path, node in self._axis_entries():
            self.varied.setdefault(path, []).append(node)
        lists = {path: [node.plain() for node in nodes] for path, nodes in self.varied.items()}
        self.steps = methods_of_steps(self.base["compress"].plain() if "compress" in self.base else None, lists)

    def _mapping(self, key: str) -> Mapping[str, Node]:
        node = self.entries.get(key)
        return node.mapping(key, self.faults) if node is not None else {}

    def _node(self, key: str) -> Node | None:
        node = self.entries.get(key)
        return None if node is None or node.value is None else node

    def spec(self, source: str, question: str) -> StudySpec | None:
        study, searching = self._study(), self._node("search")
        search = search_section(searching, self.faults)
        axes = AxisReader(self._tags(), self.steps, self.faults, drawn=search.drawn)
        free, zips = axes.free(self._node("axes")), axes.zipped(self._node("zip"))
        search = replace(search, first=first_grid(searching, free, axes, self.faults))
        self._check_base()
        self._check_paths()
        when, excludes = self._when(), self._excludes()
        seeds = settings.seeds(self._node("seeds"), self.faults)
        timed = (node := self.base.get("latency")) is not None and node.value is not None
        objectives = settings.objectives(self._node("objectives"), self.faults, timed=timed)
        check_guided(search, objectives, self._node("objectives"), self.faults)
        self._check_compared("objectives", objectives)
        self._check_compared("search.rungs.on", search.rungs.on if search.rungs else ())
        resources = demands.resources(self._node("resources"), self.faults, cuda_here)
        retry = demands.retry(self._node("retry"), self.faults)
        keep = settings.keep(self._node("artifacts"), self.faults)
        if self.faults:
            return None
        base = {name: node.plain() for name, node in self.base.items()}
        tree = dict(cast("Mapping[str, Value]", self.root.plain()))
        if "resources" in tree and not self.elsewhere:
            tree["resources"] = demands.settled_devices(tree["resources"], resources)
        found = StudySpec(
            study, question, base, free, zips, when, excludes, seeds, objectives, search, resources, retry, keep,
            source, tree,
        )  # fmt: skip
        self._check_cells(found)
        return found

    def refuse_code(self) -> None:
        """A fault at each name of a model of the user's own."""
        found: list[tuple[str, Node | None]] = [("base.model.name", self._entry(self.base.get("model"), "name"))]
        for where, path, node in self._axis_entries():
            items = node.value if isinstance(node.value, tuple) and path in ("model", "model.name") else ()
            for number, item in enumerate(items):
                place = f"{where}.{path}[{number}]"
                found.append((place, item) if path == "model.name" else (f"{place}.name", self._entry(item, "name")))
        for key, node in found:
            name = node.plain() if node is not None else None
            if node is not None and isinstance(name, str) and is_code(name):
                self.faults.append(node.fault(key, f"{show(name)} {OWN_CODE}"))

    def _study(self) -> str:
        node = self.entries.get("study")
        if node is not None:
            return settings.study_name(node, self.faults)
        self.faults.append(self.root.fault("study", "is required: the name of the folder with the results"))
        return ""

    def _tags(self) -> dict[str, frozenset[str]]:
        """The methods that each section can have here, from base and axes."""
        found: dict[str, frozenset[str]] = {}
        for name, facts in self.facts.items():
            if facts.tag:
                words = [self._plain_at(self.base.get(name), facts.tag)]
                for node in self._axis_nodes(f"{name}.{facts.tag}"):
                    words += [item.plain() for item in node.value] if isinstance(node.value, tuple) else []
                for node in self._axis_nodes(name):
                    words += (
                        [self._plain_at(item, facts.tag) for item in node.value]
                        if isinstance(node.value, tuple)
                        else []
                    )
                found[name] = frozenset(word for word in words if isinstance(word, str) and word in facts.classes)
        return found

    @staticmethod
    def _entry(node: Node | None, key: str) -> Node | None:
        return node.value.get(key) if node is not None and isinstance(node.value, Mapping) else None

    def _plain_at(self, node: Node | None, key: str) -> Value:
        entry = self._entry(node, key)
        return entry.plain() if entry is not None else None

    def _axis_entries(self) -> list[tuple[str, str, Node]]:
        """(axes or zip, path, node) of every axis as it stands in the file."""
        found: list[tuple[str, str, Node]] = []
        for key in ("axes", "zip"):
            node = self.entries.get(key)
            groups = node.value if node is not None and isinstance(node.value, tuple) else (node,)
            for group in groups:
                if group is not None and isinstance(group.value, Mapping):
                    found += [(key, path, item) for path, item in group.value.items()]
        return found

    def _axis_nodes(self, path: str) -> list[Node]:
        return self.varied.get(path, [])

    def _check_paths(self) -> None:
        """No leaf is varied twice, nor inside a section that sets it itself."""
        seen: dict[str, str] = {}
        for where, path, node in self._axis_entries():
            if path in seen:
                self.faults.append(
                    node.key_fault(f"{where}.{path}", f"is varied twice (also in {seen[path]}); keep one")
                )
            seen.setdefault(path, where)
            section, _, leaf = path.partition(".")
            wholes = (section, f"{section}.steps") if step_leaf(path) else (section,)
            for whole in wholes if leaf else ():
                if any(sets(item, leaf) for item in self._wholes(whole)):
                    message = f"is varied, and set in the axis {whole} as well; keep one"
                    self.faults.append(node.key_fault(f"{where}.{path}", message))

    def _wholes(self, path: str) -> list[Value]:
        """The values of an axis that are a section, or the steps of one."""
        lists = [node.plain() for node in self._axis_nodes(path)]
        found = [item for one in lists if isinstance(one, tuple) for item in one]
        return [{"steps": item} for item in found] if path.endswith(".steps") else found

    def _check_base(self) -> None:
        node = self.entries.get("base")
        if node is None:
            self.faults.append(self.root.fault("base", "is required: the config that all cells share"))
            return
        known = node.only("base", tuple(self.facts), self.faults)
        tags = self._tags()
        for name, facts in self.facts.items():
            section = known.get(name)
            if section is not None and not (section.value is None and not facts.required):
                check_entries(
                    facts,
                    section.mapping(f"base.{name}", self.faults),
                    f"base.{name}",
                    tags.get(name, frozenset()),
                    self.faults,
                )
            self._check_missing(facts, section, node)

    def _check_compared(self, key: str, objectives: Iterable[Objective]) -> None:
        """A leaf that is compared is one of a trial of this study at least."""
        for section, _, leaf in (one.column.partition(".") for one in objectives):
            facts = self.facts.get(section)
            if facts is None or facts.name in OBSERVED or leaf not in facts.leaves():
                continue
            tags = self._tags().get(section, [""])
            lacking = bool(tags) and not any(leaf in facts.classes[tag].model_fields for tag in tags)
            if self._is_absent(facts) or lacking:
                self.faults.append(self._placed(key, f"compares {section}.{leaf}, which no trial of this study has"))

    def _is_absent(self, facts: SectionFacts) -> bool:
        """Whether no trial has a section: neither base nor an axis gives it, and it has no default."""
        node = self.base.get(facts.name)
        given = node is not None and node.value is not None
        return facts.default is None and not given and not any(p.partition(".")[0] == facts.name for p in self.varied)

    def _check_missing(self, facts: SectionFacts, section: Node | None, base: Node) -> None:
        if self._axis_nodes(facts.name) or (not facts.required and (section is None or section.value is None)):
            return
        given = section.value if section is not None and isinstance(section.value, Mapping) else {}
        place = section or base
        owner = next(iter(facts.classes.values()))
        needed = [facts.tag] if facts.tag else [name for name, info in owner.model_fields.items() if info.is_required()]
        for leaf in needed:
            if leaf not in given and not self._axis_nodes(f"{facts.name}.{leaf}"):
                wanted = f"one of {', '.join(facts.classes)}" if leaf == facts.tag else want(owner, leaf)
                self.faults.append(place.key_fault(f"base.{facts.name}.{leaf}", f"is required: {wanted}"))

    def _expression(self, key: str, node: Node) -> Expression | None:
        text = node.plain()
        if not isinstance(text, str):
            self.faults.append(
                node.fault(key, f'{show(text)} is no expression; write text such as "compress.pfr > 0.4"')
            )
            return None
        try:
            found = parse_expression(text, [*self.leaves, *step_paths(self.steps), "seed"])
        except ExpressionError as error:
            self.faults.append(node.fault(key, str(error)))
            return None
        for name, literal in found.literals:
            words = options(*self._leaf_of(name)) if name != "seed" else ()
            if words and isinstance(literal, str) and literal not in words and not is_code(literal):
                self.faults.append(node.fault(key, f"{name} is never {show(literal)}{meant(literal, words)}"))
        return found

    def _leaf_of(self, path: str) -> tuple[SectionFacts, str]:
        section, _, leaf = path.partition(".")
        inner = step_leaf(path)
        return (step_facts(self.facts[section]), inner.leaf) if inner else (self.facts[section], leaf)

    def _when(self) -> tuple[tuple[str, Expression], ...]:
        found: list[tuple[str, Expression]] = []
        for path, node in self._mapping("when").items() if self._node("when") else ():
            if path not in self.varied:
                self.faults.append(
                    node.key_fault(f"when.{path}", f"is no axis of this study{meant(path, self.varied)}")
                )
            if (expression := self._expression(f"when.{path}", node)) is not None:
                found.append((path, expression))
        return tuple(found)

    def _excludes(self) -> tuple[Expression, ...]:
        node = self._node("exclude")
        if node is None:
            return ()
        if not isinstance(node.value, tuple):
            self.faults.append(node.fault("exclude", f"{show(node.plain())} must be a list of expressions"))
            return ()
        found = [self._expression(f"exclude[{number}]", item) for number, item in enumerate(node.value)]
        return tuple(item for item in found if item is not None)

    def _check_cells(self, spec: StudySpec) -> None:
        asked = combinations(spec)
        if asked > MAX_CELLS:
            message = f"{asked:,} cells, seeds included and before when and exclude; at most {MAX_CELLS:,} are planned"
            self.faults.append((self._node("axes") or self.root).key_fault("axes", message))
            return
        for problem in impossible(spec):
            self.faults.append(self._placed(problem.key, problem.message))

    def _placed(self, key: str, message: str) -> Fault:
        """A fault at the node that a key names, or at the nearest above it."""
        head, _, rest = key.partition(".")
        if head in ("axes", "zip"):
            nodes = self._axis_nodes(rest)
            return nodes[0].key_fault(key, message) if nodes else Fault(message, key)
        node = self.root
        for part in [head, rest] if head == "when" else re.split(r"[.\[\]]+", key.rstrip("]")):
            if isinstance(node.value, Mapping) and part in node.value:
                node = node.value[part]
            elif isinstance(node.value, tuple) and part.isdigit():
                node = node.value[int(part)]
        return node.key_fault(key, message)
