"""Every method: trained on real digits, finalized, stored, packed, measured; and what sets the methods apart."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainables.config import (
    BinaryConfig,
    CompressBase,
    CompressConfig,
    DataConfig,
    FinetuneConfig,
    L1PruneConfig,
    ModelConfig,
    StqConfig,
    TrialConfig,
    resolve,
)
from trainables.data.load import Dataset, load, normalise
from trainables.errors import InfeasibleError
from trainables.export import compact
from trainables.export.packed import PackedHeader, pack, unpack
from trainables.measure.cost import cost, ratios
from trainables.methods.base import Compact, Method
from trainables.methods.l1_prune import L1Prune
from trainables.methods.registry import METHODS, create
from trainables.methods.stq import Stq, binary_layers
from trainables.models.build import build, initialise
from trainables.pruning.ramp import kept_channels
from trainables.quantize import BinaryConv2d
from trainables.training.loop import Settings, fit, predict
from trainables.training.randomness import generator

torch.set_num_threads(1)

TINY: dict[type[CompressBase], CompressConfig] = {
    StqConfig: StqConfig(pfr=0.4, scope="all", epochs=6, lr=0.1),
    L1PruneConfig: L1PruneConfig(pfr=0.4, scope="inner", epochs=6, lr=0.1),
    FinetuneConfig: FinetuneConfig(epochs=6, lr=0.1),
}
MODEL = ModelConfig(name="resnet8", width=6)


@pytest.fixture(scope="module")
def data() -> Dataset:
    config = TrialConfig(data=DataConfig(name="digits", train_size=800), model=MODEL)
    return load(resolve(config, "fp32").data, 0, Path())


@pytest.fixture(scope="module")
def parent(data: Dataset) -> nn.Module:
    """A dense network after four epochs."""
    model = build(MODEL, 1, 10)
    initialise(model, generator(0, "init"))
    fit(model, data, settings(4, lr=0.1), 0)
    return model


def settings(epochs: int, lr: float = 0.05) -> Settings:
    return Settings(epochs, lr, 0.9, 5e-4, 60, "onecycle", 0.0, "fp32", "none", "cpu")


def header(data: Dataset, model: ModelConfig = MODEL) -> PackedHeader:
    mean, std = tuple(data.mean.tolist()), tuple(data.std.tolist())
    return PackedHeader(model=model, channels=1, classes=10, image_size=8, mean=mean, std=std)


def trained(parent: nn.Module, data: Dataset, config: CompressConfig) -> tuple[nn.Module, Method]:
    """A copy of the parent after the method's training, not finalized."""
    model, method = copy.deepcopy(parent), create(config)
    method.transform(model, normalise(data.train.images[:1], data))
    fit(model, data, settings(config.epochs, config.lr), 0, method)
    return model, method


def masks(parent: nn.Module, config: StqConfig) -> list[list[bool]]:
    """The masks that a method computes on the parent's weights, without training."""
    model, method = copy.deepcopy(parent), Stq(config)
    method.transform(model, torch.zeros(1, 1, 8, 8))
    method.before_epoch(model, 10, 20)
    assert method.pruner is not None
    return [stays.tolist() for stays in method.pruner.masks.kept(model)]


def test_every_method_has_a_tiny_setting() -> None:
    assert set(TINY) == set(METHODS)


@pytest.mark.parametrize("kind", TINY)
def test_a_method_trains_and_its_network_stays_the_same_in_every_form(
    kind: type[CompressBase], parent: nn.Module, data: Dataset
) -> None:
    config = TINY[kind]
    model, method = trained(parent, data, config)
    masked = predict(model, data.test, data)
    assert (masked.argmax(1) == data.test.labels).float().mean() > 0.6
    finished = method.finalize(model)
    assert {type(m) for m in finished.model.modules()} == {type(m) for m in parent.modules()}
    assert_same(predict(finished.model, data.test, data), masked)
    assert_same(predict(stored_and_loaded(finished), data.test, data), masked)
    packed = pack(finished.model, finished.bits, header(data))
    unpacked, read = unpack(packed)
    assert read == header(data)
    assert_same(predict(unpacked, data.test, data), masked)
    assert pack(unpacked, finished.bits, read) == packed
    check_figures(parent, finished, config, len(packed))


def assert_same(logits: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits.argmax(1), expected.argmax(1))


def stored_and_loaded(finished: Compact) -> nn.Module:
    tensors, _ = compact.load(compact.save(finished.model, {}))
    model = build(MODEL, 1, 10)
    compact.resize(model, tensors)
    model.load_state_dict(tensors)
    return model


def check_figures(parent: nn.Module, finished: Compact, config: CompressConfig, packed_bytes: int) -> None:
    example = torch.zeros(1, 1, 8, 8)
    found = ratios(parent, finished.model, finished.bits, packed_bytes)
    assert all(math.isfinite(value) and value > 0.9 for value in (found.compression, found.payload_compression))
    pruned = isinstance(config, StqConfig | L1PruneConfig)
    assert (cost(finished.model, finished.bits, example).macs < cost(parent, {}, example).macs) == pruned
    for kept, of in finished.kept.values():
        assert isinstance(config, StqConfig | L1PruneConfig)
        assert kept == kept_channels(of, config.pfr, config.round_to)
    assert bool(finished.kept) == pruned
    modules = dict(finished.model.named_modules())
    for name, (kept, _) in finished.kept.items():
        assert modules[name].get_parameter("weight").shape[0] == kept


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
        found.append(compact.save(finished.model, {"bits": dict(finished.bits), "kept": dict(finished.kept)}))
    assert found[0] == found[1]


def test_l1_at_pfr_0_is_finetuning() -> None:
    assert type(create(L1PruneConfig(pfr=0.0))) is type(create(FinetuneConfig()))


def test_training_twice_gives_the_same_bytes(parent: nn.Module, data: Dataset) -> None:
    found: list[bytes] = []
    for _ in range(2):
        model, method = trained(parent, data, StqConfig(pfr=0.5, epochs=2))
        found.append(compact.save(method.finalize(model).model, {}))
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
    assert set(binary_layers(parent, config.full_precision)) == layers - fp32


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
        assert isinstance(twin, BinaryConv2d)
        stored = method.finalize(model).model.get_submodule("stages.2.0.conv2").get_parameter("weight").detach()
        values = {"filter": 24, "layer": 1, "one": 1}[scale]
        assert len(stored.abs().unique()) == values
        assert (float(stored.abs().max()) == 1) == (scale == "one")


def test_a_network_without_such_channels_is_infeasible() -> None:
    bare, method = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), create(L1PruneConfig())
    with pytest.raises(InfeasibleError, match="no channels to prune"):
        method.transform(bare, torch.zeros(1, 1, 8, 8))
