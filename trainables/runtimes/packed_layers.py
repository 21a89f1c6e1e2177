"""What the layers of a network are to the packed runtime: BN as numbers, windows, activations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional as F

from trainables.errors import InfeasibleError
from trainables.kernels.convolutions import Geometry
from trainables.kernels.layout import Doubles
from trainables.models.graph import graph, layer_of
from trainables.quantize import SignActivation, TernaryActivation

Quantizer = SignActivation | TernaryActivation
_RELU = (torch.relu, F.relu)
_FLATTEN = ("flatten", torch.flatten)


@dataclass(frozen=True, slots=True)
class Norm:
    """BN in eval mode, per channel: scale (x - mean) / deviation + shift, in double precision."""

    scale: Doubles
    mean: Doubles
    deviation: Doubles
    shift: Doubles

    @classmethod
    def of(cls, bn: nn.BatchNorm2d) -> "Norm":
        """The numbers of a layer.

        Raises:
            InfeasibleError: it keeps no statistics.

        """
        if bn.running_mean is None or bn.running_var is None:
            msg = "a BN layer keeps no running statistics; set track_running_stats"
            raise InfeasibleError(msg)
        mean, variance = doubles(bn.running_mean), doubles(bn.running_var)
        scale = doubles(bn.weight) if bn.affine else np.ones_like(mean)
        shift = doubles(bn.bias) if bn.affine else np.zeros_like(mean)
        return cls(scale, mean, np.sqrt(variance + bn.eps), shift)

    def __call__(self, x: Doubles) -> Doubles:
        """Centred first, so that x = mean gives the shift exactly."""
        return self.scale * ((x - self.mean) / self.deviation) + self.shift

    def line(self) -> tuple[Doubles, Doubles]:
        """(a, b) with BN(x) = a x + b."""
        a = self.scale / self.deviation
        return a, self.shift - self.mean * a


@dataclass(frozen=True, slots=True)
class Chain:
    """What a node gives before the BN that follow on it, innermost first."""

    base: Node
    norms: tuple[Norm, ...]

    def line(self, channels: int) -> tuple[Doubles, Doubles]:
        """(a, b), each (channels,), with which the BN give a x + b."""
        scale, shift = np.ones(channels), np.zeros(channels)
        for norm in self.norms:
            a, b = norm.line()
            scale, shift = a * scale, a * shift + b
        return scale, shift

    def apply(self, x: Doubles) -> Doubles:
        """What the BN make of x, shape (channels,)."""
        for norm in self.norms:
            x = norm(x)
        return x


class Wiring:
    """The graph of a network, without what computes nothing, and the questions that the compiler asks it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.nodes: list[Node] = []
        for node in graph(model).nodes:
            if isinstance(self.layer(node), nn.Identity | nn.Dropout | nn.Flatten) or node.target in _FLATTEN:
                node.replace_all_uses_with(argument(node))
            else:
                self.nodes.append(node)

    def layer(self, node: Node) -> nn.Module | None:
        """The layer that a node calls, or None."""
        return layer_of(self.model, node)

    def convolutions(self) -> list[tuple[Node, nn.Conv2d]]:
        """All of them."""
        return [(node, layer) for node in self.nodes if isinstance(layer := self.layer(node), nn.Conv2d)]

    def gives_bits(self, node: Node) -> bool:
        """Whether a node gives packed activations."""
        layer = self.layer(node)
        return isinstance(layer, Quantizer) or (isinstance(layer, nn.MaxPool2d) and self.gives_bits(argument(node)))

    def is_relu(self, node: Node) -> bool:
        """Whether a node computes max(x, 0)."""
        return isinstance(self.layer(node), nn.ReLU) or node.target in _RELU

    def chain(self, node: Node) -> Chain:
        """What `node` is before the BN that end in it."""
        norms: list[Norm] = []
        while isinstance(layer := self.layer(node), nn.BatchNorm2d):
            norms.append(Norm.of(layer))
            node = argument(node)
        return Chain(node, tuple(reversed(norms)))

    def convolution_before(self, node: Node) -> tuple[Chain, nn.Conv2d] | None:
        """The convolution that, with BN after it, gives `node`, where nothing else reads what lies between."""
        chain = self.chain(node)
        layer = self.layer(chain.base)
        return (chain, layer) if isinstance(layer, nn.Conv2d) and self.alone(chain.base, node) else None

    def alone(self, first: Node, last: Node) -> bool:
        """Whether `first`, and all from there through BN up to `last`, is read on this way alone."""
        while first is not last:
            if len(first.users) != 1:
                return False
            first = next(iter(first.users))
            if first is not last and not isinstance(self.layer(first), nn.BatchNorm2d):
                return False
        return True

    def next_quantizer(self, node: Node, planes: int) -> tuple[Node, Quantizer] | None:
        """The first activation of so many planes that reads `node` through BN alone."""
        for user in node.users:
            end = user
            while isinstance(self.layer(end), nn.BatchNorm2d) and len(end.users) == 1:
                end = next(iter(end.users))
            layer = self.layer(end)
            if isinstance(layer, Quantizer) and planes_of(layer) == planes:
                return end, layer
        return None


def geometry_of(name: str, layer: nn.Conv2d) -> Geometry:
    """The window of a convolution.

    Raises:
        InfeasibleError: it is not square, or has groups, dilation or a padding that is not zeros.

    """
    square = len({*layer.kernel_size}) == len({*layer.stride}) == len({*layer.padding}) == 1
    if not square or layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
        msg = (
            f"{name}: the packed runtime wants square windows padded with zeros, groups 1 and dilation 1, not "
            f"kernel {layer.kernel_size}, stride {layer.stride}, padding {layer.padding} ({layer.padding_mode}), "
            f"groups {layer.groups}, dilation {layer.dilation}"
        )
        raise InfeasibleError(msg)
    padding = layer.padding[0]
    if isinstance(padding, str):
        msg = f"{name}: padding {layer.padding!r}; the packed runtime wants it as a number"
        raise InfeasibleError(msg)
    return Geometry(layer.kernel_size[0], layer.stride[0], padding)


def argument(node: Node) -> Node:
    """The first argument of a node."""
    first: Any = node.args[0]
    return first


def planes_of(layer: Quantizer) -> int:
    """Bit planes of what the activation gives."""
    return 2 if isinstance(layer, TernaryActivation) else 1


def bound_of(layer: Quantizer) -> float:
    """From which value on it gives +1; ternary, down from minus which -1."""
    return layer.threshold if isinstance(layer, TernaryActivation) else 0.0


def as_numpy(tensor: Tensor) -> NDArray[np.float32]:
    """The numbers of a tensor, which share its memory."""
    return tensor.detach().cpu().numpy()


def doubles(tensor: Tensor) -> Doubles:
    """The numbers of a tensor in double precision."""
    return as_numpy(tensor).astype(np.float64)


def bias_of(layer: nn.Conv2d | nn.Linear) -> Doubles:
    """The bias of each filter, 0 where the layer has none."""
    bias = dict(layer.named_parameters(recurse=False)).get("bias")
    return np.zeros(len(layer.weight)) if bias is None else doubles(bias)


def pool_window(pool: nn.MaxPool2d) -> tuple[int, int, int]:
    """Size, stride and padding of a square pooling.

    Raises:
        InfeasibleError: it is not square, or is dilated, or counts half windows.

    """
    size, stride, padding, dilation = (
        _one(value) for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    if size is None or stride is None or padding is None or dilation != 1 or pool.ceil_mode:
        msg = f"{pool}: the packed runtime wants square windows, dilation 1 and no ceil_mode"
        raise InfeasibleError(msg)
    return size, stride, padding


def _one(value: int | tuple[int, ...]) -> int | None:
    values = {value} if isinstance(value, int) else {*value}
    return values.pop() if len(values) == 1 else None


def pooled_size(pool: nn.MaxPool2d, height: int, width: int) -> tuple[int, int]:
    """Height and width of what a pooling gives."""
    size, stride, padding = pool_window(pool)
    return (height + 2 * padding - size) // stride + 1, (width + 2 * padding - size) // stride + 1
