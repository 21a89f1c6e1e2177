"""A network's tensors and facts as bytes (safetensors), and how a fresh network takes on a cut one's shapes."""

import json
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from trainables.errors import TrialError
from trainables.pruning.cut import adopt_shape

_META = "meta"


def save(model: nn.Module, meta: Mapping[str, Any]) -> bytes:
    """The state dict of `model` and `meta` (anything JSON can hold) as safetensors; equal input gives equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.state_dict().items())}
    # one metadata key: safetensors writes several in no fixed order
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return safetensors.torch.save(tensors, {_META: text})


def load(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and `meta` that `save` was given.

    Raises:
        TrialError: the bytes are not such a file.

    """
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        meta = json.loads(header["__metadata__"][_META])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"a stored network of {len(data)} bytes cannot be read: {error}; remove it and run its stage again"
        raise TrialError(msg) from error
    return tensors, meta


def resize(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give each convolution, BN and linear layer of a fresh `model` the shapes that `tensors` have, in place.

    The weights are left unset; `load_state_dict(tensors)` sets them. Layers that `tensors` lack stay as they are.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            continue
        for kind, current in list(layer.named_parameters(recurse=False)):
            stored = tensors.get(f"{name}.{kind}", current)
            if stored.shape != current.shape:
                layer.register_parameter(kind, nn.Parameter(current.new_empty(stored.shape)))
        for kind, current in list(layer.named_buffers(recurse=False)):
            stored = tensors.get(f"{name}.{kind}", current)
            if stored.shape != current.shape:
                layer.register_buffer(kind, current.new_empty(stored.shape))
        adopt_shape(layer)
