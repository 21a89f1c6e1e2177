"""Structured ternary quantization: whole filters pruned, the others one bit a weight."""

import torch
from torch import Tensor, nn

from trainables.config import LayerRole, StqConfig
from trainables.methods.base import Compact, Method
from trainables.models.build import first_layer, last_layer
from trainables.pruning.cut import cut_channels
from trainables.pruning.filters import FilterPruner, Sparability, counts
from trainables.pruning.groups import channel_groups
from trainables.pruning.scores import binarization_error, mean_abs, relative, zero_share
from trainables.quantize import BinaryConv2d, BinaryLinear, binary_twin, plain_layer


class Stq(Method):
    """Wq_o = m_o * a_o * sign(W_o), m_o in {0, 1}: ternary weights whose zeros come by whole filters.

    W is the latent weight of shape (O, I, k, k), a_o = mean|W_o| (or of the layer, or 1), sign(0) = +1. Gradient:
    dW = dWq * 1[|W| <= 1], also for masked filters until the masks freeze, so that they may come back. W is not
    clamped: beyond 1 weight decay alone brings it back. The mask stands after BN and activation, which comes to the
    same, as a pruned channel is zero everywhere in the end. Channels with the largest score are masked: the share of
    near-zero weights, the binarization error, or the smallest mean|W_o|.

    At PFR 0 it is weight binarization (XNOR-Net, Rastegari et al., ECCV 2016), without any mask. Reference: STQ-Nets
    (Munagala, Prabhu and Namboodiri, BMVC 2020); its body was not available, so score, ramp and gradient are inferred.
    """

    pruner: FilterPruner | None = None

    def __init__(self, config: StqConfig) -> None:
        self.config = config

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Make the layers binary that are not to stay fp32, and mask the readers of every group in scope.

        Raises:
            InfeasibleError: the model has no such channels, or a layer that cannot be cut.

        """
        groups = channel_groups(model, example, self.config.scope) if self.config.pfr > 0 else ()
        for name in binary_layers(model, self.config.full_precision):
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                _replace(model, name, binary_twin(layer, self.config.scale))
        if groups:
            self.pruner = FilterPruner(self.config, _sparability(self.config), groups, model)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Recompute or freeze the masks."""
        if self.pruner is not None:
            self.pruner.before_epoch(model, epoch, epochs)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Write the binary weights into plain layers, then cut the masked channels out.

        The scale of a filter is the one it was trained with, over all its inputs, those of cut channels included.
        """
        plan = [] if self.pruner is None else self.pruner.release(model)
        binary = {name: m for name, m in model.named_modules() if isinstance(m, BinaryConv2d | BinaryLinear)}
        for name, layer in binary.items():
            _replace(model, name, plain_layer(layer))
        cut_channels(model, plan)
        return Compact(model, bits=dict.fromkeys(binary, 1), kept=counts(plan))


def binary_layers(model: nn.Module, full_precision: tuple[LayerRole, ...]) -> list[str]:
    """Names of the convolutions and linear layers that no role in `full_precision` covers, in module order.

    `first` is the first convolution, `last` the last linear layer, `downsample` every 1x1 convolution of a shortcut.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    roles: dict[LayerRole, set[str]] = {
        "first": {first_layer(model)},
        "last": {last_layer(model)},
        "downsample": {name for name, layer in layers.items() if _is_shortcut(name, layer)},
    }
    kept = {name for role in full_precision for name in roles[role]}
    return [name for name in layers if name not in kept]


def _is_shortcut(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and "downsample" in name.split(".")


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _sparability(config: StqConfig) -> Sparability:
    """The score of the config, signed so that the largest goes first."""
    scores: dict[str, Sparability] = {
        "zero_share": lambda w: relative(zero_share(w, config.threshold, config.threshold_of)),
        "mean_abs": lambda w: -relative(mean_abs(w)),
        "binarization_error": lambda w: relative(binarization_error(w)),
    }
    return scores[config.score]
