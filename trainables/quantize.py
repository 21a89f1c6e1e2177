"""Weights and activations of few bits with straight-through gradients, and layers that hold latent weights.

A quantizer of weights maps a latent tensor of shape (O, ...) to one of few values a filter; an activation is a module
that stands where the dense network has its ReLU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Scale = Literal["filter", "layer", "one"]
ThresholdOf = Literal["mean", "max"]
WeightQuantizer = Callable[[Tensor], Tensor]

ActivationForm = Literal["sign", "ternary", "int8", "int7", "int6", "int5", "int4", "int3", "int2"]


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


def near_zero(w: Tensor, threshold: float, of: ThresholdOf) -> Tensor:
    """D, below which a weight counts as near zero: t * mean|W| or t * max|W| of the layer; a scalar tensor.

    References: t = 0.7 of the mean, Ternary Weight Networks (Li et al., 2016, equation 6); t = 0.05 of the maximum,
    Trained Ternary Quantization (Zhu et al., ICLR 2017, equation 9).
    """
    magnitude = w.abs()
    return threshold * (magnitude.mean() if of == "mean" else magnitude.max())


def ternary_scale(w: Tensor, far: Tensor, scale: Scale) -> Tensor:
    """The magnitude a of the ternary weights: the mean of |W| over `far` (True where a weight is not near zero).

    Of each filter, of the layer, or 1; 0 where nothing is far. Shapes as in `binary_scale`. Reference: Ternary Weight
    Networks (Li et al., 2016, equation 4), which minimises ||W - a T||^2 for the given zeros.
    """
    ones = (1,) * (w.dim() - 1)
    if scale == "one":
        return w.new_ones((1, *ones))
    dims = tuple(range(1 if scale == "filter" else 0, w.dim()))
    counts = far.sum(dim=dims, keepdim=True).clamp(min=1)
    return (w.abs() * far).sum(dim=dims, keepdim=True) / counts


class _Ternarize(torch.autograd.Function):
    """Forward a * sign(W) * 1[|W| >= D]; backward dW = dWq * 1[|W| <= 1]."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, threshold: float, of: ThresholdOf, scale: Scale) -> Tensor:
        ctx.save_for_backward(w)
        far = w.abs() >= near_zero(w, threshold, of)
        return torch.copysign(ternary_scale(w, far, scale), w + 0.0) * far

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (w,) = ctx.saved_tensors
        return grads[0] * (w.abs() <= 1), None, None, None


def ternarize(w: Tensor, threshold: float, of: ThresholdOf, scale: Scale) -> Tensor:
    """Wq = a * sign(W) * 1[|W| >= D], D = `near_zero(w, threshold, of)`; shape (O, ...) as `w`.

    At most three values in each filter, `a` as in `ternary_scale`. Gradient: dW = dWq * 1[|W| <= 1], also where Wq is
    0; `a` and D count as constants. Reference: Ternary Weight Networks (Li et al., 2016).
    """
    return _Ternarize.apply(w, threshold, of, scale)  # pyright: ignore[reportReturnType]


def two_values(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best two values of each filter: (e, alpha, beta) that minimise ||W_o - alpha e - beta (1 - e)||^2.

    e is 1 for the K largest weights of the filter: with the prefix sums S_K of the descending weights and their total
    S, K maximises S_K^2 / K + (S - S_K)^2 / (n - K) over K = 1 ... n - 1; alpha = S_K / K, beta = (S - S_K) / (n - K).
    One sort, O(n log n). A filter of one weight, or of equal ones, has alpha = beta.

    Args:
        w: latent weights, shape (O, ...), n in each filter.

    Returns:
        e: boolean, shape (O, n); alpha and beta: shape (O, 1).

    Reference: DAB-Net (WACV 2018), theorem on the optimal e: a prefix of the sorted weights.

    """
    flat = w.flatten(1)
    n = flat.shape[1]
    if n == 1:
        return torch.ones_like(flat, dtype=torch.bool), flat.clone(), flat.clone()
    values, order = flat.sort(dim=1, descending=True, stable=True)
    # in double: at n = 4608 the rounding of fp32 prefix sums would choose among near ties
    sums = values.double().cumsum(1)
    total, above = sums[:, -1:], sums[:, :-1]
    count = torch.arange(1, n, device=w.device, dtype=torch.float64)
    gain = above.square() / count + (total - above).square() / (n - count)
    best = gain.argmax(1, keepdim=True)
    taken = best + 1
    alpha = above.gather(1, best) / taken
    beta = (total - above.gather(1, best)) / (n - taken)
    upper = torch.zeros_like(flat, dtype=torch.bool)
    upper.scatter_(1, order, torch.arange(n, device=w.device) < taken)
    return upper, alpha.to(w.dtype), beta.to(w.dtype)


class _TwoValued(torch.autograd.Function):
    """Forward alpha_o or beta_o; backward dW = dWq * 1[|W| <= 1]."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        ctx.save_for_backward(w)
        upper, alpha, beta = two_values(w)
        return torch.where(upper, alpha, beta).view_as(w)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (w,) = ctx.saved_tensors
        return grads[0] * (w.abs() <= 1)


def two_valued(w: Tensor) -> Tensor:
    """Wq = alpha_o where `two_values` puts a weight of filter o above, else beta_o; shape (O, ...) as `w`.

    Gradient: dW = dWq * 1[|W| <= 1], alpha and beta counted as constants. DAB-Net (WACV 2018) trains otherwise: it
    centres W over the inputs, and its gradient has terms through alpha and beta; neither is done here.
    """
    return _TwoValued.apply(w)  # pyright: ignore[reportReturnType]


class QuantizedConv2d(nn.Conv2d):
    """A convolution that runs with `quantizer(weight)`; `weight` is the latent fp32 tensor that is trained."""

    quantizer: WeightQuantizer

    @classmethod
    def of(cls, conv: nn.Conv2d, quantizer: WeightQuantizer) -> Self:
        """The twin of `conv` with quantized weights; it takes over the weight and bias, same objects."""
        twin = cls(**_conv_arguments(conv))
        twin.quantizer = quantizer
        twin.weight = conv.weight
        twin.register_parameter("bias", _bias(conv))
        return twin

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Conv2d gives it
        """Shape (N, I, H, W) -> (N, O, H', W')."""
        return self._conv_forward(input, self.quantizer(self.weight), self.bias)


class QuantizedLinear(nn.Linear):
    """A linear layer that runs with `quantizer(weight)`; `weight` is the latent fp32 tensor that is trained."""

    quantizer: WeightQuantizer

    @classmethod
    def of(cls, linear: nn.Linear, quantizer: WeightQuantizer) -> Self:
        """The twin of `linear` with quantized weights; it takes over the weight and bias, same objects."""
        twin = cls(linear.in_features, linear.out_features, _bias(linear) is not None, device="meta")
        twin.quantizer = quantizer
        twin.weight = linear.weight
        twin.register_parameter("bias", _bias(linear))
        return twin

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """Shape (N, ..., I) -> (N, ..., O)."""
        return F.linear(input, self.quantizer(self.weight), self.bias)


Quantized = QuantizedConv2d | QuantizedLinear


def quantized_twin(layer: nn.Conv2d | nn.Linear, quantizer: WeightQuantizer) -> Quantized:
    """The layer that trains the weights of `layer` through `quantizer`."""
    if isinstance(layer, nn.Conv2d):
        return QuantizedConv2d.of(layer, quantizer)
    return QuantizedLinear.of(layer, quantizer)


@torch.no_grad()
def plain_layer(layer: Quantized) -> nn.Conv2d | nn.Linear:
    """A plain torch layer whose stored weights are `quantizer(weight)`: same outputs, no latent weights."""
    if isinstance(layer, QuantizedConv2d):
        plain: nn.Conv2d | nn.Linear = nn.Conv2d(**_conv_arguments(layer))
    else:
        plain = nn.Linear(layer.in_features, layer.out_features, _bias(layer) is not None, device="meta")
    plain.weight = nn.Parameter(layer.quantizer(layer.weight).detach())
    plain.register_parameter("bias", _bias(layer))
    return plain.train(layer.training)


def _bias(layer: nn.Module) -> nn.Parameter | None:
    return dict(layer.named_parameters(recurse=False)).get("bias")


def _conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    """What `conv` was made with; on `meta`, so that no memory is taken and no random number drawn."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(conv, name) for name in names} | {"bias": conv.bias is not None, "device": "meta"}


@dataclass(frozen=True, slots=True)
class Activation:
    """What a quantized activation computes, and how many bits a value of it takes.

    `value` is the threshold D of `ternary`, the step s of `int8` and its like, and 0 for `sign`.
    """

    kind: ActivationForm
    value: float = 0.0

    @property
    def bits(self) -> int:
        """Of one value."""
        return {"sign": 1, "ternary": 2}.get(self.kind) or int(self.kind.removeprefix("int"))


class _Sign(torch.autograd.Function):
    """Forward sign(x); backward dx = dy * 1[|x| <= 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() <= 1)


class _TernarySign(torch.autograd.Function):
    """Forward sign(x) * 1[|x| >= D]; backward dx = dy * 1[|x| <= 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: float) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= threshold).to(x.dtype) - (x <= -threshold).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() <= 1), None


class _Steps(torch.autograd.Function):
    """Forward s * clamp(round(x / s), 0, top); backward dx = dy where x lies in the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, top: int) -> Tensor:
        levels = x / step
        ctx.save_for_backward((levels >= 0) & (levels <= top))
        return levels.round().clamp(0, top) * step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


class SignActivation(nn.Module):
    """y = sign(x), sign(0) = +1; gradient dx = dy * 1[|x| <= 1] (Courbariaux et al., 2016). Any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """-1 or +1."""
        return _Sign.apply(x)  # pyright: ignore[reportReturnType]


class TernaryActivation(nn.Module):
    """y = sign(x) * 1[|x| >= D] with D > 0; gradient dx = dy * 1[|x| <= 1]. Any shape."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """-1, 0 or +1."""
        return _TernarySign.apply(x, self.threshold)  # pyright: ignore[reportReturnType]


class IntActivation(nn.Module):
    """y = s * clamp(round(x / s), 0, top), top = 2^bits - 1: a ReLU of few levels. Any shape.

    Gradient: dx = dy where 0 <= x <= top s. At step s = 0 it is a plain ReLU, which is how it is calibrated: s =
    largest value seen / top.
    """

    def __init__(self, step: float = 0.0, bits: int = 8) -> None:
        super().__init__()
        self.step = step
        self.top = 2**bits - 1

    def cover(self, largest: float) -> None:
        """Let the range end at `largest`; a module that never gave more than 0 stays a ReLU."""
        self.step = largest / self.top

    def forward(self, x: Tensor) -> Tensor:
        """0, s, ..., top s."""
        if self.step == 0:
            return torch.relu(x)
        return _Steps.apply(x, self.step, self.top)  # pyright: ignore[reportReturnType]


def activation_module(activation: Activation) -> nn.Module:
    """The module that computes `activation`."""
    if activation.kind == "sign":
        return SignActivation()
    if activation.kind == "ternary":
        return TernaryActivation(activation.value)
    return IntActivation(activation.value, activation.bits)


def install_activations(model: nn.Module, activations: Mapping[str, Activation]) -> None:
    """Put the modules that compute `activations` in place of those of the same names."""
    for name, activation in activations.items():
        replace_module(model, name, activation_module(activation))


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` stands in `model`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
