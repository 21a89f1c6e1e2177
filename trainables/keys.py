"""The path of stages a trial takes, and the key that names each stage by its content.

A key is the SHA-256 of canonical JSON of the schema version, the stage's version, the seed, the stage's own resolved
config without default and inert leaves, and the parent's key. Equal prefixes of two trials therefore have equal keys.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainables.config import CompressConfig, CostConfig, Device, ModelConfig, SelectConfig, TrialConfig

StageKind = Literal["select", "train", "compress", "evaluate"]

SCHEMA_VERSION = 1
STAGE_VERSIONS: Mapping[StageKind, int] = {"select": 1, "train": 1, "compress": 1, "evaluate": 2}
"""Raised when a stage gives other results for the same config; the golden digests in the tests guard it."""


@dataclass(frozen=True, slots=True)
class Stage:
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


@dataclass(slots=True)
class PathFinder:
    """Finds stage paths; remembers prefixes, since the trials of a study share most of them.

    `device` is the device class of all stages, but for the kinds that `devices` names.
    """

    device: Device = "cpu"
    devices: Mapping[StageKind, Device] = field(default_factory=dict)
    _known: dict[tuple[object, ...], Stage] = field(default_factory=dict)
    _rounds: dict[tuple[object, ...], list[Stage]] = field(default_factory=dict)

    def path(self, config: TrialConfig, seed: int) -> tuple[Stage, ...]:
        """The stages of a trial, root first; `config` must be resolved."""
        if config.select:
            config = config.model_copy(update={"select": config.select.canonical()})
        selected = self._selection(config, seed) if config.select else ()
        train = self._stage("train", config, None, selected[-1] if selected else None, seed)
        if config.compress is None:
            return *selected, train, self._stage("evaluate", config, None, train, seed)
        method: CompressConfig = config.compress.canonical()  # pyright: ignore[reportAssignmentType]
        compress = self._stage("compress", config, method, train, seed)
        return *selected, train, compress, self._stage("evaluate", config, method, compress, seed)

    def _of(self, kind: StageKind) -> Device:
        return self.devices.get(kind, self.device)

    def _selection(self, config: TrialConfig, seed: int) -> tuple[Stage, ...]:
        """The initial draw and the rounds up to the one that reaches the budget, all on one chain per trajectory."""
        select = select_of(config)
        sizes = select.rounds()
        trajectory = select.model_copy(update={"budget": 0, "query_sizes": ()})
        identity = (config.data, trajectory, select.query_sizes, config.model, config.train, seed)
        chain = self._rounds.setdefault(identity, [])
        while len(chain) <= len(sizes):
            done = sizes[: len(chain)]
            here = select.model_copy(update={"budget": select.initial + sum(done), "query_sizes": done})
            node = TrialConfig.model_construct(
                data=config.data, select=here, model=config.model, train=config.train, compress=None, cost=CostConfig()
            )
            chain.append(_keyed("select", node, chain[-1].key if chain else None, seed, self._of("select")))
        return tuple(chain[: len(sizes) + 1])

    def _stage(
        self, kind: StageKind, config: TrialConfig, method: CompressConfig | None, parent: Stage | None, seed: int
    ) -> Stage:
        cost = config.cost if kind == "evaluate" else CostConfig()
        select = config.select if config.select and kind == "train" else None
        root = (config.data, config.model, config.train, seed)
        # below a selection the network to be trained is not yet known from the parent
        identity = (kind, parent.key if parent else None, method, cost, select, *(root if kind == "train" else ()))
        known = self._known.get(identity)
        if known is None:
            canonical = TrialConfig.model_construct(
                data=config.data,
                select=config.select,
                model=config.model,
                train=config.train,
                compress=method,
                cost=cost,
            )
            known = _keyed(kind, canonical, parent.key if parent else None, seed, self._of(kind), self._of("train"))
            self._known[identity] = known
        return known


def _keyed(
    kind: StageKind,
    config: TrialConfig,
    parent: str | None,
    seed: int,
    device: Device,
    parents_device: Device | None = None,
) -> Stage:
    unnamed = Stage("", kind, parent, config, seed, device)
    content = {
        "schema": SCHEMA_VERSION,
        "stage": kind,
        "version": STAGE_VERSIONS[kind],
        "seed": seed,
        "config": unnamed.own_config(),
        "parent": parent,
    }
    # What follows a training holds its device in the parent's key, and in its own where it runs elsewhere.
    if kind in ("compress", "evaluate") and device != parents_device:
        content["device"] = device
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Stage(hashlib.sha256(text.encode()).hexdigest()[:32], kind, parent, config, seed, device)


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
    return {"compress": method.model_dump(exclude_defaults=True) | {"method": method.method}}


def _own_evaluate(stage: Stage) -> dict[str, Any]:
    cost = stage.config.cost.model_dump(exclude_defaults=True)
    return {"cost": cost} if cost else {}


_OWN = {"select": _own_select, "train": _own_train, "compress": _own_compress, "evaluate": _own_evaluate}
