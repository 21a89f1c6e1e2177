"""Filter pruning in training: the part that every method with a prune factor ratio shares."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainables.config import PruneFields
from trainables.pruning.cut import Plan
from trainables.pruning.groups import ChannelGroup, Member
from trainables.pruning.masks import ChannelMasks
from trainables.pruning.ramp import Ramp, kept_channels

# From a weight of shape (O, ...) to one number per filter, shape (O,); the largest are pruned first.
Sparability = Callable[[Tensor], Tensor]


class FilterPruner:
    """Ranks channels before each epoch, masks the first in rank, and at the end says what to cut.

    A channel's rank is the mean of `sparability` over its group's producers. Ties go by index: the lower stays. The
    rank reads the latent weights alone.

    Args:
        config: prune factor ratio, ramp, freeze and rounding.
        sparability: filters with the largest go first.
        groups: what may be pruned, from `channel_groups` of the dense model.
        model: gets masks of ones.

    """

    def __init__(
        self, config: PruneFields, sparability: Sparability, groups: Sequence[ChannelGroup], model: nn.Module
    ) -> None:
        self.sparability = sparability
        self.round_to = config.round_to
        self.ramp = Ramp(config.pfr, config.ramp_share, config.freeze_share)
        self.groups = groups
        self.masks = ChannelMasks.attach(model, groups)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Recompute the masks before epoch `epoch` of `epochs`, or leave them frozen."""
        last = self.ramp.last_update(epochs)
        if epoch <= last:
            pfr = self.ramp.at(epoch, epochs)
            self.masks.keep(model, [self._survivors(model, group, pfr) for group in self.groups])
        else:
            self.masks.idle = False
        self.masks.frozen = self.ramp.freeze_share > 0 and epoch >= last

    @torch.no_grad()
    def _survivors(self, model: nn.Module, group: ChannelGroup, pfr: float) -> Tensor:
        """Which channels stay, as a boolean tensor over the group."""
        ranks = [self._rank(model, group, member) for member in group.producers]
        order = torch.stack(ranks).mean(0).argsort(stable=True)
        stays = torch.zeros(group.channels, dtype=torch.bool)
        stays[order[: kept_channels(group.channels, pfr, self.round_to)]] = True
        return stays

    def _rank(self, model: nn.Module, group: ChannelGroup, member: Member) -> Tensor:
        score = self.sparability(model.get_submodule(member.name).get_parameter("weight")).cpu()
        return score[torch.tensor(member.index)].view(group.channels, member.columns).mean(1)

    def release(self, model: nn.Module) -> Plan:
        """Remove the masks from `model`; returns what they kept, for `cut_channels`."""
        kept = self.masks.kept(model)
        self.masks.detach(model)
        return list(zip(self.groups, kept, strict=True))


def counts(plan: Plan) -> dict[str, tuple[int, int]]:
    """(kept, of) channels of each group, by group name."""
    return {group.name: (int(stays.sum()), group.channels) for group, stays in plan}
