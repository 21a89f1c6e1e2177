"""Compression-aware training: layers driven to a low rank while they train, then split into two smaller ones."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.method_config import LowRankConfig
from trainables.methods.base import Method
from trainables.methods.layers import picked_outside
from trainables.models.compact import Compact
from trainables.models.edits import ConvPart, Edit, LinearPart, conv_part, install
from trainables.models.factors import factors
from trainables.pruning.sharing import refuse_shared
from trainables.training.proximal import singular_value_threshold

RANK_TOLERANCE = 1e-5
"""Singular values below this share of the largest are what fp32 leaves of a zero."""


class LowRank(Method):
    """min loss + p sum_l ||theta_l||_*, theta_l the weight of layer l as a matrix (O, I k k), || ||_* its nuclear norm.

    After each epoch theta_l = U (S - t)_+ V^T with t = p times the sum of the epoch's rates; at momentum m this finds
    the minimum for (1 - m) p, as steps on the loss add up to lr / (1 - m) (`GroupSparsity`). After `split_at` of the
    epochs each layer keeps the smallest r with s_1 + ... + s_r >= energy (s_1 + s_2 + ...) and becomes two: r filters
    of the layer's kernel, sqrt(S) V^T, and a 1 x 1 convolution (O, r), U sqrt(S), with its bias; a linear layer two
    linear ones. A layer stays whole where r (O + I k k) >= O I k k: there splitting would add weights. Afterwards both
    parts train on as they are, without the penalty, and faster. Ranks are cut at the end of an epoch, which is then
    judged without it.

    A layer of one group only. The momentum of split layers begins anew.

    Reference: Alvarez and Salzmann, "Compression-aware Training of Deep Networks", NIPS 2017; its body was not
    available: t, that the penalty ends with the split, and the halves of S are inferred. Its group sparsity of neurons
    is the method `group_sparsity`.
    """

    def __init__(self, config: LowRankConfig) -> None:
        self.config = config
        self.edits: tuple[Edit, ...] = ()
        self._names: list[str] = []
        self._rates = 0.0

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Find the layers that can be split.

        Raises:
            InfeasibleError: there is none, or one shares its weights.

        """
        wanted = "convolution of one group and no linear layer"
        self._names = list(picked_outside(model, self.config.keep, _splittable, wanted))
        refuse_shared(model, example, self._names)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Split the layers before the epoch that `split_at` names."""
        if epoch == 0 == self._split_epoch(epochs):
            self._truncate(model)
        if epoch == self._split_epoch(epochs):
            self._split_layers(model)

    def _split_epoch(self, epochs: int) -> int:
        return math.ceil(self.config.split_at * epochs - 1e-9)

    def adopt(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Split the layers that a checkpoint has in two."""
        ranks = {name: len(tensors[f"{name}.0.weight"]) for name in self._names if f"{name}.0.weight" in tensors}
        self.edits = tuple(_edit(name, model.get_submodule(name), rank) for name, rank in ranks.items())
        install(model, self.edits)

    def after_step(self, model: nn.Module, lr: float) -> None:
        """One more rate of the epoch."""
        self._rates += lr

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """The proximal step of the epoch, until the split; at the end of the last one the ranks are cut."""
        rates, self._rates = self._rates, 0.0
        if epoch >= self._split_epoch(epochs):
            return
        if self.config.penalty > 0:
            for name in self._names:
                weight = model.get_submodule(name).get_parameter("weight")
                weight.copy_(singular_value_threshold(weight.flatten(1), self.config.penalty * rates).view_as(weight))
        if epoch + 1 == self._split_epoch(epochs):
            self._truncate(model)

    def protected(self, epoch: int, epochs: int) -> bool:
        """Until the split."""
        return epoch < self._split_epoch(epochs)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """The network, split now where it was not before."""
        if self._split_epoch(self.config.epochs) >= self.config.epochs:
            self._split_layers(model)
        return Compact(model, edits=self.edits)

    @torch.no_grad()
    def _truncate(self, model: nn.Module) -> None:
        """Leave each layer that will be split the singular values that it keeps, so that the split changes nothing."""
        for name in self._names:
            weight = model.get_submodule(name).get_parameter("weight")
            rank = kept_rank(weight, self.config.energy)
            if pays(weight, rank):
                first, second = factors(weight.flatten(1), rank)
                weight.copy_((first.double() @ second.double()).view_as(weight))

    @torch.no_grad()
    def _split_layers(self, model: nn.Module) -> None:
        for name in self._names:
            layer = model.get_submodule(name)
            weight = layer.get_parameter("weight")
            rank = max(1, int(torch.linalg.matrix_rank(weight.flatten(1).double().cpu(), rtol=RANK_TOLERANCE)))
            if not pays(weight, rank):
                continue
            edit = _edit(name, layer, rank)
            bias = dict(layer.named_parameters()).get("bias")
            install(model, [edit])
            first, second = model.get_submodule(f"{name}.0"), model.get_submodule(f"{name}.1")
            left, right = factors(weight.flatten(1), rank)
            first.register_parameter("weight", nn.Parameter(right.view(rank, *weight.shape[1:])))
            second.register_parameter("weight", nn.Parameter(left.view(left.shape + (1, 1) * (weight.dim() == 4))))
            second.register_parameter("bias", bias)
            self.edits += (edit,)


def kept_rank(weight: Tensor, energy: float) -> int:
    """The smallest r with s_1 + ... + s_r >= energy times the sum of all singular values of (O, I k k); at least 1."""
    values = torch.linalg.svdvals(weight.detach().flatten(1).double().cpu())
    reached = values.cumsum(0) >= energy * values.sum() * (1 - 1e-12)
    return int(reached.nonzero()[0]) + 1


def pays(weight: Tensor, rank: int) -> bool:
    """Whether two layers of that rank have fewer weights than the one."""
    outputs, inputs = weight.flatten(1).shape
    return rank * (outputs + inputs) < outputs * inputs


def _splittable(layer: nn.Module) -> nn.Module | None:
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1
    zeros = plain and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return layer if zeros or isinstance(layer, nn.Linear) else None


def _edit(name: str, layer: nn.Module, rank: int) -> Edit:
    has_bias = "bias" in dict(layer.named_parameters())
    if isinstance(layer, nn.Linear):
        first = LinearPart(inputs=layer.in_features, outputs=rank)
        return Edit(place=name, parts=(first, LinearPart(inputs=rank, outputs=layer.out_features, bias=has_bias)))
    if not isinstance(layer, nn.Conv2d):
        msg = f"layer {name} is a {type(layer).__name__}"
        raise TypeError(msg)
    second = ConvPart(inputs=rank, outputs=layer.out_channels, kernel=(1, 1), bias=has_bias)
    try:
        return Edit(place=name, parts=(conv_part(layer, outputs=rank, bias=False), second))
    except ValueError as error:
        msg = f"layer {name} cannot be split: {error}"
        raise InfeasibleError(msg) from error
