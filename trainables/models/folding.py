"""BN behind a convolution as part of the convolution: which pairs there are, and the weights of the one layer."""

from collections import Counter
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from trainables.errors import InfeasibleError
from trainables.models.edits import Edit, Edits, IdentityPart, conv_part, install
from trainables.models.graph import graph as graph_of
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


@torch.no_grad()
def fold(model: nn.Module) -> Edits:
    """Fold, in place, each BN of `pairs`, so that the convolution before it has a bias and nothing stands in its place.

    Returns what was changed, as edits: a convolution `conv` that had no bias is `conv.0` now. In eval mode the network
    computes what it did, up to rounding.

    Raises:
        InfeasibleError: the model's graph cannot be traced, or a convolution cannot be described.

    """
    made: list[Edit] = []
    for source, node in list(pairs(model, graph_of(model))):
        place = str(source.target)
        conv = cast("nn.Conv2d", model.get_submodule(place))
        weight, bias = folded(conv, cast("nn.BatchNorm2d", model.get_submodule(str(node.target))))
        edits = [Edit(place=str(node.target), parts=(IdentityPart(),))]
        if conv.bias is None:
            edits.insert(0, _with_bias(place, conv))
            install(model, edits[:1])
            conv = cast("nn.Conv2d", model.get_submodule(f"{place}.0"))
        install(model, edits[-1:])
        conv.weight = nn.Parameter(weight)
        conv.bias = nn.Parameter(bias)
        made += edits
    return tuple(made)


def _with_bias(place: str, conv: nn.Conv2d) -> Edit:
    try:
        return Edit(place=place, parts=(conv_part(conv, bias=True),))
    except ValueError as error:
        msg = f"the BN behind layer {place} cannot be folded into it: {error}"
        raise InfeasibleError(msg) from error
