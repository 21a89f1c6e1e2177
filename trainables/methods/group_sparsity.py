"""The number of neurons learned: channels that a group penalty drives to zero are cut while training goes on."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.method_config import GroupSparsityConfig
from trainables.methods.base import Method
from trainables.models.compact import Compact
from trainables.pruning.cut import cut_channels, resize
from trainables.pruning.groups import ChannelGroup, channel_groups
from trainables.pruning.sparsity import SparseGroups


class GroupSparsity(Method):
    """min loss + p sum_c ((1 - a) sqrt(P_c) ||theta_c||_2 + a ||theta_c||_1), theta_c all P_c numbers of channel c.

    After each step of SGD on the loss, at rate lr, the proximal step with t = lr p (over an epoch: p times the sum of
    its rates): S = soft(theta_c, t a), theta_c = (1 - t (1 - a) sqrt(P_c) / ||S||)_+ S. A channel is zero exactly or
    not at all; one that is zero in filter, bias and BN gives 0 to all that read it, so that cutting it out changes no
    output, in the middle of the training either. The penalty on the first `early_groups` groups is `early_share` p.

    With momentum m the steps on the loss add up to lr / (1 - m) for each lr, the proximal ones do not: what is found
    minimises loss + (1 - m) p (...), at m = 0.9 a tenth of p.

    In the last `free_share` of the epochs there is no penalty: what is left has been shrunk too, and recovers.

    Weight decay goes on beside the penalty. What a residual sum ties is one group (`scope: all`). The momentum of what
    was cut ends; that of tensors that changed their shape begins anew.

    Reference: Alvarez and Salzmann, "Learning the Number of Neurons in Deep Networks", NIPS 2016; its body was not
    available: that BN belongs to the group, the proximal step after each step and the cut while training are inferred.
    """

    def __init__(self, config: GroupSparsityConfig) -> None:
        self.config = config
        self._rates = 0.0
        self._penalised = True

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Find the groups of channels in scope.

        Raises:
            InfeasibleError: the model has no such channels, or a layer that cannot be cut.

        """
        self._example = example
        groups = channel_groups(model, example, self.config.scope)
        self._whole = {group.name: group.channels for group in groups}
        self._penalise(groups)

    def _penalise(self, groups: tuple[ChannelGroup, ...]) -> None:
        config = self.config
        strengths = [
            config.penalty * (config.early_share if i < config.early_groups else 1) for i in range(len(groups))
        ]
        self._sparse = SparseGroups(groups, strengths, config.sparse_share, config.min_filters)

    def groups(self) -> tuple[str, ...]:
        """Names of the groups of channels in scope, as they are now."""
        return tuple(group.name for group in self._sparse.groups)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Cut the channels that are zero: before each epoch, or before the penalty ends."""
        last = self._last_penalised(epochs)
        self._penalised = epoch <= last
        if epoch == last + 1 or (self.config.cut == "epoch" and self._penalised):
            self._cut(model)

    def _last_penalised(self, epochs: int) -> int:
        """The last epoch, from 0, with a penalty."""
        return max(0, math.ceil(epochs * (1 - self.config.free_share) - 1e-9) - 1)

    def adopt(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Take the shapes that a checkpoint has."""
        resize(model, tensors)
        self._regroup(model)

    def after_step(self, model: nn.Module, lr: float) -> None:
        """The proximal step, or one more rate for that of the epoch."""
        if not self._penalised:
            return
        if self.config.period == "step":
            self._sparse.shrink(model, lr)
        else:
            self._rates += lr

    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """The proximal step of the epoch, if there is one."""
        if self._penalised and self.config.period == "epoch":
            self._sparse.shrink(model, self._rates)
            self._rates = 0.0

    def protected(self, epoch: int, epochs: int) -> bool:
        """While the penalty takes channels, and in the epoch after."""
        return epoch <= self._last_penalised(epochs) + 1

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Cut the channels that are zero."""
        self._cut(model)
        left = {group.name: group.channels for group in self._sparse.groups}
        return Compact(model, kept={name: (left[name], of) for name, of in self._whole.items()})

    def _cut(self, model: nn.Module) -> None:
        stays = self._sparse.alive(model)
        if all(bool(kept.all()) for kept in stays):
            return
        cut_channels(model, list(zip(self._sparse.groups, stays, strict=True)))
        self._regroup(model)

    def _regroup(self, model: nn.Module) -> None:
        device = next(model.parameters()).device
        self._penalise(channel_groups(model, self._example.to(device), self.config.scope))
