"""Post-training quantization: grids against a brute-force search, blocks, images, bytes, and what cannot be served."""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from pydantic import ValidationError
from tiny_methods import BN_FIRST, MODEL, dense, header, images, trained
from torch import Tensor, nn

from trainables.config import TrialConfig, resolve
from trainables.data.load import Dataset, load, normalise
from trainables.errors import InfeasibleError, PackedFileError
from trainables.export.manifest import opened
from trainables.export.packed import pack, unpack
from trainables.keys import PathFinder, Stage
from trainables.measure.cost import cost, layer_macs, layer_weights
from trainables.method_config import PtqGroupConfig
from trainables.methods.grid_layers import ClippedActivation, FrozenNorm, GridQuantizer
from trainables.methods.grid_search import activation_step, weight_grids
from trainables.methods.ptq_group import PtqGroup
from trainables.models.build import build
from trainables.models.compact import Compact
from trainables.models.edits import IdentityPart, install
from trainables.models.folding import fold, pairs
from trainables.models.graph import graph
from trainables.models.grids import Grid
from trainables.stages import Outcome, Paused, run_stage
from trainables.training.loop import predict
from trainables.training.randomness import generator

torch.set_num_threads(1)
EXAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return images()


@pytest.fixture(scope="module")
def parent(data: Dataset) -> nn.Module:
    return dense(data, MODEL)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "calibration"))


def squared_error(row: np.ndarray, step: float, zero: int, top: int) -> float:
    codes = np.clip(np.rint(row / step) + zero, 0, top)
    return float(((step * (codes - zero) - row) ** 2).sum())


def brute_force(row: np.ndarray, bits: int) -> float:
    """The least squared error over 3,000 steps and every zero."""
    top = 2**bits - 1
    widest = 1.05 * (max(row.max(), 0) - min(row.min(), 0)) / top
    steps = np.linspace(widest / 3000, widest, 3000)
    return min(squared_error(row, float(step), zero, top) for step in steps for zero in range(top + 1))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("kind", ["normal", "shifted", "heavy tails"])
def test_grids_are_as_near_as_those_of_a_brute_force_search(bits: int, kind: str) -> None:
    rows = drawn(3, 40, seed=bits)
    rows = {"normal": rows, "shifted": rows.abs() + 0.3, "heavy tails": rows**3}[kind]
    steps, zeros = weight_grids(rows, bits)
    for row, step, zero in zip(rows.double().numpy(), steps.tolist(), zeros.tolist(), strict=True):
        found, best = squared_error(row, step, int(zero), 2**bits - 1), brute_force(row, bits)
        assert found <= 1.02 * best


def test_a_grid_of_eight_bits_has_codes_that_are_int8() -> None:
    rows = torch.cat([drawn(2, 500), drawn(1, 500).abs()])
    steps, zeros = weight_grids(rows, 8)
    assert zeros.tolist() == [128, 128, 128]
    rounded = GridQuantizer(8, steps, zeros, torch.arange(3))(rows).detach()
    assert float((rounded - rows).abs().max()) <= 0.6 * float(steps.max())


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_rows_of_zeros_and_of_one_value_keep_what_they_are(bits: int) -> None:
    rows = torch.stack([torch.zeros(9), torch.full((9,), -0.37), torch.full((9,), 2.0)])
    steps, zeros = weight_grids(rows, bits)
    quantizer = GridQuantizer(bits, steps, zeros, torch.arange(3))
    torch.testing.assert_close(quantizer(rows).detach(), rows, rtol=1e-6, atol=0)
    assert quantizer.grid(told=False).fault() == ""


def test_finer_groups_come_nearer() -> None:
    weight = drawn(16, 3, 3, 3) * torch.logspace(-1, 1, 16).view(-1, 1, 1, 1)
    errors: list[float] = []
    for groups in (1, 2, 4, 16):
        rows = weight.reshape(groups, -1)
        quantizer = GridQuantizer(3, *weight_grids(rows, 3), torch.arange(16) // (16 // groups))
        errors.append(float((quantizer(weight).detach() - weight).square().sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_steps_of_activations_clip_what_is_rare() -> None:
    values = torch.cat([torch.linspace(0, 1, 10_000), torch.tensor([30.0])])
    assert activation_step(values, 8) == pytest.approx(30 / 255, rel=0.2)
    assert activation_step(values, 2) < 1  # one value of 30 is given up for the others
    assert activation_step(torch.zeros(5), 4) == 1 / 15


def test_gradients_are_those_of_learned_steps() -> None:
    """LSQ (ICLR 2020), equations 2 and 3: with v = w / s inside of the codes round(v) - v, beyond them the end."""
    weight = torch.tensor([[-3.0, -0.4, 0.2, 1.3], [0.1, 0.5, 0.9, 9.0]], requires_grad=True)
    quantizer = GridQuantizer(2, torch.tensor([0.5, 0.5]), torch.tensor([2.0, 0.0]), torch.arange(2))
    upstream = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    (quantizer(weight) * upstream).sum().backward()
    low, high = torch.tensor([[-2.0], [0.0]]), torch.tensor([[1.0], [3.0]])
    v = weight.detach() / 0.5
    inside = (v.round() >= low) & (v.round() <= high)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, upstream * inside)
    slopes = torch.where(inside, v.round() - v, v.clamp(low, high))
    assert quantizer.step.grad is not None
    torch.testing.assert_close(quantizer.step.grad, (upstream * slopes).sum(1) / math.sqrt(4 * 3))


def test_trained_values_are_those_of_the_codes_bit_for_bit() -> None:
    weight = drawn(6, 4, 3, 3)
    group = torch.tensor([1, 0, 1, 2, 2, 0])
    quantizer = GridQuantizer(5, torch.tensor([0.0731, 0.113, 0.09]), torch.tensor([15.0, 17.0, 3.0]), group)
    grid, values = quantizer.grid(told=True), quantizer(weight).detach()
    codes = grid.codes(values)
    assert 0 <= int(codes.min()) <= int(codes.max()) <= 31
    assert torch.equal(grid.values(codes).view_as(values), values)
    with pytest.raises(ValueError, match="beside their grid of 5 bits"):
        grid.codes(values + 0.01)


def test_an_activation_is_the_same_trained_and_stored() -> None:
    module, x = ClippedActivation(3, learned=True), drawn(2, 500) * 3
    with torch.no_grad():
        module.step.fill_(0.3217)
    from trainables.quantize import Activation, activation_module

    stored = activation_module(Activation("int3", float(module.step.detach())))
    assert torch.equal(stored(x), module(x).detach())
    assert set((stored(x) / float(module.step.detach())).round().unique().tolist()) == set(range(8))


# --- folding


@pytest.mark.parametrize("config", [MODEL, BN_FIRST])
def test_a_folded_network_is_the_network(config: Any, data: Dataset) -> None:
    model = dense(data, config)
    before = predict(model, data.test, data)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    edits = fold(model)
    torch.testing.assert_close(predict(model, data.test, data), before, rtol=1e-4, atol=1e-4)
    assert not list(pairs(model, graph(model)))
    left = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    folded = [edit for edit in edits if isinstance(edit.parts[0], IdentityPart)]
    assert norms - left == len(folded) > 0
    assert (left == 0) == (config is MODEL)
    again = build(config, 1, 10)
    install(again, edits)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(predict(again, data.test, data), predict(model, data.test, data), rtol=1e-5, atol=1e-5)


def test_norms_that_stay_keep_their_statistics(data: Dataset) -> None:
    parent = dense(data, BN_FIRST)
    model, method = trained(parent, data, PtqGroupConfig(images=64, block_steps=5, epochs=2, lr=0.001))
    kept = [name for name, module in model.named_modules() if isinstance(module, FrozenNorm)]
    assert "head.bn" in kept
    finished = method.finalize(model)
    for name in kept:
        stored, first = finished.model.get_submodule(name), parent.get_submodule(name)
        assert type(stored) is nn.BatchNorm2d
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(stored.get_buffer(buffer), first.get_buffer(buffer))


# --- the method


def finished_of(parent: nn.Module, data: Dataset, **leaves: Any) -> Compact:
    config = PtqGroupConfig.model_validate({"images": 64, "block_steps": 5, "epochs": 1, **leaves})
    if config.joint:
        model, method = trained(parent, data, config)
        return method.finalize(model)
    model, method = copy.deepcopy(parent), PtqGroup(config)
    method.transform(model, EXAMPLE)
    method.calibrate(model, normalise(data.train.images[:64], data))
    return method.finalize(model)


ENDS = ("stem.conv.0", "classifier")


def test_weights_hold_what_their_bits_and_groups_allow(parent: nn.Module, data: Dataset) -> None:
    finished = finished_of(parent, data, weight_bits=2, groups=3)
    assert set(finished.bits) == set(layer_weights(finished.model)) == set(finished.grids)
    for name, grid in finished.grids.items():
        weight = finished.model.get_submodule(name).get_parameter("weight").detach()
        assert finished.bits[name] == grid.bits == (8 if name in ENDS else 2)
        assert len(grid.steps) == (len(weight) if name in ENDS else 3)
        for rows in weight.flatten(1).reshape(len(grid.steps), -1):
            assert len(rows.unique()) <= 2**grid.bits


def test_bytes_are_codes_and_five_a_group(parent: nn.Module, data: Dataset) -> None:
    def sized(**leaves: Any) -> tuple[Compact, int]:
        finished = finished_of(parent, data, blocks="none", joint=False, weight_bits=3, **leaves)
        _, blob = opened(pack(finished, header(data)))
        return finished, len(blob)

    one, few = sized(groups=1)
    _, more = sized(groups=3)
    _, sorted_ = sized(groups=3, grouping="range")
    hidden = [name for name in one.grids if name not in ENDS]
    weights = layer_weights(one.model)
    filters = {name: one.model.get_submodule(name).get_parameter("weight").shape[0] for name in weights}
    assert more - few == len(hidden) * 2 * 5
    assert sorted_ - more == sum(filters[name] for name in hidden)
    codes = sum(math.ceil(count * (8 if name in ENDS else 3) / 8) for name, count in weights.items())
    grids = 5 * (sum(filters[name] for name in ENDS) + len(hidden))
    biases = 4 * sum(filters.values())
    steps_of_activations = 8 * len(one.activations)
    assert few == codes + grids + biases + steps_of_activations
    spent = cost(one.model, one.bits, EXAMPLE, one.input_bits, coded=one.grids)
    assert spent.payload_bits == sum(count * (8 if name in ENDS else 3) for name, count in weights.items())
    assert spent.weight_bytes == codes
    macs = layer_macs(one.model, EXAMPLE)
    expected = sum(
        count * (8 if name in ENDS else 3) * (32 if name in ENDS else 8) for name, count in macs.items()
    )  # the image and the mean over it are fp32
    assert spent.bops == expected


def test_two_bits_are_two_and_no_trits(parent: nn.Module, data: Dataset) -> None:
    finished = finished_of(parent, data, blocks="none", joint=False, weight_bits=2, eight_bits=())
    spent = cost(finished.model, finished.bits, EXAMPLE, finished.input_bits, coded=finished.grids)
    assert spent.bits_per_weight == 2
    assert cost(finished.model, finished.bits, EXAMPLE).bits_per_weight < 1.7


def test_without_stages_weights_are_rounded_and_nothing_else(parent: nn.Module, data: Dataset) -> None:
    folded = copy.deepcopy(parent)
    fold(folded)
    finished = finished_of(parent, data, blocks="none", joint=False, weight_bits=4, groups=2)
    for name, layer in finished.model.named_modules():
        if name in finished.grids:
            weight = folded.get_submodule(name).get_parameter("weight").detach()
            grid = finished.grids[name]
            steps, zeros = grid.per_filter(len(weight))
            nearest = (weight.flatten(1) / steps).round() + zeros
            codes = nearest.clamp(0, 2**grid.bits - 1)
            assert torch.equal(grid.codes(layer.get_parameter("weight")), codes.long())
            torch.testing.assert_close(layer.get_parameter("bias"), folded.get_submodule(name).get_parameter("bias"))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.act1 = nn.ReLU6()
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.act2 = nn.ReLU6()
        self.point = nn.Conv2d(8, 12, 1)
        self.norm3 = nn.BatchNorm2d(12)
        self.act3 = nn.ReLU()
        self.last = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act2(self.norm2(self.depth(self.act1(self.norm1(self.first(x))))))
        return self.last(self.act3(self.norm3(self.point(y))).mean((2, 3)))


def started(model: nn.Module, **leaves: Any) -> tuple[nn.Module, PtqGroup]:
    method = PtqGroup(PtqGroupConfig.model_validate({"images": 16, "block_steps": 3, **leaves}))
    method.transform(model, EXAMPLE)
    return model, method


def test_depthwise_layers_have_a_grid_a_filter_whatever_is_asked() -> None:
    model, method = started(Depthwise(), groups=2, weight_bits=2)
    assert model.get_submodule("point").get_parameter("bias").numel() == 12  # it had one: no chain took its place
    method.calibrate(model, drawn(16, 1, 8, 8))
    finished = method.finalize(model)
    grids = {name: len(grid.steps) for name, grid in finished.grids.items()}
    assert grids == {"first.0": 8, "depth.0": 8, "point": 2, "last": 10}
    largest = max(float(finished.model.get_submodule(f"act{n}")(torch.tensor(100.0))) for n in (1, 2))
    assert largest <= 6.01  # the range is that of ReLU6, which it took the place of


REFUSED = {
    "groups that do not divide": (
        lambda: build(MODEL, 1, 10),
        {"groups": 4},
        r"4 groups \(compress\.groups\) do not divide the 6 filters of layer stages\.0\.0\.conv1\.0",
    ),
    "inputs of no ReLU": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 10)
        ),
        {},
        r"the inputs of layer 1 cannot be quantized: .* and not from a ReLU; take compress\.activation_bits null$",
    ),
    "no layers": (lambda: nn.Flatten(), {}, "neither a convolution"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_by_the_layers_name(name: str) -> None:
    make, leaves, told = REFUSED[name]
    with pytest.raises(InfeasibleError, match=told):
        started(make(), **leaves)


def test_inputs_of_no_relu_are_served_in_fp32() -> None:
    make, _, _ = REFUSED["inputs of no ReLU"]
    model, method = started(make(), activation_bits=None)
    method.calibrate(model, drawn(16, 1, 8, 8))
    finished = method.finalize(model)
    assert not finished.activations
    assert set(finished.bits) == {"0", "1", "2", "4"}


# --- images


def test_smaller_draws_of_images_begin_larger_ones_and_seeds_differ() -> None:
    def draw(images: int, image_seed: int = 0, seed: int = 0) -> list[int]:
        method = PtqGroup(PtqGroupConfig(images=images, image_seed=image_seed, joint=False))
        method.seed = seed
        return method.chosen_images(500).tolist()

    assert draw(64)[:32] == draw(32)
    assert len(set(draw(64))) == 64
    assert len({tuple(draw(32, *seeds)) for seeds in ((0, 0), (1, 0), (0, 1))}) == 3
    with pytest.raises(InfeasibleError, match=r"compress\.images 501 is more than the 500 training images"):
        draw(501)


def trial(method: Mapping[str, object], **sections: object) -> TrialConfig:
    tree = {
        "data": {"name": "digits", "train_size": 300}, "model": {"name": "resnet8", "width": 4},
        "train": {"epochs": 2, "batch_size": 32}, "compress": {"method": "ptq_group", **method}, **sections,
    }  # fmt: skip
    return resolve(TrialConfig.model_validate_json(json.dumps(tree)), "fp32")


def run(path: tuple[Stage, ...], data: Dataset) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for stage in path:
        outcomes.append(run_stage(stage, data, outcomes[-1].artifact if outcomes else None))
    return outcomes


def test_nothing_but_the_chosen_images_is_seen_and_no_label() -> None:
    config = trial({"images": 48, "block_steps": 10, "epochs": 2, "weight_bits": 3})
    data = load(config.data, 0, Path())
    train, compress, _ = PathFinder().path(config, 0)
    parent = run_stage(train, data, None).artifact
    found = run_stage(compress, data, parent)
    method = PtqGroup(PtqGroupConfig(images=48))
    apart = method.apart_images(len(data.train))
    assert apart is not None
    chosen = torch.cat([method.chosen_images(len(data.train)), apart])
    assert len(chosen.unique()) == 48
    others = torch.ones(len(data.train), dtype=torch.bool)
    others[chosen] = False
    pixels = data.train.images.clone()
    pixels[others] = 255 - pixels[others]
    changed = replace(data, train=replace(data.train, images=pixels, labels=data.train.labels.flip(0)))
    assert run_stage(compress, changed, parent).artifact == found.artifact
    pixels[chosen[0]] = 255 - pixels[chosen[0]]
    assert run_stage(compress, changed, parent).artifact != found.artifact
    assert len(found.history) == 2


def test_what_the_joint_stage_has_learned_stands_only_where_it_helps() -> None:
    config = trial({"images": 64, "block_steps": 30})
    data = load(config.data, 0, Path())
    parent = run_stage(PathFinder().path(config, 0)[0], data, None).artifact

    def stage(**leaves: object) -> Stage:
        return PathFinder().path(trial({"images": 64, "block_steps": 30, "epochs": 3, **leaves}), 0)[1]

    harmful = [run_stage(stage(lr=lr), data, parent) for lr in (0.03, 0.04)]
    assert harmful[0].history[-1]["loss"] != harmful[1].history[-1]["loss"]
    assert harmful[0].artifact == harmful[1].artifact  # the blocks as they were before
    paused = run_stage(stage(lr=0.03), data, parent, after_epoch=lambda told: not told.may_stop)
    assert isinstance(paused, Paused)
    assert run_stage(stage(lr=0.03), data, parent, resume=paused.checkpoint).artifact == harmful[0].artifact
    rounded = {"blocks": "none", "weight_bits": 2, "activation_bits": None}
    helpful = [run_stage(stage(**rounded, lr=lr), data, parent) for lr in (0.001, 0.0011)]
    assert helpful[0].artifact != helpful[1].artifact


def test_stages_are_switches_and_what_they_leave_out_is_no_part_of_a_key() -> None:
    off = trial({"images": 48, "blocks": "none", "joint": False, "weight_bits": 2})
    data = load(off.data, 0, Path())
    outcomes = run(PathFinder().path(off, 0), data)
    assert outcomes[1].history == []
    assert outcomes[2].metrics["accuracy"] > 0  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]

    def key(**leaves: object) -> str:
        return PathFinder().path(trial({"blocks": "none", "joint": False, "images": 48, **leaves}), 0)[1].key

    idle = {"epochs": 3, "lr": 0.1, "distill": 0.5, "temperature": 2, "block_steps": 9, "grouping": "range"}
    assert key() == key(**idle)
    assert len({key(), key(joint=True), key(blocks="layer"), key(images=17), key(image_seed=1), key(groups=2)}) == 6


def test_it_ends_a_pipeline() -> None:
    steps = {"1_l1_prune": {"method": "l1_prune", "pfr": 0.5, "epochs": 1},
             "2_ptq": {"method": "ptq_group", "images": 48, "blocks": "none", "joint": False}}  # fmt: skip
    tree = {"method": "combine", "steps": steps}
    config = trial(tree)
    data = load(config.data, 0, Path())
    outcomes = run(PathFinder().path(config, 0), data)
    last = outcomes[2].metrics
    assert last["step_2_bytes"] == len(outcomes[3].artifact)
    assert last["step_2_val_accuracy"] == outcomes[3].metrics["val_accuracy"]
    with pytest.raises(ValidationError, match="ptq_group leaves weights of few bits"):
        trial({"method": "combine", "steps": {"1_ptq": {"method": "ptq_group"}, "2_f": {"method": "finetune"}}})


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({}, r"compress\.images 400 is more than the \d+ training images of digits"),
        ({"compress": {"method": "combine", "steps": {"1_expand": {"method": "expand"},
                                                      "2_ptq": {"method": "ptq_group", "images": 400}}}},
         r"compress\.images 400 is more than"),
        ({"compress": {"method": "ptq_group", "images": 200},
          "select": {"strategy": "random", "budget": 100, "initial": 100}},
         r"compress\.images 200 is more than the 100 images of select\.budget"),
        ({"compress": {"method": "ptq_group", "images": 15}}, "greater than or equal to 16"),
    ],
)  # fmt: skip
def test_too_few_images_are_a_fault_of_the_study(sections: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        trial({"images": 400}, **sections)


# --- files and runtimes


def test_a_file_whose_grids_are_wrong_is_refused(parent: nn.Module, data: Dataset) -> None:
    from forged_files import forged_file, manifest_of

    file = pack(finished_of(parent, data, blocks="none", joint=False, groups=2), header(data))
    grids = manifest_of(file)["grids"]
    assert unpack(file)[0].grids
    for change, told in (
        (grids[:-1], "manifest"), ([[0, 0], *grids[1:]], "manifest"), ([[2, 3], *grids[1:]], "manifest"),
        ([[grids[0][0] + 1, 0], *grids[1:]], "are needed|accounts for"),
    ):  # fmt: skip
        with pytest.raises(PackedFileError, match=told):
            unpack(forged_file({"grids": change}, of=file))


@pytest.mark.parametrize(
    "parts",
    [(1, [0.1], [0], []), (4, [], [], []), (4, [0.1], [16], []), (4, [-0.1], [0], []), (4, [0.1], [0], [0, 1]),
     (4, [math.inf], [0], []), (4, [0.1, 0.1], [0], [])],
)  # fmt: skip
def test_what_is_no_grid_is_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"a grid of|a grid whose"):
        Grid.read(*parts)


def test_onnx_holds_the_weights_exactly_and_runs_as_the_network(parent: nn.Module, data: Dataset) -> None:
    from trainables.runtimes.agreement import check_agreement, rule_for
    from trainables.runtimes.registry import onnx_graph, open_network, rounds_to_int8

    calibration = normalise(data.train.images[:64], data)
    batch = normalise(data.test.images, data)
    for leaves in ({"weight_bits": 3}, {"weight_bits": 2, "activation_bits": 4, "groups": 2, "grouping": "range"}):
        network = finished_of(parent, data, **leaves)
        constants = {one.name: numpy_helper.to_array(one) for one in
                     onnx.load_from_string(onnx_graph(network, calibration)).graph.initializer}  # fmt: skip
        exact = 0
        for name in network.grids:
            if f"{name}.weight_integers" in constants:
                integers, steps = constants[f"{name}.weight_integers"], constants[f"{name}.weight_steps"]
                found = integers.astype(np.float32) * steps.reshape(-1, *[1] * (integers.ndim - 1))
                stored = network.model.get_submodule(name).get_parameter("weight").detach().numpy()
                assert np.array_equal(found.reshape(stored.shape), stored)
                exact += 1
        assert exact >= len(network.grids) - 2
        expected = network.model.eval()(batch).detach().numpy()
        rule = rule_for(network, rounded=rounds_to_int8(network))
        for runtime in ("onnxruntime", "openvino"):
            check_agreement(expected, open_network(runtime, network, calibration, 1)(batch.numpy()), rule)
