"""Filter pruning in training: the part that every method with a prune factor ratio shares."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.pruning.cut import Plan
from trainables.pruning.groups import ChannelGroup, Member
from trainables.pruning.masks import ChannelMasks
from trainables.pruning.ramp import Ramp
from trainables.pruning.selection import Selection

# From a weight of shape (O, ...) to one number per filter, shape (O,); the largest are pruned first.
Sparability = Callable[[Tensor], Tensor]


class FilterPruner:
    """Ranks channels before each epoch, masks those that a rule lets go, and at the end says what to cut.

    A channel's rank is the mean of `sparability` over its group's producers. It reads the latent weights alone.

    Args:
        sparability: filters with the largest go first.
        selection: which channels stay, given the ranks.
        ramp: when the masks rise and freeze.
        groups: what may be pruned, from `channel_groups` of the dense model.
        model: gets masks of ones.

    """

    def __init__(
        self,
        sparability: Sparability,
        selection: Selection,
        ramp: Ramp,
        groups: Sequence[ChannelGroup],
        model: nn.Module,
    ) -> None:
        self.sparability = sparability
        self.selection = selection
        self.ramp = ramp
        self.groups = groups
        self.masks = ChannelMasks.attach(model, groups)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Recompute the masks before epoch `epoch` of `epochs`, or leave them frozen.

        Raises:
            InfeasibleError: the rule leaves a group without any channel.

        """
        last = self.ramp.last_update(epochs)
        if epoch <= last:
            self.masks.keep(model, self._survivors(model, self.ramp.progress(epoch, epochs)))
        else:
            self.masks.idle = False
        self.masks.frozen = self.ramp.freeze_share > 0 and epoch >= last

    def protected(self, epoch: int, epochs: int) -> bool:
        """See `trainables.methods.base.Method.protected`: until the masks settle."""
        return not self.ramp.settled(epoch, epochs)

    @torch.no_grad()
    def _survivors(self, model: nn.Module, progress: float) -> list[Tensor]:
        """Which channels stay: for each group a boolean tensor over its channels."""
        stays = self.selection([self._rank(model, group) for group in self.groups], progress)
        empty = [group.name for group, kept in zip(self.groups, stays, strict=True) if not bool(kept.any())]
        if empty:
            msg = (
                f"layer {empty[0]} is pruned to nothing; keep some of its filters (compress.min_filters), "
                "or prune less (compress.pfr, compress.max_zero_share)"
            )
            raise InfeasibleError(msg)
        return stays

    def _rank(self, model: nn.Module, group: ChannelGroup) -> Tensor:
        return torch.stack([self._rank_in(model, group, member) for member in group.producers]).mean(0)

    def _rank_in(self, model: nn.Module, group: ChannelGroup, member: Member) -> Tensor:
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
