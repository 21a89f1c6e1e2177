"""The scales of few-bit layers, moved into the BN behind them so that they need no bytes of their own."""

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import TypeIs

from trainables.errors import InfeasibleError
from trainables.export.coding import filter_scales
from trainables.models.graph import graph, layer_of


@torch.no_grad()
def take_scales(model: nn.Module, bits: Mapping[str, int]) -> dict[str, Tensor | None]:
    """`filter_scales` of each layer in `bits`; those that a BN can take are moved there, in place, and become 1.

    The weights stay as they are. A model whose graph cannot be traced keeps its scales.

    Raises:
        ValueError: a layer holds more values in a filter than its bits can tell apart.

    """
    norms = _norms_behind(model) if bits else {}
    scales: dict[str, Tensor | None] = {}
    for name, stored in bits.items():
        scale = filter_scales(name, model.get_submodule(name).get_parameter("weight"), stored)
        norm = norms.get(name)
        if norm is not None and scale is not None:
            fold_statistics(norm)
            norm.weight.mul_(scale)
            scale = torch.ones_like(scale)
        scales[name] = scale
    return scales


def _norms_behind(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """The BN of each bias-free convolution whose output nothing else reads; both run once."""
    try:
        nodes = list(graph(model).nodes)
    except InfeasibleError:
        return {}
    calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
    found: dict[str, nn.BatchNorm2d] = {}
    for node in nodes:
        if len(node.users) != 1:
            continue
        (user,) = node.users
        layer, reader = layer_of(model, node), layer_of(model, user)
        if not isinstance(layer, nn.Conv2d) or layer.bias is not None or not is_plain_norm(reader):
            continue
        if calls[str(node.target)] == calls[str(user.target)] == 1:
            found[str(node.target)] = reader
    return found


def is_plain_norm(module: nn.Module | None) -> TypeIs[nn.BatchNorm2d]:
    """Whether `module` is a BN with scale, shift and statistics of its own."""
    return isinstance(module, nn.BatchNorm2d) and module.affine and module.running_mean is not None


def fold_statistics(norm: nn.BatchNorm2d) -> None:
    """Make a BN's scale and shift say all it does: scale' = g / sqrt(var + eps), shift' = b - mean * scale'."""
    mean, variance = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    norm.bias.copy_(norm.bias.double() - mean * scale)
    norm.weight.copy_(scale)
    neutralise(norm)


def neutralise(norm: nn.BatchNorm2d) -> None:
    """Statistics under which a BN in eval mode computes scale * x + shift."""
    norm.get_buffer("running_mean").zero_()
    norm.get_buffer("running_var").fill_(1 - norm.eps)
    norm.get_buffer("num_batches_tracked").zero_()
