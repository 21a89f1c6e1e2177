"""BN folded into the convolution before it: what every runtime does, done once and in double precision."""

from typing import cast

import torch
from torch import nn

from trainables.models.folding import folded, pairs
from trainables.models.graph import graph
from trainables.quantize import replace_module


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> None:
    """Fold, in place, each BN that alone reads a convolution, in eval mode: W'_o = r_o W_o, b' = r (b - mean) + beta.

    r = gamma / sqrt(var + eps), one factor a filter: {-s, 0, +s} becomes {-r s, 0, +r s}, each rounded once to fp32.
    The BN becomes the identity. Others (before an activation, behind a concatenation) stay.

    Raises:
        InfeasibleError: the model's graph cannot be traced.

    """
    for source, node in list(pairs(model, graph(model))):
        conv = cast("nn.Conv2d", model.get_submodule(str(source.target)))
        weight, bias = folded(conv, cast("nn.BatchNorm2d", model.get_submodule(str(node.target))))
        conv.weight.copy_(weight)
        conv.bias = nn.Parameter(bias)
        replace_module(model, str(node.target), nn.Identity())
