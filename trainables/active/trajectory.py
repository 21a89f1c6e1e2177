"""What a round of labelling leaves to the next: the labelled images in order, and the network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainables.errors import TrialError

_META = "meta"
_INDICES = "labelled"
_NETWORK = "network."


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The labelled images after some rounds.

    Args:
        labelled: indices into the training images in the order of labelling, int64 (L,).
        sizes: how many each round added, the initial draw first; they sum to L.
        network: the selection network's tensors, kept where the next round trains on with them.
        best: the largest validation accuracy of any round.
        stale: how many rounds have passed since.
        stopped: whether asking has ended; later rounds change nothing.

    """

    labelled: Tensor
    sizes: tuple[int, ...]
    network: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    best: float = 0.0
    stale: int = 0
    stopped: bool = False

    @property
    def newest(self) -> Tensor:
        """What the last round added."""
        return self.labelled[len(self.labelled) - self.sizes[-1] :]

    @property
    def older(self) -> Tensor:
        """What was labelled before."""
        return self.labelled[: len(self.labelled) - self.sizes[-1]]


def save(trajectory: Trajectory) -> bytes:
    """A safetensors file; equal trajectories give equal bytes."""
    tensors = {_NETWORK + name: tensor.contiguous() for name, tensor in sorted(trajectory.network.items())}
    facts = {
        "sizes": trajectory.sizes,
        "best": trajectory.best,
        "stale": trajectory.stale,
        "stopped": trajectory.stopped,
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return safetensors.torch.save({_INDICES: trajectory.labelled, **tensors}, {_META: text})


def load(data: bytes) -> Trajectory:
    """The trajectory that `save` was given.

    Raises:
        TrialError: the bytes are not such a file.

    """
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return _trajectory(tensors, json.loads(header["__metadata__"][_META]))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"a stored trajectory of {len(data)} bytes cannot be read: {error}; remove it and run its stage again"
        raise TrialError(msg) from error


def _trajectory(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Trajectory:
    labelled, sizes = tensors[_INDICES], tuple(int(size) for size in facts["sizes"])
    if labelled.dtype != torch.int64 or sum(sizes) != len(labelled) or not sizes:
        msg = f"{len(labelled)} labelled images in rounds of {list(sizes)}"
        raise ValueError(msg)
    network = {name.removeprefix(_NETWORK): t for name, t in tensors.items() if name.startswith(_NETWORK)}
    return Trajectory(labelled, sizes, network, float(facts["best"]), int(facts["stale"]), bool(facts["stopped"]))
