"""The skipping runtime: torch, one image at a time, computing only the kernels whose gates are open for it.

A kernel that is off is neither computed nor read: the layers behind get the channels of the others alone, with the
weights that belong to them, which are picked for each image. Networks without gates run as they are, BN folded, so
that what the skipping gains can be told from what torch costs.
"""

import copy
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from trainables.export.folding import fold_batch_norms
from trainables.models.compact import Compact
from trainables.models.gated import GatedConv2d, gated
from trainables.models.graph import graph
from trainables.models.readers import gated_inputs
from trainables.quantize import replace_module
from trainables.runtimes.base import Images, Logits


class SkippingPredictor:
    """A network in torch; images (N, C, H, W), fp32, to logits (N, classes), one after the other."""

    def __init__(self, network: nn.Module, threads: int) -> None:
        self.network = network
        self.threads = threads

    def __call__(self, images: Images) -> Logits:
        """Logits (N, classes)."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        with torch.inference_mode():
            return np.concatenate([self.network(torch.from_numpy(image[None])).numpy() for image in images])


def load(network: Compact, threads: int = 1) -> SkippingPredictor:
    """`network` as it computes what its gates leave on.

    Raises:
        InfeasibleError: its graph cannot be traced.

    """
    model = copy.deepcopy(network.model).cpu().to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    model.requires_grad_(requires_grad=False)
    fold_batch_norms(model)
    nodes, sources, layers = graph(model), gated_inputs(model), gated(model)
    open_kernels = {name: OpenKernels() for name in layers}
    for name, layer in layers.items():
        inputs = open_kernels.get(sources.get(name, ""))
        whole = name not in sources.values()
        replace_module(model, name, _SkippingConv(layer, inputs, open_kernels[name], whole=whole))
    for name, source in sources.items():
        if name not in layers:
            reader = model.get_submodule(name)
            channels = layers[source].conv.out_channels
            replace_module(model, name, _reading(reader, open_kernels[source], channels))
    return SkippingPredictor(GraphModule(model, nodes), threads)


@dataclass
class OpenKernels:
    """Indices of the kernels that a gated convolution computed for the last image; at least one."""

    index: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))


class _SkippingConv(nn.Module):
    """A gated convolution for one image: the outputs of its open kernels alone, or of all of them where `whole`.

    Where no kernel is open, the first one stands for them, with outputs of 0.
    """

    def __init__(self, layer: GatedConv2d, inputs: OpenKernels | None, outputs: OpenKernels, *, whole: bool) -> None:
        super().__init__()
        self.conv = layer.conv
        self.inputs_first = layer.conv.weight.transpose(0, 1).contiguous()
        self.gate = layer.gate.weight.t().contiguous()
        self.limit = layer.gate.bias
        self.whole = whole
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """(1, open inputs, H, W) -> (1, open kernels, H', W')."""
        gate = self.gate if self.inputs is None else self.gate.index_select(0, self.inputs.index)
        on = (torch.addmv(self.limit, gate.t(), x.mean((2, 3))[0]) >= 0).nonzero()[:, 0]
        self.outputs.index = on if len(on) else torch.zeros(1, dtype=torch.int64)
        bias = None if self.conv.bias is None else self.conv.bias.index_select(0, self.outputs.index)
        y = _convolved(self.conv, x, self._weight(), bias)
        y = y if len(on) else y * 0
        return self._spread(y) if self.whole else y

    def _weight(self) -> Tensor:
        if self.inputs is None or len(self.inputs.index) == self.conv.in_channels:
            return _picked(self.conv.weight, self.outputs.index)
        return _picked(self.inputs_first.index_select(0, self.inputs.index).transpose(0, 1), self.outputs.index)

    def _spread(self, y: Tensor) -> Tensor:
        whole = y.new_zeros((1, self.conv.out_channels, *y.shape[2:]))
        return whole.index_copy_(1, self.outputs.index, y)


class _ReadingConv(nn.Module):
    """A convolution that reads the open channels of a gated one: (1, open, H, W) -> (1, O, H', W')."""

    def __init__(self, conv: nn.Conv2d, inputs: OpenKernels) -> None:
        super().__init__()
        self.conv = conv
        self.inputs_first = conv.weight.transpose(0, 1).contiguous()
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        """All kernels, from the inputs that there are."""
        if len(self.inputs.index) == self.conv.in_channels:
            return self.conv(x)
        weight = self.inputs_first.index_select(0, self.inputs.index).transpose(0, 1)
        return _convolved(self.conv, x, weight, self.conv.bias)


class _ReadingLinear(nn.Module):
    """A linear layer that reads the open channels of a gated convolution, one or more features of each."""

    def __init__(self, linear: nn.Linear, inputs: OpenKernels, channels: int) -> None:
        super().__init__()
        self.bias = linear.bias
        self.weight = linear.weight.t().reshape(channels, -1, linear.out_features).contiguous()
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(1, features of open channels) -> (1, O)."""
        return F.linear(x, self.weight.index_select(0, self.inputs.index).flatten(0, 1).t(), self.bias)


def _reading(layer: nn.Module, inputs: OpenKernels, channels: int) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return _ReadingConv(layer, inputs)
    return _ReadingLinear(cast("nn.Linear", layer), inputs, channels)


def _picked(weight: Tensor, kernels: Tensor) -> Tensor:
    """The weights of some kernels; those of all of them are not copied."""
    return weight if len(kernels) == len(weight) else weight.index_select(0, kernels)


def _convolved(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x` under another weight, with all else of `conv`; a convolution of one group, padded with zeros."""
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation)
