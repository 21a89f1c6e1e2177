"""Layers trained as chains of wider ones without anything between them, and contracted to what they were."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainables.method_config import ExpandConfig
from trainables.methods.base import Method
from trainables.methods.expansion import Expanded, convolution_chain, fill_exactly, linear_chain
from trainables.methods.layers import picked_outside
from trainables.models.compact import Compact
from trainables.pruning.sharing import refuse_shared
from trainables.quantize import replace_module
from trainables.training.randomness import generator


class Expand(Method):
    """W = C K A: a k x k layer (O, I, k, k) trained as A (r I, I, 1, 1), K (r O, r I, k, k) and C (O, r O, 1, 1).

    Nothing stands between the three, so that at the end they are one layer again, of the size of the parent's: only the
    training costs more, about r^2 times the multiply-accumulates of the layer. A carries all padding, K the stride, C
    the bias. `stacked` makes a layer of k > 3 a chain of (k - 1) / 2 3 x 3 ones, `depthwise` expands layers of groups
    in each group by itself, `linear` makes three linear layers of one. The gradient is that of the chain.

    With `init: parent` A and C are random with orthonormal columns and rows and K = C^T W A^T, so that the chain
    begins as the parent's layer. With `init: random` all are drawn as first weights are, and with `nonlinear_share` a
    ReLU stands between them for the first epochs, from which the weights without it begin.

    Reference: Guo, Alvarez and Salzmann, "ExpandNets: Linear Over-parameterization to Train Compact Convolutional
    Networks", NeurIPS 2020, which trains from nothing. `init: parent` is ours, and so is the share of the epochs: the
    paper trains the network with ReLUs to its end and begins again from there.
    """

    def __init__(self, config: ExpandConfig) -> None:
        self.config = config

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Put a chain in the place of every layer of a kind in `layers`.

        Raises:
            InfeasibleError: there is none, or one shares its weights.

        """
        wanted = f"layer to expand of the kinds {', '.join(self.config.layers)}"
        chains = picked_outside(model, self.config.keep, self._chain, wanted)
        refuse_shared(model, example, chains)
        source = generator(self.seed, "method")
        for name, chain in chains.items():
            self._fill(chain, model.get_submodule(name), source)
            replace_module(model, name, chain.to(example.device))

    def _chain(self, layer: nn.Module) -> Expanded | None:
        """The chain for a layer, its weights unset; None where it stays as it is."""
        kinds, factor = self.config.layers, self.config.factor
        if isinstance(layer, nn.Linear):
            return linear_chain(layer, factor) if "linear" in kinds else None
        if not isinstance(layer, nn.Conv2d) or not _is_plain(layer):
            return None
        size = layer.kernel_size[0]
        if layer.groups > 1:
            return convolution_chain(layer, factor, stacked=False) if "depthwise" in kinds else None
        if size > 3 and "stacked" in kinds and layer.dilation == (1, 1):
            return convolution_chain(layer, factor, stacked=True)
        return convolution_chain(layer, factor, stacked=False) if "conv" in kinds else None

    @torch.no_grad()
    def _fill(self, chain: Expanded, layer: nn.Module, source: torch.Generator) -> None:
        if self.config.init == "parent":
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            fill_exactly(chain, layer.get_parameter("weight"), groups, source)
        else:
            for one in chain.layers:
                _draw(one.get_parameter("weight"), source)
        bias = dict(layer.named_parameters()).get("bias")
        if bias is not None:
            chain.layers[-1].register_parameter("bias", nn.Parameter(bias.detach().clone()))

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """A ReLU inside of the chains in the first epochs, where asked."""
        nonlinear = epoch < self.config.nonlinear_epochs()
        for module in model.modules():
            if isinstance(module, Expanded):
                module.nonlinear = nonlinear

    def protected(self, epoch: int, epochs: int) -> bool:
        """While a ReLU stands inside of the chains, and in the epoch after."""
        return 0 < self.config.nonlinear_epochs() >= epoch

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Contract every chain to one layer."""
        chains = {name: module for name, module in model.named_modules() if isinstance(module, Expanded)}
        for name, chain in chains.items():
            replace_module(model, name, _contracted(chain))
        return Compact(model)


def _is_plain(conv: nn.Conv2d) -> bool:
    """Square and odd, larger than one pixel, padded by zeros: what a chain can be made for."""
    height, width = conv.kernel_size
    return (
        height == width > 1 and height % 2 == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    )


def _draw(weight: nn.Parameter, source: torch.Generator) -> None:
    """He's first weights for convolutions, torch's for linear layers, as in `trainables.models.build.initialise`."""
    if weight.dim() == 4:
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=source)
    else:
        bound = 1 / math.sqrt(weight.shape[1])
        nn.init.uniform_(weight, -bound, bound, generator=source)


def _contracted(chain: Expanded) -> nn.Conv2d | nn.Linear:
    weight, bias = chain.contracted(), dict(chain.layers[-1].named_parameters()).get("bias")
    convolutions = [layer for layer in chain.layers if isinstance(layer, nn.Conv2d)]
    with torch.random.fork_rng(devices=[]):
        made = _one_of(convolutions, weight) if convolutions else nn.Linear(weight.shape[1], weight.shape[0])
    made.weight = nn.Parameter(weight)
    made.register_parameter("bias", bias)
    return made.train(chain.training)


def _one_of(chain: Sequence[nn.Conv2d], weight: Tensor) -> nn.Conv2d:
    """A convolution that moves over the image as a chain of them does."""
    shape: dict[str, Any] = {
        "in_channels": chain[0].in_channels,
        "out_channels": chain[-1].out_channels,
        "kernel_size": tuple(weight.shape[2:]),
        "stride": max(conv.stride for conv in chain),
        "padding": chain[0].padding,
        "dilation": max(conv.dilation for conv in chain),
        "groups": chain[0].groups,
    }
    return nn.Conv2d(**shape)
