"""A study, parsed and checked: what `spec` reads and `search` and `plan` work on."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from orchestrator.analysis.objectives import Objective
from orchestrator.spec.expressions import Expression
from orchestrator.spec.resources import Resources, Retry
from orchestrator.spec.yaml_nodes import Value

MAX_CELLS = 1_000_000


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where random search draws an axis from; both ends belong to it."""

    kind: Literal["uniform", "loguniform", "int_uniform"]
    low: float
    high: float

    def at(self, share: float) -> float:
        """The value below which `share` (in [0, 1)) of the distribution lies, as `rounded` has it."""
        if self.kind == "int_uniform":
            return int(self.low) + int(share * (int(self.high) - int(self.low) + 1))
        if self.kind == "uniform":
            value = self.low + share * (self.high - self.low)
        else:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """A value to six significant digits: the last bit of a machine's logarithm makes no other cell."""
        if self.kind == "int_uniform":
            return int(value)
        return min(max(float(f"{value:.6g}"), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Axis:
    """One leaf (`compress.pfr`) or section (`compress`) and the values it takes."""

    path: str
    values: tuple[Value, ...] | Distribution

    @property
    def section(self) -> str:
        """The section it belongs to."""
        return self.path.partition(".")[0]

    @property
    def leaf(self) -> str:
        """The leaf in it; empty for a whole section."""
        return self.path.partition(".")[2]


Keep = Literal["all", "front", "parents"]
KEEP: tuple[Keep, ...] = get_args(Keep)

SearchName = Literal["grid", "random", "tpe", "nsga2", "nsga3", "qmc"]
Repeats = Literal["full", "adaptive"]
SEARCH_NAMES: tuple[SearchName, ...] = get_args(SearchName)
REPEATS: tuple[Repeats, ...] = get_args(Repeats)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a column that an acceptable trial keeps; both ends belong to it."""

    column: str
    sense: Literal[">=", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{self.column} {self.sense} {self.bound:g}"

    def violation(self, value: float) -> float:
        """By how much a value misses the bound; at most 0 where it keeps it."""
        return self.bound - value if self.sense == ">=" else value - self.bound


@dataclass(frozen=True, slots=True)
class Rungs:
    """Where trials are compared before they end: `at` shares of the epochs of their last stage that trains.

    `on` are columns of the history and config leaves; with `keep` (one column) a trial goes on if it is among that
    share of the best at its rung (ASHA), else unless another is better by the tolerances in all of them.
    """

    on: tuple[Objective, ...]
    at: tuple[float, ...]
    keep: float | None = None


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """How cells are chosen.

    `grid` takes all of them, `random` draws `trials` configs from `seed` beforehand; the others ask for one config
    after the other in the light of what is known. `repeats: adaptive` gives a config another seed only where that may
    change the front. `rungs` stop trials early. `where` says what an acceptable trial is. `first` is a grid that is
    asked for before all else: the values of some axes, all values of the others; None is no such grid.
    """

    name: SearchName = "grid"
    trials: int | None = None
    seed: int = 0
    repeats: Repeats = "full"
    where: tuple[Constraint, ...] = ()
    first: Mapping[str, tuple[Value, ...]] | None = None
    rungs: Rungs | None = None

    @property
    def sampled(self) -> bool:
        """Whether what is asked next depends on what was found."""
        return self.name not in ("grid", "random")

    @property
    def drawn(self) -> bool:
        """Whether axes may be distributions."""
        return self.name != "grid"


@dataclass(frozen=True, slots=True)
class StudySpec:
    """One study. `base` holds what the file says and no defaults; an axis is varied where its `when` holds.

    `keep` says which outputs of stages stay after its end: all, those that its front is made of, or those that further
    cells would start from.
    """

    study: str
    question: str
    base: Mapping[str, Value]
    axes: tuple[Axis, ...]
    zips: tuple[tuple[Axis, ...], ...]
    when: tuple[tuple[str, Expression], ...]
    excludes: tuple[Expression, ...]
    seeds: tuple[int, ...]
    objectives: tuple[Objective, ...]
    search: SearchSpec
    resources: Resources
    retry: Retry
    keep: Keep
    source: str
    tree: Mapping[str, Value]

    @property
    def all_axes(self) -> tuple[Axis, ...]:
        """The axes in the order of the grid: the free ones, then the zipped."""
        return (*self.axes, *(axis for group in self.zips for axis in group))

    @property
    def search_name(self) -> str:
        """Names a search by all that its study says, but how many trials it may take and what else changes no trial."""
        tree = {key: value for key, value in self.tree.items() if key not in ("retry", "artifacts")}
        if isinstance(search := tree.get("search"), Mapping):
            tree["search"] = {key: value for key, value in search.items() if key != "trials"}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]

    def key_of(self, path: str) -> str:
        """The key of the study file under which an axis stands."""
        return f"axes.{path}" if any(axis.path == path for axis in self.axes) else f"zip.{path}"

    def text(self) -> str:
        """The study as it runs, overrides included; itself a study file."""
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in self.tree.items()]
        return "\n".join([f"# {self.question}", *lines, ""] if self.question else [*lines, ""])
