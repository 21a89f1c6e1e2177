"""Stage `evaluate`: what it says of a network is what the network read back from the packed file does and takes."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainables.config import (
    CostConfig,
    DataConfig,
    ModelConfig,
    StqConfig,
    TrainConfig,
    TrialConfig,
    resolve,
)
from trainables.data.load import Dataset, load, normalise
from trainables.errors import PackedFileError
from trainables.export.compact import save
from trainables.export.packed import unpack
from trainables.keys import PathFinder
from trainables.measure.cost import layer_macs, layer_weights
from trainables.models.compact import Compact
from trainables.quantize import install_activations, replace_module
from trainables.stages import run_stage
from trainables.stages.base import restore

torch.set_num_threads(1)

SETTINGS: dict[str, dict[str, Any]] = {
    "binary": {},
    "ternary": {"weights": "ternary"},
    "two values": {"scale": "two_valued"},
    "int8": {"activations": "int8"},
    "sign": {"activations": "sign"},
    "ternary both": {"weights": "ternary", "activations": "ternary"},
}
COST = CostConfig(int8=0.25, weight_only=0.5, low_bit=0.01)
ENDS = ("stem.conv", "classifier")


def config_of(name: str, cost: CostConfig = COST) -> TrialConfig:
    config = TrialConfig(
        data=DataConfig(name="digits", train_size=300),
        model=ModelConfig(name="resnet8", width=4, block="bn_first"),
        train=TrainConfig(epochs=2, batch_size=32),
        compress=StqConfig(pfr=0.5, scope="all", epochs=1, **SETTINGS[name]),
        cost=cost,
    )
    return resolve(config, "fp32")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(config_of("binary").data, 0, Path())


@pytest.fixture(scope="module")
def parent(data: Dataset) -> bytes:
    return run_stage(PathFinder().path(config_of("binary"), 0)[0], data, None).artifact


@pytest.mark.parametrize("name", SETTINGS)
def test_an_evaluation_tells_what_was_read_back(name: str, data: Dataset, parent: bytes) -> None:
    config = config_of(name)
    _, compress, evaluate = PathFinder().path(config, 0)
    compressed = run_stage(compress, data, parent).artifact
    outcome = run_stage(evaluate, data, compressed)
    network, header = unpack(outcome.artifact)
    assert header.model == config.model
    stored = restore(config, data, compressed)
    assert network == replace(stored, model=network.model)
    with torch.no_grad():
        found = network.model(normalise(data.test.images, data)).argmax(1)
    metrics = dict(outcome.metrics)
    assert metrics["accuracy"] == pytest.approx(float((found == data.test.labels).double().mean()), abs=1e-12)
    assert metrics["packed_bytes"] == len(outcome.artifact)
    check_arithmetic(network, metrics, normalise(data.test.images[:1], data))


def check_arithmetic(network: Compact, metrics: dict[str, Any], example: torch.Tensor) -> None:
    """By hand: 4, 8 and 16 filters of which half stay; all but the ends has few bits."""
    weights, macs = layer_weights(network.model), layer_macs(network.model, example)
    bits, inputs = set(network.bits.values()), set(network.input_bits.values())
    assert set(network.bits) == set(weights) - set(ENDS)
    (bit,) = bits
    hidden = {name: count for name, count in weights.items() if name not in ENDS}
    payload = sum(8 * -(-count // 5) if bit == 2 else count for count in hidden.values())
    ends = 32 * sum(weights[name] for name in ENDS)
    dense = 9 * (4 * 4 * 2 + 4 * 8 + 8 * 8 + 8 * 16 + 16 * 16) + 4 * 8 + 8 * 16
    assert sum(hidden.values()) * 4 == dense
    assert metrics["hidden_compression"] == 32 * dense / payload
    assert metrics["payload_compression"] == 32 * (dense + 4 * 9 + 16 * 10) / (payload + ends)
    assert metrics["bits_per_weight"] == (payload + ends) / sum(weights.values())
    rounded = sum(-(-count // (5 if bit == 2 else 8)) for count in hidden.values())
    assert metrics["weight_bytes"] == rounded + ends // 8
    assert 0 < metrics["packed_bytes"] - metrics["weight_bytes"] < 1000
    factor = COST.weight_only if not inputs else COST.int8 if inputs == {8} else COST.low_bit
    full = sum(macs[name] for name in ENDS)
    assert metrics["macs"] == sum(macs.values())
    assert metrics["mac_cost"] == pytest.approx(full + factor * (sum(macs.values()) - full))
    side = inputs.pop() if inputs else 32
    assert metrics["bops"] == 1024 * full + bit * side * (sum(macs.values()) - full)


def test_a_dense_network_has_no_hidden_layers_of_few_bits(data: Dataset, parent: bytes) -> None:
    config = config_of("binary").model_copy(update={"compress": None})
    metrics = run_stage(PathFinder().path(config, 0)[1], data, parent).metrics
    assert metrics["hidden_compression"] is None
    assert metrics["mac_cost"] == metrics["macs"]
    assert metrics["payload_compression"] == 1


def with_relu(network: Compact) -> None:
    for name in network.activations:
        replace_module(network.model, name, nn.ReLU())


def with_another_filter(network: Compact) -> None:
    shortcut = network.model.get_submodule("stages.1.0.downsample.conv").get_parameter("weight")
    shortcut.data[0] *= -1


def without_a_shift(network: Compact) -> None:
    network.model.get_submodule("stages.1.0.bn2").get_parameter("bias").data.zero_()


def with_other_scales(network: Compact) -> None:
    network.model.get_submodule("stages.1.0.bn2").get_parameter("weight").data *= 1.02


def with_another_bias(network: Compact) -> None:
    network.model.get_submodule("classifier").get_parameter("bias").data[3] += 0.1


def with_another_threshold(network: Compact) -> Compact:
    activations = {name: replace(one, value=0.52) for name, one in network.activations.items()}
    install_activations(network.model, activations)
    return replace(network, activations=activations)


FAULTS: dict[str, tuple[Callable[[Compact], Compact | None], str]] = {
    "ReLU": (with_relu, "activation computes something else .* at stages.0.0.act1"),
    "a shortcut's filter": (with_another_filter, "other signs .* at stages.1.0.downsample"),
    "a shift": (without_a_shift, "logits differ"),
    "scales": (with_other_scales, "logits differ"),
    "a bias": (with_another_bias, "logits differ"),
    "thresholds": (with_another_threshold, "activations differ .* at stages.0.0.act1, "),
}


@pytest.fixture(scope="module")
def compressed(data: Dataset, parent: bytes) -> dict[str, bytes]:
    paths = {name: PathFinder().path(config_of(name), 0)[1] for name in ("binary", "sign", "ternary both")}
    return {name: run_stage(stage, data, parent).artifact for name, stage in paths.items()}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *product(("binary", "sign", "ternary both"), ("a shortcut's filter", "a shift", "scales", "a bias")),
        *product(("sign", "ternary both"), ("ReLU",)),
        ("ternary both", "thresholds"),
    ],
)
def test_a_file_that_computes_something_else_is_refused(
    name: str, fault: str, data: Dataset, compressed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, told = FAULTS[fault]

    def damaged(packed: bytes, allow_code: bool = False) -> tuple[Compact, Any]:
        network, header = unpack(packed, allow_code)
        return damage(network) or network, header

    # the package gives its function under the module's name
    monkeypatch.setattr(importlib.import_module("trainables.stages.evaluate"), "unpack", damaged)
    with pytest.raises(PackedFileError, match=told):
        run_stage(PathFinder().path(config_of(name), 0)[2], data, compressed[name])


def test_filters_of_zeros_may_have_any_sign(data: Dataset, compressed: dict[str, bytes]) -> None:
    config = config_of("sign")
    network = restore(config, data, compressed["sign"])
    network.model.get_submodule("stages.0.0.conv1").get_parameter("weight").data[0] = 0
    stage = PathFinder().path(config, 0)[2]
    assert run_stage(stage, data, save(network)).metrics["accuracy"] is not None
