"""From the graph of a network to the rows of the packed runtime."""

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional as F

from trainables.errors import InfeasibleError
from trainables.kernels import rows
from trainables.kernels.convolutions import (
    Geometry,
    Next,
    ToBits,
    ToFloats,
    bit_convolution,
    float_convolution,
    window_sums,
)
from trainables.kernels.layout import vectors_of
from trainables.kernels.maps import Bits, Buffer, Floats, Padded, Row
from trainables.models.compact import Compact
from trainables.models.graph import graph, layer_of
from trainables.quantize import SignActivation, TernaryActivation
from trainables.runtimes.packed_weights import Doubles, FewValues, few_values

Quantizer = SignActivation | TernaryActivation
_ADD = (operator.add, operator.iadd, torch.add)
_RELU = (torch.relu, F.relu)
_FLATTEN = ("flatten", torch.flatten)
_WANTED = "the packed runtime wants compress.activations: sign or ternary, with model.block: bn_first or vgg_small"


def compile_rows(network: Compact, image_shape: tuple[int, int, int]) -> tuple[list[Row], int]:
    """The operations that compute the logits of `network` on images (C, H, W), and the number of classes.

    Raises:
        InfeasibleError: it has an operation, or activations, that the kernels do not know; the message names the layer.

    """
    if not any(activation.kind in {"sign", "ternary"} for activation in network.activations.values()):
        msg = f"no activation of this network has 1 or 2 bits; {_WANTED}"
        raise InfeasibleError(msg)
    compiler = _Compiler(network, image_shape)
    classes = compiler.logits()
    return compiler.rows, classes


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
        mean, variance = _doubles(bn.running_mean), _doubles(bn.running_var)
        scale = np.ones_like(mean) if bn.weight is None else _doubles(bn.weight)
        shift = np.zeros_like(mean) if bn.bias is None else _doubles(bn.bias)
        return cls(scale, mean, np.sqrt(variance + bn.eps), shift)

    def __call__(self, x: Doubles) -> Doubles:
        """Centred first, so that x = mean gives the shift exactly."""
        return self.scale * ((x - self.mean) / self.deviation) + self.shift

    def line(self) -> tuple[Doubles, Doubles]:
        """(a, b) with BN(x) = a x + b."""
        a = self.scale / self.deviation
        return a, self.shift - self.mean * a


@dataclass(frozen=True, slots=True)
class _Chain:
    """A value and the BN that follow on it, innermost first."""

    base: Node
    norms: tuple[Norm, ...]

    def line(self, channels: int) -> tuple[Doubles, Doubles]:
        scale, shift = np.ones(channels), np.zeros(channels)
        for norm in self.norms:
            a, b = norm.line()
            scale, shift = a * scale, a * shift + b
        return scale, shift

    def apply(self, x: Doubles) -> Doubles:
        for norm in self.norms:
            x = norm(x)
        return x


class _Compiler:
    """Asks backwards from the logits; what a node gives is made once, and the rows come out in the order of need."""

    def __init__(self, network: Compact, image_shape: tuple[int, int, int]) -> None:
        self.network = network
        self.model = network.model.eval()
        self.image_shape = image_shape
        self.nodes = self.without_identities()
        self.rows: list[Row] = []
        self.made_bits: dict[Node, Bits] = {}
        self.made_floats: dict[Node, Floats] = {}
        self.made_padded: dict[tuple[Node, int], Padded] = {}
        convolutions = [(node, layer) for node in self.nodes if isinstance(layer := self.layer(node), nn.Conv2d)]
        self.border = max((self.geometry(*pair).padding for pair in convolutions), default=0)

    def without_identities(self) -> list[Node]:
        """The nodes of the graph that compute something."""
        nodes: list[Node] = []
        for node in graph(self.model).nodes:
            if isinstance(self.layer(node), nn.Identity | nn.Dropout | nn.Flatten) or node.target in _FLATTEN:
                node.replace_all_uses_with(_argument(node))
            else:
                nodes.append(node)
        return nodes

    def layer(self, node: Node) -> nn.Module | None:
        return layer_of(self.model, node)

    def logits(self) -> int:
        """Rows up to the logits; the number of classes."""
        node = _argument(next(node for node in self.nodes if node.op == "output"))
        layer = self.layer(node)
        if not isinstance(layer, nn.Linear):
            raise self.unknown(node, "a linear layer at the end")
        features = self.mean(_argument(node))
        weights = layer.weight.detach().numpy()
        self.rows.append(rows.linear(features, weights, _bias(layer).astype(np.float32)))
        return len(weights)

    def mean(self, node: Node) -> Buffer:
        """The mean of each channel over the image, with the BN and ReLU before it."""
        layer = self.layer(node)
        if not isinstance(layer, nn.AdaptiveAvgPool2d) or layer.output_size not in (1, (1, 1)):
            raise self.unknown(node, "the mean over the image before the linear layer")
        inner = _argument(node)
        relu = self.is_relu(inner)
        chain = self.chain(_argument(inner) if relu else inner)
        source = self.floats(chain.base)
        scale, shift = chain.line(source.channels)
        size = 32 * vectors_of(source.channels)
        output = Buffer(size, 1, ("mean", size))
        self.rows.append(rows.mean(source, output, scale, shift, relu))
        return output

    def bits(self, node: Node) -> Bits:
        """The packed activations that `node` gives."""
        layer = self.layer(node)
        if node not in self.made_bits and isinstance(layer, Quantizer):
            self.quantize(node, layer)
        elif node not in self.made_bits and isinstance(layer, nn.MaxPool2d):
            source = self.bits(_argument(node))
            height, width = _pooled(layer, source.height, source.width)
            target = Bits.new(source.channels, height, width, self.border, source.planes)
            self.rows.append(rows.pool_bits(source, target, *_window(layer)))
            self.made_bits[node] = target
        return self.made_bits[node]

    def gives_bits(self, node: Node) -> bool:
        """Whether a node gives packed activations."""
        layer = self.layer(node)
        return isinstance(layer, Quantizer) or (isinstance(layer, nn.MaxPool2d) and self.gives_bits(_argument(node)))

    def quantize(self, node: Node, layer: Quantizer) -> None:
        """Make the activations of a quantizer, in the row of the convolution before it where that is possible."""
        chain = self.chain(_argument(node))
        conv = self.layer(chain.base)
        if isinstance(conv, nn.Conv2d) and self.alone(chain.base, node) and self.counts(chain.base, layer):
            self.thresholds(node, chain, conv, layer)
            return
        if chain.base not in self.made_floats:
            self.make(chain.base)
        if node not in self.made_bits:
            source = self.made_floats[chain.base]
            following = self.following(node, source.channels, source.height, source.width)
            self.rows.append(rows.pack(source, following))
            self.made_bits[node] = following.bits

    def counts(self, conv: Node, layer: Quantizer) -> bool:
        """Whether the sums of a convolution are integers that become the activations of `layer` in its own row."""
        source = _argument(conv)
        return (
            self.gives_bits(source)
            and str(conv.target) in self.network.bits
            and self.bits(source).planes == _planes(layer)
            and not self.few_values(conv).offset.any()
        )

    def thresholds(self, node: Node, chain: _Chain, conv: nn.Conv2d, layer: Quantizer) -> None:
        """conv -> BN -> activation: the activation by thresholds of the integer sums."""
        weights, source, geometry = self.few_values(chain.base), self.bits(_argument(chain.base)), None
        geometry = self.geometry(chain.base, conv)
        window = geometry.on(source)
        target = Bits.new(conv.out_channels, window.out_height, window.out_width, self.border, source.planes)
        bias = _bias(conv)

        def z(sums: Doubles) -> Doubles:
            return chain.apply(weights.magnitude * sums + bias)

        finish = ToBits(z, chain.line(conv.out_channels)[0] < 0, _bound(layer), target)
        self.rows.append(bit_convolution(source, weights.signs, geometry, finish))
        self.made_bits[node] = target

    def floats(self, node: Node) -> Floats:
        """The fp32 maps that `node` gives."""
        if node not in self.made_floats:
            self.make(node)
        return self.made_floats[node]

    def make(self, node: Node) -> None:
        """Make the fp32 maps of a node, or, where nothing else reads them, the activations that follow alone."""
        chain = self.chain(node)
        layer = self.layer(chain.base)
        if isinstance(layer, nn.Conv2d) and self.alone(chain.base, node):
            self.convolve(node, chain, None)
        elif chain.norms:
            source = self.floats(chain.base)
            self.affine(node, source, *chain.line(source.channels), relu=False)
        elif node.target in _ADD:
            self.add(node)
        elif self.is_relu(node):
            before = self.chain(_argument(node))
            source = self.floats(before.base)
            self.affine(node, source, *before.line(source.channels), relu=True)
        elif self.gives_bits(node):
            source = self.bits(node)
            self.made_floats[node] = Floats.new(source.channels, source.height, source.width)
            self.rows.append(rows.unpack(source, self.made_floats[node]))
        elif isinstance(layer, nn.MaxPool2d):
            self.pool(node, layer)
        else:
            raise self.unknown(node, "convolutions, BN, sums, poolings and quantized activations")

    def affine(self, node: Node, source: Floats, scale: Doubles, shift: Doubles, relu: bool) -> None:
        self.made_floats[node] = Floats.new(source.channels, source.height, source.width)
        self.rows.append(rows.affine(source, None, self.made_floats[node], scale, shift, relu))

    def pool(self, node: Node, layer: nn.MaxPool2d) -> None:
        source = self.floats(_argument(node))
        self.made_floats[node] = Floats.new(source.channels, *_pooled(layer, source.height, source.width))
        self.rows.append(rows.pool_float(source, self.made_floats[node], *_window(layer)))

    def add(self, node: Node) -> None:
        """The residual joins the row of the convolution that it is added to."""
        for conv, other in (node.args, node.args[::-1]):
            if not isinstance(conv, Node) or not isinstance(other, Node):
                break
            chain = self.chain(conv)
            if isinstance(self.layer(chain.base), nn.Conv2d) and self.alone(chain.base, node):
                self.convolve(node, chain, self.floats(other))
                return
        raise self.unknown(node, "sums of a convolution and another map")

    def convolve(self, node: Node, chain: _Chain, residual: Floats | None) -> None:
        """`node` = BN(conv(x)) + residual in fp32, with the next activation in the same row where there is one."""
        conv = chain.base
        layer = self.layer(conv)
        assert isinstance(layer, nn.Conv2d)
        scale, shift = chain.line(layer.out_channels)
        shift = shift + scale * _bias(layer)
        geometry = self.geometry(conv, layer)
        weights = self.few_values(conv) if self.few_bits(conv) else None
        source = self.padded(_argument(conv), geometry) if weights is None else self.bits(_argument(conv))
        window = geometry.on(source)
        size = (layer.out_channels, window.out_height, window.out_width)
        quantizer = self.next_quantizer(node, source.planes if isinstance(source, Bits) else 1)
        following = None if quantizer is None else self.following(quantizer, *size)
        output = Floats.new(*size) if quantizer is None or not self.alone(node, quantizer) else None
        if weights is not None and isinstance(source, Bits):
            if weights.offset.any():
                residual = self.window_sums(source, geometry, scale * weights.offset, residual, size)
            finish = ToFloats(scale * weights.magnitude, shift, residual, output, following)
            self.rows.append(bit_convolution(source, weights.signs, geometry, finish))
        elif isinstance(source, Padded):
            finish = ToFloats(scale, shift, residual, output, following)
            self.rows.append(float_convolution(source, _numpy(layer.weight), geometry, finish))
        if output is not None:
            self.made_floats[node] = output
        if following is not None and quantizer is not None:
            self.made_bits[quantizer] = following.bits

    def window_sums(
        self, source: Bits, geometry: Geometry, scale: Doubles, residual: Floats | None, size: tuple[int, int, int]
    ) -> Floats:
        """What the offsets of filters with two free values add."""
        sums = Floats.new(*size)
        self.rows.append(window_sums(source, geometry, scale, residual, sums))
        return sums

    def following(self, node: Node, channels: int, height: int, width: int) -> Next:
        """The activation `node` as the end of the row that makes the base of its chain."""
        layer = self.layer(node)
        assert isinstance(layer, Quantizer)
        scale, shift = self.chain(_argument(node)).line(channels)
        return Next(scale, shift, _bound(layer), Bits.new(channels, height, width, self.border, _planes(layer)))

    def next_quantizer(self, node: Node, planes: int) -> Node | None:
        """The first activation of so many planes that reads `node` through BN alone."""
        for user in node.users:
            end = user
            while isinstance(self.layer(end), nn.BatchNorm2d) and len(end.users) == 1:
                end = next(iter(end.users))
            layer = self.layer(end)
            if isinstance(layer, Quantizer) and _planes(layer) == planes:
                return end
        return None

    def padded(self, node: Node, geometry: Geometry) -> Padded:
        """The floats that an fp32 convolution reads: the images, or packed activations as -1, 0, +1.

        Raises:
            InfeasibleError: they are neither.

        """
        key = (node, geometry.padding)
        if key in self.made_padded:
            return self.made_padded[key]
        if node.op == "placeholder":
            made = Padded.new(*self.image_shape, geometry.padding)
            self.rows.append(rows.image(made))
        elif self.gives_bits(node):
            source = self.bits(node)
            made = Padded.new(source.channels, source.height, source.width, geometry.padding)
            self.rows.append(rows.unpack(source, made))
        else:
            raise self.unknown(node, "quantized inputs of every convolution but the first")
        self.made_padded[key] = made
        return made

    def few_bits(self, conv: Node) -> bool:
        """Whether a convolution runs on bits: it has few-valued weights, and packed inputs."""
        return str(conv.target) in self.network.bits and self.gives_bits(_argument(conv))

    def few_values(self, conv: Node) -> FewValues:
        layer = self.layer(conv)
        assert isinstance(layer, nn.Conv2d)
        return few_values(str(conv.target), _numpy(layer.weight))

    def geometry(self, node: Node, layer: nn.Conv2d) -> Geometry:
        """The window of a convolution.

        Raises:
            InfeasibleError: it is not square, or has groups, dilation or a padding that is not zeros.

        """
        square = len({*layer.kernel_size}) == len({*layer.stride}) == len({*layer.padding}) == 1
        if not square or layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
            msg = (
                f"{node.target}: the packed runtime wants square windows padded with zeros, groups 1 and dilation 1, not "
                f"kernel {layer.kernel_size}, stride {layer.stride}, padding {layer.padding} ({layer.padding_mode}), "
                f"groups {layer.groups}, dilation {layer.dilation}"
            )
            raise InfeasibleError(msg)
        padding = layer.padding[0]
        if isinstance(padding, str):
            msg = f"{node.target}: padding {layer.padding!r}; the packed runtime wants it as a number"
            raise InfeasibleError(msg)
        return Geometry(layer.kernel_size[0], layer.stride[0], padding)

    def chain(self, node: Node) -> _Chain:
        """What `node` is before the BN that end in it."""
        norms: list[Norm] = []
        while isinstance(layer := self.layer(node), nn.BatchNorm2d):
            norms.append(Norm.of(layer))
            node = _argument(node)
        return _Chain(node, tuple(reversed(norms)))

    def alone(self, first: Node, last: Node) -> bool:
        """Whether all from `first` up to `last` is read on the way to `last` alone."""
        while first is not last:
            if len(first.users) != 1:
                return False
            first = next(iter(first.users))
            if first is not last and not isinstance(self.layer(first), nn.BatchNorm2d):
                return False
        return True

    def is_relu(self, node: Node) -> bool:
        return isinstance(self.layer(node), nn.ReLU) or node.target in _RELU

    def unknown(self, node: Node, known: str) -> InfeasibleError:
        layer = self.layer(node)
        name = f"{node.target} ({type(layer).__name__})" if layer is not None else node.name
        return InfeasibleError(f"{name}: the packed runtime wants {known}; {_WANTED}")


def _argument(node: Node) -> Node:
    """The first argument of a node."""
    argument: Any = node.args[0]
    return argument


def _planes(layer: Quantizer) -> int:
    return 2 if isinstance(layer, TernaryActivation) else 1


def _bound(layer: Quantizer) -> float:
    return layer.threshold if isinstance(layer, TernaryActivation) else 0.0


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().cpu().numpy()


def _doubles(tensor: Tensor) -> Doubles:
    return _numpy(tensor).astype(np.float64)


def _bias(layer: nn.Conv2d | nn.Linear) -> Doubles:
    return np.zeros(len(layer.weight)) if layer.bias is None else _doubles(layer.bias)


def _window(pool: nn.MaxPool2d) -> tuple[int, int, int]:
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


def _pooled(pool: nn.MaxPool2d, height: int, width: int) -> tuple[int, int]:
    size, stride, padding = _window(pool)
    return (height + 2 * padding - size) // stride + 1, (width + 2 * padding - size) // stride + 1
