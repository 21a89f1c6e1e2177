"""Filter pruning in fp32 by the mean magnitude of the filters' weights."""

import torch
from torch import Tensor, nn

from trainables.config import L1PruneConfig
from trainables.methods.base import Method
from trainables.models.compact import Compact
from trainables.pruning.cut import cut_channels
from trainables.pruning.filters import FilterPruner, counts
from trainables.pruning.groups import channel_groups
from trainables.pruning.ramp import Ramp, Rounding
from trainables.pruning.scores import mean_abs, relative
from trainables.pruning.selection import LayerBudget


class L1Prune(Method):
    """Channels with the smallest mean|W_o| are masked along a ramp, then cut; the others stay fp32.

    The rank of a channel is the mean of mean|W_o| over the layers that its group ties together, each relative to the
    layer's mean. Reference: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, which prunes a trained
    network in one step; the ramp and the masks that may come back are ours.
    """

    pruner: FilterPruner

    def __init__(self, config: L1PruneConfig) -> None:
        self.config = config

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Mask the readers of every group in scope.

        Raises:
            InfeasibleError: the model has no such channels, or a layer that cannot be cut.

        """
        groups = channel_groups(model, example, self.config.scope)
        ramp = Ramp(self.config.ramp_share, self.config.freeze_share)
        selection = LayerBudget(self.config.pfr, Rounding(self.config.round_to, self.config.rounding))
        self.pruner = FilterPruner(lambda w: -relative(mean_abs(w)), selection, ramp, groups, model)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Recompute or freeze the masks."""
        self.pruner.before_epoch(model, epoch, epochs)

    def protected(self, epoch: int, epochs: int) -> bool:
        """Until the masks settle."""
        return self.pruner.protected(epoch, epochs)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Cut the masked channels out."""
        plan = self.pruner.release(model)
        cut_channels(model, plan)
        return Compact(model, kept=counts(plan))
