"""A network rewritten for reading many images on a CPU: BN, ReLU and residual sums inside its convolutions.

Whatever the rewriting does not know stays the module or function that it was.
"""

import operator
from collections import Counter
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.nn import functional as F
from typing_extensions import TypeIs

from trainables.active.kernel import Kernel, has_kernels, paired, pixels, two_by_two
from trainables.config import Precision
from trainables.errors import InfeasibleError
from trainables.models.folding import folded, pairs
from trainables.models.graph import graph, layer_of

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_RELUS = (nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUMS_IN_PLACE = (operator.iadd, "add_")


def fuse(model: nn.Module, precision: Precision, last: str, features: bool) -> GraphModule | None:
    """A twin of `model` that shares its layers: normalised images (N, C, H, W) -> (logits, inputs of layer `last`).

    `model` is in eval mode. Without `features` the logits come twice. A linear layer `last` runs in fp32. Where
    `precision` is bf16 the twin is to be run under autocast, which decides about layers that are not rewritten.

    Returns:
        None where this machine has no kernel for `precision`, the network has no graph, or its graph does not have
        exactly one call of `last` whose inputs could be given.

    """
    if not has_kernels(precision) or _hooked_containers(model):
        return None
    try:
        found = graph(model)
    except InfeasibleError:
        return None
    rewriting = _Rewriting(model, found, _DTYPES[precision])
    rewriting.fuse_convolutions()
    shown = rewriting.last_in_full_precision(last)
    return None if features and shown is None else rewriting.finish(shown if features else None)


class Convolution(nn.Module):
    """conv(x) or conv(x) + y, and where `relu` is set the ReLU of it; outputs are in channels_last."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.one = Kernel.of(conv, weight, bias, dtype)
        self.two = paired(self.one)
        self.relu = False

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, I, H, W) and perhaps (N, O, H', W') -> (N, O, H', W')."""
        x = self.one.ready(x)
        shape = self.one.output_shape(x)
        if other is not None and (other.shape != shape or other.dtype != x.dtype):
            return self._apart(x, other)
        if self.two is None or shape[-1] % 2:
            return self.one(x, other, self.relu)
        return pixels(self.two(x, None if other is None else two_by_two(other), self.relu))

    def _apart(self, x: Tensor, other: Tensor) -> Tensor:
        y = self.one(x, None, relu=False) + other
        return y.relu_() if self.relu else y


class FullPrecision(nn.Module):
    """A layer that runs in fp32 whatever autocast says: rounding logits to bf16 would make ties of them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """What `layer` gives."""
        with torch.autocast("cpu", enabled=False):
            return self.layer(x.float())


class _Rewriting:
    """The graph of a network, and what is put in the place of its layers."""

    def __init__(self, model: nn.Module, found: Graph, dtype: torch.dtype) -> None:
        self.norms = {
            str(conv.target): str(norm.target) for conv, norm in pairs(model, found) if _plain(layer_of(model, norm))
        }
        self.twin = GraphModule(model, found)
        self.graph = self.twin.graph
        self.dtype = dtype
        self.number = 0

    def fuse_convolutions(self) -> None:
        """Put a `Convolution` in the place of each plain one that runs once, and of what follows and it can do."""
        calls = Counter(str(node.target) for node in self.graph.nodes if node.op == "call_module")
        for node in list(self.graph.nodes):
            conv = self._layer(node)
            if _known(conv) and calls[str(node.target)] == 1 and len(node.all_input_nodes) == 1:
                self._fuse(node, conv)

    def _fuse(self, node: Node, conv: nn.Conv2d) -> None:
        chain = [node]
        weight, bias = conv.weight, conv.bias
        norm = self.norms.get(str(node.target))
        if norm is not None:
            weight, bias = folded(conv, cast("nn.BatchNorm2d", self.twin.get_submodule(norm)))
            chain += node.users
        layer = Convolution(conv, weight.detach(), bias, self.dtype)
        other = self._summand(chain)
        if other is not None:
            chain += chain[-1].users
        if self._is_relu(_only_reader(chain[-1])):
            layer.relu = True
            chain += chain[-1].users
        self._replace(chain, layer, other)

    def _summand(self, chain: list[Node]) -> Node | None:
        """What is added to the value of the last of `chain`, where nothing else reads that and no layer forbids it."""
        value, reader = chain[-1], _only_reader(chain[-1])
        if reader is None or reader.target not in _SUMS or reader.kwargs or len(reader.all_input_nodes) != 2:
            return None
        if len(reader.args) != 2 or (reader.target in _SUMS_IN_PLACE and reader.args[0] is not value):
            return None
        # The convolution will run as late as the sum: nothing may write over its inputs before.
        if any(self._writes(node) for node in _between(chain[0], reader)):
            return None
        return next(node for node in reader.all_input_nodes if node is not value)

    def _layer(self, node: Node | None) -> nn.Module | None:
        return None if node is None else layer_of(self.twin, node)

    def _replace(self, chain: list[Node], layer: nn.Module, other: Node | None) -> None:
        inputs = tuple(node for node in (chain[0].all_input_nodes[0], other) if node is not None)
        at = chain[0] if other is None else chain[-1]
        with self.graph.inserting_before(at):
            new = self.graph.call_module(self._add(layer), inputs)
        chain[-1].replace_all_uses_with(new)
        for node in reversed(chain):
            self.graph.erase_node(node)

    def _add(self, layer: nn.Module) -> str:
        self.number += 1
        name = f"rewritten_{self.number}"
        self.twin.add_submodule(name, layer)
        return name

    def _is_relu(self, node: Node | None) -> bool:
        layer = self._layer(node)
        if node is None:
            return False
        return node.target in _RELUS if layer is None else type(layer) is nn.ReLU and _plain(layer)

    def _writes(self, node: Node) -> bool:
        """Whether a node may write over what it reads."""
        layer = self._layer(node)
        if layer is not None:
            return bool(getattr(layer, "inplace", False))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
        in_place = name.endswith("_") or (name.startswith("i") and node.target is getattr(operator, name, None))
        return in_place or bool(node.kwargs.get("inplace")) or True in node.args

    def last_in_full_precision(self, last: str) -> Node | None:
        """Let the linear layer `last` run in fp32; the node of its inputs, or None where it is not one call."""
        calls = [node for node in self.graph.nodes if node.op == "call_module" and node.target == last]
        if len(calls) != 1 or len(calls[0].all_input_nodes) != 1 or not isinstance(self._layer(calls[0]), nn.Linear):
            return None
        calls[0].target = self._add(FullPrecision(self.twin.get_submodule(last)))
        return calls[0].all_input_nodes[0]

    def finish(self, shown: Node | None) -> GraphModule:
        """The network, which gives its logits and the value of `shown`, or the logits again."""
        end = next(node for node in self.graph.nodes if node.op == "output")
        logits = end.args[0]
        end.args = ((logits, logits if shown is None else shown),)
        self.graph.lint()
        self.twin.recompile()
        return self.twin


def _known(layer: nn.Module | None) -> TypeIs[nn.Conv2d]:
    """Whether `layer` is a convolution that a `Kernel` can stand for; a subclass may do anything."""
    if type(layer) is not nn.Conv2d or not _plain(layer):
        return False
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and layer.weight.dtype == torch.float32


def _plain(layer: nn.Module | None) -> bool:
    """Whether `layer` is one of torch's own types that nothing hangs on."""
    return layer is not None and type(layer) in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU) and not _hooked(layer)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]


def _hooked_containers(model: nn.Module) -> bool:
    """Whether a module that the graph sees through has hooks, which the twin would not call."""
    return any(_hooked(module) for module in model.modules() if any(True for _ in module.children()))


def _only_reader(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _between(first: Node, last: Node) -> Iterator[Node]:
    node = first.next
    while node is not last:
        yield node
        node = node.next
