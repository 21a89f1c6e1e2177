"""Which layers read the channels of a convolution, where nothing else does: what is 0 there need not be read."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.fx import Node

from trainables.models.gated import GatedConv2d
from trainables.models.graph import graph, layer_of

# channel by channel, 0 for 0
_PASSING = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.Flatten, nn.Identity, nn.Dropout,
)  # fmt: skip
_PASSING_FUNCTIONS = (
    torch.flatten, torch.relu, nn.functional.relu, nn.functional.adaptive_avg_pool2d, "flatten", "relu",
)  # fmt: skip


def read_by(model: nn.Module, node: Node) -> tuple[str, ...]:
    """The layers that read what `node` of the graph of `model` gives, by name; none if anything else reads it.

    They are convolutions of one group, padded with zeros, gated or not, and linear layers; between is what gives 0 for
    0 alone.
    """
    ends = list(_ends(model, node))
    if not all(_reads_channels(layer_of(model, end)) for end in ends):
        return ()
    return tuple(str(end.target) for end in ends)


def _ends(model: nn.Module, node: Node) -> Iterator[Node]:
    for user in node.users:
        layer = layer_of(model, user)
        if isinstance(layer, _PASSING) or (layer is None and user.target in _PASSING_FUNCTIONS):
            yield from _ends(model, user)
        else:
            yield user


def _reads_channels(layer: nn.Module | None) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros"
    return isinstance(layer, GatedConv2d | nn.Linear)


def gated_inputs(model: nn.Module) -> Mapping[str, str]:
    """For each layer that reads the channels of a gated convolution, as `read_by` says: the convolution's name.

    Raises:
        InfeasibleError: the model cannot be traced.

    """
    nodes = [node for node in graph(model).nodes if isinstance(layer_of(model, node), GatedConv2d)]
    return {reader: str(node.target) for node in nodes for reader in read_by(model, node)}
