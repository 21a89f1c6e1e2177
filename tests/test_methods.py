"""Every method: trained on real digits, finalized, stored, packed, measured; and what sets the methods apart."""

import copy
import math
import re
from dataclasses import replace

import pytest
import torch
from tiny_methods import BN_FIRST, MODEL, TINY, assert_same, dense, facts, header, images, settings, trained
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config import (
    BinaryConfig,
    CompressConfig,
    FinetuneConfig,
    L1PruneConfig,
    ModelConfig,
    StqConfig,
)
from trainables.data.load import Dataset, normalise
from trainables.errors import InfeasibleError
from trainables.export import compact
from trainables.export.packed import pack, unpack
from trainables.measure.cost import cost, ratios
from trainables.method_config import (
    DabnConfig,
    ExpandConfig,
    GroupSparsityConfig,
    HybridConfig,
    LkamConfig,
    PtqGroupConfig,
)
from trainables.methods.distilled import Distilled
from trainables.methods.l1_prune import L1Prune
from trainables.methods.layers import layers_outside
from trainables.methods.registry import METHODS, create
from trainables.methods.stq import Stq
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.pruning.groups import channel_groups
from trainables.pruning.ramp import kept_channels
from trainables.quantize import IntActivation, Quantized
from trainables.training.loop import fit, predict
from trainables.training.randomness import generator

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return images()


@pytest.fixture(scope="module")
def parent(data: Dataset) -> nn.Module:
    """A dense network after four epochs."""
    return dense(data, MODEL)


@pytest.fixture(scope="module")
def bn_first_parent(data: Dataset) -> nn.Module:
    """The same with blocks that begin with BN."""
    return dense(data, BN_FIRST)


def masks(parent: nn.Module, config: StqConfig) -> list[list[bool]]:
    """The masks that a method computes on the parent's weights, without training."""
    model, method = copy.deepcopy(parent), Stq(config)
    method.transform(model, torch.zeros(1, 1, 8, 8))
    method.before_epoch(model, 10, 20)
    assert method.pruner is not None
    return [stays.tolist() for stays in method.pruner.masks.kept(model)]


def test_every_method_has_a_tiny_setting() -> None:
    assert {type(config) for config in TINY.values()} == set(METHODS)


def has_low_bit_inputs(config: CompressConfig) -> bool:
    return bool(config.few_bit_inputs())


PRUNES = (StqConfig, L1PruneConfig, GroupSparsityConfig, LkamConfig)
KEEPS_EVERY_MAC = (FinetuneConfig, ExpandConfig, DabnConfig, HybridConfig, PtqGroupConfig)


@pytest.mark.parametrize("name", TINY)
def test_a_method_trains_and_its_network_stays_the_same_in_every_form(
    name: str, parent: nn.Module, bn_first_parent: nn.Module, data: Dataset
) -> None:
    config = TINY[name]
    architecture, dense = (BN_FIRST, bn_first_parent) if has_low_bit_inputs(config) else (MODEL, parent)
    model, method = trained(dense, data, config)
    masked = predict(model, data.test, data)
    assert (masked.argmax(1) == data.test.labels).float().mean() > (0.4 if has_low_bit_inputs(config) else 0.6)
    finished = method.finalize(model)
    assert not any(isinstance(module, Quantized) for module in finished.model.modules())
    folded = 0.99 if isinstance(config, LkamConfig) else 1.0  # a gate at its threshold may be rounded another way
    assert_same(predict(finished.model, data.test, data), masked, folded)
    stored = compact.restore(build(architecture, 1, 10), compact.save(finished))
    assert_same(predict(stored.model, data.test, data), masked, folded)
    assert facts(stored) == facts(finished)
    packed = pack(finished, header(data, architecture))
    unpacked, read = unpack(packed)
    assert read == header(data, architecture)
    assert facts(unpacked) == facts(finished)
    # a sum that is rounded another way may fall on the other side of a step
    share = 0.98 if finished.activations or isinstance(config, LkamConfig) else 1.0
    assert_same(predict(unpacked.model, data.test, data), masked, share)
    assert pack(unpacked, read) == packed
    check_figures(dense, finished, config, len(packed))


def check_figures(parent: nn.Module, finished: Compact, config: CompressConfig, packed_bytes: int) -> None:
    example = torch.zeros(1, 1, 8, 8)
    found = ratios(parent, finished.model, finished.bits, packed_bytes, finished.grids)
    assert all(math.isfinite(value) and value > 0.9 for value in (found.compression, found.payload_compression))
    fewer = cost(finished.model, finished.bits, example).macs < cost(parent, {}, example).macs
    assert fewer != isinstance(config, KEEPS_EVERY_MAC)
    assert bool(finished.kept) == isinstance(config, PRUNES)
    modules = dict(finished.model.named_modules())
    for name, (kept, of) in finished.kept.items():
        assert modules[name].get_parameter("weight").shape[0] == kept
        if isinstance(config, L1PruneConfig) or (isinstance(config, StqConfig) and asks_a_layer_budget(config)):
            assert kept == kept_channels(of, config.pfr)


def asks_a_layer_budget(config: StqConfig) -> bool:
    return config.mode == "target" and config.budget == "layer"


def test_a_threshold_decides_how_much_is_pruned(parent: nn.Module) -> None:
    shares = (0.3, 0.5, 0.9)
    kept = [masks(parent, StqConfig(mode="threshold", max_zero_share=share, min_filters=1)) for share in shares]
    counts = [sum(map(sum, groups)) for groups in kept]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    for group, stays in zip(channel_groups(parent, torch.zeros(1, 1, 8, 8), "inner"), kept[1], strict=True):
        weight = parent.get_submodule(group.name).get_parameter("weight").detach()
        near = (weight.abs() < 0.7 * weight.abs().mean()).flatten(1).float().mean(1)
        assert stays == (near <= 0.5).tolist() or sum(stays) == 1


def test_a_global_budget_keeps_the_asked_share_of_all_filters(parent: nn.Module) -> None:
    every = [kept for group in masks(parent, StqConfig(pfr=0.3, budget="global", min_filters=1)) for kept in group]
    assert sum(every) == math.ceil(0.7 * len(every))


def test_a_limit_that_no_filter_meets_is_infeasible(parent: nn.Module) -> None:
    with pytest.raises(InfeasibleError, match="is pruned to nothing"):
        masks(parent, StqConfig(mode="threshold", max_zero_share=0.01))


def test_distillation_mixes_the_losses_and_leaves_the_parent_alone(parent: nn.Module, data: Dataset) -> None:
    model, method = copy.deepcopy(parent), create(StqConfig(distill=0.25, temperature=3.0))
    assert isinstance(method, Distilled)
    images = normalise(data.train.images[:20], data)
    method.transform(model, images[:1])
    logits, task = torch.randn(20, 10, generator=generator(0, "calibration")), torch.tensor(2.0)
    teacher = parent.eval()(images)
    student, target = (logits / 3).softmax(1), (teacher / 3).softmax(1)
    expected = 0.75 * 2 + 0.25 * 9 * (target * (target.log() - student.log())).sum(1).mean()
    torch.testing.assert_close(method.loss(model, images, logits, task), expected)
    assert method.teacher is not None
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    plain = Stq(StqConfig())
    plain.transform(copy.deepcopy(parent), images[:1])
    assert plain.loss(model, images, logits, task) is task


@pytest.mark.parametrize("activations", ["sign", "ternary"])
def test_low_bit_inputs_need_blocks_that_sum_elsewhere(activations: str, parent: nn.Module) -> None:
    method = Stq(StqConfig.model_validate({"activations": activations}))
    with pytest.raises(InfeasibleError, match=r"activation .* feeds add.* few bits; take model\.block bn_first, or"):
        method.transform(copy.deepcopy(parent), torch.zeros(1, 1, 8, 8))


def test_inputs_that_are_no_activations_cannot_be_quantized() -> None:
    bare = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    told = r"inputs of layer 1 cannot .*: they come from 0 \(Conv2d\) and not from a ReLU; take compress.activations fl"
    with pytest.raises(InfeasibleError, match=told):
        Stq(StqConfig(pfr=0.0, activations="int8")).transform(bare, torch.zeros(1, 1, 8, 8))


MOBILE = "layer features.1.conv.0.0 cannot be quantized: they come from features.0.2"
ADVICE: dict[str, tuple[CompressConfig, str]] = {
    "stq, first layer": (StqConfig(pfr=0, activations="int8", full_precision=()), "add first to compress.full_precisi"),
    "dabn, first layer": (
        DabnConfig(full_precision=()), "from the image and not from a ReLU; add first to compress.full_precision, or ta"
    ),
    "hybrid, first layer": (HybridConfig(full_precision=()), "add first to compress.full_precision, or take method"),
    "stq": (StqConfig(pfr=0, activations="int8"), "(BatchNorm2d) and not from a ReLU; take compress.activations float"),
    "dabn": (DabnConfig(), "(BatchNorm2d) and not from a ReLU; take compress.activations float"),
    "hybrid": (HybridConfig(), "(BatchNorm2d) and not from a ReLU; take method binary"),
    "ptq_group": (PtqGroupConfig(), "(Conv2d) and not from a ReLU; take compress.activation_bits null"),
}  # fmt: skip


@pytest.mark.parametrize("case", ADVICE)
def test_where_inputs_cannot_be_quantized_the_way_out_is_one_that_there_is(case: str) -> None:
    """MobileNetV2 has linear bottlenecks, and no `model.block`."""
    config, told = ADVICE[case]
    model = build(ModelConfig(name="mobilenet_v2"), 3, 10)
    initialise(model, generator(0, "init"))
    with pytest.raises(InfeasibleError, match=re.escape(told)) as caught:
        create(config).transform(model, torch.zeros(1, 3, 32, 32))
    assert "model.block" not in str(caught.value)


def test_where_a_sum_of_a_foreign_network_reads_signs_no_block_is_asked_for() -> None:
    model = build(ModelConfig(name="resnet8", width=4), 3, 10)
    foreign = nn.Sequential(model)
    told = "which would see few bits; take a network whose sums read no activations, or compress.activations float"
    with pytest.raises(InfeasibleError, match=told):
        Stq(StqConfig(pfr=0, activations="sign")).transform(foreign, torch.zeros(1, 3, 32, 32))


def test_quantized_inputs_are_named_with_their_bits(bn_first_parent: nn.Module) -> None:
    model, method = copy.deepcopy(bn_first_parent), Stq(StqConfig(pfr=0.0, activations="sign"))
    method.transform(model, torch.zeros(1, 1, 8, 8))
    finished = method.finalize(model)
    assert set(finished.activations) == {f"stages.{stage}.0.act{n}" for stage in range(3) for n in (1, 2)}
    assert finished.input_bits == dict.fromkeys(finished.bits, 1)
    assert "classifier" not in finished.input_bits


def test_int8_steps_cover_the_calibration_images(parent: nn.Module, data: Dataset) -> None:
    model, method = copy.deepcopy(parent), Stq(StqConfig(pfr=0.0, activations="int8"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = normalise(data.train.images[:64], data)
    method.transform(model, images[:1])
    method.calibrate(model, images)
    steps = {name: m.step for name, m in model.named_modules() if isinstance(m, IntActivation)}
    assert set(steps) == {"stem.act", *(f"stages.{stage}.0.act{n}" for stage in range(3) for n in (1, 2))} - {
        "stages.2.0.act2"
    }
    first = parent.get_submodule("stem.act")(batch_normalised(parent, images))
    assert steps["stem.act"] == pytest.approx(float(first.detach().max()) / 255, rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def batch_normalised(model: nn.Module, images: Tensor) -> Tensor:
    """What the stem's BN gives with the statistics of `images`."""
    bn = model.get_submodule("stem.bn")
    return F.batch_norm(
        model.get_submodule("stem.conv")(images), None, None, bn.get_parameter("weight"), bn.get_parameter("bias"), True
    )


def test_stq_at_pfr_0_is_binary_bit_for_bit(parent: nn.Module, data: Dataset) -> None:
    stq = create(StqConfig(pfr=0.0, threshold=0.3, score="mean_abs", scope="all", epochs=2))
    binary = create(BinaryConfig(epochs=2))
    found: list[bytes] = []
    for method in (stq, binary):
        model = copy.deepcopy(parent)
        method.transform(model, torch.zeros(1, 1, 8, 8))
        assert not any(m._forward_pre_hooks for m in model.modules())  # pyright: ignore[reportPrivateUsage]
        assert {name for name, _ in model.named_buffers()} == {name for name, _ in parent.named_buffers()}
        fit(model, data, settings(2), 0, method)
        finished = method.finalize(model)
        found.append(compact.save(finished))
    assert found[0] == found[1]


def test_l1_at_pfr_0_is_finetuning() -> None:
    assert type(create(L1PruneConfig(pfr=0.0))) is type(create(FinetuneConfig()))


def test_training_twice_gives_the_same_bytes(parent: nn.Module, data: Dataset) -> None:
    found: list[bytes] = []
    for _ in range(2):
        model, method = trained(parent, data, StqConfig(pfr=0.5, epochs=2))
        found.append(compact.save(method.finalize(model)))
    assert found[0] == found[1]


def test_binary_layers_hold_two_values_a_filter_and_the_ends_do_not(parent: nn.Module, data: Dataset) -> None:
    model, method = trained(parent, data, StqConfig(pfr=0.4, epochs=1))
    finished = method.finalize(model)
    for name, layer in finished.model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        values = [len(row.abs().unique()) for row in layer.weight.flatten(1)]
        assert (name in finished.bits) == (name not in ("stem.conv", "classifier"))
        assert (max(values) == 1) == (name in finished.bits)


@pytest.mark.parametrize(
    ("roles", "fp32"),
    [
        ((), set[str]()),
        (("first",), {"stem.conv"}),
        (("last", "downsample"), {"classifier", "stages.1.0.downsample.conv", "stages.2.0.downsample.conv"}),
    ],
)
def test_full_precision_names_roles(parent: nn.Module, roles: tuple[str, ...], fp32: set[str]) -> None:
    config = StqConfig.model_validate({"full_precision": roles})
    layers = {name for name, m in parent.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(layers_outside(parent, config.full_precision)) == layers - fp32


def test_two_thresholds_give_different_masks(parent: nn.Module) -> None:
    assert masks(parent, StqConfig(threshold=0.5)) != masks(parent, StqConfig(threshold=0.7))
    assert masks(parent, StqConfig(threshold=0.05, threshold_of="max")) != masks(parent, StqConfig(threshold=0.05))
    assert masks(parent, StqConfig(threshold=0.7)) == masks(parent, StqConfig(threshold=0.7))


@pytest.mark.parametrize("score", ["mean_abs", "binarization_error", "zero_share"])
def test_each_score_prunes_the_filters_that_it_calls_spare(score: str, parent: nn.Module) -> None:
    model = copy.deepcopy(parent)
    weight = model.get_submodule("stages.0.0.conv1").get_parameter("weight")
    with torch.no_grad():
        weight.copy_(weight.sign() * 0.5)  # no near-zero weight, no binarization error, equal magnitudes
        spare = {"mean_abs": weight[2] * 0.1, "binarization_error": weight[2], "zero_share": weight[2] * 0.1}[score]
        spare = spare.clone(memory_format=torch.contiguous_format)
        if score == "binarization_error":
            spare.view(-1)[::2] *= 3
        weight[2] = spare
    kept = masks(model, StqConfig.model_validate({"score": score, "pfr": 0.1}))[0]
    assert kept == [True] * 6  # ceil(5.4): nothing goes
    kept = masks(model, StqConfig.model_validate({"score": score, "pfr": 0.17}))[0]
    assert kept == [True, True, False, True, True, True]


def test_l1_prune_takes_the_filters_of_least_magnitude(parent: nn.Module) -> None:
    model, method = copy.deepcopy(parent), L1Prune(L1PruneConfig(pfr=0.5))
    method.transform(model, torch.zeros(1, 1, 8, 8))
    method.before_epoch(model, 10, 20)
    for group, stays in zip(method.pruner.groups, method.pruner.masks.kept(model), strict=True):
        magnitude = model.get_submodule(group.name).get_parameter("weight").detach().abs().sum((1, 2, 3))
        assert magnitude[stays].min() > magnitude[~stays].max()


@pytest.mark.parametrize("block", ["standard", "bn_first"])
def test_masked_equals_cut_after_training_in_bf16(block: str, data: Dataset) -> None:
    model = build(ModelConfig.model_validate({"name": "resnet8", "width": 6, "block": block}), 1, 10)
    initialise(model, generator(0, "init"))
    method = create(StqConfig(pfr=0.5, scope="all"))
    method.transform(model, torch.zeros(1, 1, 8, 8))
    fit(model, data, replace(settings(2), precision="bf16"), 0, method)
    masked = predict(model, data.test, data)
    assert_same(predict(method.finalize(model).model, data.test, data), masked)


def test_scales_reach_the_stored_weights(parent: nn.Module) -> None:
    for scale in ("filter", "layer", "one"):
        model, method = copy.deepcopy(parent), create(BinaryConfig(scale=scale))
        method.transform(model, torch.zeros(1, 1, 8, 8))
        twin = model.get_submodule("stages.2.0.conv2")
        assert isinstance(twin, Quantized)
        stored = method.finalize(model).model.get_submodule("stages.2.0.conv2").get_parameter("weight").detach()
        values = {"filter": 24, "layer": 1, "one": 1}[scale]
        assert len(stored.abs().unique()) == values
        assert (float(stored.abs().max()) == 1) == (scale == "one")


def test_a_network_without_such_channels_is_infeasible() -> None:
    bare, method = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), create(L1PruneConfig())
    with pytest.raises(InfeasibleError, match="no channels to prune"):
        method.transform(bare, torch.zeros(1, 1, 8, 8))
