"""A finished network's tensors and facts as bytes (safetensors), and how a fresh network becomes it again."""

import json
from typing import Any, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.errors import TrialError
from trainables.models.compact import Compact
from trainables.models.edits import Edits, dumped, install, parsed
from trainables.models.grids import Grid
from trainables.pruning.cut import resize
from trainables.quantize import Activation, ActivationForm, install_activations

_META = "meta"
_LABELLED = "labelled"
_KINDS = frozenset(get_args(ActivationForm))


def save(network: Compact, labelled: Tensor | None = None) -> bytes:
    """The tensors, bits, activations, bits of inputs and edits of `network`; equal networks give equal bytes.

    `kept` is no part of it: it follows from the tensors' shapes and the dense network's. `labelled`, int64, are the
    training images that the network may see, where not all of them have a label.
    """
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(network.model.state_dict().items())
    }
    # one metadata key: safetensors writes several in no fixed order
    facts = _facts(network) | ({} if labelled is None else {_LABELLED: labelled.tolist()})
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return safetensors.torch.save(tensors, {_META: text})


def _facts(network: Compact) -> dict[str, Any]:
    """What is written beside the tensors; what a network does not have is left out."""
    facts: dict[str, Any] = {"bits": dict(network.bits)}
    if network.activations:
        facts["activations"] = {name: [a.kind, a.value] for name, a in network.activations.items()}
    if network.input_bits:
        facts["input_bits"] = dict(network.input_bits)
    if network.grids:
        facts["grids"] = {name: [g.bits, g.steps, g.zeros, g.groups] for name, g in network.grids.items()}
    if network.edits:
        facts["edits"] = dumped(network.edits)
    return facts


def load(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors that `save` was given, and its facts, of which only `bits` is always there.

    Raises:
        TrialError: the bytes are not such a file.

    """
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header["__metadata__"][_META])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(data, error) from error
    return tensors, facts


def labelled(data: bytes) -> Tensor | None:
    """Indices of the training images that the stored network may see, int64; None: all.

    Raises:
        TrialError: the bytes are not such a file.

    """
    _, facts = load(data)
    return torch.tensor(facts[_LABELLED], dtype=torch.int64) if _LABELLED in facts else None


def restore(model: nn.Module, data: bytes) -> Compact:
    """Make the dense `model` the network that `data` holds: its edits, shapes, tensors and activations, in place.

    `kept` is empty.

    Raises:
        TrialError: the bytes are not such a file, or one of another network.

    """
    tensors, facts = load(data)
    try:
        activations = {name: _activation(*pair) for name, pair in dict(facts.get("activations", {})).items()}
        edits: Edits = parsed(json.dumps(facts.get("edits", [])))
        install(model, edits)
        resize(model, tensors)
        model.load_state_dict(tensors)
        install_activations(model, activations)
        grids = {name: Grid.read(*parts) for name, parts in dict(facts.get("grids", {})).items()}
        bits, inputs = ({k: int(v) for k, v in dict(facts.get(f, {})).items()} for f in ("bits", "input_bits"))
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise _unreadable(data, error) from error
    return Compact(model, bits, activations=activations, input_bits=inputs, edits=edits, grids=grids)


def _activation(kind: Any, value: float) -> Activation:
    if kind not in _KINDS:
        msg = f"{kind!r} is no kind of activation ({', '.join(sorted(_KINDS))})"
        raise ValueError(msg)
    return Activation(kind, float(value))


def _unreadable(data: bytes, error: Exception) -> TrialError:
    return TrialError(
        f"a stored network of {len(data)} bytes cannot be read: {error}; remove it and run its stage again"
    )
