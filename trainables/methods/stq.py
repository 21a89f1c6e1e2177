"""Structured ternary quantization: whole filters pruned, the others one bit a weight."""

from functools import partial

import torch
from torch import Tensor, nn

from trainables.config import StqConfig
from trainables.methods.base import Method
from trainables.methods.inputs import WayOut, calibrate, input_bits, quantize_inputs
from trainables.methods.layers import layers_outside
from trainables.models.compact import Compact
from trainables.pruning.cut import cut_channels
from trainables.pruning.filters import FilterPruner, Sparability, counts
from trainables.pruning.groups import ChannelGroup, channel_groups
from trainables.pruning.ramp import Ramp, Rounding
from trainables.pruning.scores import binarization_error, mean_abs, relative, zero_share
from trainables.pruning.selection import GlobalBudget, LayerBudget, RankLimit, Selection
from trainables.pruning.sharing import refuse_shared
from trainables.quantize import (
    Activation,
    IntActivation,
    Quantized,
    WeightQuantizer,
    binarize,
    plain_layer,
    quantized_twin,
    replace_module,
    ternarize,
    two_valued,
)

TERNARY_ACTIVATION_THRESHOLD = 0.5
"""D of ternary activations: behind a BN of scale 1 it makes 38 % of them 0 (chosen here; no source gives a value)."""


class Stq(Method):
    """Wq_o = m_o * a_o * sign(W_o), m_o in {0, 1}: ternary weights whose zeros come by whole filters.

    W is the latent weight of shape (O, I, k, k), a_o = mean|W_o| (or of the layer, or 1), sign(0) = +1. Gradient:
    dW = dWq * 1[|W| <= 1], also for masked filters until the masks freeze, so that they may come back. W is not
    clamped: beyond 1 weight decay alone brings it back. The mask stands after BN and activation, which comes to the
    same, as a pruned channel is zero everywhere in the end. Channels with the largest score are masked: the share of
    near-zero weights, the binarization error, or the smallest mean|W_o|; in mode `threshold` all whose share of
    near-zero weights is above a limit, so that the prune factor ratio is an outcome.

    Variants: `weights: ternary` makes near-zero weights of surviving filters 0 too (Ternary Weight Networks, 2016),
    `scale: two_valued` gives each filter its two best values (DAB-Net, WACV 2018), `activations` quantizes what the
    layers read.

    At PFR 0 it is weight binarization (XNOR-Net, Rastegari et al., ECCV 2016), without any mask. Reference: STQ-Nets
    (Munagala, Prabhu and Namboodiri, BMVC 2020); its body was not available, so score, ramp and gradient are inferred.
    """

    pruner: FilterPruner | None = None
    activations: tuple[str, ...] = ()

    def __init__(self, config: StqConfig) -> None:
        self.config = config

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Quantize the layers that are not to stay fp32, and their inputs; mask the readers of every group in scope.

        Raises:
            InfeasibleError: the model has no such channels, a layer that cannot be cut, or inputs that cannot be
                quantized.

        """
        config = self.config
        groups = channel_groups(model, example, config.scope) if config.prunes() else ()
        layers = layers_outside(model, config.full_precision)
        refuse_shared(model, example, layers)
        if config.activations != "float":
            way_out = WayOut("compress.activations float", "compress.full_precision")
            self.activations = quantize_inputs(model, layers, _activation(config), way_out)
        for name in layers:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                replace_module(model, name, quantized_twin(layer, _weight_quantizer(config)))
        if groups:
            self.pruner = _pruner(config, groups, model)

    def calibrate(self, model: nn.Module, images: Tensor) -> None:
        """Set the steps of int8 activations."""
        if self.config.activations == "int8":
            calibrate(model, images)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Recompute or freeze the masks.

        Raises:
            InfeasibleError: a group would lose its last channel.

        """
        if self.pruner is not None:
            self.pruner.before_epoch(model, epoch, epochs)

    def protected(self, epoch: int, epochs: int) -> bool:
        """Until the masks settle."""
        return self.pruner is not None and self.pruner.protected(epoch, epochs)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Write the quantized weights into plain layers, then cut the masked channels out.

        The scale of a filter is the one it was trained with, over all its inputs, those of cut channels included.
        """
        plan = [] if self.pruner is None else self.pruner.release(model)
        quantized = {name: m for name, m in model.named_modules() if isinstance(m, Quantized)}
        for name, layer in quantized.items():
            replace_module(model, name, plain_layer(layer))
        cut_channels(model, plan)
        activations = {name: self._finished(model.get_submodule(name)) for name in self.activations}
        bits = dict.fromkeys(quantized, 2 if self.config.weights == "ternary" else 1)
        return Compact(model, bits, counts(plan), activations, input_bits(model, activations))

    def _finished(self, module: nn.Module) -> Activation:
        return Activation("int8", module.step) if isinstance(module, IntActivation) else _activation(self.config)


def _activation(config: StqConfig) -> Activation:
    kinds = {
        "sign": Activation("sign"),
        "ternary": Activation("ternary", TERNARY_ACTIVATION_THRESHOLD),
        "int8": Activation("int8"),
    }
    return kinds[config.activations]


def _weight_quantizer(config: StqConfig) -> WeightQuantizer:
    if config.scale == "two_valued":
        return two_valued
    if config.weights == "ternary":
        return partial(ternarize, threshold=config.threshold, of=config.threshold_of, scale=config.scale)
    return partial(binarize, scale=config.scale)


def _pruner(config: StqConfig, groups: tuple[ChannelGroup, ...], model: nn.Module) -> FilterPruner:
    ramp = Ramp(config.ramp_share, config.freeze_share)
    return FilterPruner(_sparability(config), _selection(config), ramp, groups, model)


def _selection(config: StqConfig) -> Selection:
    rounding = Rounding(config.round_to, config.rounding)
    if config.mode == "threshold":
        return RankLimit(config.max_zero_share, rounding, config.min_filters)
    budget = LayerBudget if config.budget == "layer" else GlobalBudget
    return budget(config.pfr, rounding, config.min_filters)


def _sparability(config: StqConfig) -> Sparability:
    """The score of the config, signed so that the largest goes first; in mode `threshold` the share itself."""
    if config.mode == "threshold":
        return lambda w: zero_share(w, config.threshold, config.threshold_of)
    scores: dict[str, Sparability] = {
        "zero_share": lambda w: relative(zero_share(w, config.threshold, config.threshold_of)),
        "mean_abs": lambda w: -relative(mean_abs(w)),
        "binarization_error": lambda w: relative(binarization_error(w)),
    }
    return scores[config.score]
