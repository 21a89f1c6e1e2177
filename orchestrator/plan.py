"""StudySpec -> Plan: the trials of a study and the forest of stages they share. Pure: no disk, no tensors."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from orchestrator.errors import PlanError
from orchestrator.lines import (
    BaselineName,
    ImagesOf,
    Line,
    Lines,
    PrecisionOf,
    Rivals,
    SourcesOf,
    inert_leaves,
)
from orchestrator.memory import many_objects
from orchestrator.spec.cells import Cell, Excluded, cells
from orchestrator.spec.model import StudySpec
from orchestrator.spec.rungs import hopeless
from trainables.config import TrialConfig
from trainables.keys import PathFinder, Stage, StageKind


class Trial(Struct, frozen=True, gc=False):
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
        compress: list[StageKind] = ["compress" for _ in self.config.compress.stages()] if self.config.compress else []
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
            each = f"{seeds} seed{'s' * (seeds > 1)} each"
            return f"{search.name} asks for {search.trials} configs, {each}, guided by validation"
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
        self._finder = PathFinder(devices=spec.resources.devices)
        self._lines = Lines(spec, precision_of, sources_of, images_of)
        self._stages: dict[str, Stage] = {}
        self._merged = 0
        self._plan: Plan | None = None
        self._cells: dict[str, Trial] = {}
        self._baselines: dict[str, Trial] = {}
        self.repeats: tuple[tuple[Cell, ...], ...] = ()
        self._excluded: tuple[Excluded, ...] = ()
        if not spec.search.sampled:
            self._lay_out()

    @property
    def plan(self) -> Plan:
        """The trials and stages so far."""
        if self._plan is None:
            trials = (*self._cells.values(), *self._baselines.values())
            self._plan = Plan(self.spec, trials, dict(self._stages), self._excluded, self._merged)
        return self._plan

    def add(self, cells: Iterable[Cell], *, compared: bool = True) -> tuple[Trial, ...]:
        """Take cells into the plan; equal cells are one trial.

        Their baselines come with them, or where not `compared` with `compare`.
        """
        cells = list(cells)
        self._lines.learn_sources({cell.config.model.name for cell in cells})
        with many_objects():
            return tuple(self._add(cell, compared) for cell in cells)

    def compare(self, trials: Iterable[Trial]) -> bool:
        """Take the baselines of trials into the plan; returns whether there are new ones."""
        before = len(self._baselines)
        self._plan = None
        for trial in trials:
            self._compared_with(self._lines.rivals(trial.config), trial.seed, listed=True)
        return len(self._baselines) > before

    def trial(self, cell: Cell) -> Trial:
        """What `add` would make of a cell; the plan stays as it is."""
        self._lines.learn_sources({cell.config.model.name})
        config = self._lines.of(cell.config).config
        path = self._finder.path(config, cell.seed)
        return Trial("", None, cell.seed, config, tuple(stage.key for stage in path), {})

    def _lay_out(self) -> None:
        """A grid, or random draws: all of it, or the first seed of each config where repeats are adaptive."""
        spec = self.spec
        with many_objects():
            found = cells(spec)
        if not found.cells:
            raise PlanError(f"{spec.source}: no cell is left: {_excluded_text(found.excluded)}")
        _refuse_inert_axes(spec, found.cells)
        configs = {id(cell.config): cell.config for cell in found.cells}.values()
        if spec.search.rungs and (why := hopeless(spec.search.rungs, configs)):
            raise PlanError(f"{spec.source}: search.rungs: {why}")
        self._excluded, self._merged = found.excluded, found.collapsed
        if spec.search.repeats == "adaptive":
            self.repeats = _by_config(found.cells)
            self.add(same[0] for same in self.repeats)
        else:
            self.add(found.cells)

    def _add(self, cell: Cell, compared: bool) -> Trial:
        self._plan = None
        line = self._lines.of(cell.config)
        baselines = self._compared_with(line.rivals, cell.seed, listed=compared)
        trial = self._trial(line, self._finder.path(line.config, cell.seed), baselines)
        self._merged += trial.id in self._cells
        return self._cells.setdefault(trial.id, trial)

    def _compared_with(self, rivals: Rivals, seed: int, *, listed: bool) -> Mapping[BaselineName, str]:
        """The evaluations that a cell is compared with; `listed`: they are rows of the study, and run."""
        if seed not in rivals.keys or (listed and seed not in rivals.listed):
            keys: dict[BaselineName, str] = {}
            for name, line in rivals.lines.items():
                path = self._finder.path(line.config, seed)
                found: dict[BaselineName, str] = {name: path[-1].key}
                # Each is compared with itself and, of the same labels, those before it: one dense network has many
                # finetuned ones.
                keys |= found
                if listed:
                    row = self._trial(line, path, dict(keys) if name in rivals.same_labels else found)
                    self._baselines.setdefault(row.id, row)
                    rivals.listed.add(seed)
            rivals.keys[seed] = keys
        return rivals.keys[seed]

    def _trial(self, line: Line, path: tuple[Stage, ...], baselines: Mapping[BaselineName, str]) -> Trial:
        keys = tuple([stage.key for stage in path])
        self._stages.update(zip(keys, path, strict=True))
        name = hashlib.sha256(f'["{keys[-1]}", {line.name_end}'.encode()).hexdigest()[:12]
        return Trial(name, line.baseline, path[0].seed, line.config, keys, baselines)


def _by_config(found: Iterable[Cell]) -> tuple[tuple[Cell, ...], ...]:
    """The cells of each config, seed after seed."""
    same: dict[tuple[int, tuple[tuple[str, str], ...]], list[Cell]] = {}
    for cell in found:
        same.setdefault((id(cell.config), tuple((path, str(value)) for path, value in cell.values)), []).append(cell)
    return tuple(map(tuple, same.values()))


def _refuse_inert_axes(spec: StudySpec, found: Iterable[Cell]) -> None:
    paths = {axis.path for axis in (*spec.axes, *(axis for group in spec.zips for axis in group))}
    suspects = {path for path in paths if path.startswith(("select.", "compress."))}
    for cell in found:
        if not suspects:
            return
        suspects &= inert_leaves(cell.config)
    if suspects:
        lines = "\n".join(f"  {path}: no effect in any cell, given the other leaves" for path in sorted(suspects))
        advice = "Remove the axis, or change what makes it inert."
        raise PlanError(f"{spec.source}: an axis over an inert leaf\n{lines}\n{advice}")


def _excluded_text(excluded: Iterable[Excluded]) -> str:
    return "; ".join(f"{item.count} excluded by `{item.expression}`" for item in excluded) or "every axis is empty"
