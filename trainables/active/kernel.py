"""oneDNN's convolutions with what follows them, as torch's compiler calls them, without the compiler's seconds."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from trainables.config import Precision

SLOPE = 1e-20
"""Of negative values in place of 0: oneDNN's ReLU makes 0 of NaN, its leaky ReLU keeps NaN, and so small a share of a
value is lost in the rounding of any sum."""

PAIRED_FILTERS = 8
"""A layer of no more filters computes two neighbouring pixels at once, as a vector register has 16 places."""


def has_kernels(precision: Precision) -> bool:
    """Whether this build of torch on this machine can run a `Kernel` of that precision."""
    operations = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(operations, "_convolution_pointwise"):
        return False
    return precision == "fp32" or bool(operations._is_mkldnn_bf16_supported())


@dataclass(frozen=True, slots=True)
class Kernel:
    """A convolution of images in channels_last: weight (O, I / groups, kh, kw), bias (O,) or None, of one dtype."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Self:
        """The geometry of `conv`, whose padding is in pixels and with zeros, with other weights."""
        return cls(
            weight.detach().to(dtype).contiguous(memory_format=torch.channels_last),
            None if bias is None else bias.detach().to(dtype),
            (conv.stride[0], conv.stride[1]),
            (int(conv.padding[0]), int(conv.padding[1])),
            (conv.dilation[0], conv.dilation[1]),
            conv.groups,
        )

    def ready(self, x: Tensor) -> Tensor:
        """`x` in the kernel's dtype and in channels_last, also where one channel makes torch see no difference."""
        if x.dtype == self.weight.dtype and x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last):
            return x
        return torch.empty(x.shape, dtype=self.weight.dtype, memory_format=torch.channels_last).copy_(x)

    def output_shape(self, x: Tensor) -> tuple[int, int, int, int]:
        """(N, O, H', W') for inputs (N, I, H, W)."""
        height, width = (
            (x.shape[axis + 2] + 2 * self.padding[axis] - self.dilation[axis] * (self.weight.shape[axis + 2] - 1) - 1)
            // self.stride[axis]
            + 1
            for axis in (0, 1)
        )
        return x.shape[0], self.weight.shape[0], height, width

    def __call__(self, x: Tensor, other: Tensor | None, relu: bool) -> Tensor:
        """conv(x), or its sum with `other` of `output_shape` and the same dtype; then ReLU where it says so."""
        geometry = (self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)
        operation = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            return operation(x, *geometry, *(("leaky_relu", [SLOPE], "") if relu else ("none", [], "")))
        y = operation.binary(x, other, *geometry, "add", 1.0, None, [], None)
        return y.relu_() if relu else y  # the one ReLU that a sum can have inside is that which hides NaN


def paired(kernel: Kernel) -> Kernel | None:
    """A kernel that gives `two_by_two` of what `kernel` gives where W' is even; None where that does not pay.

    Filter (j, o), j = 0, 1, is filter o moved j pixels to the right in a window that is one pixel wider, at twice the
    stride: W'[j O + o, i, y, x] = W[o, i, y, x - j]. Of kw + 1 columns 2 kw / (2 kw + 2) do work, in place of half of
    the register.
    """
    filters, channels, height, width = kernel.weight.shape
    plain = kernel.stride == (1, 1) and kernel.dilation == (1, 1) and kernel.groups == 1
    if filters > PAIRED_FILTERS or width < 3 or not plain:
        return None
    weight = kernel.weight.new_zeros(2, filters, channels, height, width + 1)
    weight[0, ..., :width] = kernel.weight
    weight[1, ..., 1:] = kernel.weight
    return Kernel(
        weight.flatten(0, 1).contiguous(memory_format=torch.channels_last),
        None if kernel.bias is None else kernel.bias.repeat(2),
        (1, 2),
        kernel.padding,
        (1, 1),
        1,
    )


def two_by_two(y: Tensor) -> Tensor:
    """(N, O, H, W) -> (N, 2 O, H, W / 2), neighbours in a row side by side; in channels_last the same memory."""
    count, filters, height, width = y.shape
    return y.permute(0, 2, 3, 1).reshape(count, height, width // 2, 2 * filters).permute(0, 3, 1, 2)


def pixels(y: Tensor) -> Tensor:
    """(N, 2 O, H, W / 2) -> (N, O, H, W), the inverse of `two_by_two`."""
    count, filters, height, width = y.shape
    return y.permute(0, 2, 3, 1).reshape(count, height, 2 * width, filters // 2).permute(0, 3, 1, 2)
