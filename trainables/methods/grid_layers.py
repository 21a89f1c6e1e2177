"""What trains weights and activations on grids, straight through the rounding."""

from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from trainables.models.grids import Grid

SMALLEST_STEP = 1e-12
_Norm = TypeVar("_Norm", bound=nn.BatchNorm2d)


class _OnGrid(torch.autograd.Function):
    """Forward and backward as `on_grid` says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, top: int) -> Tensor:
        v = x / step
        codes = v.round() + zero
        inside = (codes >= 0) & (codes <= top)
        levels = codes.clamp(0, top) - zero
        ctx.save_for_backward(inside, torch.where(inside, levels - v, levels))
        ctx.shape = step.shape
        return step * levels

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        inside, slopes = ctx.saved_tensors
        return grads[0] * inside, (grads[0] * slopes).sum_to_size(ctx.shape), None, None


class _Slowed(torch.autograd.Function):
    """Forward x; backward dx = share * dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        ctx.share = share
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.share, None


def on_grid(x: Tensor, step: Tensor, zero: Tensor, top: int) -> Tensor:
    """S (clamp(round(x / s) + z, 0, top) - z); s and z of shapes that broadcast to that of x.

    Gradient: dx = dy where the code is one of 0 ... top, else 0; ds = sum of dy (round(x / s) - x / s) there and of dy
    (code - z) beyond (LSQ). The product is the one that `trainables.models.grids.Grid.values` makes, bit for bit.
    """
    return _OnGrid.apply(x, step, zero, top)  # pyright: ignore[reportReturnType]


def slowed(step: Tensor, values: int, top: int) -> Tensor:
    """The step itself, positive, its gradient over sqrt(values * top).

    Reference: Esser et al., "Learned Step Size Quantization", ICLR 2020, section 2.2.
    """
    share = (values * top) ** -0.5
    return _Slowed.apply(step.clamp(min=SMALLEST_STEP), share)  # pyright: ignore[reportReturnType]


class GridQuantizer(nn.Module):
    """Weights (O, ...) to the nearest ones on a grid for each group of filters; steps are trained, zeros stay.

    Args:
        bits: of a code.
        steps: fp32 (G,).
        zeros: fp32 (G,), whole numbers.
        groups: the group of each filter, int64 (O,).

    """

    def __init__(self, bits: int, steps: Tensor, zeros: Tensor, groups: Tensor) -> None:
        super().__init__()
        self.bits = bits
        self.step = nn.Parameter(steps.clone())
        self.register_buffer("zero", zeros.clone())
        self.register_buffer("group", groups.clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The same shape."""
        group, top = self.get_buffer("group"), 2**self.bits - 1
        ones = (-1,) + (1,) * (weight.dim() - 1)
        step = slowed(self.step, weight.numel() // len(self.step), top)
        return on_grid(weight, step[group].view(ones), self.get_buffer("zero")[group].view(ones), top)

    @torch.no_grad()
    def grid(self, *, told: bool) -> Grid:
        """The grid as data; `told`: with the group of each filter."""
        steps = self.step.clamp(min=SMALLEST_STEP).cpu().tolist()
        zeros = self.get_buffer("zero").cpu().long().tolist()
        groups = tuple(self.get_buffer("group").cpu().tolist()) if told else ()
        return Grid(self.bits, tuple(steps), tuple(zeros), groups)


class ClippedActivation(nn.Module):
    """y = s clamp(round(x / s), 0, 2^b - 1), a ReLU of few levels; the step s is trained where `learned`. Any shape."""

    def __init__(self, bits: int, *, learned: bool) -> None:
        super().__init__()
        self.bits = bits
        self.step = nn.Parameter(torch.ones(()), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        """0, s, ..., (2^b - 1) s."""
        top = 2**self.bits - 1
        step = slowed(self.step, x[0].numel(), top).to(x.dtype)
        return on_grid(x, step, torch.zeros_like(step), top)


class FrozenNorm(nn.BatchNorm2d):
    """A BN that keeps its statistics whatever mode it is told: few images would give it others."""

    def train(self, mode: bool = True) -> Self:
        """Eval mode."""
        return super().train(False)


def frozen(norm: nn.BatchNorm2d) -> FrozenNorm:
    """`norm` with the statistics that it has; same parameters and buffers."""
    return _adopt(FrozenNorm(norm.num_features, norm.eps, affine=norm.affine), norm)


def thawed(norm: FrozenNorm) -> nn.BatchNorm2d:
    """A plain BN of the same parameters and buffers."""
    return _adopt(nn.BatchNorm2d(norm.num_features, norm.eps, affine=norm.affine), norm)


def _adopt(made: _Norm, norm: nn.BatchNorm2d) -> _Norm:
    made.momentum, made.track_running_stats = norm.momentum, norm.track_running_stats
    for name, parameter in norm.named_parameters(recurse=False):
        made.register_parameter(name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        made.register_buffer(name, buffer)
    return made.train(norm.training)
