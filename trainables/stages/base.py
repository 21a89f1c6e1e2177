"""What every stage takes and gives: a pure function of its config, its seed and its parent's output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from trainables.config import TrialConfig
from trainables.data.load import Dataset
from trainables.export import compact
from trainables.models.build import build


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage gives: its output as bytes, numbers for the table, and a record per epoch."""

    artifact: bytes
    metrics: Mapping[str, float | int | None]
    history: Sequence[Mapping[str, float]] = ()


def empty_model(config: TrialConfig, data: Dataset) -> nn.Module:
    """The dense architecture, its weights not yet set."""
    return build(config.model, channels=int(data.mean.numel()), classes=data.classes)


def restore(config: TrialConfig, data: Dataset, artifact: bytes) -> tuple[nn.Module, dict[str, Any]]:
    """The network of an earlier stage, cut as it was, and what that stage wrote beside it."""
    tensors, meta = compact.load(artifact)
    model = empty_model(config, data)
    compact.resize(model, tensors)
    model.load_state_dict(tensors)
    return model, meta
