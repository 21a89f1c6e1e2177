"""Hybrid binary networks: binary weights everywhere, one-bit inputs where they do least harm."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from trainables.method_config import HybridConfig
from trainables.methods.base import Method
from trainables.methods.inputs import WayOut, feeding, input_bits, refuse_other_readers
from trainables.methods.layers import layers_outside
from trainables.methods.partition import highest
from trainables.models.build import last_layer
from trainables.models.compact import Compact
from trainables.models.modes import watch
from trainables.pruning.sharing import refuse_shared
from trainables.quantize import (
    Activation,
    Quantized,
    SignActivation,
    binarize,
    install_activations,
    plain_layer,
    quantized_twin,
    replace_module,
)


class Hybrid(Method):
    """Wq_o = mean|W_o| sign(W_o) in every layer; inputs are signs, but where M is highest they stay relu(x) in fp32.

    For each activation, whose input is I (what BN gives it), E = mean over images of ||I - a sign(I)||^2 / ||I||^2 with
    a = mean|I| of the image, in [0, 1], and M = E + cost_weight * min(F) / F, F the multiply-accumulates of the layers
    that read it: what has a large error and is little read is cheap to keep in full. M is split into N = 1, 2, ...
    clusters (`trainables.methods.partition`) until the highest holds at most `ratio` of the activations; that one stays
    full. It is measured on calibration images after `binary_share` of the epochs, trained with signs everywhere. Last
    layers are binary too, with inputs as they are.

    Reference: Prabhu et al., "Hybrid Binary Networks: Optimizing for Accuracy, Efficiency and Memory", WACV 2018. Its
    gamma, R and the scales of E and of 1 / F are not given, so both terms are normalised here; it begins with N = 2,
    where nothing could be left full at R = 1, and its networks were then laid out by hand.
    """

    def __init__(self, config: HybridConfig) -> None:
        self.config = config
        self.choices: dict[str, Choice] = {}

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Quantize the layers that are not to stay fp32; put signs in place of the activations that feed them.

        Raises:
            InfeasibleError: layers share weights, or have inputs that cannot be quantized.

        """
        layers = layers_outside(model, self.config.full_precision)
        refuse_shared(model, example, layers)
        way_out = WayOut("method binary", "compress.full_precision")
        fed = feeding(model, [name for name in layers if name != last_layer(model)], way_out)
        names = {name for sources in fed.values() for name in sources}
        refuse_other_readers(model, names, way_out)
        self._readers = {name: [layer for layer, sources in fed.items() if name in sources] for name in names}
        for name in (name for name, _ in list(model.named_modules()) if name in names):
            self.choices[name] = Choice()
            replace_module(model, name, self.choices[name].to(example.device))
        for name in layers:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                replace_module(model, name, quantized_twin(layer, partial(binarize, scale="filter")))

    def calibrate(self, model: nn.Module, images: Tensor) -> None:
        """Keep the images on which the errors will be measured."""
        self._images = images

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Choose which activations stay full, once."""
        if epoch == self._chosen_at(epochs):
            metric = self.metric(model)
            for choice, full in zip(self.choices.values(), highest(metric, self.config.ratio), strict=True):
                choice.get_buffer("full").fill_(full)

    def _chosen_at(self, epochs: int) -> int:
        return min(epochs - 1, math.floor(self.config.binary_share * epochs + 1e-9))

    def metric(self, model: nn.Module) -> list[float]:
        """M of each activation, in module order."""
        images = self._images.to(next(model.parameters()).device)
        errors: dict[str, float] = {}
        hooks = [choice.register_forward_hook(_error_into(errors, name)) for name, choice in self.choices.items()]
        macs = dict.fromkeys((layer for layers in self._readers.values() for layer in layers), 0)

        def count(name: str, output: Tensor) -> None:
            macs[name] = model.get_submodule(name).get_parameter("weight")[0].numel() * output[0].numel()

        watch(model, images, macs, count)
        for hook in hooks:
            hook.remove()
        read = {name: sum(macs[layer] for layer in layers) for name, layers in self._readers.items()}
        least = min(read.values())
        return [errors[name] + self.config.cost_weight * least / read[name] for name in self.choices]

    def protected(self, epoch: int, epochs: int) -> bool:
        """Until the activations are chosen, and in the epoch after."""
        return epoch <= self._chosen_at(epochs)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Plain layers, signs, and a ReLU where an activation stays full."""
        quantized = {name: m for name, m in model.named_modules() if isinstance(m, Quantized)}
        for name, layer in quantized.items():
            replace_module(model, name, plain_layer(layer))
        signs: dict[str, Activation] = {}
        for name, choice in self.choices.items():
            if bool(choice.get_buffer("full")):
                replace_module(model, name, nn.ReLU())
            else:
                signs[name] = Activation("sign")
        install_activations(model, signs)
        return Compact(model, dict.fromkeys(quantized, 1), activations=signs, input_bits=input_bits(model, signs))


class Choice(nn.Module):
    """sign(x) or, where the buffer `full` is set, relu(x); the buffer goes with the model into a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("full", torch.tensor(False))
        self._sign = SignActivation()

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.where(self.get_buffer("full"), torch.relu(x), self._sign(x))


def _error_into(errors: dict[str, float], name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def see(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        errors[name] = binarization_error(inputs[0])

    return see


def binarization_error(x: Tensor) -> float:
    """Mean over images of ||I - a sign(I)||^2 / ||I||^2, a = mean|I|; x of shape (N, ...); an image of zeros counts 0.

    It is 1 - mean|I|^2 / mean(I^2): 0 where all values have one magnitude.
    """
    flat = x.detach().flatten(1).double()
    squares = flat.square().mean(1)
    share = flat.abs().mean(1).square() / squares.clamp(min=torch.finfo(torch.float64).tiny)
    return float(torch.where(squares > 0, 1 - share, 0.0).mean())
