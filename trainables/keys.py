"""The path of stages a trial takes, and the key that names each stage by its content.

A key is the SHA-256 of canonical JSON of the schema version, the stage's version, the seed, the stage's own resolved
config without default and inert leaves, and the parent's key. Equal prefixes of two trials therefore have equal keys.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainables.config import DATASETS, CompressConfig, CostConfig, Device, TrialConfig

StageKind = Literal["train", "compress", "evaluate"]

SCHEMA_VERSION = 1
STAGE_VERSIONS: Mapping[StageKind, int] = {"train": 1, "compress": 1, "evaluate": 2}
"""Raised when a stage gives other results for the same config; the golden digests in the tests guard it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A node of the forest: what to compute, named by `key`.

    `config` is canonical (inert leaves at their defaults) and holds nothing that later stages own.
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
    """Finds stage paths; remembers prefixes, since the trials of a study share most of them."""

    device: Device = "cpu"
    _known: dict[tuple[object, ...], Stage] = field(default_factory=dict)

    def path(self, config: TrialConfig, seed: int) -> tuple[Stage, ...]:
        """The stages of a trial, root first; `config` must be resolved."""
        train = self._stage("train", config, None, None, seed)
        if config.compress is None:
            return train, self._stage("evaluate", config, None, train, seed)
        method: CompressConfig = config.compress.canonical()  # pyright: ignore[reportAssignmentType]
        compress = self._stage("compress", config, method, train, seed)
        return train, compress, self._stage("evaluate", config, method, compress, seed)

    def _stage(
        self, kind: StageKind, config: TrialConfig, method: CompressConfig | None, parent: Stage | None, seed: int
    ) -> Stage:
        cost = config.cost if kind == "evaluate" else CostConfig()
        identity = (kind, parent.key, method, cost) if parent else (kind, config.data, config.model, config.train, seed)
        known = self._known.get(identity)
        if known is None:
            canonical = TrialConfig.model_construct(
                data=config.data, model=config.model, train=config.train, compress=method, cost=cost
            )
            known = _keyed(kind, canonical, parent.key if parent else None, seed, self.device)
            self._known[identity] = known
        return known


def _keyed(kind: StageKind, config: TrialConfig, parent: str | None, seed: int, device: Device) -> Stage:
    unnamed = Stage("", kind, parent, config, seed, device)
    content = {
        "schema": SCHEMA_VERSION,
        "stage": kind,
        "version": STAGE_VERSIONS[kind],
        "seed": seed,
        "config": unnamed.own_config(),
        "parent": parent,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Stage(hashlib.sha256(text.encode()).hexdigest()[:32], kind, parent, config, seed, device)


def _own_train(stage: Stage) -> dict[str, Any]:
    config = stage.config
    return {
        "data": config.data.model_dump(exclude_defaults=True) | {"fingerprint": DATASETS[config.data.name].fingerprint},
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


_OWN = {"train": _own_train, "compress": _own_compress, "evaluate": _own_evaluate}
