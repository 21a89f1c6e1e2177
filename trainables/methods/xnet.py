"""Deep expander networks: layers whose filters read few inputs each, along a fixed random graph."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.method_config import XnetConfig
from trainables.methods.base import Method
from trainables.methods.expander import blocks, degree, expander, groups
from trainables.methods.layers import picked_outside
from trainables.models.compact import Compact
from trainables.models.edits import ConvPart, Edit, FlattenPart, GatherPart, conv_part, install
from trainables.models.gather import Gather
from trainables.models.modes import watch
from trainables.pruning.sharing import refuse_shared
from trainables.quantize import Quantized, plain_layer, quantized_twin, replace_module
from trainables.training.randomness import generator


class Xnet(Method):
    """W_o,i = 0 for ever unless (o, i) is an edge of a fixed graph: each filter o reads D inputs, D = I / reduction.

    W is (O, I, k, k) or (O, I). The graph is a random one in which inputs are read equally often (`expander`), or that
    of a group convolution of the same density (`groups`), the rival. It depends on the trial's seed. With `block` B
    filters share their inputs, which a machine likes: then they are one dense group.

    While it trains, a dense layer is multiplied by the graph (gradient: dW on the edges, 0 elsewhere): on a CPU it is
    faster than gathering. What is stored gathers: the D O / B inputs in the order of their readers, then a convolution
    of O / B groups, D inputs and B filters each, of D O k k weights; beside it an index, 1 to 3 bytes an input
    gathered. A linear layer is the same with 1 x 1 kernels.

    First weights are drawn for the edges that there are (He: variance 2 / (k k edges of an input)), or those of the
    parent times sqrt(I / D), which keeps the variance of the outputs.

    Reference: Prabhu, Varma and Namboodiri, "Deep Expander Networks: Efficient Deep Networks from Graph Theory",
    ECCV 2018, trained from nothing. Its code draws D for each input by itself where a layer has more outputs, and
    leaves about half of them without an input; here both sides are balanced. `block` and `init: parent` are ours.
    """

    def __init__(self, config: XnetConfig) -> None:
        self.config = config
        self._graphs: dict[str, Tensor] = {}

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Fix the graph of every layer of a kind in `layers`.

        Raises:
            InfeasibleError: there is no such layer, one shares its weights, groups or blocks do not divide its
                channels, or a linear layer reads more than one vector an image.

        """
        wanted = f"layer of one group of the kinds {', '.join(self.config.layers)}"
        found = picked_outside(model, self.config.keep, self._fitting, wanted)
        refuse_shared(model, example, found)
        _refuse_sequences(model, example, [name for name, layer in found.items() if isinstance(layer, nn.Linear)])
        source = generator(self.seed, "method")
        for name, layer in found.items():
            graph = self._graph(name, layer.weight, source)
            self._fill(layer.weight, graph, source)
            replace_module(model, name, quantized_twin(layer, EdgeMask.of(graph, layer.weight)))
            self._graphs[name] = graph

    def _fitting(self, layer: nn.Module) -> nn.Conv2d | nn.Linear | None:
        if isinstance(layer, nn.Linear):
            return layer if "linear" in self.config.layers else None
        if not isinstance(layer, nn.Conv2d) or layer.groups > 1:
            return None
        return layer if "conv" in self.config.layers else None

    def _graph(self, name: str, weight: Tensor, source: torch.Generator) -> Tensor:
        """The inputs of each block of filters."""
        outputs, inputs = weight.shape[:2]
        config = self.config
        try:
            if config.graph == "groups":
                return groups(inputs, outputs, config.reduction)
            rows = blocks(outputs, config.block)
            return expander(inputs, rows, degree(inputs, rows, config.reduction), source)
        except ValueError as error:
            msg = f"layer {name} cannot be made sparse: {error}"
            raise InfeasibleError(msg) from error

    @torch.no_grad()
    def _fill(self, weight: Tensor, graph: Tensor, source: torch.Generator) -> None:
        outputs, inputs = weight.shape[:2]
        if self.config.init == "parent":
            weight.mul_(math.sqrt(inputs / graph.shape[1]))
            return
        pixels = weight[0, 0].numel()
        edges_of_an_input = graph.shape[1] * outputs / inputs
        weight.copy_(torch.randn(weight.shape, generator=source) * math.sqrt(2 / (pixels * edges_of_an_input)))

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Gather what each filter reads, and keep the weights of the edges alone."""
        edits = tuple(self._gathered(model, name, graph) for name, graph in self._graphs.items())
        return Compact(model, edits=edits)

    def _gathered(self, model: nn.Module, name: str, graph: Tensor) -> Edit:
        twin = model.get_submodule(name)
        if not isinstance(twin, Quantized):
            msg = f"layer {name} is a {type(twin).__name__}"
            raise TypeError(msg)
        plain = plain_layer(twin)
        edit = _edit(name, plain, graph)
        replace_module(model, name, plain)
        install(model, [edit])
        chain = model.get_submodule(name)
        for layer in chain.modules():
            if isinstance(layer, Gather):
                layer.register_buffer("index", graph.flatten().to(plain.weight.device))
            elif isinstance(layer, nn.Conv2d):
                layer.weight = nn.Parameter(_edges(plain.weight, graph).reshape(layer.weight.shape))
                layer.register_parameter("bias", dict(plain.named_parameters()).get("bias"))
        return edit


@dataclass
class EdgeMask:
    """Weights (O, I, ...) times 1 at the edges of a graph and 0 elsewhere."""

    mask: Tensor

    @classmethod
    def of(cls, graph: Tensor, weight: Tensor) -> "EdgeMask":
        """The mask of a graph, rows of inputs, each for a block of the filters of `weight`."""
        outputs, inputs = weight.shape[:2]
        mask = torch.zeros(len(graph), inputs).scatter_(1, graph, 1.0).repeat_interleave(outputs // len(graph), 0)
        return cls(mask.view(outputs, inputs, *[1] * (weight.dim() - 2)))

    def __call__(self, weight: Tensor) -> Tensor:
        """Of the shape and on the device of `weight`."""
        if self.mask.device != weight.device:
            self.mask = self.mask.to(weight.device)
        return weight * self.mask


def _refuse_sequences(model: nn.Module, example: Tensor, names: list[str]) -> None:
    def see(name: str, output: Tensor) -> None:
        if output.dim() != 2:
            msg = f"layer {name} reads more than one vector an image; such a linear layer cannot gather its inputs"
            raise InfeasibleError(msg)

    watch(model, example, names, see)


def _edges(weight: Tensor, graph: Tensor) -> Tensor:
    """The weights at the edges, (O, D, ...)."""
    rows = graph.repeat_interleave(weight.shape[0] // len(graph), 0).to(weight.device)
    index = rows.view(*rows.shape, *[1] * (weight.dim() - 2)).expand(*rows.shape, *weight.shape[2:])
    return weight.gather(1, index)


def _edit(name: str, layer: nn.Conv2d | nn.Linear, graph: Tensor) -> Edit:
    rows, each = graph.shape
    if isinstance(layer, nn.Linear):
        gather = GatherPart(inputs=layer.in_features, places=rows * each, of="features")
        has_bias = "bias" in dict(layer.named_parameters())
        one = ConvPart(inputs=rows * each, outputs=layer.out_features, kernel=(1, 1), groups=rows, bias=has_bias)
        return Edit(place=name, parts=(gather, one, FlattenPart()))
    if rows * each == layer.in_channels and bool((graph.flatten() == torch.arange(layer.in_channels)).all()):
        return Edit(place=name, parts=(_sparse(name, layer, layer.in_channels, rows),))
    gather = GatherPart(inputs=layer.in_channels, places=rows * each)
    return Edit(place=name, parts=(gather, _sparse(name, layer, rows * each, rows)))


def _sparse(name: str, conv: nn.Conv2d, inputs: int, count: int) -> ConvPart:
    try:
        return conv_part(conv, inputs=inputs, groups=count)
    except ValueError as error:
        msg = f"layer {name} cannot be made sparse: {error}"
        raise InfeasibleError(msg) from error
