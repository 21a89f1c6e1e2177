"""What trials that differ in their seeds alone have in common: their config, and what they are compared with.

A study of many cells has far fewer of these; what can be said of a trial without its seed is said once.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from orchestrator.errors import PlanError
from orchestrator.spec.load import OWN_CODE
from orchestrator.spec.model import StudySpec
from trainables.config import (
    CompressBase,
    CompressConfig,
    FinetuneConfig,
    Precision,
    SelectConfig,
    TrialConfig,
    resolve,
)
from trainables.method_config import CombineConfig
from trainables.model_names import is_code

BaselineName = Literal["dense", "dense_finetuned", "binary", "random", "all_labels"]
PrecisionOf = Callable[[TrialConfig], Precision]
SourcesOf = Callable[[str], str]
ImagesOf = Callable[[TrialConfig], TrialConfig]


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """What the trials of a config have in common, whatever their seeds: rows that differ in little else.

    `name_end` is the end of the JSON array whose hash is the name of a trial; its last stage's key is the beginning.
    """

    config: TrialConfig
    baseline: BaselineName | None
    name_end: str
    rivals: "Rivals"


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """The baselines of some configs, by name, and by seed the keys of their evaluations.

    Those with `same_labels` learn from the same images. `listed` are the seeds of which they are rows of the study.
    """

    lines: Mapping[BaselineName, Line]
    same_labels: frozenset[BaselineName]
    keys: dict[int, Mapping[BaselineName, str]] = field(default_factory=dict)
    listed: set[int] = field(default_factory=set)


_NOBODY = Rivals({}, frozenset())


class Lines:
    """Finds the line of a config; arguments and errors as of `Planner`."""

    def __init__(
        self, spec: StudySpec, precision_of: PrecisionOf, sources_of: SourcesOf | None, images_of: ImagesOf | None
    ) -> None:
        self._spec = spec
        self._varied = always_varied(spec)
        self._precision_of = precision_of
        self._sources_of = sources_of
        self._images_of = images_of
        self._sources: dict[str, str] = {}
        self._resolved: dict[tuple[int, ...], tuple[TrialConfig, TrialConfig]] = {}
        self._known: dict[int, tuple[TrialConfig, Line]] = {}
        self._rivals: dict[tuple[object, ...], Rivals] = {}

    def learn_sources(self, models: Iterable[str]) -> None:
        """The hashes of own models, before anything is timed or run."""
        own = sorted(name for name in models if is_code(name) and name not in self._sources)
        if own and self._sources_of is None:
            raise PlanError(f"{self._spec.source}: model.name {own[0]} {OWN_CODE}")
        if self._sources_of is not None:
            self._sources |= {name: self._sources_of(name) for name in own}

    def of(self, given: TrialConfig) -> Line:
        """What the cells of a config have in common; asked for by the object, of which all seeds have the same."""
        known = self._known.get(id(given))
        if known is None:
            config = self._resolve(_identified(given, self._spec, self._images_of))
            line = Line(config, None, self._name_end(config, None), self.rivals(config))
            # with the config that was given, so that no other object takes its place in memory
            known = self._known[id(given)] = given, line
        return known[1]

    def _resolve(self, config: TrialConfig) -> TrialConfig:
        identity = (id(config.data), id(config.model), id(config.train))
        known = self._resolved.get(identity)
        if known is None:
            named = self._with_sources(config)
            precision = "fp32" if config.train.precision != "auto" else self._precision_of(named)
            known = self._resolved[identity] = config, resolve(named, precision)
        return _with(known[1], config.select, config.compress, config)

    def _with_sources(self, config: TrialConfig) -> TrialConfig:
        sha256 = self._sources.get(config.model.name)
        if sha256 is None:
            return config
        return config.model_copy(update={"model": config.model.model_copy(update={"code_sha256": sha256})})

    def rivals(self, config: TrialConfig) -> Rivals:
        """What a config is compared with; one for all configs that are compared with the same."""
        wanted = _baselines(config)
        parts = (config.data, config.model, config.train, config.cost, config.latency)
        identity = (*map(id, parts), *wanted.values())
        known = self._rivals.get(identity)
        if known is None:
            lines: dict[BaselineName, Line] = {}
            for name, (select, compress) in wanted.items():
                baseline = _with(config, select, compress, config)
                lines[name] = Line(baseline, name, self._name_end(baseline, name), _NOBODY)
            same_labels: set[BaselineName] = {name for name, (select, _) in wanted.items() if select == config.select}
            known = self._rivals[identity] = Rivals(lines, frozenset(same_labels))
        return known

    def _name_end(self, config: TrialConfig, baseline: BaselineName | None) -> str:
        """What names a row beside its last stage: the role, and the leaves of the row that no key holds."""
        left_out = inert_leaves(config) - self._varied
        compress = config.compress.model_dump(exclude_defaults=True) if config.compress else {}
        shown = {name: value for name, value in compress.items() if f"compress.{name}" not in left_out}
        parts: list[object] = [shown if config.compress else None, baseline]
        if config.select:
            select = config.select.model_dump(exclude_defaults=True)
            parts.append({name: value for name, value in select.items() if f"select.{name}" not in left_out})
        return json.dumps(parts, sort_keys=True)[1:]


def always_varied(spec: StudySpec) -> frozenset[str]:
    """The axes that no `when` switches off: their values tell rows apart even where they have no effect."""
    return frozenset(axis.path for axis in spec.all_axes) - {path for path, _ in spec.when}


def inert_leaves(config: TrialConfig) -> frozenset[str]:
    """Paths of the leaves that have no effect given the others."""
    return inert("select", config.select) | inert("compress", config.compress)


def inert(name: str, section: object) -> frozenset[str]:
    """The same of the section `name`; of most, none."""
    if isinstance(section, CombineConfig):
        return frozenset(f"{name}.steps.{step.name}.{leaf}" for step in section.steps for leaf in step.config.inert())
    if not isinstance(section, SelectConfig | CompressBase):
        return frozenset()
    return frozenset(f"{name}.{leaf}" for leaf in section.inert())


def _identified(config: TrialConfig, spec: StudySpec, images_of: ImagesOf | None) -> TrialConfig:
    if config.data.identified:
        return config
    if images_of is None:
        raise PlanError(f"{spec.source}: data.folder {config.data.folder}: nobody may look at it here")
    return images_of(config)


def _with(
    dense: TrialConfig, select: SelectConfig | None, compress: CompressConfig | None, measured: TrialConfig
) -> TrialConfig:
    """The dense config's sections, labels, a compression, and what `measured` says of counting and timing."""
    return TrialConfig.model_construct(
        data=dense.data,
        select=select,
        model=dense.model,
        train=dense.train,
        compress=compress,
        cost=measured.cost,
        latency=measured.latency,
    )


def _baselines(config: TrialConfig) -> dict[BaselineName, tuple[SelectConfig | None, CompressConfig | None]]:
    """The labels and the compression of each."""
    select, compress = config.select, config.compress
    found: dict[BaselineName, tuple[SelectConfig | None, CompressConfig | None]] = {}
    if compress is not None or select is None:
        found["dense"] = select, None
    if compress is not None:
        passes = compress.passes()
        found["dense_finetuned"] = select, FinetuneConfig(epochs=passes, lr=compress.lr) if passes else None
    if compress is not None and (binary := compress.same_bits()) is not None:
        found["binary"] = select, cast("CompressConfig", binary)
    if select is not None:
        found["random"] = select.by_chance(), compress
        found["all_labels"] = None, compress
    return found
