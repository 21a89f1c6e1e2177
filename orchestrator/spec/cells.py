"""Which cells a study has: all of a grid, or a random draw of it. Pure, and the same in every process.

The grid runs through the axes in the order of the file with the last the fastest, then the zipped groups, then the
seeds, which are innermost.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from random import Random

from msgspec import Struct

from orchestrator.errors import Fault, SpecError
from orchestrator.spec.model import MAX_CELLS, Distribution, StudySpec
from orchestrator.spec.space import FIXED, Problem, Space, State
from orchestrator.spec.yaml_nodes import Value
from trainables.config import DataConfig, TrialConfig

MAX_FAULTS = 25


class Cell(Struct, frozen=True, gc=False):
    """One config under one seed; `values` are the axes varied in it, in the order of the grid."""

    config: TrialConfig
    values: tuple[tuple[str, Value], ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Excluded:
    """How many cells an expression removed; a cell counts for the first that is true."""

    expression: str
    count: int


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a study in the order of its search; `collapsed` counts equal ones that `when` made."""

    cells: tuple[Cell, ...]
    excluded: tuple[Excluded, ...]
    collapsed: int


def cells(spec: StudySpec) -> Cells:
    """The cells that a study asks for, each config checked.

    Random search draws `trials` configs, each run under every seed. A larger `trials` continues the same draw.

    Raises:
        SpecError: a combination is impossible, an expression has no value, or there are fewer cells than trials.

    """
    collector = _Collector(spec)
    collector.run()
    if problems := collector.problems:
        raise SpecError(spec.source, [Fault(item.message, item.key) for item in shortened(problems)])
    excluded = tuple(map(Excluded, map(str, spec.excludes), collector.removed))
    return Cells(tuple(collector.cells), excluded, collector.collapsed)


def impossible(spec: StudySpec) -> list[Problem]:
    """What is wrong with combinations of axis values that are not excluded, each once.

    A grid is not run through as a whole: `compress` is checked over the axes that it and the expressions read, the
    other sections together over theirs.
    """
    if spec.search.drawn:
        collector = _Collector(spec)
        collector.run()
        return shortened(collector.problems or _too_many_firsts(spec))
    space = Space(spec, listed(spec))
    conditions = [*(expression for _, expression in spec.when), *spec.excludes]
    read = {number for expression in conditions for number in space.reads(expression)}
    uncompressed = tuple(name for name in TrialConfig.model_fields if name != "compress")
    parts: list[tuple[str, ...]] = [uncompressed, ("compress",)]
    for names in parts:
        relevant = read.union(*(space.touching(name) for name in names))
        for chosen in _grid(spec, relevant):
            state = space.settle(chosen)
            if space.excluded_by(state) != FIXED:
                continue
            if names == uncompressed:
                space.config(state, names)
            else:
                space.section("compress", state)
    if not space.problems:
        _check_together(spec, space, read)
    return shortened(space.problems)


def _too_many_firsts(spec: StudySpec) -> list[Problem]:
    """Points to begin with are never left out silently."""
    space, wanted = Space(spec, listed(spec)), spec.search.trials or 0
    states = [state for state in first_states(spec, space) if _runs(spec, space, state)]
    configs = {id(space.config(state, TrialConfig.model_fields)) for state in states}
    if len(configs) <= wanted:
        return []
    message = f"has {len(configs)} configs, and search.trials asks for {wanted} in all; raise trials, or name fewer"
    return [Problem("search.first", message)]


def _runs(spec: StudySpec, space: Space, state: State) -> bool:
    return any(space.excluded_by((*state[:-1], seed)) == FIXED for seed in range(len(spec.seeds)))


def _check_together(spec: StudySpec, space: Space, read: set[int]) -> None:
    """What a network and its compression rule out between them."""
    paths = ("compress", "compress.method", "compress.activations")
    relevant = read | space.touching("model")
    relevant |= {number for number, axis in enumerate(space.axes) if axis.path in paths}
    for chosen in _grid(spec, relevant):
        state = space.settle(chosen)
        if space.excluded_by(state) == FIXED:
            space.config(state, TrialConfig.model_fields)


def shortened(found: list[Problem]) -> list[Problem]:
    """The first of many, with a word on the rest."""
    if len(found) <= MAX_FAULTS:
        return found
    return [*found[:MAX_FAULTS], Problem("", f"and {len(found) - MAX_FAULTS:,} more of this sort")]


def combinations(spec: StudySpec) -> int:
    """The length of the grid, seeds included, before `when` and `exclude`; of other searches trials x seeds."""
    if spec.search.drawn:
        return (spec.search.trials or 0) * len(spec.seeds)
    return prod(_sizes(spec)) * len(spec.seeds)


def listed(spec: StudySpec) -> dict[str, list[Value]]:
    """The values of each axis; none of a distribution, until it is drawn from."""
    return {axis.path: [] if isinstance(axis.values, Distribution) else list(axis.values) for axis in spec.all_axes}


def _sizes(spec: StudySpec) -> list[int]:
    """The lengths of the free axes and of the zipped groups; 0 for a distribution."""
    firsts = [*spec.axes, *(group[0] for group in spec.zips)]
    return [0 if isinstance(axis.values, Distribution) else len(axis.values) for axis in firsts]


def _groups(spec: StudySpec) -> list[int]:
    """How many axes move together at each place of the grid."""
    return [1] * len(spec.axes) + [len(group) for group in spec.zips]


def _grid(spec: StudySpec, relevant: set[int] | None = None) -> Iterator[State]:
    """All states; with `relevant`, the axes outside it stay at their first value."""
    ranges: list[range] = []
    first = 0
    for size, width in zip(_sizes(spec), _groups(spec), strict=True):
        varied = relevant is None or relevant & set(range(first, first + width))
        ranges.append(range(size if varied else 1))
        first += width
    seeds = range(len(spec.seeds) if relevant is None or first in relevant else 1)
    widths = _groups(spec)
    if not spec.zips:
        yield from product(*ranges, seeds)
        return
    for choice in product(*ranges, seeds):
        yield _spread(choice, widths)


def _spread(choice: tuple[int, ...], widths: list[int]) -> State:
    return (*(place for place, width in zip(choice, widths, strict=False) for _ in range(width)), choice[-1])


class _Collector:
    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.space = Space(spec, listed(spec))
        self.cells: list[Cell] = []
        self.removed = [0] * len(spec.excludes)
        self.collapsed = 0
        self._names = tuple(TrialConfig.model_fields)
        self._seen: set[tuple[int, int]] = set()
        self._states: set[State] = set()
        self._short = ""
        self._pairs: list[list[tuple[str, Value]]] = [[] for _ in self.space.axes]

    def run(self) -> None:
        if self.spec.search.name == "grid":
            for state in _grid(self.spec):
                self.take(state)
            return
        wanted, found = self.spec.search.trials or 0, 0
        for drawn in draws(self.spec, self.space):
            taken = [self.take((*drawn, seed)) for seed in range(len(self.spec.seeds))]
            found += any(taken)
            if found == wanted:
                break
        if found < wanted:
            self._short = f"{wanted} asked, but only {found} different configs can be drawn; ask for that many"

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the cells, or with their number."""
        found = self.space.problems
        return found or ([Problem("search.trials", self._short)] if self._short else [])

    def take(self, state: State) -> bool:
        """Add the cell of a state; False where it is excluded or there already."""
        space = self.space
        if space.whens:
            state = space.settle(state)
        if (space.whens or self.spec.search.drawn) and self._known(state):
            return False
        if space.excludes and (number := space.excluded_by(state)) != FIXED:
            self.removed[number] += 1
            return False
        config = space.config(state, self._names)
        seed = self.spec.seeds[state[-1]]
        if config is None:
            return True
        if self._known_config(config, seed):
            return False
        self.cells.append(Cell(config, self._values(state), seed))
        return True

    def _values(self, state: State) -> tuple[tuple[str, Value], ...]:
        """The varied axes of a state; equal pairs are one object, of which a large grid has many."""
        for axis, pairs, values in zip(self.space.axes, self._pairs, self.space.values, strict=True):
            if len(pairs) < len(values):
                pairs.extend((axis.path, value) for value in values[len(pairs) :])
        return tuple([pairs[place] for pairs, place in zip(self._pairs, state, strict=False) if place != FIXED])

    def _known(self, state: State) -> bool:
        if state in self._states:
            self.collapsed += 1
            return True
        self._states.add(state)
        return False

    def _known_config(self, config: TrialConfig, seed: int) -> bool:
        if (id(config), seed) in self._seen:
            self.collapsed += 1
            return True
        self._seen.add((id(config), seed))
        return False


def _stream(seed: int, name: str) -> Random:
    digest = hashlib.sha256(f"search:{seed}:{name}".encode()).digest()
    return Random(int.from_bytes(digest, "big"))  # noqa: S311 - a repeatable draw, no secret


def draws(spec: StudySpec, space: Space) -> Iterator[State]:
    """Choices without seeds: a shuffled grid where it is finite, else independent draws, bounded in number."""
    sizes = _sizes(spec)
    if 0 < prod(sizes) <= MAX_CELLS:
        yield from _shuffled(sizes, _groups(spec), _stream(spec.search.seed, "grid"))
        return
    streams = [_stream(spec.search.seed, axis.path) for axis in [*spec.axes, *(group[0] for group in spec.zips)]]
    for _ in range(100 * (spec.search.trials or 0) + 1000):
        choice = [
            _drawn(stream, size, axis, space) for axis, (stream, size) in enumerate(zip(streams, sizes, strict=True))
        ]
        yield _spread((*choice, 0), _groups(spec))[:-1]


def data_configs(spec: StudySpec) -> list[DataConfig]:
    """The data that any trial of a space may need; a leaf that is a distribution at its lowest."""
    lowest: dict[str, list[Value]] = {
        axis.path: [axis.values.low] for axis in spec.all_axes if isinstance(axis.values, Distribution)
    }
    space = Space(spec, listed(spec) | lowest)
    touching = space.touching("data")
    sizes = [len(values) if place in touching else 1 for place, values in enumerate(space.values)]
    found = (space.section("data", (*choice, 0)) for choice in product(*map(range, sizes)))
    return list(dict.fromkeys(one for one in found if isinstance(one, DataConfig)))


def first_states(spec: StudySpec, space: Space) -> Iterator[State]:
    """The grid of `search.first`, settled, each state once; nothing where the study asks for none."""
    if spec.search.first is None:
        return
    ranges: list[list[int]] = []
    for place, axis in enumerate(spec.axes):
        values = spec.search.first.get(axis.path, () if isinstance(axis.values, Distribution) else axis.values)
        ranges.append([space.place_of(place, value) for value in values])
    ranges += [list(range(size)) for size in _sizes(spec)[len(spec.axes) :]]
    seen: set[State] = set()
    for choice in product(*ranges, [0]):
        state = space.settle(_spread(choice, _groups(spec)))
        if state not in seen:
            seen.add(state)
            yield state


def _drawn(stream: Random, size: int, axis: int, space: Space) -> int:
    share = stream.random()
    values = space.axes[axis].values if axis < len(space.spec.axes) else ()
    if not isinstance(values, Distribution):
        return int(share * size)
    space.values[axis].append(values.at(share))
    return len(space.values[axis]) - 1


def _shuffled(sizes: list[int], widths: list[int], stream: Random) -> Iterator[State]:
    """Every place of the grid once, in random order; Fisher-Yates, of which only the moved entries are held."""
    left = prod(sizes)
    moved: dict[int, int] = {}
    while left:
        place = int(stream.random() * left)
        left -= 1
        number = moved.get(place, place)
        moved[place] = moved.pop(left, left)
        choice: list[int] = []
        for size in reversed(sizes):
            number, digit = divmod(number, size)
            choice.append(digit)
        yield _spread((*reversed(choice), 0), widths)[:-1]
