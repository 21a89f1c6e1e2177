"""Small networks with few-valued weights and activations, for the tests of the packed runtime."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainables.config import ModelConfig
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.quantize import Activation, binarize, install_activations, ternarize, two_valued

WEIGHTS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "binary": (1, lambda w: binarize(w, "filter")),
    "layer": (1, lambda w: binarize(w, "layer")),
    "one": (1, lambda w: binarize(w, "one")),
    "two_valued": (1, two_valued),
    "ternary": (2, lambda w: ternarize(w, 0.7, "mean", "filter")),
}
ACTIVATIONS = {"sign": Activation("sign"), "ternary": Activation("ternary", 0.5)}


def randomise_norms(model: nn.Module, source: torch.Generator) -> None:
    """Statistics and scales of a trained network, about half of the scales negative and one 0."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            shape = (norm.num_features,)
            norm.weight.data = torch.randn(shape, generator=source)
            norm.weight.data[0] = 0
            norm.bias.data = 0.3 * torch.randn(shape, generator=source)
            norm.running_mean = 0.2 * torch.randn(shape, generator=source)
            norm.running_var = 0.3 + 2 * torch.rand(shape, generator=source)


def packed_network(
    name: str = "resnet20",
    width: int = 16,
    weights: str = "binary",
    activations: str = "sign",
    full_precision: Sequence[str] = ("stem", "downsample"),
    seed: int = 0,
) -> Compact:
    """A network of 3 channels and 10 classes; convolutions named in `full_precision` are fp32."""
    source = torch.Generator().manual_seed(seed)
    block = "standard" if name == "vgg_small" else "bn_first"
    model = build(ModelConfig.model_validate({"name": name, "width": width, "block": block}), 3, 10).eval()
    initialise(model, source)
    randomise_norms(model, source)
    bits, quantizer = WEIGHTS[weights]
    few: dict[str, int] = {}
    for layer, conv in model.named_modules():
        if isinstance(conv, nn.Conv2d) and not any(part in layer for part in full_precision):
            conv.weight.data = quantizer(conv.weight.data)
            few[layer] = bits
    acts = {
        layer: ACTIVATIONS[activations]
        for layer, module in model.named_modules()
        if isinstance(module, nn.ReLU) and not layer.startswith("head")
    }
    install_activations(model, acts)
    return Compact(model, bits=few, activations=acts)
