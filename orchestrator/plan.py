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
from trainables.keys import PathFinder, Stage, StageKind
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

    @property
    def kinds(self) -> tuple[StageKind, ...]:
        """The kind of each stage of the path."""
        compress: list[StageKind] = ["compress"] if self.config.compress else []
        select: list[StageKind] = ["select" for _ in self.path[: -2 - len(compress)]]
        return (*select, "train", *compress, "evaluate")


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
    def grows(self) -> bool:
        """Whether trials are added while it runs."""
        return self.spec.search.sampled or self.spec.search.repeats == "adaptive"

    @property
    def search_line(self) -> str:
        """What a plan that grows may grow to."""
        search, seeds = self.spec.search, len(self.spec.seeds)
        if search.sampled:
            return f"{search.name} asks for {search.trials} configs, {seeds} seed(s) each, guided by validation"
        return f"up to {seeds} seeds where they decide the front on validation columns"

    @property
    def asked_line(self) -> str:
        """How far a plan that grows has grown."""
        if self.spec.search.sampled:
            seeds = len(self.spec.seeds)
            return f"{-(-self.cells // seeds):,} of {self.spec.search.trials:,} configs asked for"
        return f"{self.cells:,} trials so far, more seeds where they decide"

    @property
    def digest(self) -> str:
        """Names the set of trials: two runs of equal digest do the same work."""
        if self.grows:
            return hashlib.sha256(self.spec.text().encode()).hexdigest()[:16]
        ids = "\n".join(sorted(trial.id for trial in self.trials))
        return hashlib.sha256(ids.encode()).hexdigest()[:16]

    def unshared(self) -> Counter[str]:
        """How often each stage would run if every trial ran its whole path."""
        return Counter(key for trial in self.trials for key in trial.path)


def plan(
    spec: StudySpec, precision_of: PrecisionOf, sources_of: SourcesOf | None = None, images_of: ImagesOf | None = None
) -> Plan:
    """Lay out the trials of `spec` that are known before anything runs; arguments and errors as of `Planner`."""
    return Planner(spec, precision_of, sources_of, images_of).plan


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


def _identified(cell: Cell, spec: StudySpec, images_of: ImagesOf | None) -> Cell:
    if cell.config.data.identified:
        return cell
    if images_of is None:
        raise PlanError(f"{spec.source}: data.folder {cell.config.data.folder}: nobody may look at it here")
    return Cell(images_of(cell.config), cell.values, cell.seed)


class Planner:
    """Lays out the trials of a study: at first those that are known before anything runs, then what a search adds.

    `precision_of` answers `train.precision: auto` for a config. `sources_of` answers the SHA-256 of the sources of a
    user's own model; without it a study that names one is refused. `images_of` answers a config with the facts of a
    user's own images; without it a study of such images is refused.

    Raises:
        PlanError: no cell is left, an axis has no effect in any cell, a user's own code is not allowed, or their
            images cannot be used.
        SpecError: a cell is an impossible combination.

    """

    def __init__(
        self,
        spec: StudySpec,
        precision_of: PrecisionOf,
        sources_of: SourcesOf | None = None,
        images_of: ImagesOf | None = None,
    ) -> None:
        self.spec = spec
        self._varied = always_varied(spec)
        self._finder = PathFinder(devices=spec.resources.devices)
        self._precision_of = precision_of
        self._sources_of = sources_of
        self._images_of = images_of
        self._sources: dict[str, str] = {}
        self._stages: dict[str, Stage] = {}
        self._merged = 0
        self._cells: dict[str, Trial] = {}
        self._baselines: dict[str, Trial] = {}
        self._resolved: dict[tuple[object, ...], TrialConfig] = {}
        self._baseline_keys: dict[tuple[object, ...], Mapping[BaselineName, str]] = {}
        self._listed: set[tuple[object, ...]] = set()
        self.repeats: tuple[tuple[Cell, ...], ...] = ()
        self._excluded: tuple[Excluded, ...] = ()
        if not spec.search.sampled:
            self._lay_out()

    @property
    def plan(self) -> Plan:
        """The trials and stages so far."""
        trials = (*self._cells.values(), *self._baselines.values())
        return Plan(self.spec, trials, dict(self._stages), self._excluded, self._merged)

    def add(self, cells: Iterable[Cell], *, compared: bool = True) -> tuple[Trial, ...]:
        """Take cells into the plan; equal cells are one trial.

        Their baselines come with them, or where not `compared` with `compare`.
        """
        cells = list(cells)
        self._learn_sources({cell.config.model.name for cell in cells})
        return tuple(self._add(_identified(cell, self.spec, self._images_of), compared) for cell in cells)

    def compare(self, trials: Iterable[Trial]) -> bool:
        """Take the baselines of trials into the plan; returns whether there are new ones."""
        before = len(self._baselines)
        for trial in trials:
            self._compared_with(trial.config, trial.seed, listed=True)
        return len(self._baselines) > before

    def trial(self, cell: Cell) -> Trial:
        """What `add` would make of a cell; the plan stays as it is."""
        cell = _identified(cell, self.spec, self._images_of)
        self._learn_sources({cell.config.model.name})
        config = self._resolve(cell.config)
        path = self._finder.path(config, cell.seed)
        return Trial("", None, cell.seed, config, tuple(stage.key for stage in path), {})

    def _lay_out(self) -> None:
        """A grid, or random draws: all of it, or the first seed of each config where repeats are adaptive."""
        spec, found = self.spec, cells(self.spec)
        if not found.cells:
            raise PlanError(f"{spec.source}: no cell is left: {_excluded_text(found.excluded)}")
        _refuse_inert_axes(spec, found.cells)
        self._excluded, self._merged = found.excluded, found.collapsed
        if spec.search.repeats == "adaptive":
            self.repeats = _by_config(found.cells)
            self.add(same[0] for same in self.repeats)
        else:
            self.add(found.cells)

    def _learn_sources(self, models: Iterable[str]) -> None:
        """The hashes of own models, before anything is timed or run."""
        own = sorted(name for name in models if is_code(name) and name not in self._sources)
        if own and self._sources_of is None:
            raise PlanError(f"{self.spec.source}: model.name {own[0]} {OWN_CODE}")
        if self._sources_of is not None:
            self._sources |= {name: self._sources_of(name) for name in own}

    def _add(self, cell: Cell, compared: bool) -> Trial:
        config = self._resolve(cell.config)
        baselines = self._compared_with(config, cell.seed, listed=compared)
        trial = self._trial(config, cell.seed, None, baselines)
        self._merged += trial.id in self._cells
        return self._cells.setdefault(trial.id, trial)

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

    def _compared_with(self, config: TrialConfig, seed: int, *, listed: bool) -> Mapping[BaselineName, str]:
        """The evaluations that a cell is compared with; `listed`: they are rows of the study, and run."""
        wanted = _baselines(config)
        identity = (config.data, config.model, config.train, config.cost, config.latency, seed, *wanted.values())
        if identity not in self._baseline_keys or (listed and identity not in self._listed):
            keys: dict[BaselineName, str] = {}
            for name, (select, compress) in wanted.items():
                trial = _with(config, select, compress, config)
                found: dict[BaselineName, str] = {name: self._finder.path(trial, seed)[-1].key}
                # Each is compared with itself and, of the same labels, those before it: one dense network has many
                # finetuned ones.
                keys |= found
                if listed:
                    row = self._trial(trial, seed, name, dict(keys) if select == config.select else found)
                    self._baselines.setdefault(row.id, row)
                    self._listed.add(identity)
            self._baseline_keys[identity] = keys
        return self._baseline_keys[identity]

    def _trial(
        self, config: TrialConfig, seed: int, baseline: BaselineName | None, baselines: Mapping[BaselineName, str]
    ) -> Trial:
        path = self._finder.path(config, seed)
        for stage in path:
            self._stages.setdefault(stage.key, stage)
        name = _trial_id(path, config, baseline, without_effect(config, self._varied))
        return Trial(name, baseline, seed, config, tuple(s.key for s in path), baselines)


def _by_config(found: Iterable[Cell]) -> tuple[tuple[Cell, ...], ...]:
    """The cells of each config, seed after seed."""
    same: dict[tuple[int, tuple[tuple[str, str], ...]], list[Cell]] = {}
    for cell in found:
        same.setdefault((id(cell.config), tuple((path, str(value)) for path, value in cell.values)), []).append(cell)
    return tuple(map(tuple, same.values()))


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
