"""BN behind a convolution as part of the convolution: which pairs there are, and the weights of the one layer."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from trainables.models.graph import layer_of


@torch.no_grad()
def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (O, I, kh, kw) and bias (O,) of `conv` and the `norm` behind it in eval mode, fp32, each rounded once.

    W'_o = r_o W_o, b' = r (b - mean) + beta with r = gamma / sqrt(var + eps).
    """
    mean, variance = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    ratio = norm.weight.double() / (variance + norm.eps).sqrt()
    bias = torch.zeros_like(mean) if conv.bias is None else conv.bias.double()
    weight = conv.weight.double() * ratio.view(-1, 1, 1, 1)
    return weight.float(), (ratio * (bias - mean) + norm.bias.double()).float()


def pairs(model: nn.Module, graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Nodes of each (convolution, BN) that `folded` may make one layer of, in the order of `graph`, which is `model`'s.

    The BN alone reads the convolution and has scale, shift and statistics of its own; both run once.
    """
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        norm, source = layer_of(model, node), node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(source, Node) or len(source.users) > 1:
            continue
        folds = norm.affine and norm.track_running_stats and isinstance(layer_of(model, source), nn.Conv2d)
        if folds and calls[str(node.target)] == 1 == calls[str(source.target)]:
            yield source, node
