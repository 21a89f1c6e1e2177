"""Int8 in an ONNX graph: QuantizeLinear and DequantizeLinear around what the runtimes fuse into integer kernels.

Weights: one step a filter, zero point 0. A filter {-s, 0, +s} becomes {-64, 0, +64} with step s / 64: exact, as 64 is a
power of two. With it the bias, an int32 in steps of (input's step) x (weight's step), is 64 times finer than with +-1,
and a pair of products (2 x 255 x 64) fits the 16 bits that CPUs without VNNI have for it. Other filters get the step
max|w| / 127. A layer whose filters hold two free values has no such step: it stays fp32, weights and activations.
Weights that lie on a grid keep its step, over the largest power of two with which no integer is above 64: exact too.

Activations: one step a tensor, zero point 0: uint8 where no value is negative, else int8. Rounded are the inputs of
convolutions and linear layers, and the outputs of convolutions behind their ReLU, without which ONNX Runtime would
compute them in fp32; never the logits. Steps that the graph has already, of trained int8 activations, stay.

Where activations have one or two bits nothing else is rounded: a step of 8 bits before a sign would turn many signs.
There the layers that read them are int8, which is exact, and all others fp32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from trainables.export.calibration import ranges

MATRIX = ("Conv", "Gemm", "MatMul")
CLIPPING = ("Relu", "Clip")
MOVING = ("MaxPool", "Reshape", "Flatten", "Identity", "Transpose", "Squeeze", "Unsqueeze")
EXACT_LEVEL = 64
INT32_LIMIT = 2**31 - 1

Grids = Mapping[str, NDArray[np.float32]]


def to_int8(
    model: onnx.ModelProto, images: NDArray[np.float32], *, exact: bool = False, grids: Grids = MappingProxyType({})
) -> onnx.ModelProto:
    """The int8 twin of an fp32 `model`; its steps cover the ranges seen on `images` (N, C, H, W), N >= 1.

    With `exact` only layers whose inputs have a step already become int8, and nothing more is rounded, biases included.
    `grids` are the steps of weights that lie on grids, (O,) each, by the name of the constant.
    """
    network = Network(model, exact=exact, grids=grids)
    tensors = rounded_tensors(network)
    steps = {name: Step.of(*seen) for name, seen in ranges(model, tensors, images).items()}
    for name in tensors:
        steps[name] = steps.get(network.source(name)) or network.known_step(name) or steps[name]
    return _Rewriter(network, steps).rewritten(model)


@dataclass(frozen=True, slots=True)
class Step:
    """How activations are rounded: value = size x integer, the integer an int8 or a uint8."""

    size: float
    signed: bool

    @classmethod
    def of(cls, low: float, high: float) -> "Step":
        """The smallest under which [low, high] is covered."""
        size = high / 255 if low >= 0 else max(-low, high) / 127
        return cls(max(size, float(np.finfo(np.float32).tiny)), signed=low < 0)


class Network:
    """An ONNX graph with its edges: who makes a tensor and who reads it."""

    def __init__(self, model: onnx.ModelProto, *, exact: bool = False, grids: Grids = MappingProxyType({})) -> None:
        self.exact = exact
        self.grids = grids
        self.nodes = list(model.graph.node)
        self.constants = {one.name: one for one in model.graph.initializer}
        self.inputs = [one.name for one in model.graph.input]
        self.ends = {one.name for one in model.graph.output}
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def layers(self) -> list[NodeProto]:
        """Convolutions and matrix products whose constant weights int8 can hold, and whose inputs it may."""
        found = [node for node in self.nodes if node.op_type in MATRIX and node.input[1] in self.constants]
        readable = [node for node in found if not self.exact or self.known_step(node.input[0])]
        return [n for n in readable if n.input[1] in self.grids or not has_two_free_values(self.filters(n))]

    def integers(self, layer: NodeProto) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """(integers (O, n), steps (O,)) of a layer's weights."""
        steps = self.grids.get(layer.input[1])
        return integer_filters(self.filters(layer)) if steps is None else grid_integers(self.filters(layer), steps)

    def array(self, name: str) -> NDArray[np.float32]:
        """The values of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def filters(self, layer: NodeProto) -> NDArray[np.float32]:
        """Weights of a layer, one row a filter, (O, n)."""
        weights = np.moveaxis(self.array(layer.input[1]), filter_axis(layer, self), 0)
        return weights.reshape(len(weights), -1)

    def behind_clipping(self, name: str) -> str:
        """The tensor behind the ReLU that alone reads `name`, else `name`."""
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and readers[0].op_type in CLIPPING and name not in self.ends
        return self.behind_clipping(readers[0].output[0]) if alone else name

    def source(self, name: str) -> str:
        """The tensor that `name` holds values of, only moved."""
        maker = self.maker.get(name)
        return self.source(maker.input[0]) if maker is not None and maker.op_type in MOVING else name

    def known_step(self, name: str) -> Step | None:
        """The step that the values of `name` have already, if a DequantizeLinear gave them."""
        maker = self.maker.get(self.source(name))
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        return Step(float(self.array(maker.input[1])), signed=self.array(maker.input[2]).dtype == np.int8)


def filter_axis(layer: NodeProto, network: Network) -> int:
    """Which axis of a layer's weights counts its filters."""
    if layer.op_type == "MatMul":
        return len(network.constants[layer.input[1]].dims) - 1
    transposed = any(one.name == "transB" and one.i == 1 for one in layer.attribute)
    return 0 if layer.op_type == "Conv" or transposed else 1


def is_symmetric(filters: NDArray[np.float32]) -> bool:
    """Whether each row holds nothing but -s, 0 and +s."""
    magnitude = np.abs(filters)
    return bool(((magnitude == 0) | (magnitude == magnitude.max(axis=1, keepdims=True))).all())


def has_two_free_values(filters: NDArray[np.float32]) -> bool:
    """Whether each row holds at most two values, which are not -s and +s (or 0) in all of them."""
    low, high = filters.min(axis=1, keepdims=True), filters.max(axis=1, keepdims=True)
    return bool(((filters == low) | (filters == high)).all()) and not is_symmetric(filters)


def integer_filters(filters: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(integers (O, n), steps (O,)) of weights (O, n); rows {-s, 0, +s} are exact if all rows are such."""
    largest = np.abs(filters).max(axis=1)
    largest = np.where(largest > 0, largest, largest.max() or np.float32(1))
    steps = (largest / np.float32(EXACT_LEVEL if is_symmetric(filters) else 127)).astype(np.float32)
    return np.rint(filters / steps[:, None]).astype(np.int8), steps


def grid_integers(
    filters: NDArray[np.float32], steps: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(integers (O, n), steps (O,)) of weights (O, n) that are whole multiples, -128 to 127, of `steps` (O,)."""
    codes = np.rint(filters / steps[:, None])
    finer = 2 ** np.floor(np.log2(EXACT_LEVEL / np.clip(np.abs(codes).max(axis=1), 1, EXACT_LEVEL)))
    return (codes * finer[:, None]).astype(np.int8), (steps / finer).astype(np.float32)


def rounded_tensors(network: Network) -> list[str]:
    """The activations to round, in the order of the graph; those that are rounded already are left out."""
    if network.exact:
        return []
    found: dict[str, None] = {}
    for layer in network.layers():
        found[layer.input[0]] = None
        if layer.op_type == "Conv":
            found[network.behind_clipping(layer.output[0])] = None
    return [name for name in found if name not in network.ends and not _is_rounded(network, name)]


def _is_rounded(network: Network, name: str) -> bool:
    maker = network.maker.get(name)
    readers = network.readers.get(name, [])
    dequantized = maker is not None and maker.op_type == "DequantizeLinear"
    return dequantized or any(node.op_type == "QuantizeLinear" for node in readers)


@dataclass
class _Rewriter:
    """Writes the nodes of a network anew, with rounding between them."""

    network: Network
    steps: dict[str, Step]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def rewritten(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """`model` in int8."""
        layers = {layer.output[0] for layer in self.network.layers()}
        for name in self.network.inputs:
            self._round(name)
        for node in self.network.nodes:
            self._add(node, is_layer=node.output[0] in layers)
        rewritten = onnx.ModelProto()
        rewritten.CopyFrom(model)
        graph = rewritten.graph
        read = {name for node in self.nodes for name in node.input}
        constants = [one for one in graph.initializer if one.name in read] + list(self.constants.values())
        for part in (graph.node, graph.initializer, graph.value_info):
            del part[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(constants)
        onnx.checker.check_model(rewritten)
        return rewritten

    def _add(self, node: NodeProto, is_layer: bool) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in self.steps:
                copy.input[place] = f"{name}_rounded"
        if is_layer:
            self._quantize_layer(node, copy)
        self.nodes.append(copy)
        for name in node.output:
            self._round(name)

    def _round(self, name: str) -> None:
        """QuantizeLinear and DequantizeLinear behind `name`, if it has a step."""
        step = self.steps.get(name)
        if step is None:
            return
        scale = self._constant(f"{name}_step", np.float32(step.size))
        zero = self._constant(f"{name}_zero", np.int8(0) if step.signed else np.uint8(0))
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_integer"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}_integer", scale, zero], [f"{name}_rounded"]))

    def _quantize_layer(self, layer: NodeProto, copy: NodeProto) -> None:
        """The weights of `copy` as int8, and its bias as the int32 that integer kernels add to their sums."""
        weights, axis = layer.input[1], filter_axis(layer, self.network)
        integers, steps = self.network.integers(layer)
        shape = np.moveaxis(self.network.array(weights), axis, 0).shape
        copy.input[1] = self._dequantized(weights, np.moveaxis(integers.reshape(shape), 0, axis), steps, axis)
        if self.network.exact or len(layer.input) < 3 or layer.input[2] not in self.network.constants:
            return
        sums = (steps * np.float32(self._input_step(layer.input[0]))).astype(np.float32)
        bias = np.rint(self.network.array(layer.input[2]).astype(np.float64) / sums)
        if np.abs(bias).max() <= INT32_LIMIT:
            copy.input[2] = self._dequantized(f"{layer.output[0]}_bias", bias.astype(np.int32), sums, 0)

    def _input_step(self, name: str) -> float:
        step = self.steps.get(name) or self.network.known_step(name)
        return 1.0 if step is None else step.size

    def _dequantized(self, name: str, integers: NDArray, steps: NDArray[np.float32], axis: int) -> str:
        """The name of constant floats: integers x steps along `axis`."""
        floats = f"{name}_floats"
        if f"{name}_integers" not in self.constants:
            zeros = np.zeros(len(steps), integers.dtype)
            parts = [self._constant(f"{name}_integers", integers), self._constant(f"{name}_steps", steps)]
            parts.append(self._constant(f"{name}_zeros", zeros))
            self.nodes.append(helper.make_node("DequantizeLinear", parts, [floats], axis=axis))
        return floats

    def _constant(self, name: str, value: NDArray | np.generic) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name
