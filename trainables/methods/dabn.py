"""Distribution-aware binarization: the best two values of each filter, and signs for inputs."""

from typing import Any

import torch
from torch import Tensor, nn

from trainables.method_config import DabnConfig
from trainables.methods.base import Method
from trainables.methods.inputs import WayOut, input_bits, quantize_inputs
from trainables.methods.layers import layers_outside
from trainables.models.build import last_layer
from trainables.models.compact import Compact
from trainables.pruning.sharing import refuse_shared
from trainables.quantize import Activation, Quantized, plain_layer, quantized_twin, replace_module, two_values

LEAST_SIZE = 1e-3
"""Of the mean magnitude of a filter's values, by which its gradient is divided: a filter of zeros shall move too."""


class Dabn(Method):
    """Wq_o = alpha_o e + beta_o (1 - e), e in {0, 1}^n: the two values and the e nearest to W_o in the sum of squares.

    e is 1 for the K largest of the n weights of a filter, K the maximum of S_K^2 / K + (S - S_K)^2 / (n - K), with the
    sums S_K of these and S of all; alpha = S_K / K, beta = (S - S_K) / (n - K): `trainables.quantize.two_values`.

    Gradient: g = dWq s / (mean(s) mean|Wq_o|), dW = g - mean of g over the inputs (axis 1), with the slope s = |a|
    1[|W| < 1] + 1 / m of the authors' code, where a and m are alpha and K above the threshold, beta and n - K below. s
    itself makes steps of a few per cent of those of a plain straight-through gradient, which does nothing to Adam, with
    which the authors train, and nearly stops SGD. So here s has the mean 1 in each filter and W moves in units of the
    filter's size. After each step W is centred over its inputs (W -= mean over axis 1) and clamped to [-1, 1].

    Inputs of the convolutions are signs, with dx = dy 1[|x| <= 1]; those of the last layer stay as they are, as a mean
    of activations has no sign worth knowing.

    A filter costs one number more than with XNOR-Net's scale, whose values are alpha = -beta = mean|W_o|.

    Reference: Prabhu et al., "Distribution-Aware Binarization of Neural Networks for Sketch Recognition", WACV 2018,
    and its code, without its slips: there K is chosen between two sorts by size instead of the objective, the
    threshold leaves out one weight, and alpha and beta are means of |W|; the code's factor 1 - 1 / I stands for the
    gradient of the centring, which is taken whole here. That s is normalised, and how, is ours.
    """

    def __init__(self, config: DabnConfig) -> None:
        self.config = config
        self._activations: tuple[str, ...] = ()

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Quantize the layers that are not to stay fp32, and the inputs of the convolutions among them.

        Raises:
            InfeasibleError: layers share weights, or have inputs that cannot be quantized.

        """
        layers = layers_outside(model, self.config.full_precision)
        refuse_shared(model, example, layers)
        if self.config.activations == "sign":
            read = [name for name in layers if name != last_layer(model)]
            way_out = WayOut("compress.activations float", "compress.full_precision")
            self._activations = quantize_inputs(model, read, Activation("sign"), way_out)
        for name in layers:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                replace_module(model, name, quantized_twin(layer, dual_valued))

    @torch.no_grad()
    def after_step(self, model: nn.Module, lr: float) -> None:
        """Centre and clamp the latent weights."""
        for module in model.modules():
            if isinstance(module, Quantized):
                weight = module.weight
                if weight.shape[1] > 1:  # of a single input centring would leave nothing
                    weight.sub_(weight.mean(1, keepdim=True))
                weight.clamp_(-1, 1)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Write the two values of each filter into plain layers."""
        quantized = {name: m for name, m in model.named_modules() if isinstance(m, Quantized)}
        for name, layer in quantized.items():
            replace_module(model, name, plain_layer(layer))
        activations = dict.fromkeys(self._activations, Activation("sign"))
        return Compact(
            model, dict.fromkeys(quantized, 1), activations=activations, input_bits=input_bits(model, activations)
        )


class _DualValued(torch.autograd.Function):
    """Forward alpha_o or beta_o; backward as `Dabn` says."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        upper, alpha, beta = two_values(w)
        above = upper.sum(1, keepdim=True)
        ctx.save_for_backward(w, torch.where(upper, alpha, beta), torch.where(upper, above, upper.shape[1] - above))
        return torch.where(upper, alpha, beta).view_as(w)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        w, values, counts = ctx.saved_tensors
        inside = (w.abs() < 1).flatten(1)
        slope = values.abs() * inside + 1 / counts
        size = values.abs().mean(1, keepdim=True).clamp(min=LEAST_SIZE)
        slope = slope / (slope.mean(1, keepdim=True) * size)
        gradient = grads[0] * slope.view_as(w)
        return gradient - gradient.mean(1, keepdim=True) if w.shape[1] > 1 else gradient


def dual_valued(w: Tensor) -> Tensor:
    """The nearest tensor to `w`, (O, ...), of two values in each filter; gradient as `Dabn` says."""
    return _DualValued.apply(w)  # pyright: ignore[reportReturnType]
