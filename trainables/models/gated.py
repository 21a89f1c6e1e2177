"""A convolution that decides for each image which of its kernels are needed."""

import torch
from torch import Tensor, nn


class HardGate(nn.Module):
    """y = 1 where x >= 0, else 0; any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """0 or 1."""
        return torch.where(x >= 0, 1.0, 0.0)


class GatedConv2d(nn.Module):
    """y_o = h_o(x) (W_o * x + b_o), h(x) = 1[V mean(x) + c >= 0], the mean over pixels; (N, I, H, W) -> (N, O, H', W').

    All kernels are computed and multiplied by 0 or 1; `trainables.runtimes.skipping` leaves out those that are off.

    Args:
        conv: W (O, I, k, k) and b.
        gate: V (O, I) and c.

    """

    def __init__(self, conv: nn.Conv2d, gate: nn.Linear) -> None:
        super().__init__()
        self.conv = conv
        self.gate = gate
        self.step = HardGate()

    def forward(self, x: Tensor) -> Tensor:
        """The kernels' outputs, 0 where they are off."""
        return self.conv(x) * self.step(self.gate(x.mean((2, 3))))[:, :, None, None]


def gated(model: nn.Module) -> dict[str, GatedConv2d]:
    """The gated convolutions of a network, by name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, GatedConv2d)}
