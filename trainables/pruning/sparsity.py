"""Channels driven to exactly zero by a penalty on all that belongs to them, and cut once they are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.pruning.groups import ChannelGroup, Member
from trainables.training.proximal import group_shrinkage, soft_threshold


@dataclass(frozen=True, slots=True)
class SparseGroups:
    """The penalty t ((1 - a) sqrt(P) ||theta||_2 + a ||theta||_1), summed over channels, each of P numbers theta.

    theta holds all that a channel is: its filter and bias in each layer that produces it, so that what a residual sum
    ties is one group, and the scale and shift of its BN layers, which could else undo the penalty.

    Attributes:
        groups: coupled channels.
        strengths: t of each group at rate 1.
        sparse_share: a.
        min_filters: so many channels of each group, those of the largest norm, are left as they are.

    """

    groups: Sequence[ChannelGroup]
    strengths: Sequence[float]
    sparse_share: float
    min_filters: int

    @torch.no_grad()
    def shrink(self, model: nn.Module, rate: float) -> None:
        """One proximal step: S = soft(theta, t a), then theta = (1 - t (1 - a) sqrt(P) / ||S||)_+ S."""
        for group, strength in zip(self.groups, self.strengths, strict=True):
            if strength > 0:
                self._shrink(model, group, rate * strength)

    def _shrink(self, model: nn.Module, group: ChannelGroup, t: float) -> None:
        parts = list(_parts(model, group))
        soft = [soft_threshold(rows, t * self.sparse_share) for _, _, rows in parts]
        size = sum(rows[0].numel() for _, _, rows in parts)
        factor = group_shrinkage(_norms(soft), t * (1 - self.sparse_share) * math.sqrt(size))
        spared = _norms([rows for _, _, rows in parts]).topk(min(self.min_filters, group.channels)).indices
        for (parameter, places, rows), shrunk in zip(parts, soft, strict=True):
            moved = shrunk * factor[:, None]
            moved[spared] = rows[spared]
            parameter[places] = moved.view(len(places), *parameter.shape[1:])

    @torch.no_grad()
    def alive(self, model: nn.Module) -> list[Tensor]:
        """Which channels are not zero throughout: for each group a boolean tensor over its channels, on the CPU."""
        return [_norms([rows for _, _, rows in _parts(model, group)]).cpu() > 0 for group in self.groups]


def _parts(model: nn.Module, group: ChannelGroup) -> Iterator[tuple[nn.Parameter, Tensor, Tensor]]:
    """Each parameter of the group's layers, its places along the first axis, and its numbers, (channels, ...)."""
    members: tuple[Member, ...] = (*group.producers, *group.norms)
    for member in members:
        for parameter in model.get_submodule(member.name).parameters(recurse=False):
            places = torch.tensor(member.index, device=parameter.device)
            yield parameter, places, parameter.detach()[places].reshape(group.channels, -1)


def _norms(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([rows.square().sum(1) for rows in parts]).sum(0).sqrt()
