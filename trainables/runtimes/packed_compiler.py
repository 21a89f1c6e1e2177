"""From the graph of a network to the rows of the packed runtime."""

import operator

import numpy as np
import torch
from torch import nn
from torch.fx import Node

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
from trainables.kernels.layout import Doubles, vectors_of
from trainables.kernels.maps import Bits, Buffer, Floats, Padded, Row
from trainables.models.compact import Compact
from trainables.runtimes.packed_layers import (
    Chain,
    Quantizer,
    Wiring,
    argument,
    as_numpy,
    bias_of,
    bound_of,
    geometry_of,
    planes_of,
    pool_window,
    pooled_size,
)
from trainables.runtimes.packed_weights import FewValues, few_values

_ADD = (operator.add, operator.iadd, torch.add)
_WANTED = "the packed runtime wants compress.activations: sign or ternary, with model.block: bn_first or vgg_small"


def compile_rows(network: Compact, image_shape: tuple[int, int, int]) -> tuple[list[Row], int]:
    """The operations that compute the logits of `network` on images (C, H, W), and the number of classes.

    Raises:
        InfeasibleError: it has an operation, or activations, that the kernels do not know; the message names the layer.

    """
    for name, activation in network.activations.items():
        if activation.kind not in {"sign", "ternary"}:
            msg = f"{name}: activations are {activation.kind}; {_WANTED}"
            raise InfeasibleError(msg)
    if not network.activations:
        msg = f"no activation of this network has 1 or 2 bits; {_WANTED}"
        raise InfeasibleError(msg)
    compiler = _Compiler(network, image_shape)
    classes = compiler.logits()
    return compiler.rows, classes


class _Compiler:
    """Asks backwards from the logits; what a node gives is made once, and the rows come out in the order of need."""

    def __init__(self, network: Compact, image_shape: tuple[int, int, int]) -> None:
        self.few_bits = network.bits
        self.wiring = Wiring(network.model)
        self.image_shape = image_shape
        self.rows: list[Row] = []
        self.made_bits: dict[Node, Bits] = {}
        self.made_floats: dict[Node, Floats] = {}
        self.made_padded: dict[tuple[Node, int], Padded] = {}
        windows = [geometry_of(str(node.target), layer) for node, layer in self.wiring.convolutions()]
        self.border = max((window.padding for window in windows), default=0)

    def logits(self) -> int:
        """Rows up to the logits; the number of classes."""
        node = argument(next(node for node in self.wiring.nodes if node.op == "output"))
        layer = self.wiring.layer(node)
        if not isinstance(layer, nn.Linear):
            raise self.unknown(node, "a linear layer at the end")
        features = self.mean(argument(node))
        self.rows.append(rows.linear(features, as_numpy(layer.weight), bias_of(layer).astype(np.float32)))
        return layer.out_features

    def mean(self, node: Node) -> Buffer:
        """The mean of each channel over the image, with the BN and ReLU before it."""
        layer = self.wiring.layer(node)
        if not isinstance(layer, nn.AdaptiveAvgPool2d) or layer.output_size not in (1, (1, 1)):
            raise self.unknown(node, "the mean over the image before the linear layer")
        inner = argument(node)
        relu = self.wiring.is_relu(inner)
        chain = self.wiring.chain(argument(inner) if relu else inner)
        source = self.floats(chain.base)
        size = 32 * vectors_of(source.channels)
        output = Buffer(size, 1, ("mean", size))
        self.rows.append(rows.mean(source, output, *chain.line(source.channels), relu))
        return output

    def bits(self, node: Node) -> Bits:
        """The packed activations that `node` gives."""
        layer = self.wiring.layer(node)
        if node not in self.made_bits and isinstance(layer, Quantizer):
            self.quantize(node, layer)
        elif node not in self.made_bits and isinstance(layer, nn.MaxPool2d):
            source = self.bits(argument(node))
            size = pooled_size(layer, source.height, source.width)
            self.made_bits[node] = Bits.new(source.channels, *size, self.border, source.planes)
            self.rows.append(rows.pool_bits(source, self.made_bits[node], *pool_window(layer)))
        return self.made_bits[node]

    def quantize(self, node: Node, layer: Quantizer) -> None:
        """Make the activations of a quantizer, in the row of the convolution before it where that is possible."""
        before = self.wiring.convolution_before(argument(node))
        if before is not None and self.wiring.alone(argument(node), node):
            chain, conv = before
            weights = self.few_values(chain.base, conv)
            source = None if weights is None else self.bits(argument(chain.base))
            if weights and source and source.planes == planes_of(layer) and not weights.offset.any():
                self.thresholds(node, layer, chain, conv, weights, source)
                return
        chain = self.wiring.chain(argument(node))
        if chain.base not in self.made_floats:
            self.make(chain.base)
        if node not in self.made_bits:
            source = self.made_floats[chain.base]
            following = self.following(node, layer, (source.channels, source.height, source.width))
            self.rows.append(rows.pack(source, following))
            self.made_bits[node] = following.bits

    def thresholds(
        self, node: Node, layer: Quantizer, chain: Chain, conv: nn.Conv2d, weights: FewValues, source: Bits
    ) -> None:
        """Convolution, BN, activation: the activation by thresholds of the integer sums."""
        geometry = geometry_of(str(chain.base.target), conv)
        window = geometry.on(source)
        target = Bits.new(conv.out_channels, window.out_height, window.out_width, self.border, source.planes)
        bias = bias_of(conv)

        def z(sums: Doubles) -> Doubles:
            return chain.apply(weights.magnitude * sums + bias)

        finish = ToBits(z, chain.line(conv.out_channels)[0] < 0, bound_of(layer), target)
        self.rows.append(bit_convolution(source, weights.signs, geometry, finish))
        self.made_bits[node] = target

    def floats(self, node: Node) -> Floats:
        """The fp32 maps that `node` gives."""
        if node not in self.made_floats:
            self.make(node)
        return self.made_floats[node]

    def make(self, node: Node) -> None:
        """Make the fp32 maps of a node, or, where nothing else reads them, the activations that follow alone."""
        before, chain, layer = self.wiring.convolution_before(node), self.wiring.chain(node), self.wiring.layer(node)
        if before is not None:
            self.convolve(node, *before, None)
        elif chain.norms:
            self.affine(node, chain, relu=False)
        elif self.wiring.is_relu(node):
            self.affine(node, self.wiring.chain(argument(node)), relu=True)
        elif node.target in _ADD:
            self.add(node)
        elif self.wiring.gives_bits(node):
            source = self.bits(node)
            self.made_floats[node] = Floats.new(source.channels, source.height, source.width)
            self.rows.append(rows.unpack(source, self.made_floats[node]))
        elif isinstance(layer, nn.MaxPool2d):
            source = self.floats(argument(node))
            self.made_floats[node] = Floats.new(source.channels, *pooled_size(layer, source.height, source.width))
            self.rows.append(rows.pool_float(source, self.made_floats[node], *pool_window(layer)))
        else:
            raise self.unknown(node, "convolutions, BN, sums, max poolings and quantized activations")

    def affine(self, node: Node, chain: Chain, relu: bool) -> None:
        """BN, and ReLU, that no other row can take over."""
        source = self.floats(chain.base)
        self.made_floats[node] = Floats.new(source.channels, source.height, source.width)
        self.rows.append(rows.affine(source, None, self.made_floats[node], *chain.line(source.channels), relu))

    def add(self, node: Node) -> None:
        """The residual joins the row of the convolution that it is added to."""
        for one, other in (node.args[:2], node.args[1::-1]):
            before = self.wiring.convolution_before(one) if isinstance(one, Node) else None
            if before is not None and isinstance(one, Node) and isinstance(other, Node) and len(one.users) == 1:
                self.convolve(node, *before, self.floats(other))
                return
        raise self.unknown(node, "sums of a convolution and another map")

    def convolve(self, node: Node, chain: Chain, conv: nn.Conv2d, residual: Floats | None) -> None:
        """`node` = BN(conv(x)) + residual in fp32, with the next activation in the same row where there is one."""
        geometry = geometry_of(str(chain.base.target), conv)
        weights = self.few_values(chain.base, conv)
        given = argument(chain.base)
        source = self.padded(chain.base, geometry) if weights is None else self.bits(given)
        window = geometry.on(source)
        size = (conv.out_channels, window.out_height, window.out_width)
        after = self.wiring.next_quantizer(node, source.planes if isinstance(source, Bits) else 1)
        following = None if after is None else self.following(*after, size)
        output = None if after is not None and self.wiring.alone(node, after[0]) else Floats.new(*size)
        scale, shift = chain.line(conv.out_channels)
        shift = shift + scale * bias_of(conv)
        if weights is not None and isinstance(source, Bits):
            if weights.offset.any():
                residual = self.window_sums(source, geometry, scale * weights.offset, residual, size)
            finish = ToFloats(scale * weights.magnitude, shift, residual, output, following)
            self.rows.append(bit_convolution(source, weights.signs, geometry, finish))
        elif isinstance(source, Padded):
            finish = ToFloats(scale, shift, residual, output, following)
            self.rows.append(float_convolution(source, as_numpy(conv.weight), geometry, finish))
        if output is not None:
            self.made_floats[node] = output
        if after is not None and following is not None:
            self.made_bits[after[0]] = following.bits

    def window_sums(
        self, source: Bits, geometry: Geometry, scale: Doubles, residual: Floats | None, size: tuple[int, int, int]
    ) -> Floats:
        """What the offsets of filters with two free values add."""
        sums = Floats.new(*size)
        self.rows.append(window_sums(source, geometry, scale, residual, sums))
        return sums

    def following(self, node: Node, layer: Quantizer, size: tuple[int, int, int]) -> Next:
        """The activation `node` as the end of the row that makes the base of its chain."""
        scale, shift = self.wiring.chain(argument(node)).line(size[0])
        return Next(scale, shift, bound_of(layer), Bits.new(*size, self.border, planes_of(layer)))

    def padded(self, conv: Node, geometry: Geometry) -> Padded:
        """The floats that an fp32 convolution reads: the images, or packed activations as -1, 0, +1.

        Raises:
            InfeasibleError: they are neither.

        """
        node = argument(conv)
        key = (node, geometry.padding)
        if key in self.made_padded:
            return self.made_padded[key]
        if node.op == "placeholder":
            made = Padded.new(*self.image_shape, geometry.padding)
            self.rows.append(rows.image(made))
        elif self.wiring.gives_bits(node):
            source = self.bits(node)
            made = Padded.new(source.channels, source.height, source.width, geometry.padding)
            self.rows.append(rows.unpack(source, made))
        else:
            raise self.unknown(conv, "inputs of 1 or 2 bits for every convolution but the first")
        self.made_padded[key] = made
        return made

    def few_values(self, node: Node, conv: nn.Conv2d) -> FewValues | None:
        """The weights of a convolution that runs on bits, as its weights are few-valued and its inputs packed."""
        name = str(node.target)
        if name not in self.few_bits or not self.wiring.gives_bits(argument(node)):
            return None
        return few_values(name, as_numpy(conv.weight))

    def unknown(self, node: Node, known: str) -> InfeasibleError:
        """The error of a node that the runtime cannot run."""
        layer = self.wiring.layer(node)
        name = node.name if layer is None else f"{node.target} ({type(layer).__name__})"
        return InfeasibleError(f"{name}: here the packed runtime wants {known}; {_WANTED}")
