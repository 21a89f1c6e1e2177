"""Gates for each image: their formula and gradient, what is removed for good, what is computed and what it costs."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from forged_files import forged_file, manifest_of
from tiny_methods import BN_FIRST, MODEL, assert_same, dense, header, images, trained
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.analysis.tables import COLUMNS
from trainables.config import TrialConfig, resolve
from trainables.data.load import Dataset, normalise
from trainables.errors import InfeasibleError, PackedFileError
from trainables.export.packed import pack, unpack
from trainables.keys import PathFinder
from trainables.measure.cost import cost, layer_macs
from trainables.measure.dynamic import DynamicCost, dynamic_cost, gates_watched
from trainables.method_config import LkamConfig
from trainables.methods.lkam import LearnedGate, Lkam
from trainables.models.build import build
from trainables.models.compact import Compact
from trainables.models.gated import GatedConv2d, HardGate, gated
from trainables.models.readers import gated_inputs
from trainables.runtimes import skipping
from trainables.runtimes.agreement import EXACT, STEPPED, rule_for
from trainables.stages import run_stage
from trainables.training.loop import predict

torch.set_num_threads(1)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PICTURES = drawn(12, 1, 8, 8) * torch.linspace(0.2, 2, 12)[:, None, None, None]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return images()


@pytest.fixture(scope="module")
def finished(data: Dataset) -> Compact:
    """A network with blocks whose inner kernels have gates."""
    model, method = trained(dense(data, BN_FIRST), data, LkamConfig(active_share=0.3, gain=40, epochs=6, lr=0.1))
    return method.finalize(model)


def chain(*, spatial: bool = False) -> nn.Sequential:
    """Convolutions behind one another, two with gates, and a linear layer that reads the second's channels.

    Each gate is on for half of the images of `PICTURES`.
    """
    torch.manual_seed(0)
    gates = [GatedConv2d(nn.Conv2d(i, o, 3, padding=1), nn.Linear(i, o)) for i, o in ((4, 8), (8, 6))]
    pool = nn.MaxPool2d(2) if spatial else nn.AdaptiveAvgPool2d(1)
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), gates[0], nn.ReLU(), gates[1], nn.ReLU(), pool, nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(6 * 16 if spatial else 6, 10)).eval()
    with torch.no_grad():
        for place, layer in ((2, gates[0]), (4, gates[1])):
            logits = layer.gate(model[:place](PICTURES).mean((2, 3)))
            layer.gate.bias -= logits.sort(0)[0][5:7].mean(0)
    return model


def gate(**shape: int) -> LearnedGate:
    conv = nn.Conv2d(shape.get("inputs", 3), shape.get("outputs", 4), 3, padding=1, bias=False)
    made = LearnedGate(conv, nn.BatchNorm2d(conv.out_channels), threshold=0.5)
    made.draw(torch.Generator().manual_seed(0))
    return made


def test_a_gate_is_a_convolution_and_a_mean_over_the_image() -> None:
    layer = GatedConv2d(nn.Conv2d(3, 5, 3), nn.Linear(3, 5))
    x = drawn(4, 3, 6, 6)
    pixels = F.conv2d(x, layer.gate.weight[:, :, None, None], layer.gate.bias)
    on = (torch.sigmoid(pixels.mean((2, 3))) >= 0.5).float()
    assert 0 < float(on.mean()) < 1
    torch.testing.assert_close(layer(x), on[:, :, None, None] * layer.conv(x))


def test_while_it_trains_the_gradient_goes_through_the_step_by_the_sigmoid() -> None:
    made, x = gate().train(), drawn(6, 3, 5, 5)
    made.hard = True
    made(x)
    opening = made.take_opening()
    logits = made.spread(made.gate(x.mean((2, 3))))
    assert torch.equal(opening.detach(), (logits >= 0).float())
    after = drawn(6, 4)
    (opening * after).sum().backward()
    expected = copy.deepcopy(made)
    expected.zero_grad()
    soft = torch.sigmoid(expected.spread(expected.gate(x.mean((2, 3)))))
    (soft * after).sum().backward()
    torch.testing.assert_close(made.gate.weight.grad, expected.gate.weight.grad)


def test_gates_are_soft_at_first_then_hard_and_in_use_always_hard() -> None:
    made, x = gate(), drawn(6, 3, 5, 5)
    nn.init.zeros_(made.spread.bias)
    made.train()
    logits = made.spread(made.gate(x.mean((2, 3)))).detach()
    kernels = made.norm(made.conv(x)).detach()
    torch.testing.assert_close(made(x), kernels * torch.sigmoid(logits)[:, :, None, None])
    made.hard = True
    torch.testing.assert_close(made(x), kernels * (logits >= 0)[:, :, None, None])
    made.eval().hard = False
    found = made(x)
    assert {float(value) for value in (found == 0).flatten(2).float().mean(2).flatten().round(decimals=3)} == {0.0, 1.0}


def test_the_loss_counts_what_is_on_above_the_share() -> None:
    model, method = copy.deepcopy(dense(images(), MODEL)), Lkam(LkamConfig(gain=3, active_share=0.4))
    method.transform(model, torch.zeros(1, 1, 8, 8))
    layers = [module for module in model.modules() if isinstance(module, LearnedGate)]
    assert len(layers) == 3
    shares = (1.0, 0.25, 0.5)
    x = drawn(8, 1, 8, 8)
    model.train()(x)
    for layer, share in zip(layers, shares, strict=True):
        layer._opening = torch.full((8, 4), share)  # pyright: ignore[reportPrivateUsage]
    found = method.loss(model, x, torch.zeros(8, 10), torch.tensor(2.0))
    assert float(found) == pytest.approx(2 + 3 / 2 * (0.6 + 0.1))


@pytest.mark.parametrize(("share", "least", "kept"), [(0.0, 1, 3), (0.1, 1, 2), (0.9, 1, 1), (0.9, 3, 3)])
def test_kernels_that_are_hardly_ever_on_go(share: float, least: int, kept: int) -> None:
    made = gate()
    made.get_buffer("on").copy_(torch.tensor([0, 50, 10, 100]))
    made.get_buffer("seen").fill_(100)
    made.close(share, least)
    assert int(made.get_buffer("alive").sum()) == kept
    assert bool(made.get_buffer("alive")[3])


def test_what_is_removed_is_cut_out_and_changes_no_output(data: Dataset) -> None:
    config = LkamConfig(active_share=0.1, gain=40, removal_share=0.3, epochs=6, lr=0.1)
    model, method = trained(dense(data, MODEL), data, config)
    before = predict(model, data.test, data)
    alive = {name: int(m.get_buffer("alive").sum()) for name, m in model.named_modules() if isinstance(m, LearnedGate)}
    found = method.finalize(model)
    assert found.kept == {f"{name}.0.conv": (alive[name], of) for name, of in zip(alive, (6, 12, 24), strict=True)}
    assert sum(alive.values()) < 42
    assert_same(predict(found.model, data.test, data), before, 0.99)
    for name, layer in gated(found.model).items():
        assert layer.conv.weight.shape[0] == layer.gate.weight.shape[0] == alive[name.removesuffix(".0")]
    reader = found.model.get_submodule("stages.2.0.conv2").get_parameter("weight")
    assert reader.shape[1] == alive["stages.2.0.conv1"]


def test_the_file_describes_gates_and_counts_their_bytes(finished: Compact, data: Dataset) -> None:
    packed = pack(finished, header(data, BN_FIRST))
    assert int.from_bytes(packed[4:6], "little") == 4
    kinds = [part["kind"] for edit in manifest_of(packed)["edits"] for part in edit["parts"]]
    assert sorted(set(kinds)) == ["gated_conv", "identity"]
    without = copy.deepcopy(finished.model)
    gates = sum(p.numel() for layer in gated(without).values() for p in layer.gate.parameters())
    assert len(packed) > 4 * sum(p.numel() for p in finished.model.parameters())
    assert gates == sum(i * o + o for i, o in ((6, 6), (6, 12), (12, 24)))


def test_a_gated_convolution_of_groups_is_refused(finished: Compact, data: Dataset) -> None:
    packed = pack(finished, header(data, BN_FIRST))
    edits = manifest_of(packed)["edits"]
    edits[0]["parts"][0]["conv"]["groups"] = 2
    with pytest.raises(PackedFileError, match="a gated convolution has 2 groups"):
        unpack(forged_file({"edits": edits}, of=packed))
    with pytest.raises(PackedFileError, match="says version 3 and holds what is of version 4"):
        unpack(forged_file({}, of=packed, version=3))


def watched(model: nn.Module, x: Tensor, labels: Tensor) -> DynamicCost:
    with torch.no_grad(), gates_watched(model) as seen:
        model(x)
    found = dynamic_cost(model, x[:1], seen, labels)
    assert found is not None
    return found


@pytest.mark.parametrize("spatial", [False, True])
def test_macs_of_an_image_are_those_of_what_is_on(spatial: bool) -> None:
    model, x = chain(spatial=spatial), PICTURES
    labels = torch.arange(12) % 3
    found = watched(model, x, labels)
    first, second = gated(model).values()
    counted: list[int] = []
    with torch.no_grad():
        for image in x.split(1):
            inputs = model[:2](image)
            on = int((first.gate(inputs.mean((2, 3))) >= 0).sum())
            between = model[:4](image)
            also = int((second.gate(between.mean((2, 3))) >= 0).sum())
            own = 64 * 9 * (4 + 4 * on + on * also) + 4 * 8 + on * 6
            counted.append(own + also * (16 if spatial else 1) * 10)
    assert len(set(counted)) > 3
    assert found.images.tolist() == pytest.approx(counted)
    assert found.expected == pytest.approx(sum(counted) / 12)
    assert found.classes == {c: pytest.approx(sum(counted[c::3]) / 4) for c in range(3)}
    assert found.worst == sum(layer_macs(model, x[:1]).values())
    assert sum(found.layers.values()) == pytest.approx(found.expected)
    spent = cost(model, {}, x[:1], expected_macs=found.layers)
    assert spent.macs == round(found.expected)
    assert spent.bops == round(1024 * found.expected)


def test_a_network_without_gates_costs_the_same_for_every_image() -> None:
    model, x = build(MODEL, 1, 10).eval(), drawn(2, 1, 8, 8)
    with gates_watched(model) as seen:
        model(x)
    assert dynamic_cost(model, x[:1], seen, torch.zeros(2)) is None


def test_the_skipping_runtime_gives_what_the_gated_network_gives(finished: Compact, data: Dataset) -> None:
    expected = predict(finished.model, data.test, data)
    run = skipping.load(finished)
    assert_same(torch.from_numpy(run(normalise(data.test.images, data).numpy())), expected, 0.99)
    plain = dense(data, BN_FIRST)
    same = skipping.load(Compact(plain))(normalise(data.test.images, data).numpy())
    assert_same(torch.from_numpy(same), predict(plain, data.test, data))


@pytest.mark.parametrize("spatial", [False, True])
def test_the_skipping_runtime_convolves_only_what_is_on(spatial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = chain(spatial=spatial), PICTURES[::2].contiguous()
    shapes: list[torch.Size] = []
    plain = F.conv2d

    def spy(x: Tensor, weight: Tensor, *more: Any) -> Tensor:
        shapes.append(weight.shape)
        return plain(x, weight, *more)

    run = skipping.load(Compact(model))
    monkeypatch.setattr("trainables.runtimes.skipping.F.conv2d", spy)
    found = run(x.numpy())
    monkeypatch.undo()
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    with torch.no_grad(), gates_watched(model) as seen:
        model(x)
    counts = [(round(8 * float(a)), round(6 * float(b))) for a, b in zip(seen["2"][0], seen["4"][0], strict=True)]
    assert len(set(counts)) > 1
    gated_shapes = [shape for shape in shapes if shape[1] != 1]
    assert [(a[0], a[1], b[0], b[1]) for a, b in zip(gated_shapes[::2], gated_shapes[1::2], strict=True)] == [
        (on, 4, also, on) for on, also in counts
    ]


class Summed(nn.Module):
    """A gated convolution that a sum reads, so that its readers get all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = GatedConv2d(nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4))
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 3)."""
        y = torch.relu(self.first(x))
        return self.last((y + self.inner(y)).mean((2, 3)))


@pytest.mark.parametrize("bias", [0.0, -100.0, 100.0])
def test_skipping_serves_sums_and_images_that_need_no_kernel_or_all(bias: float) -> None:
    for model in (Summed(), chain()):
        for layer in gated(model).values():
            layer.gate.bias.data += bias
        x = drawn(4, 1, 8, 8)
        with torch.no_grad():
            expected = model.eval()(x)
        np.testing.assert_allclose(skipping.load(Compact(model))(x.numpy()), expected, rtol=1e-4, atol=1e-5)
    assert gated_inputs(Summed()) == {}
    assert gated_inputs(chain()) == {"4": "2", "8": "4"}


def test_an_export_may_differ_in_few_images_where_a_gate_is_at_its_threshold(finished: Compact) -> None:
    assert rule_for(finished, rounded=False) == STEPPED
    assert rule_for(Compact(build(MODEL, 1, 10)), rounded=False) == EXACT
    assert isinstance(next(iter(gated(finished.model).values())).step, HardGate)


def test_rows_tell_the_macs_of_images_and_of_classes() -> None:
    tree = {
        "data": {"name": "digits", "train_size": 400}, "model": {"name": "resnet8", "width": 4},
        "train": {"epochs": 1, "batch_size": 32},
        "compress": {"method": "lkam", "active_share": 0.2, "gain": 60, "lr": 0.1, "epochs": 3},
    }  # fmt: skip
    config = resolve(TrialConfig.model_validate_json(json.dumps(tree)), "fp32")
    from trainables.stages.datasets import Datasets

    data, artifact = Datasets(Path()).of(config.data, 0), None
    metrics: dict[str, Any] = {}
    for stage in PathFinder().path(config, 0):
        outcome = run_stage(stage, data, artifact)
        artifact, metrics = outcome.artifact, {**metrics, **outcome.metrics}
    assert metrics["macs_class_least"] < metrics["macs"] < metrics["macs_class_most"] < metrics["macs_worst"]
    assert metrics["bops"] == pytest.approx(1024 * metrics["macs"], rel=1e-3)
    assert metrics.keys() >= {name for name in COLUMNS if name.startswith("macs")}


NETWORKS: Mapping[str, int] = {
    "mobilenet_v2": 3, "densenet121": 58, "resnet18": 8, "vgg11_bn": 7,
}  # fmt: skip
"""All others are read by sums, BN layers of their own, or depthwise convolutions."""


@pytest.mark.parametrize("name", NETWORKS)
def test_gates_stand_where_a_kernel_that_is_off_leaves_nothing(name: str) -> None:
    model, method = torchvision.models.get_model(name, num_classes=10).eval(), Lkam(LkamConfig())
    x = drawn(2, 3, 64, 64)
    method.transform(model, x[:1])
    layers = [module for module in model.modules() if isinstance(module, LearnedGate)]
    assert len(layers) == NETWORKS[name]
    for layer in layers:
        layer.get_buffer("alive")[0] = 0
        layer.spread.bias.data.zero_()
    with torch.no_grad():
        expected = model.eval()(x)
        found = method.finalize(model)
        torch.testing.assert_close(found.model(x), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert all(kept == of - 1 for kept, of in found.kept.values())


def test_a_network_without_such_kernels_is_infeasible_and_the_layer_is_named() -> None:
    example = torch.zeros(1, 1, 8, 8)
    one = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(InfeasibleError, match=r"has no convolution, .*, outside of first \(compress\.keep\)"):
        Lkam(LkamConfig()).transform(one, example)
    depthwise = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    with pytest.raises(InfeasibleError, match=r"layer 2, for one, cannot have a gate: its kernels are read by a sum"):
        Lkam(LkamConfig()).transform(depthwise, example)
