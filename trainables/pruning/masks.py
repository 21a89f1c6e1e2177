"""Masks that switch channels off in training without cutting them, so that they go on learning and may come back.

A mask sits at the inputs of the layers that read a group. There a channel is 0 for all its readers, while its filter
still sees a batch norm with true statistics and, through the identity, a gradient. Elsewhere it would not: a zero
filter has no variance to normalise by, a zero BN scale stops the gradient, and so does a ReLU after the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainables.pruning.groups import ChannelGroup

MASK = "input_mask"


class _Switch(torch.autograd.Function):
    """Forward x * m; backward the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def switch(x: Tensor, mask: Tensor) -> Tensor:
    """Forward x * m; backward dx = dy, also where m is 0. `mask` holds 0 and 1 and broadcasts to `x`."""
    return _Switch.apply(x, mask)  # pyright: ignore[reportReturnType]


@dataclass
class ChannelMasks:
    """The masks of some channel groups, kept in a buffer `input_mask` of each layer that reads them.

    Buffers are saved and loaded with the model. `frozen` masks let no gradient through where they are 0.
    """

    groups: Sequence[ChannelGroup]
    handles: list[RemovableHandle]
    frozen: bool = False
    idle: bool = True

    @classmethod
    def attach(cls, model: nn.Module, groups: Sequence[ChannelGroup]) -> "ChannelMasks":
        """Give every reader of `groups` a mask of ones."""
        masks = cls(groups, [])
        for name in sorted({member.name for group in groups for member in group.consumers}):
            reader = model.get_submodule(name)
            reader.register_buffer(MASK, _ones(reader))
            masks.handles.append(reader.register_forward_pre_hook(masks._apply))
        return masks

    def _apply(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self.idle:
            return None
        mask = module.get_buffer(MASK).to(inputs[0].dtype)  # bf16 under autocast
        return (inputs[0] * mask if self.frozen else switch(inputs[0], mask),)

    def keep(self, model: nn.Module, kept: Sequence[Tensor]) -> None:
        """Set the masks: for each group a boolean tensor over its channels."""
        for group, stays in zip(self.groups, kept, strict=True):
            for member in group.consumers:
                mask = model.get_submodule(member.name).get_buffer(MASK)
                values = stays.repeat_interleave(member.columns).to(mask)
                mask.view(-1)[member.places(torch.ones(group.channels, dtype=torch.bool)).to(mask.device)] = values
        self.idle = all(bool(stays.all()) for stays in kept)

    def kept(self, model: nn.Module) -> list[Tensor]:
        """The masks as they are in the buffers: for each group a boolean tensor over its channels, on the CPU."""
        found: list[Tensor] = []
        for group in self.groups:
            reader = group.consumers[0]
            mask = model.get_submodule(reader.name).get_buffer(MASK).cpu().flatten()
            found.append(mask[torch.tensor(reader.index[:: reader.columns])] > 0)
        return found

    def detach(self, model: nn.Module) -> None:
        """Remove hooks and buffers; the model computes with all channels again."""
        for handle in self.handles:
            handle.remove()
        for name in {member.name for group in self.groups for member in group.consumers}:
            delattr(model.get_submodule(name), MASK)


def _ones(reader: nn.Module) -> Tensor:
    """A mask of the reader's inputs that broadcasts to (N, C, H, W) or (..., features)."""
    if isinstance(reader, nn.Conv2d):
        return reader.weight.new_ones((reader.in_channels, 1, 1))
    if isinstance(reader, nn.Linear):
        return reader.weight.new_ones(reader.in_features)
    msg = f"a {type(reader).__name__} cannot be masked"
    raise TypeError(msg)
