"""Where the inputs of layers can be quantized: the activations that feed them, found in the network's graph."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.methods.layers import role_of
from trainables.models.gather import Gather
from trainables.models.graph import graph, layer_of
from trainables.models.resnet import ResNet
from trainables.quantize import Activation, IntActivation, install_activations

_RECTIFIERS = (nn.ReLU, nn.ReLU6)
# what passes quantized values on unchanged or chooses among them
_PASSING = (nn.MaxPool2d, nn.Flatten, nn.Identity, nn.Dropout, Gather)
_PASSING_FUNCTIONS = (torch.flatten, torch.cat, "flatten")


@dataclass(frozen=True, slots=True)
class WayOut:
    """What a study can write where inputs cannot be quantized.

    Attributes:
        instead: the setting without quantized inputs, or the method.
        roles: the leaf that names layers, by their roles, whose inputs stay as they are; empty: there is none.

    """

    instead: str
    roles: str = ""

    def of_layer(self, model: nn.Module, name: str) -> str:
        """For one layer of the model."""
        role = role_of(model, name) if self.roles else None
        return f"add {role} to {self.roles}, or take {self.instead}" if role else f"take {self.instead}"

    def of_network(self, model: nn.Module) -> str:
        """For a network in which something else reads what would be quantized."""
        blocks = "model.block bn_first" if isinstance(model, ResNet) else "a network whose sums read no activations"
        return f"take {blocks}, or {self.instead}"


def feeding(model: nn.Module, layers: Collection[str], way_out: WayOut) -> dict[str, tuple[str, ...]]:
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
            name, given = str(node.target), ", ".join(_told(model, source) for source in sources)
            msg = f"the inputs of layer {name} cannot be quantized: they come from {given} and not from a ReLU"
            raise InfeasibleError(f"{msg}; {way_out.of_layer(model, name)}")
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


def _told(model: nn.Module, node: Any) -> str:
    """What a node of the graph is, in words."""
    if node.op == "placeholder":
        return "the image"
    layer = layer_of(model, node)
    return f"{node.target} ({type(layer).__name__})" if layer else f"the operation {node.name}"


def refuse_other_readers(model: nn.Module, rectifiers: Collection[str], way_out: WayOut) -> None:
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
                told = f"activation {source.target} feeds {node.name} beside convolutions, which would see few bits"
                raise InfeasibleError(f"{told}; {way_out.of_network(model)}")


def quantize_inputs(
    model: nn.Module, layers: Collection[str], activation: Activation, way_out: WayOut
) -> tuple[str, ...]:
    """Put `activation` in place of every rectifier that feeds `layers`; returns the names of those modules.

    Raises:
        InfeasibleError: a layer is fed by something else, or something else is fed by such a rectifier.

    """
    rectifiers = {name for names in feeding(model, layers, way_out).values() for name in names}
    if activation.kind in ("sign", "ternary"):
        refuse_other_readers(model, rectifiers, way_out)
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
