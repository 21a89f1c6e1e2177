"""Where the inputs of layers can be quantized: the activations that feed them, found in the network's graph."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.models.graph import graph, layer_of
from trainables.quantize import Activation, IntActivation, install_activations

_RECTIFIERS = (nn.ReLU, nn.ReLU6)
# what passes quantized values on unchanged or chooses among them
_PASSING = (nn.MaxPool2d, nn.Flatten, nn.Identity, nn.Dropout)
_PASSING_FUNCTIONS = (torch.flatten, torch.cat, "flatten")


def feeding(model: nn.Module, layers: Collection[str]) -> dict[str, tuple[str, ...]]:
    """For each of `layers` the rectifiers (ReLU, ReLU6) whose outputs are its inputs.

    Raises:
        InfeasibleError: a layer reads something else, or the model cannot be traced.

    """
    found: dict[str, tuple[str, ...]] = {}
    for node in graph(model).nodes:
        if node.op != "call_module" or str(node.target) not in layers:
            continue
        sources = list(_sources(model, node))
        if not sources or not all(isinstance(layer_of(model, source), _RECTIFIERS) for source in sources):
            msg = (
                f"the inputs of layer {node.target} do not come from a ReLU, so that they cannot be quantized; "
                "leave them fp32 (compress.activations float, compress.activation_bits null), or take a model whose "
                "layers read activations (model.block bn_first)"
            )
            raise InfeasibleError(msg)
        found[str(node.target)] = tuple(str(source.target) for source in sources)
    return found


def _sources(model: nn.Module, node: Any) -> Iterator[Any]:
    """The nodes whose values `node` reads, whatever passes them on."""
    for before in node.all_input_nodes:
        layer = layer_of(model, before)
        if isinstance(layer, _PASSING) or (layer is None and before.target in _PASSING_FUNCTIONS):
            yield from _sources(model, before)
        else:
            yield before


def refuse_other_readers(model: nn.Module, rectifiers: Collection[str]) -> None:
    """Make sure that only convolutions and linear layers read what `rectifiers` give.

    Raises:
        InfeasibleError: a sum or a mean reads them too; one or two bits would be all that it gets.

    """
    for node in graph(model).nodes:
        if isinstance(layer_of(model, node), nn.Conv2d | nn.Linear):
            continue
        if isinstance(layer_of(model, node), _PASSING) or node.target in _PASSING_FUNCTIONS:
            continue
        for source in _sources(model, node):
            if source.op == "call_module" and str(source.target) in rectifiers:
                msg = (
                    f"activation {source.target} feeds {node.name} beside convolutions, which would see one or two "
                    "bits; compress.activations sign and ternary need model.block bn_first, or a network without sums"
                )
                raise InfeasibleError(msg)


def quantize_inputs(model: nn.Module, layers: Collection[str], activation: Activation) -> tuple[str, ...]:
    """Put `activation` in place of every rectifier that feeds `layers`; returns the names of those modules.

    Raises:
        InfeasibleError: a layer is fed by something else, or something else is fed by such a rectifier.

    """
    rectifiers = {name for names in feeding(model, layers).values() for name in names}
    if activation.kind in ("sign", "ternary"):
        refuse_other_readers(model, rectifiers)
    names = tuple(name for name, _ in model.named_modules() if name in rectifiers)
    install_activations(model, dict.fromkeys(names, activation))
    return names


@torch.no_grad()
def calibrate(model: nn.Module, images: Tensor) -> None:
    """Set the step of every `IntActivation` from the largest value that it gives for `images` (N, C, H, W).

    All are calibrated together, while each is still a ReLU. BN takes the statistics of `images`, as those of the dense
    network do not suit weights that were just quantized. Nothing else of `model` changes.
    """
    probe = copy.deepcopy(model).eval()
    largest: dict[str, float] = {}
    for name, module in probe.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
        elif isinstance(module, IntActivation):
            module.register_forward_hook(_largest_into(largest, name))
    probe(images)
    for name, value in largest.items():
        activation = model.get_submodule(name)
        if isinstance(activation, IntActivation):
            activation.cover(value)


def _largest_into(largest: dict[str, float], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def see(_: nn.Module, __: object, output: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(output.max()))

    return see


def input_bits(model: nn.Module, activations: Mapping[str, Activation]) -> dict[str, int]:
    """Bits of the inputs of each convolution and linear layer that reads quantized activations alone.

    Raises:
        InfeasibleError: the model cannot be traced.

    """
    if not activations:
        return {}
    found: dict[str, int] = {}
    for node in graph(model).nodes:
        if isinstance(layer_of(model, node), nn.Conv2d | nn.Linear):
            names = [str(source.target) for source in _sources(model, node)]
            if names and all(name in activations for name in names):
                found[str(node.target)] = max(activations[name].bits for name in names)
    return found
