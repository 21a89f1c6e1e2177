"""The ONNX file computes what the network computes: in fp32 to rounding, in int8 with exact weights."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from trainables.config import DataConfig, ModelConfig, TrialConfig, resolve
from trainables.data.load import Dataset, load, normalise
from trainables.errors import ExportError, InfeasibleError
from trainables.export.folding import fold_batch_norms
from trainables.export.onnx import to_onnx
from trainables.export.qdq import EXACT_LEVEL, Step, has_two_free_values, integer_filters, to_int8
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.quantize import (
    Activation,
    IntActivation,
    install_activations,
    plain_layer,
    quantized_twin,
    replace_module,
    ternarize,
    two_valued,
)
from trainables.runtimes import onnxruntime, openvino
from trainables.runtimes.agreement import EXACT, ROUNDED, check_agreement
from trainables.runtimes.base import Logits
from trainables.training.loop import Settings, fit, predict
from trainables.training.randomness import generator

torch.set_num_threads(1)

RUNTIMES = {"openvino": openvino.load, "onnxruntime": onnxruntime.load}
MODEL = ModelConfig(name="resnet8", width=8)
ARITHMETIC = {"Conv", "Relu", "Add", "ReduceMean", "Reshape", "Gemm", "QuantizeLinear", "DequantizeLinear"}


def shaken(model: nn.Module) -> nn.Module:
    """`model` with BN that shifts, scales and has statistics, in eval mode."""
    draw = generator(0, "calibration")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(module.bias, 0, 0.2, generator=draw)
            module.get_buffer("running_mean").normal_(0, 0.3, generator=draw)
            module.get_buffer("running_var").uniform_(0.5, 2, generator=draw)
    return model.eval()


def resnet(block: str, kind: str | None) -> Compact:
    """A ResNet-8 of random weights whose blocks have activations of `kind`."""
    model = build(MODEL.model_copy(update={"block": block}), 1, 10)
    initialise(model, generator(0, "init"))
    values = {"sign": 0.0, "ternary": 0.4, "int8": 0.02}
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU) and "stages" in name]
    activations = {name: Activation(kind, values[kind]) for name in names} if kind else {}  # pyright: ignore[reportArgumentType]
    install_activations(model, activations)
    return Compact(shaken(model), activations=activations)


def images(count: int, channels: int, size: int) -> NDArray[np.float32]:
    return torch.randn(count, channels, size, size, generator=generator(0, "query")).numpy()


@torch.no_grad()
def by_torch(model: nn.Module, x: NDArray[np.float32]) -> Logits:
    return model(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize(
    ("block", "kind"),
    [("standard", None), ("standard", "int8"), ("bn_first", "sign"), ("bn_first", "ternary")],
)
def test_the_fp32_graph_is_the_network(block: str, kind: str | None) -> None:
    network = resnet(block, kind)
    file = to_onnx(network, torch.zeros(1, 1, 8, 8), None)
    for opened in RUNTIMES.values():
        run = opened(file)
        for count in (1, 7, 2):
            x = images(count, 1, 8)
            np.testing.assert_allclose(run(x), by_torch(network.model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sign", "ternary"])
def test_int8_beside_activations_of_few_bits_is_the_network(kind: str) -> None:
    network = resnet("bn_first", kind)
    for name, layer in network.model.named_modules():
        if isinstance(layer, nn.Conv2d) and "stages" in name:
            layer.weight.data = ternarize(layer.weight.data, 0.7, "mean", "filter")
    x = images(20, 1, 8)
    file = to_onnx(network, torch.zeros(1, 1, 8, 8), torch.from_numpy(x))
    # eight convolutions in the blocks, shortcuts included; stem and classifier stay fp32
    assert len(dequantized_weights(onnx.load_model_from_string(file))) == 8
    for opened in RUNTIMES.values():
        np.testing.assert_allclose(opened(file)(x), by_torch(network.model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "int8_runtime"), [("mobilenet_v2", "openvino"), ("densenet121", "onnxruntime")])
def test_networks_of_torchvision(name: str, int8_runtime: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = shaken(torchvision.models.get_model(name, weights=None, num_classes=10))
    x = images(3, 3, 32)
    expected = by_torch(model, x)
    file = to_onnx(Compact(model), torch.zeros(1, 3, 32, 32), None)
    int8 = to_int8(onnx.load_model_from_string(file), x)
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())
    assert len(dequantized_weights(int8)) == layers
    for opened in RUNTIMES.values():
        np.testing.assert_allclose(opened(file)(x), expected, rtol=1e-3, atol=1e-5)
    assert relative_error(RUNTIMES[int8_runtime](int8.SerializeToString())(x), expected) < 0.25


def dequantized_weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The floats that int8 weights stand for, by the name of the fp32 constant."""
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    found: dict[str, NDArray[np.float32]] = {}
    for node in model.graph.node:
        integers = stored.get(node.input[0])
        if node.op_type == "DequantizeLinear" and integers is not None and integers.dtype == np.int8:
            (axis,) = (one.i for one in node.attribute if one.name == "axis")
            shape = [-1 if place == axis else 1 for place in range(integers.ndim)]
            name = node.input[0].removesuffix("_integers")
            found[name] = integers.astype(np.float32) * stored[node.input[1]].reshape(shape)
    return found


def relative_error(found: Logits, expected: Logits) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_folding_rounds_each_weight_once() -> None:
    network = resnet("standard", None)
    folded = copy.deepcopy(network.model)
    fold_batch_norms(folded)
    norm, conv = network.model.get_submodule("stages.1.0.bn2"), network.model.get_submodule("stages.1.0.conv2")
    ratio = norm.get_parameter("weight").double() / (norm.get_buffer("running_var").double() + 1e-5).sqrt()
    exact = conv.get_parameter("weight").double() * ratio.view(-1, 1, 1, 1)
    assert torch.equal(folded.get_submodule("stages.1.0.conv2").get_parameter("weight"), exact.float())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    kept = copy.deepcopy(resnet("bn_first", None).model)
    fold_batch_norms(kept)
    left = [name for name, module in kept.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == ["stages.0.0.bn1", "stages.1.0.bn1", "stages.2.0.bn1", "head.bn"]


magnitudes = st.floats(2**-60, 2**60, width=32)


@given(st.lists(st.tuples(magnitudes, st.lists(st.sampled_from([-1, 0, 1]), min_size=9, max_size=9)), min_size=1))
@settings(max_examples=200, deadline=None)
def test_integers_of_one_magnitude_are_exact(rows: list[tuple[float, list[int]]]) -> None:
    filters = np.array([[np.float32(scale) * sign for sign in signs] for scale, signs in rows], np.float32)
    integers, steps = integer_filters(filters)
    assert np.array_equal(integers * steps[:, None], filters)
    assert set(np.unique(integers)) <= {-EXACT_LEVEL, 0, EXACT_LEVEL}


def test_other_filters_are_off_by_half_a_step_at_most() -> None:
    filters = np.random.default_rng(0).normal(size=(16, 27)).astype(np.float32)
    integers, steps = integer_filters(filters)
    assert (np.abs(integers * steps[:, None] - filters) <= steps[:, None] * 0.5001).all()
    assert integers.max() == 127
    assert not has_two_free_values(filters)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(resolve(TrialConfig(data=DataConfig(name="digits"), model=MODEL), "fp32").data, 0, Path())


@pytest.fixture(scope="module")
def calibration(data: Dataset) -> Tensor:
    return normalise(data.train.images[:256], data)


def trained(data: Dataset, calibration: Tensor, block: str, int8: bool) -> Compact:
    """A ResNet-8 with ternary weights in its blocks, trained on digits, with int8 activations where asked."""
    model = build(MODEL.model_copy(update={"block": block}), 1, 10)
    initialise(model, generator(0, "init"))
    fit(model, data, schedule(3), 0)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and name != "stem.conv":
            replace_module(model, name, quantized_twin(module, lambda w: ternarize(w, 0.7, "mean", "filter")))
    activations = calibrated(model, calibration) if int8 else {}
    fit(model, data, schedule(3), 0)
    bits: dict[str, int] = {}
    for name, module in list(model.named_modules()):
        if hasattr(module, "quantizer"):
            replace_module(model, name, plain_layer(module))  # pyright: ignore[reportArgumentType]
            bits[name] = 2
    return Compact(model.eval(), bits, activations=activations)


def schedule(epochs: int) -> Settings:
    return Settings(epochs, 0.1, 0.9, 5e-4, 60, "onecycle", 0.0, "fp32", "none", "cpu")


@torch.no_grad()
def calibrated(model: nn.Module, calibration: Tensor) -> dict[str, Activation]:
    """Int8 activations in the blocks of `model`, which cover what the calibration images give them."""
    model.eval()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU) and "stages" in name]
    largest: dict[str, float] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda *args, name=name: largest.update({name: args[2].max().item()})
        )
        for name in names
    ]
    model(calibration)
    for hook in hooks:
        hook.remove()
    activations = {name: Activation("int8", largest[name] / 255) for name in names}
    install_activations(model, activations)
    return activations


@pytest.fixture(scope="module")
def ternary(data: Dataset, calibration: Tensor) -> Compact:
    return trained(data, calibration, "standard", int8=False)


@pytest.fixture(scope="module")
def ternary_file(ternary: Compact, calibration: Tensor) -> bytes:
    return to_onnx(ternary, calibration[:1], calibration)


def constants(file: bytes) -> dict[str, NDArray[np.float32]]:
    model = onnx.load_model_from_string(file)
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def test_few_valued_weights_are_exact_in_int8(ternary: Compact, ternary_file: bytes) -> None:
    folded = copy.deepcopy(ternary.model)
    fold_batch_norms(folded)
    found = dequantized_weights(onnx.load_model_from_string(ternary_file))
    integers = constants(ternary_file)
    assert len(ternary.bits) == 8
    for name in ternary.bits:
        expected = folded.get_submodule(name).get_parameter("weight").detach().numpy()
        assert np.array_equal(found[f"{name}.weight"], expected)
        assert set(np.unique(integers[f"{name}.weight_integers"])) == {-EXACT_LEVEL, 0, EXACT_LEVEL}
    assert {integers[f"{name}.weight_integers"].dtype for name in ("stem.conv", "classifier")} == {np.dtype(np.int8)}


def test_a_file_says_the_same_each_time_and_nothing_of_the_machine(
    ternary: Compact, ternary_file: bytes, calibration: Tensor
) -> None:
    assert ternary_file == to_onnx(ternary, calibration[:1], calibration)
    assert b".py" not in ternary_file
    model = onnx.load_model_from_string(ternary_file)
    (taken,), (given_back,) = model.graph.input, model.graph.output
    assert (taken.name, given_back.name) == ("images", "logits")
    assert [one.dim_param or one.dim_value for one in taken.type.tensor_type.shape.dim] == ["batch", 1, 8, 8]


def test_training_leaves_no_shape_arithmetic_in_the_graph(ternary_file: bytes) -> None:
    # a network in channels_last once exported its pooling as a Range and a Gather, under which OpenVINO went wrong
    assert {node.op_type for node in onnx.load_model_from_string(ternary_file).graph.node} == ARITHMETIC


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_predicts_what_the_network_predicts(
    runtime: str, ternary: Compact, ternary_file: bytes, data: Dataset
) -> None:
    expected = predict(ternary.model, data.test, data).numpy()
    x = normalise(data.test.images, data).numpy()
    run = RUNTIMES[runtime](ternary_file)
    measured = check_agreement(expected, run(x), ROUNDED)
    assert 0 < measured.max_difference < 0.1 * float(np.abs(expected).max())
    np.testing.assert_allclose(run(x[:1]), run(x[:3])[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", ["standard", "bn_first"])
def test_trained_int8_activations_keep_their_steps(block: str, data: Dataset, calibration: Tensor) -> None:
    network = trained(data, calibration, block, int8=True)
    assert any(isinstance(module, IntActivation) for module in network.model.modules())
    expected = predict(network.model, data.test, data).numpy()
    x = normalise(data.test.images, data).numpy()
    rounded = to_onnx(network, calibration[:1], calibration)
    steps = {float(value) for name, value in constants(rounded).items() if name.endswith("step") and value.ndim == 0}
    assert {float(np.float32(one.value)) for one in network.activations.values()} <= steps
    for opened in RUNTIMES.values():
        measured = check_agreement(expected, opened(rounded)(x), ROUNDED)
        assert measured.agreement >= 0.99
        assert measured.max_difference < 0.1 * float(np.abs(expected).max())


def test_two_free_values_stay_fp32(ternary: Compact, calibration: Tensor) -> None:
    model = copy.deepcopy(ternary.model)
    layer = model.get_submodule("stages.1.0.conv2").get_parameter("weight")
    layer.data = two_valued(torch.randn(layer.shape, generator=generator(0, "init"))).detach()
    network = Compact(model, {**ternary.bits, "stages.1.0.conv2": 1})
    file = to_onnx(network, calibration[:1], calibration)
    folded = copy.deepcopy(model)
    fold_batch_norms(folded)
    expected = folded.get_submodule("stages.1.0.conv2").get_parameter("weight").detach().numpy()
    assert has_two_free_values(expected.reshape(len(expected), -1))
    assert np.array_equal(constants(file)["stages.1.0.conv2.weight"], expected)
    assert len(dequantized_weights(onnx.load_model_from_string(file))) == 9
    x = calibration.numpy()
    for opened in RUNTIMES.values():
        assert relative_error(opened(file)(x), by_torch(model, x)) < 0.05


def test_signs_are_integers_in_int8(calibration: Tensor) -> None:
    network = resnet("bn_first", "sign")
    file = to_onnx(network, calibration[:1], calibration)
    scales = [value for name, value in constants(file).items() if name.endswith("step") and value.ndim == 0]
    assert np.float32(1) in scales
    x = calibration[:64].numpy()
    runs = [opened(file)(x) for opened in RUNTIMES.values()]
    assert relative_error(runs[0], runs[1]) < 0.3


def test_a_broken_export_is_refused_with_the_size_of_the_difference(
    ternary: Compact, ternary_file: bytes, data: Dataset
) -> None:
    model = onnx.load_model_from_string(ternary_file)
    (weights,) = (one for one in model.graph.initializer if one.name == "stages.1.0.conv1.weight_integers")
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    expected = predict(ternary.model, data.test, data).numpy()
    found = onnxruntime.load(model.SerializeToString())(normalise(data.test.images, data).numpy())
    difference = float(np.abs(found.astype(np.float64) - expected).max())
    for rule in (EXACT, ROUNDED):
        with pytest.raises(ExportError, match=f"another class for .* of 360 images.* up to {difference:.3g}, "):
            check_agreement(expected, found, rule)


def test_steps_that_are_too_coarse_are_refused(ternary: Compact, ternary_file: bytes, data: Dataset) -> None:
    model = onnx.load_model_from_string(ternary_file)
    expected = predict(ternary.model, data.test, data).numpy()
    for one in model.graph.initializer:
        if one.name.endswith("step") and not one.dims:
            one.CopyFrom(numpy_helper.from_array(8 * numpy_helper.to_array(one), one.name))
    found = onnxruntime.load(model.SerializeToString())(normalise(data.test.images, data).numpy())
    with pytest.raises(ExportError, match="in the median image by"):
        check_agreement(expected, found, replace(ROUNDED, other=1.0))


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Unwritable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x).flatten(1)


def test_what_cannot_be_written_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InfeasibleError, match="the graph of Undecided cannot be traced"):
        to_onnx(Compact(Undecided()), torch.zeros(1, 1, 8, 8), None)
    with pytest.raises(ExportError, match="torch cannot write Unwritable as ONNX: "):
        to_onnx(Compact(Unwritable()), torch.zeros(1, 1, 8, 8), None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [
        (-3, 1, Step(3 / 127, signed=True)),
        (-1, 3, Step(3 / 127, signed=True)),
        (-2, 2, Step(2 / 127, signed=True)),
        (0, 2, Step(2 / 255, signed=False)),
    ],
)
def test_a_step_covers_the_farther_end_of_the_range(low: float, high: float, step: Step) -> None:
    assert Step.of(low, high) == step
