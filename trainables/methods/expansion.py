"""A linear layer as a chain of wider linear ones, and the one layer that such a chain is."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Expanded(nn.Module):
    """A chain of convolutions, or of linear layers, with nothing between them, or a ReLU while `nonlinear` is set.

    Its first layer carries all padding, which is why the chain is one layer also at the border of the image.
    """

    def __init__(self, layers: Sequence[nn.Conv2d | nn.Linear]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.nonlinear = False

    def forward(self, x: Tensor) -> Tensor:
        """As the layer that it stands for."""
        for number, layer in enumerate(self.layers):
            x = layer(F.relu(x) if number > 0 and self.nonlinear else x)
        return x

    @torch.no_grad()
    def contracted(self) -> Tensor:
        """The weight of the one layer, (O, I / groups, k, k) or (O, I); computed in fp64."""
        first, *others = self.layers
        weight = first.get_parameter("weight").double()
        for layer in others:
            following = layer.get_parameter("weight").double()
            weight = composed(weight, following, layer.groups) if isinstance(layer, nn.Conv2d) else following @ weight
        return weight.float()


def composed(first: Tensor, second: Tensor, groups: int) -> Tensor:
    """The kernel of two convolutions behind one another, the first one with stride and dilation 1; both in `groups`.

    W[o, i] = sum_m second[o, m] (*) first[m, i] with the full convolution (*), whose kernel has k + k' - 1 pixels.

    Args:
        first: (M, I / groups, k, k).
        second: (O, M / groups, k', k').
        groups: of both.

    Returns:
        (O, I / groups, k + k' - 1, k + k' - 1).

    """
    parts = [
        F.conv_transpose2d(after, before)
        for before, after in zip(first.chunk(groups), second.chunk(groups), strict=True)
    ]
    return torch.cat(parts)


def convolution_chain(conv: nn.Conv2d, factor: int, stacked: bool) -> Expanded:
    """A chain for `conv`, weights unset: 1 x 1, k x k and 1 x 1, or where `stacked` (k - 1) / 2 times 3 x 3.

    Between its layers are `factor` times the inputs' or the outputs' channels. Bias and stride are the last k x k's and
    the last layer's. Dilation is that of the k x k layer, and none is stacked.
    """
    inputs, outputs = conv.in_channels, conv.out_channels
    kernel = int(conv.kernel_size[0])
    kernels = [3] * ((kernel - 1) // 2) if stacked else [1, kernel, 1]
    middle = [factor * inputs, *[factor * outputs] * (len(kernels) - 2)]
    widths = [inputs, *middle[: len(kernels) - 1], outputs]
    strided = len(kernels) - 1 if stacked else 1
    layers: list[nn.Conv2d | nn.Linear] = []
    with torch.random.fork_rng(devices=[]):
        for place, size in enumerate(kernels):
            layer = nn.Conv2d(
                widths[place], widths[place + 1], size, groups=conv.groups,
                bias=conv.bias is not None and place == len(kernels) - 1,
            )  # fmt: skip
            layer.stride = conv.stride if place == strided else (1, 1)
            layer.dilation = conv.dilation if size == kernel else (1, 1)
            layer.padding = conv.padding if place == 0 else (0, 0)
            layers.append(layer)
    return Expanded(layers)


def linear_chain(linear: nn.Linear, factor: int) -> Expanded:
    """Three linear layers for one, weights unset."""
    inputs, outputs = linear.in_features, linear.out_features
    widths = [inputs, factor * inputs, factor * outputs, outputs]
    has_bias = "bias" in dict(linear.named_parameters())
    with torch.random.fork_rng(devices=[]):
        return Expanded([nn.Linear(i, o, has_bias and n == 2) for n, (i, o) in enumerate(itertools.pairwise(widths))])


@torch.no_grad()
def fill_exactly(chain: Expanded, weight: Tensor, groups: int, source: torch.Generator) -> None:
    """Set a chain of three so that it computes what `weight` does: C^T, C W A^T and A with orthonormal A and C.

    A (r I, I) has orthonormal columns and C^T (O, r O) orthonormal rows, drawn from `source`, in each group by itself:
    C^T C W A^T A = W.
    """
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    wide = [chain.layers[n].get_parameter("weight").shape[0] // groups for n in (0, 1)]
    parts: list[list[Tensor]] = [[], [], []]
    for part in weight.double().chunk(groups):
        before, after = _orthonormal(wide[0], inputs, source), _orthonormal(wide[1], outputs, source)
        middle = torch.einsum("po,oi...,qi->pq...", after, part, before)
        for found, one in zip(parts, (before, middle, after.t()), strict=True):
            found.append(one)
    for layer, found in zip(chain.layers, parts, strict=True):
        parameter = layer.get_parameter("weight")
        parameter.copy_(torch.cat(found).float().reshape(parameter.shape))


def _orthonormal(rows: int, columns: int, source: torch.Generator) -> Tensor:
    """A random matrix with orthonormal columns, rows >= columns, in fp64."""
    return torch.linalg.qr(torch.randn(rows, columns, generator=source, dtype=torch.float64))[0]
