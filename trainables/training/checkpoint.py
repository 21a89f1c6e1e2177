"""A training at the end of an epoch, as bytes, from which it goes on as if it had never been stopped.

The bytes are the SHA-256 of a safetensors file and then that file: all tensors that change from epoch to epoch, and in
its metadata what they belong to, as JSON. Nothing in it is code.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from trainables.errors import CheckpointError

CHECKPOINT_VERSION = 1
"""Raised when checkpoints are written otherwise, or when the same ones would go on otherwise."""

_META = "meta"
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """What a training belongs to and runs on: under any other it would not go on to the same bits.

    Attributes:
        stage: key of the stage.
        parent: SHA-256 of the parent's output; None for a root.
        torch: version.
        machine: kind of machine, `trainables.training.state.machine`.
        threads: of torch.
        gpu: its name; None on a CPU.

    """

    stage: str
    parent: str | None
    torch: str
    machine: str
    threads: int
    gpu: str | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after `epoch` of its `epochs`.

    Attributes:
        origin: what it belongs to.
        epoch: how many are done.
        epochs: how many there are in all.
        spent_s: seconds of work that it holds.
        history: the record of each epoch that is done.
        tensors: the network's, the optimizer's and the random states, by name.

    """

    origin: Origin
    epoch: int
    epochs: int
    spent_s: float
    history: Sequence[Mapping[str, float]]
    tensors: Mapping[str, Tensor]


def save(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as bytes; see the module."""
    # cloned, since safetensors refuses tensors that share memory
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in sorted(checkpoint.tensors.items())}
    facts = {
        "version": CHECKPOINT_VERSION,
        "origin": asdict(checkpoint.origin),
        "epoch": checkpoint.epoch,
        "epochs": checkpoint.epochs,
        "spent_s": checkpoint.spent_s,
        "history": [dict(record) for record in checkpoint.history],
    }
    file = safetensors.torch.save(tensors, {_META: json.dumps(facts, separators=(",", ":"), allow_nan=False)})
    return hashlib.sha256(file).digest() + file


def load(data: bytes, origin: Origin) -> Checkpoint:
    """The checkpoint that `save` was given, for the same origin.

    Raises:
        CheckpointError: the bytes are damaged or no checkpoint, or one of another version or origin.

    """
    digest, file = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(file).digest() != digest:
        msg = f"{len(data)} bytes are no checkpoint, or a damaged one: their SHA-256 is another than the one they state"
        raise CheckpointError(msg)
    try:
        header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
        facts = json.loads(header["__metadata__"][_META])
        _refuse_other(facts, origin)
        return Checkpoint(
            origin,
            int(facts["epoch"]),
            int(facts["epochs"]),
            float(facts["spent_s"]),
            facts["history"],
            safetensors.torch.load(file),
        )
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"{len(data)} bytes cannot be read as a checkpoint: {error}"
        raise CheckpointError(msg) from error


def _refuse_other(facts: Mapping[str, Any], origin: Origin) -> None:
    if facts["version"] != CHECKPOINT_VERSION:
        msg = f"a checkpoint of version {facts['version']}; this program reads version {CHECKPOINT_VERSION}"
        raise CheckpointError(msg)
    for field in fields(Origin):
        ours, theirs = getattr(origin, field.name), facts["origin"][field.name]
        if theirs != ours:
            msg = f"a checkpoint of another {field.name}: {theirs}, where the stage has {ours}"
            raise CheckpointError(msg)
