"""BN folded into the convolution before it: what every runtime does, done once and in double precision."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from trainables.models.graph import graph, layer_of
from trainables.quantize import replace_module


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> None:
    """Fold, in place, each BN that alone reads a convolution, in eval mode: W'_o = r_o W_o, b' = r (b - mean) + beta.

    r = gamma / sqrt(var + eps), one factor a filter: {-s, 0, +s} becomes {-r s, 0, +r s}, each rounded once to fp32.
    The BN becomes the identity. Others (before an activation, behind a concatenation) stay.

    Raises:
        InfeasibleError: the model's graph cannot be traced.

    """
    for conv, norm, name in list(_pairs(model)):
        mean, variance = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
        ratio = norm.weight.double() / (variance + norm.eps).sqrt()
        bias = torch.zeros_like(mean) if conv.bias is None else conv.bias.double()
        conv.weight.copy_(conv.weight.double() * ratio.view(-1, 1, 1, 1))
        conv.bias = nn.Parameter((ratio * (bias - mean) + norm.bias.double()).float())
        replace_module(model, name, nn.Identity())


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d, str]]:
    """(convolution, BN, name of the BN); layers that run more than once are left out."""
    nodes = graph(model).nodes
    calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
    for node in nodes:
        norm, source = layer_of(model, node), node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(source, torch.fx.Node) or len(source.users) > 1:
            continue
        conv = layer_of(model, source)
        folds = norm.affine and norm.track_running_stats
        if isinstance(conv, nn.Conv2d) and folds and calls[str(node.target)] == 1 == calls[str(source.target)]:
            yield conv, norm, str(node.target)
