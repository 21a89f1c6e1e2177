"""Stage `evaluate`: what it says of a network is what the network read back from the packed file does and takes."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainables.config import (
    BinaryConfig,
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
from trainables.export.packed import unpack
from trainables.keys import PathFinder
from trainables.measure.cost import layer_macs, layer_weights
from trainables.models.compact import Compact
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


@pytest.mark.parametrize("activations", ["float", "sign"])
def test_a_file_that_computes_something_else_is_refused(
    activations: str, data: Dataset, parent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("binary")
    config = config.model_copy(update={"compress": BinaryConfig(epochs=1, activations=activations)})  # pyright: ignore[reportArgumentType]
    _, compress, evaluate = PathFinder().path(resolve(config, "fp32"), 0)
    compressed = run_stage(compress, data, parent).artifact

    def damaged(packed: bytes, allow_code: bool = False) -> tuple[Compact, Any]:
        network, header = unpack(packed, allow_code)
        last = network.model.get_submodule("classifier")
        assert isinstance(last, nn.Linear)
        last.bias.data[3] += 4
        return network, header

    run_stage(evaluate, data, compressed)
    # the package gives its function under the module's name
    monkeypatch.setattr(importlib.import_module("trainables.stages.evaluate"), "unpack", damaged)
    told = "for half of the images" if activations == "sign" else "for an image"
    with pytest.raises(PackedFileError, match=told):
        run_stage(evaluate, data, compressed)
