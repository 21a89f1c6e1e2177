"""Runtimes run what they are given on the threads they are given, in silence; and when predictions count as equal."""

import copy
import subprocess
import sys
import time
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from trainables.config import ModelConfig, Runtime
from trainables.errors import ExportError, InfeasibleError, MissingExtraError
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.quantize import Activation, binarize, install_activations, ternarize
from trainables.runtimes import onnxruntime as onnxruntime_runtime
from trainables.runtimes import openvino as openvino_runtime
from trainables.runtimes.agreement import EXACT, ROUNDED, STEPPED, Rule, check_agreement, rule_for
from trainables.runtimes.registry import LOADERS, has_int8_graph, onnx_graph, open_network, rounds_to_int8
from trainables.training.randomness import generator

torch.set_num_threads(1)

ONNX_RUNTIMES: tuple[Runtime, ...] = ("openvino", "onnxruntime")


def network(binary: bool) -> Compact:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
        )  # fmt: skip
    if binary:
        weight = model.get_submodule("2").get_parameter("weight")
        weight.data = binarize(weight, "filter").detach()
    return Compact(model.eval(), {"2": 1} if binary else {})


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def file() -> bytes:
    return onnx_graph(network(binary=False), images(8))


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
@pytest.mark.parametrize("binary", [False, True])
def test_open_network_predicts_in_silence(runtime: Runtime, binary: bool, capfd: pytest.CaptureFixture[str]) -> None:
    opened = network(binary)
    run = open_network(runtime, opened, images(32), threads=1)
    x = images(9)
    with torch.no_grad():
        expected = opened.model(x).numpy()
    found = run(x.numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max() if binary else 1e-5)
    assert np.array_equal(run(x[:4].numpy()), run(x[:4].numpy()))
    assert run(x[:1].numpy()) is not run(x[:1].numpy())
    assert capfd.readouterr() == ("", "")


def test_few_bits_make_the_graph_int8(file: bytes) -> None:
    def operators(model: bytes) -> set[str]:
        return {node.op_type for node in onnx.load_model_from_string(model).graph.node}

    assert "QuantizeLinear" in operators(onnx_graph(network(binary=True), images(8)))
    assert "QuantizeLinear" not in operators(file)


def test_every_runtime_has_a_loader() -> None:
    assert set(LOADERS) == set(Runtime.__args__)


def test_the_packed_runtime_refuses_dense_networks() -> None:
    with pytest.raises(InfeasibleError, match="this network has none; use openvino or onnxruntime"):
        open_network("packed", network(binary=False), images(8), threads=1)


@pytest.mark.parametrize(
    ("runtime", "package"), [("openvino", "openvino"), ("onnxruntime", "onnxruntime"), ("openvino", "onnx")]
)
def test_an_absent_extra_is_one_line(runtime: Runtime, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith(("trainables.runtimes", "trainables.export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    line = rf'^{package} is not installed; .* pip install "sweep-orchestrator\[deploy\]"$'
    with pytest.raises(MissingExtraError, match=line):
        open_network(runtime, network(binary=False), images(8), threads=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_openvino_gets_its_threads_and_stays_in_fp32(
    file: bytes, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[openvino.CompiledModel] = []
    compile_model = openvino.Core.compile_model

    def spy(*args: Any) -> openvino.CompiledModel:
        made.append(compile_model(*args))
        return made[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    openvino_runtime.load(file, threads)
    (compiled,) = made
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_openvino_compiles_each_batch_size_once_and_keeps_a_few(file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[int]] = []
    compile_model = openvino.Core.compile_model

    def spy(core: openvino.Core, graph: openvino.Model, *more: Any) -> openvino.CompiledModel:
        made.append(list(graph.input(0).shape))  # raises where a dimension is open
        return compile_model(core, graph, *more)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    run, x = openvino_runtime.load(file), images(5).numpy()
    expected = run(x)
    for size in (1, 2, 5, 3, 2, 1, 4, 5):
        np.testing.assert_allclose(run(x[:size]), expected[:size], rtol=1e-5, atol=1e-6)
    assert made == [[size, 3, 32, 32] for size in (1, 5, 2, 3, 4, 5)], "the one not used for longest makes room"


@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_gets_its_threads(file: bytes, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[onnxruntime.InferenceSession] = []
    session = onnxruntime.InferenceSession

    def spy(*args: Any, **options: Any) -> onnxruntime.InferenceSession:
        made.append(session(*args, **options))
        return made[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    onnxruntime_runtime.load(file, threads)
    assert [one.get_session_options().intra_op_num_threads for one in made] == [threads]


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_one_thread_takes_no_more_than_one_core(runtime: Runtime, file: bytes) -> None:
    load = {"openvino": openvino_runtime.load, "onnxruntime": onnxruntime_runtime.load}[runtime]
    run, x = load(file, 1), images(64).numpy()
    run(x)
    wall, busy = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < 0.3:
        run(x)
    assert time.process_time() - busy < 1.2 * (time.perf_counter() - wall)


def test_nothing_is_loaded_before_it_is_asked_for_and_nothing_reports_home() -> None:
    code = (
        "import sys, trainables.runtimes.registry\n"
        "early = {name.partition('.')[0] for name in sys.modules}\n"
        "from trainables.runtimes.openvino import load\n"
        "try:\n    load(b'')\nexcept RuntimeError:\n    pass\n"
        "print(*sorted(early & {'onnx', 'onnxruntime', 'openvino', 'numba', 'onnxscript'}), '|',"
        " 'openvino' in sys.modules, any('openvino_telemetry' in name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "| True False\n"


@pytest.mark.parametrize("rule", [EXACT, STEPPED, ROUNDED])
def test_equal_predictions_agree(rule: Rule) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    measured = check_agreement(logits, logits, rule)
    assert (measured.agreement, measured.max_difference) == (1.0, 0.0)


def test_a_class_may_change_only_where_the_margin_is_rounding() -> None:
    expected = np.array([[5.0, 4.9999, 0.0], [5.0, 0.0, 0.0]], np.float32)
    tie = np.array([[4.9999, 5.0, 0.0], [5.0, 0.0, 0.0]], np.float32)
    measured = check_agreement(expected, tie, EXACT)
    assert measured.agreement == 0.5
    assert measured.max_difference == pytest.approx(1e-4, rel=1e-2)
    told = r"another class for 0 of 2 images, .* by up to 0.5, in the median image by 0.25 \(largest logit 5\)"
    with pytest.raises(ExportError, match=told):
        check_agreement(expected, expected + np.array([[0, 0, 0.5], [0, 0, 0]], np.float32), EXACT)


def passes(found: NDArray[np.float32], expected: NDArray[np.float32], rule: Rule) -> bool:
    try:
        check_agreement(expected, found, rule)
    except ExportError:
        return False
    return True


@pytest.mark.parametrize(("rule", "most"), [(EXACT, 0), (STEPPED, 5), (ROUNDED, 2)])
def test_a_stated_share_may_change_its_class(rule: Rule, most: int) -> None:
    expected = np.eye(10, dtype=np.float32)[np.zeros(100, int)]
    for other in range(8):
        found = expected.copy()
        found[:other] = np.eye(10)[1]
        assert passes(found, expected, rule) == (other <= most)


@pytest.mark.parametrize(("rule", "most", "near"), [(EXACT, 0, 1e-3), (STEPPED, 25, 1e-3), (ROUNDED, 50, 0.05)])
def test_a_stated_share_may_have_logits_that_are_not_near(rule: Rule, most: int, near: float) -> None:
    expected = 4 * np.eye(10, dtype=np.float32)[np.zeros(100, int)]
    for far in (0, most, most + 1, 100):
        found = expected.copy()
        found[:far, 1] += 4 * near * 1.01
        found[far:, 1] += 4 * near * 0.99
        assert passes(found, expected, rule) == (far <= most)


@pytest.mark.parametrize("rule", [EXACT, STEPPED, ROUNDED])
def test_what_is_no_number_or_has_another_shape_is_no_agreement(rule: Rule) -> None:
    expected = np.eye(10, dtype=np.float32)
    broken = expected.copy()
    broken[0, 5] = np.nan
    with pytest.raises(ExportError, match="differ by up to nan"):
        check_agreement(expected, broken, rule)
    with pytest.raises(ExportError, match=r"shape \[10, 9\]; the network gives \[10, 10\]"):
        check_agreement(expected, expected[:, :9], rule)


def stepped_resnet20(activation: Activation) -> Compact:
    """Of random ternary weights, its BNs fitted to random images of 32 x 32 pixels."""
    model = build(ModelConfig(name="resnet20", width=16, block="bn_first"), 3, 10)
    initialise(model, generator(0, "init"))
    inner = {name: layer for name, layer in model.named_modules() if name.startswith("stages")}
    bits = {name: 2 for name, layer in inner.items() if isinstance(layer, nn.Conv2d)}
    for name in bits:
        weight = model.get_submodule(name).get_parameter("weight")
        weight.data = ternarize(weight.data, 0.7, "mean", "filter")
    activations = {name: activation for name, layer in inner.items() if isinstance(layer, nn.ReLU)}
    install_activations(model, activations)
    with torch.no_grad():
        for _ in range(10):
            model.train()(images(64))
    return Compact(model.eval(), bits, activations=activations)


def test_bits_that_turn_in_another_order_of_sums_are_no_fault() -> None:
    network = stepped_resnet20(Activation("ternary", 0.5))
    x = images(300)
    other = copy.deepcopy(network.model).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = network.model(x).numpy()
        found = other(x.to(memory_format=torch.channels_last)).numpy()
    packed = open_network("packed", network, x[:1], threads=1)(x.numpy())
    rule = rule_for(network, rounded=rounds_to_int8(network))
    for one in (found, packed):
        check_agreement(expected, one, rule)
    assert not passes(found, expected, EXACT) or not passes(packed, expected, EXACT)
    with torch.no_grad():
        other.get_submodule("stages.1.1.bn2").get_parameter("weight").mul_(1.02)
        assert not passes(other(x[:100]).numpy(), expected[:100], rule)


@pytest.mark.parametrize(
    ("kind", "bits", "rounds", "rule"),
    [
        (None, False, False, EXACT),
        (None, True, True, ROUNDED),
        ("sign", True, False, STEPPED),
        ("ternary", True, False, STEPPED),
        ("int8", True, True, ROUNDED),
        ("int8", False, False, ROUNDED),
    ],
)
def test_the_rule_follows_from_what_is_rounded(
    kind: Literal["sign", "ternary", "int8"] | None, bits: bool, rounds: bool, rule: Rule
) -> None:
    activations = {"1": Activation(kind, 0.5)} if kind else {}
    found = Compact(nn.Sequential(), {"0": 1} if bits else {}, activations=activations)
    assert (has_int8_graph(found), rounds_to_int8(found)) == (bits, rounds)
    assert rule_for(found, rounded=rounds) == rule
