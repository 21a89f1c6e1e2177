"""One-bit weights with straight-through gradients, as a function and as layers that hold latent weights."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Scale = Literal["filter", "layer", "one"]


def binary_scale(w: Tensor, scale: Scale) -> Tensor:
    """The magnitude a of the binary weights: mean|W_o| of each filter, mean|W| of the layer, or 1.

    `w` has shape (O, ...). Returns a tensor that broadcasts to it: (O, 1, ...) for `filter`, else (1, 1, ...).
    Reference: XNOR-Net (Rastegari et al., ECCV 2016, equation 6), which minimises ||W_o - a_o sign(W_o)||^2.
    """
    ones = (1,) * (w.dim() - 1)
    if scale == "filter":
        return w.abs().mean(dim=tuple(range(1, w.dim())), keepdim=True)
    if scale == "layer":
        return w.abs().mean().view(1, *ones)
    return w.new_ones((1, *ones))


class _Binarize(torch.autograd.Function):
    """Forward a * sign(W); backward dW = dWq * 1[|W| <= 1]."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Scale) -> Tensor:
        ctx.save_for_backward(w)
        # + 0.0 turns -0.0 into +0.0: one operation cheaper than a comparison and a choice
        return torch.copysign(binary_scale(w, scale), w + 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        return grads[0] * (w.abs() <= 1), None


def binarize(w: Tensor, scale: Scale) -> Tensor:
    """Wq = a * sign(W) with sign(0) = +1; shape (O, ...) as `w`, at most two values in each filter.

    `a` is `binary_scale(w, scale)`. Gradient: dW = dWq * 1[|W| <= 1], straight through the sign; `a` counts as a
    constant. References: XNOR-Net (ECCV 2016); STQ-Nets (BMVC 2020), whose body was not available: inferred.
    """
    return _Binarize.apply(w, scale)  # pyright: ignore[reportReturnType]


class BinaryConv2d(nn.Conv2d):
    """A convolution that runs with `binarize(weight)`; `weight` is the latent fp32 tensor that is trained."""

    scale: Scale = "filter"

    @classmethod
    def of(cls, conv: nn.Conv2d, scale: Scale) -> Self:
        """The binary twin of `conv`; it takes over the weight and bias, same objects."""
        twin = cls(**_conv_arguments(conv))
        twin.scale = scale
        twin.weight = conv.weight
        twin.register_parameter("bias", _bias(conv))
        return twin

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Conv2d gives it
        """Shape (N, I, H, W) -> (N, O, H', W')."""
        return self._conv_forward(input, binarize(self.weight, self.scale), self.bias)


class BinaryLinear(nn.Linear):
    """A linear layer that runs with `binarize(weight)`; `weight` is the latent fp32 tensor that is trained."""

    scale: Scale = "filter"

    @classmethod
    def of(cls, linear: nn.Linear, scale: Scale) -> Self:
        """The binary twin of `linear`; it takes over the weight and bias, same objects."""
        twin = cls(linear.in_features, linear.out_features, _bias(linear) is not None, device="meta")
        twin.scale = scale
        twin.weight = linear.weight
        twin.register_parameter("bias", _bias(linear))
        return twin

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """Shape (N, ..., I) -> (N, ..., O)."""
        return F.linear(input, binarize(self.weight, self.scale), self.bias)


def binary_twin(layer: nn.Conv2d | nn.Linear, scale: Scale) -> BinaryConv2d | BinaryLinear:
    """The binary layer that trains the weights of `layer`."""
    return BinaryConv2d.of(layer, scale) if isinstance(layer, nn.Conv2d) else BinaryLinear.of(layer, scale)


@torch.no_grad()
def plain_layer(layer: BinaryConv2d | BinaryLinear) -> nn.Conv2d | nn.Linear:
    """A plain torch layer whose stored weights are `binarize(weight)`: same outputs, no latent weights."""
    if isinstance(layer, BinaryConv2d):
        plain: nn.Conv2d | nn.Linear = nn.Conv2d(**_conv_arguments(layer))
    else:
        plain = nn.Linear(layer.in_features, layer.out_features, _bias(layer) is not None, device="meta")
    plain.weight = nn.Parameter(binarize(layer.weight, layer.scale).detach())
    plain.register_parameter("bias", _bias(layer))
    return plain.train(layer.training)


def _bias(layer: nn.Module) -> nn.Parameter | None:
    return dict(layer.named_parameters(recurse=False)).get("bias")


def _conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    """What `conv` was made with; on `meta`, so that no memory is taken and no random number drawn."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(conv, name) for name in names} | {"bias": conv.bias is not None, "device": "meta"}
