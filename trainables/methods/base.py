"""The contract of a compression method: a small object that fills some hooks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Compact:
    """A finished network: physically small, made of plain torch layers.

    `bits` gives the stored bits per weight of each convolution and linear layer by module name; a layer that is
    absent is fp32. A layer of 1 bit holds only {-a_o, +a_o} in filter o. `kept` gives (kept, of) channels of each group
    of coupled channels in scope, by the name of the first layer that produces them.
    """

    model: nn.Module
    bits: Mapping[str, int]
    kept: Mapping[str, tuple[int, int]]


class Method:
    """Hooks around the training loop; each does nothing unless a method fills it.

    They are called in the order in which they stand here. A hook may keep state in the method or in buffers of the
    model; it may not read or set any global state, randomness included.
    """

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Change the dense network in place before training; `example` is one image, shape (1, C, H, W)."""

    def calibrate(self, model: nn.Module, images: Tensor) -> None:
        """See a few normalised training images, shape (N, C, H, W), before the first step."""

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Called before epoch `epoch` (from 0) of `epochs`."""

    def extra_loss(self, model: nn.Module) -> Tensor | None:
        """A scalar added to the task loss of each step."""
        return None

    def after_step(self, model: nn.Module) -> None:
        """Called after each optimizer step."""

    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Called after epoch `epoch` (from 0) of `epochs`."""

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """The trained network without what training alone needed; its outputs in eval mode are unchanged."""
        return Compact(model, bits={}, kept={})
