"""The path of stages a trial takes, and the key that names each stage by its content.

A key is the SHA-256 of canonical JSON of the schema version, the stage's version, the seed, the stage's own resolved
config without default and inert leaves, and the parent's key. Equal prefixes of two trials therefore have equal keys.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from msgspec import Struct

from trainables.config import CompressConfig, CostConfig, Device, ModelConfig, Section, SelectConfig, TrialConfig

StageKind = Literal["select", "train", "compress", "evaluate"]

SCHEMA_VERSION = 1
STAGE_VERSIONS: Mapping[StageKind, int] = {"select": 1, "train": 1, "compress": 1, "evaluate": 2}
"""Raised when a stage gives other results for the same config; the golden digests in the tests guard it."""

METHOD_VERSIONS: Mapping[str, int] = {"dabn": 2, "decompose": 2, "ptq_group": 2}
"""Raised when one method alone does; part of its keys and of no others. One that is not named has version 1."""


class Stage(Struct, frozen=True, gc=False):
    """A node of the forest: what to compute, named by `key`.

    `config` is canonical (inert leaves at their defaults) and holds nothing that later stages own. That of a `select`
    stage, one round of labelling, asks for the labels that there are after it.
    """

    key: str
    kind: StageKind
    parent: str | None
    config: TrialConfig
    seed: int
    device: Device = "cpu"

    def own_config(self) -> dict[str, Any]:
        """The leaves that this stage owns, as they stand in its key."""
        return _OWN[self.kind](self)


@dataclass(slots=True, eq=False)
class _Step:
    """A stage but for its seed and its parent; `leaves` are what it owns, as canonical JSON.

    `stages` are those it has become, by the parent's key or, at a root, by the seed.
    """

    kind: StageKind
    config: TrialConfig
    leaves: str
    device: Device
    stages: dict[str | int, Stage] = field(default_factory=dict)

    def below(self, parent: str | None, seed: int) -> Stage:
        """The stage under the one that is named `parent`."""
        above = f'"{parent}"' if parent else "null"
        # canonical JSON, written out: only parent and seed differ among a great many stages
        text = (
            f'{{{self.leaves},"parent":{above},"schema":{SCHEMA_VERSION},"seed":{seed},'
            f'"stage":"{self.kind}","version":{STAGE_VERSIONS[self.kind]}}}'
        )
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        stage = Stage(key, self.kind, parent, self.config, seed, self.device)
        self.stages[seed if parent is None else parent] = stage
        return stage


_NO_COST = CostConfig()


@dataclass(slots=True)
class PathFinder:
    """Finds stage paths; remembers what trials share, by the objects that their configs are made of.

    `device` is the device class of all stages, but for the kinds that `devices` names. Equal configs that are different
    objects have equal keys too: they are only found more slowly.
    """

    device: Device = "cpu"
    devices: Mapping[StageKind, Device] = field(default_factory=dict)
    _routes: dict[int, tuple[TrialConfig, tuple[_Step, ...]]] = field(default_factory=dict)
    _steps: dict[tuple[object, ...], _Step] = field(default_factory=dict)
    _rounds: dict[tuple[object, ...], list[_Step]] = field(default_factory=dict)
    _canonical: dict[int, tuple[Section, Section]] = field(default_factory=dict)
    _same: dict[Section, Section] = field(default_factory=dict)

    def path(self, config: TrialConfig, seed: int) -> tuple[Stage, ...]:
        """The stages of a trial, root first; `config` must be resolved."""
        route = self._routes.get(id(config))
        if route is None:
            # with the config itself, so that no other object takes its place in memory
            route = self._routes[id(config)] = config, self._route(config)
        path: list[Stage] = []
        parent: str | None = None
        for step in route[1]:
            stage = step.stages.get(seed if parent is None else parent) or step.below(parent, seed)
            path.append(stage)
            parent = stage.key
        return tuple(path)

    def _route(self, config: TrialConfig) -> tuple[_Step, ...]:
        select: SelectConfig | None = self._canonical_of(config.select)
        method: CompressConfig | None = self._canonical_of(config.compress)
        selection = self._selection(config, select) if select else ()
        train = self._step("train", config, select, None, _NO_COST)
        compress = [self._step("compress", config, select, part, _NO_COST) for part in self._parts(method)]
        return *selection, train, *compress, self._step("evaluate", config, select, method, config.cost)

    def _canonical_of(self, section: Any) -> Any:
        """The section with its inert leaves at their defaults."""
        if section is None:
            return None
        known = self._canonical.get(id(section))
        if known is None:
            canonical = section.canonical()
            known = self._canonical[id(section)] = section, self._same.setdefault(canonical, canonical)
        return known[1]

    def _parts(self, method: CompressConfig | None) -> list[CompressConfig]:
        """A method, or the steps of a pipeline; equal ones are one object."""
        parts = () if method is None else method.stages()
        return [cast("CompressConfig", self._same.setdefault(part, part)) for part in parts]

    def _selection(self, config: TrialConfig, select: SelectConfig) -> tuple[_Step, ...]:
        """The initial draw and the rounds up to the one that reaches the budget, all on one chain per trajectory."""
        sizes = select.rounds()
        trajectory = select.model_copy(update={"budget": 0, "query_sizes": ()})
        identity = (config.data, trajectory, select.query_sizes, config.model, config.train)
        chain = self._rounds.setdefault(identity, [])
        while len(chain) <= len(sizes):
            done = sizes[: len(chain)]
            here = select.model_copy(update={"budget": select.initial + sum(done), "query_sizes": done})
            chain.append(self._step("select", config, here, None, _NO_COST))
        return tuple(chain[: len(sizes) + 1])

    def _step(
        self,
        kind: StageKind,
        config: TrialConfig,
        select: SelectConfig | None,
        method: CompressConfig | None,
        cost: CostConfig,
    ) -> _Step:
        parts = (config.data, select, config.model, config.train, method, cost)
        identity = (kind, *map(id, parts))
        known = self._steps.get(identity)
        if known is None:
            canonical = TrialConfig.model_construct(
                data=config.data, select=select, model=config.model, train=config.train, compress=method, cost=cost
            )
            device = self.devices.get(kind, self.device)
            known = self._steps[identity] = _Step(kind, canonical, self._leaves(kind, canonical, device), device)
        return known

    def _leaves(self, kind: StageKind, config: TrialConfig, device: Device) -> str:
        """What the stage owns, as members of a canonical JSON object."""
        first_draw = kind == "select" and not select_of(config).query_sizes
        unnamed = Stage("", kind, None if first_draw else "", config, 0, device)
        own = json.dumps(unnamed.own_config(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        # What follows a training holds its device in the parent's key, and in its own where it runs elsewhere.
        elsewhere = kind in ("compress", "evaluate") and device != self.devices.get("train", self.device)
        return f'"config":{own}' + (f',"device":"{device}"' if elsewhere else "")


def selection_network(config: TrialConfig) -> ModelConfig:
    """The network that chooses the images to label: the proxy, or the model itself."""
    select = select_of(config)
    return ModelConfig(name=select.proxy, width=select.proxy_width) if select.proxy else config.model


def select_of(config: TrialConfig) -> SelectConfig:
    """The section `select` of a trial that has one.

    Raises:
        ValueError: it has none.

    """
    if config.select is None:
        msg = "a select stage needs a select section"
        raise ValueError(msg)
    return config.select


def _own_select(stage: Stage) -> dict[str, Any]:
    """The initial draw owns all that shapes the trajectory; a later round only its number and what it asks."""
    config, select = stage.config, select_of(stage.config)
    if stage.parent is not None:
        return {"round": len(select.query_sizes), "query": select.query_sizes[-1]}
    shape = select.model_dump(exclude_defaults=True, exclude={"budget", "query_sizes"})
    network = selecting(config, exclude_defaults=True)
    return {"data": _data(config), "select": shape | {"strategy": select.strategy}, **network, "device": stage.device}


def selecting(config: TrialConfig, *, exclude_defaults: bool) -> dict[str, dict[str, Any]]:
    """Leaves of the network that selects and, of `train`, those that its training reads; none where none is trained."""
    select = select_of(config)
    if not select.trains():
        return {}
    unread = {"lr", "schedule"} if select.schedule == "fast" else set[str]()
    unread |= {"epochs"} if select.epochs else set()
    return {
        "model": selection_network(config).model_dump(exclude_defaults=exclude_defaults),
        "train": config.train.model_dump(exclude_defaults=exclude_defaults, exclude=unread),
    }


def _data(config: TrialConfig) -> dict[str, Any]:
    return config.data.key_leaves()


def _own_train(stage: Stage) -> dict[str, Any]:
    config = stage.config
    chosen = {"data": _data(config)} if config.select is None else {"labels": config.select.budget}
    return chosen | {
        "model": config.model.model_dump(exclude_defaults=True),
        "train": config.train.model_dump(exclude_defaults=True),
        "device": stage.device,
    }


def _own_compress(stage: Stage) -> dict[str, Any]:
    method = stage.config.compress
    if method is None:
        msg = "a compress stage needs a compress section"
        raise ValueError(msg)
    own: dict[str, Any] = {"compress": method.model_dump(exclude_defaults=True) | {"method": method.method}}
    trained = str(getattr(method.trained(), "method", ""))
    return own | ({"method_version": METHOD_VERSIONS[trained]} if trained in METHOD_VERSIONS else {})


def _own_evaluate(stage: Stage) -> dict[str, Any]:
    cost = stage.config.cost.model_dump(exclude_defaults=True)
    return {"cost": cost} if cost else {}


_OWN = {"select": _own_select, "train": _own_train, "compress": _own_compress, "evaluate": _own_evaluate}
