"""A stored network comes back whole, and files written before there were activations still do."""

import json
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from trainables.config import ModelConfig
from trainables.errors import TrialError
from trainables.export import compact
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.pruning.cut import cut_channels
from trainables.pruning.groups import channel_groups
from trainables.quantize import Activation, IntActivation, SignActivation, TernaryActivation, install_activations

torch.set_num_threads(1)

MODEL = ModelConfig(name="resnet8", width=4, block="bn_first")
ACTIVATIONS = {
    "stages.0.0.act1": Activation("sign"),
    "stages.0.0.act2": Activation("ternary", 0.7),
    "stages.1.0.act1": Activation("int8", 0.01),
}


def images() -> torch.Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(6))


def finished(activations: dict[str, Activation] | None = None) -> Compact:
    model = build(MODEL, 1, 10)
    initialise(model, torch.Generator().manual_seed(5))
    groups = channel_groups(model, images()[:1], "all")
    cut_channels(model, [(group, torch.arange(group.channels) % 4 != 1) for group in groups])
    install_activations(model, activations or {})
    inputs = {"stages.0.0.conv1": 1, "stages.0.0.conv2": 2} if activations else {}
    bits = {"stages.1.0.conv1": 2, "stages.0.0.conv1": 1}
    return Compact(model.eval(), bits, {"x": (3, 4)}, activations or {}, inputs)


@pytest.mark.parametrize("activations", [{}, ACTIVATIONS], ids=["plain", "quantized"])
def test_stored_networks_come_back_whole(activations: dict[str, Activation]) -> None:
    network = finished(activations)
    again = compact.restore(build(MODEL, 1, 10), compact.save(network))
    assert again == replace(network, model=again.model, kept={})
    assert torch.equal(again.model.eval()(images()), network.model(images()))
    counts = [(m.in_channels, m.out_channels) for m in network.model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in again.model.modules() if isinstance(m, nn.Conv2d)] == counts


def test_installed_activations_are_modules_of_their_kind() -> None:
    again = compact.restore(build(MODEL, 1, 10), compact.save(finished(ACTIVATIONS))).model
    kinds = {name: type(again.get_submodule(name)) for name in (*ACTIVATIONS, "stages.1.0.act2")}
    assert list(kinds.values()) == [SignActivation, TernaryActivation, IntActivation, nn.ReLU]


def test_equal_networks_give_equal_bytes() -> None:
    network = finished(ACTIVATIONS)
    turned = dict(sorted(ACTIVATIONS.items(), reverse=True))
    other = replace(network, bits=dict(sorted(network.bits.items(), reverse=True)), activations=turned)
    assert compact.save(other) == compact.save(network)
    assert compact.save(replace(network, kept={})) == compact.save(network)


def facts_of(data: bytes) -> Any:
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["meta"])


def test_a_network_without_activations_is_stored_as_it_always_was() -> None:
    network = finished()
    assert facts_of(compact.save(network)) == {"bits": {"stages.0.0.conv1": 1, "stages.1.0.conv1": 2}}
    tensors = {name: tensor.contiguous() for name, tensor in sorted(network.model.state_dict().items())}
    old = safetensors.torch.save(tensors, {"meta": '{"bits":{"stages.0.0.conv1":1,"stages.1.0.conv1":2}}'})
    assert compact.save(network) == old
    dense = compact.restore(build(MODEL, 1, 10), safetensors.torch.save(tensors, {"meta": '{"bits":{}}'}))
    assert dense == Compact(dense.model)


def test_tied_weights_are_stored() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    again = compact.restore(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), compact.save(Compact(tied))).model
    assert torch.equal(again(torch.ones(1, 3)), tied(torch.ones(1, 3)))


LINEAR = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"x" * 40, "cannot be read"),
        (compact.save(Compact(nn.Linear(2, 2)))[:-3], "cannot be read"),
        (safetensors.torch.save(LINEAR), "cannot be read"),
        (safetensors.torch.save(LINEAR, {"meta": '{"bits":{},"activations":{"a":["tanh",0]}}'}), "'tanh' is no kind"),
        (safetensors.torch.save(LINEAR, {"meta": '{"bits":{},"activations":{"a.b":["sign",0]}}'}), "has no attribute"),
        (compact.save(Compact(nn.Conv2d(2, 2, 3))), "size mismatch"),
        (compact.save(Compact(nn.BatchNorm2d(2))), "Unexpected key"),
    ],
)
def test_damaged_or_foreign_stored_networks_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(TrialError, match=message):
        compact.restore(nn.Linear(2, 2), data)
