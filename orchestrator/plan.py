"""StudySpec -> Plan: the trials of a study and the forest of stages they share. Pure: no disk, no tensors."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import PlanError
from orchestrator.search.cells import Cell, Excluded, cells
from orchestrator.spec.load import OWN_CODE
from orchestrator.spec.model import StudySpec
from trainables.config import (
    BinaryConfig,
    CompressConfig,
    FinetuneConfig,
    Precision,
    SelectConfig,
    StqConfig,
    TrialConfig,
    resolve,
)
from trainables.keys import PathFinder, Stage
from trainables.model_names import is_code

BaselineName = Literal["dense", "dense_finetuned", "binary", "random", "all_labels"]
PrecisionOf = Callable[[TrialConfig], Precision]
SourcesOf = Callable[[str], str]
ImagesOf = Callable[[TrialConfig], TrialConfig]


@dataclass(frozen=True, slots=True)
class Trial:
    """One row of the result: a path through the forest.

    `config` is resolved but keeps inert leaves, which are columns though no part of a key. `baselines` gives, by
    name, the key of the evaluation that this trial is compared with.
    """

    id: str
    baseline: BaselineName | None
    seed: int
    config: TrialConfig
    path: tuple[str, ...]
    baselines: Mapping[BaselineName, str]

    @property
    def role(self) -> Literal["cell", "baseline"]:
        """Cells were asked for; baselines were added by the plan."""
        return "baseline" if self.baseline else "cell"


@dataclass(frozen=True, slots=True)
class Plan:
    """All trials of a study, cells first, and their stages by key, parents before children.

    `collapsed` counts cells that `when`, or leaves without effect, made equal to another one.
    """

    spec: StudySpec
    trials: tuple[Trial, ...]
    stages: Mapping[str, Stage]
    excluded: tuple[Excluded, ...]
    collapsed: int = 0

    @property
    def cells(self) -> int:
        """How many trials the study asked for."""
        return sum(trial.baseline is None for trial in self.trials)

    @property
    def digest(self) -> str:
        """Names the set of trials: two runs of equal digest do the same work."""
        ids = "\n".join(sorted(trial.id for trial in self.trials))
        return hashlib.sha256(ids.encode()).hexdigest()[:16]

    def unshared(self) -> Counter[str]:
        """How often each stage would run if every trial ran its whole path."""
        return Counter(key for trial in self.trials for key in trial.path)


def plan(
    spec: StudySpec, precision_of: PrecisionOf, sources_of: SourcesOf | None = None, images_of: ImagesOf | None = None
) -> Plan:
    """Lay out the trials of `spec`.

    `precision_of` answers `train.precision: auto` for a config. `sources_of` answers the SHA-256 of the sources of a
    user's own model; without it a study that names one is refused. `images_of` answers a config with the facts of a
    user's own images; without it a study of such images is refused.

    Raises:
        PlanError: no cell is left, an axis has no effect in any cell, a user's own code is not allowed, or their
            images cannot be used.
        SpecError: a cell is an impossible combination.

    """
    found = cells(spec)
    if not found.cells:
        raise PlanError(f"{spec.source}: no cell is left: {_excluded_text(found.excluded)}")
    _refuse_inert_axes(spec, found.cells)
    sources = _sources(spec, {cell.config.model.name for cell in found.cells}, sources_of)
    builder = _Builder(PathFinder(spec.resources.device), precision_of, sources, always_varied(spec))
    for cell in found.cells:
        builder.add(_identified(cell, spec, images_of))
    return Plan(spec, builder.trials(), builder.stages, found.excluded, found.collapsed + builder.merged)


def always_varied(spec: StudySpec) -> frozenset[str]:
    """The axes that no `when` switches off: their values tell rows apart even where they have no effect."""
    return frozenset(axis.path for axis in spec.all_axes) - {path for path, _ in spec.when}


def without_effect(config: TrialConfig, varied: Set[str]) -> frozenset[str]:
    """Paths of the leaves that have no effect in this trial and do not tell it from others: no columns of its row."""
    return _inert(config) - varied


def _inert(config: TrialConfig) -> frozenset[str]:
    """Paths of the leaves that have no effect given the others."""
    sections = {"select": config.select, "compress": config.compress}
    return frozenset(f"{name}.{leaf}" for name, section in sections.items() if section for leaf in section.inert())


def _sources(spec: StudySpec, models: Iterable[str], sources_of: SourcesOf | None) -> dict[str, str]:
    """The hashes of all own models, before anything is timed or run."""
    own = sorted(filter(is_code, models))
    if own and sources_of is None:
        raise PlanError(f"{spec.source}: model.name {own[0]} {OWN_CODE}")
    return {name: sources_of(name) for name in own} if sources_of else {}


def _identified(cell: Cell, spec: StudySpec, images_of: ImagesOf | None) -> Cell:
    if cell.config.data.identified:
        return cell
    if images_of is None:
        raise PlanError(f"{spec.source}: data.folder {cell.config.data.folder}: nobody may look at it here")
    return Cell(images_of(cell.config), cell.values, cell.seed)


class _Builder:
    def __init__(
        self, finder: PathFinder, precision_of: PrecisionOf, sources: Mapping[str, str], varied: Set[str]
    ) -> None:
        self.stages: dict[str, Stage] = {}
        self.merged = 0
        self._varied = varied
        self._finder = finder
        self._precision_of = precision_of
        self._sources = sources
        self._cells: dict[str, Trial] = {}
        self._baselines: dict[str, Trial] = {}
        self._resolved: dict[tuple[object, ...], TrialConfig] = {}
        self._baseline_keys: dict[tuple[object, ...], Mapping[BaselineName, str]] = {}

    def trials(self) -> tuple[Trial, ...]:
        return (*self._cells.values(), *self._baselines.values())

    def add(self, cell: Cell) -> None:
        config = self._resolve(cell.config)
        baselines = self._compared_with(config, cell.seed)
        trial = self._trial(config, cell.seed, None, baselines)
        self.merged += trial.id in self._cells
        self._cells.setdefault(trial.id, trial)

    def _resolve(self, config: TrialConfig) -> TrialConfig:
        identity = (config.data, config.model, config.train)
        dense = self._resolved.get(identity)
        if dense is None:
            named = self._with_sources(config)
            dense = resolve(named, "fp32" if config.train.precision != "auto" else self._precision_of(named))
            self._resolved[identity] = dense
        return _with(dense, config.select, config.compress, config)

    def _with_sources(self, config: TrialConfig) -> TrialConfig:
        sha256 = self._sources.get(config.model.name)
        if sha256 is None:
            return config
        return config.model_copy(update={"model": config.model.model_copy(update={"code_sha256": sha256})})

    def _compared_with(self, config: TrialConfig, seed: int) -> Mapping[BaselineName, str]:
        wanted = _baselines(config)
        identity = (config.data, config.model, config.train, config.cost, config.latency, seed, *wanted.values())
        if identity not in self._baseline_keys:
            keys: dict[BaselineName, str] = {}
            for name, (select, compress) in wanted.items():
                trial = _with(config, select, compress, config)
                found: dict[BaselineName, str] = {name: self._finder.path(trial, seed)[-1].key}
                # Each is compared with itself and, of the same labels, those before it: one dense network has many
                # finetuned ones.
                keys |= found
                row = self._trial(trial, seed, name, dict(keys) if select == config.select else found)
                self._baselines.setdefault(row.id, row)
            self._baseline_keys[identity] = keys
        return self._baseline_keys[identity]

    def _trial(
        self, config: TrialConfig, seed: int, baseline: BaselineName | None, baselines: Mapping[BaselineName, str]
    ) -> Trial:
        path = self._finder.path(config, seed)
        for stage in path:
            self.stages.setdefault(stage.key, stage)
        name = _trial_id(path, config, baseline, without_effect(config, self._varied))
        return Trial(name, baseline, seed, config, tuple(s.key for s in path), baselines)


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
        found["dense_finetuned"] = select, FinetuneConfig(epochs=compress.epochs, lr=compress.lr)
    if isinstance(compress, StqConfig | BinaryConfig):
        found["binary"] = select, compress.unpruned()
    if select is not None:
        found["random"] = select.by_chance(), compress
        found["all_labels"] = None, compress
    return found


def _trial_id(path: tuple[Stage, ...], config: TrialConfig, baseline: BaselineName | None, left_out: Set[str]) -> str:
    """Names a row: the last stage and, beside it, the role and the leaves of its row that no key holds."""
    compress = config.compress.model_dump(exclude_defaults=True) if config.compress else {}
    shown = {name: value for name, value in compress.items() if f"compress.{name}" not in left_out}
    parts: list[object] = [path[-1].key, shown if config.compress else None, baseline]
    if config.select:
        select = config.select.model_dump(exclude_defaults=True)
        parts.append({name: value for name, value in select.items() if f"select.{name}" not in left_out})
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _refuse_inert_axes(spec: StudySpec, found: Iterable[Cell]) -> None:
    paths = {axis.path for axis in (*spec.axes, *(axis for group in spec.zips for axis in group))}
    suspects = {path for path in paths if path.startswith(("select.", "compress."))}
    for cell in found:
        if not suspects:
            return
        suspects &= _inert(cell.config)
    if suspects:
        lines = "\n".join(f"  {path}: no effect in any cell, given the other leaves" for path in sorted(suspects))
        advice = "Remove the axis, or change what makes it inert."
        raise PlanError(f"{spec.source}: an axis over an inert leaf\n{lines}\n{advice}")


def _excluded_text(excluded: Iterable[Excluded]) -> str:
    return "; ".join(f"{item.count} excluded by `{item.expression}`" for item in excluded) or "every axis is empty"
