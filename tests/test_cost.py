"""Costs against arithmetic by hand, brute force and published figures."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainables.config import ModelConfig
from trainables.measure.cost import Cost, cost, layer_macs, layer_weights, payload_compression, ratios
from trainables.measure.interval import wilson
from trainables.models.build import build, initialise
from trainables.pruning.cut import cut_channels
from trainables.pruning.groups import channel_groups
from trainables.pruning.ramp import kept_channels

torch.set_num_threads(1)


def test_costs_of_a_small_net_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False),  # 8 x 2 x 9 weights at 3 x 3 places
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(72, 5),
    )
    got = cost(net, {"0": 1}, torch.zeros(1, 4, 6, 6))
    assert got == Cost(
        params=144 + 16 + 360 + 5,
        macs=144 * 9 + 360,
        bops=144 * 9 * 1 * 32 + 360 * 32 * 32,
        payload_bits=144 * 1 + 360 * 32,
        bits_per_weight=(144 + 360 * 32) / 504,
    )
    both = cost(net, {"0": 1}, torch.zeros(1, 4, 6, 6), activation_bits={"0": 1})
    assert both == replace(got, bops=144 * 9 + 360 * 32 * 32)


def test_counting_leaves_mode_hooks_and_statistics_alone() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layer_macs(net, torch.ones(1, 1, 4, 4))
    assert [module.training for module in net] == [True, False]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net[0]._forward_hooks  # pyright: ignore[reportPrivateUsage]


def imagenet_resnet18() -> nn.Module:
    return build(ModelConfig(name="resnet18", width=64, stem="imagenet"), 3, 1000)


def test_imagenet_resnet18_has_1814_million_macs() -> None:
    macs = layer_macs(imagenet_resnet18(), torch.zeros(1, 3, 224, 224))
    assert round(sum(macs.values()) / 1e6) == 1814


@pytest.mark.parametrize(("fp32", "expected"), [(("stem.conv", "classifier"), 13.42), (("stem.conv",), 31.22)])
def test_published_payload_of_binary_imagenet_resnet18(fp32: tuple[str, ...], expected: float) -> None:
    weights = layer_weights(imagenet_resnet18())
    bits = {name: 1 for name in weights if name not in fp32}
    assert payload_compression(weights, weights, bits) == pytest.approx(expected, abs=0.005)


def ideal_weights(
    net: nn.Module, scope: Literal["inner", "all"], pfr: float
) -> tuple[dict[str, int], dict[str, float]]:
    """Weights of each layer, and what is left where every group keeps the fraction 1 - pfr, not a whole number."""
    weights = layer_weights(net)
    left = {name: float(count) for name, count in weights.items()}
    for group in channel_groups(net, torch.zeros(1, 3, 8, 8), scope):
        for member in (*group.producers, *group.consumers):
            left[member.name] *= 1 - pfr
    return weights, left


# conv1 and classifier stay fp32 and are cut where tied; 1x1 shortcuts are binary; ideal fractions, nothing rounded
PUBLISHED = [("all", 0.4, 86.1), ("inner", 0.4, 51.2), ("all", 0.19, 47.6), ("inner", 0.19, 38.5)]


@pytest.mark.parametrize(("scope", "pfr", "expected"), PUBLISHED)
def test_whole_net_payload_of_cifar_resnet18(scope: Literal["inner", "all"], pfr: float, expected: float) -> None:
    net = build(ModelConfig(name="resnet18", width=64), 3, 10)
    weights, left = ideal_weights(net, scope, pfr)
    assert sum(weights.values()) == 11_164_352
    bits = {name: 32 if name in ("stem.conv", "classifier") else 1 for name in weights}
    ideal = 32 * sum(weights.values()) / sum(left[name] * bits[name] for name in weights)
    assert ideal == pytest.approx(expected, abs=0.06)


def test_whole_filters_compress_a_little_less_than_the_ideal_fraction() -> None:
    net = build(ModelConfig(name="resnet18", width=64), 3, 10)
    weights = layer_weights(net)
    plan = [
        (group, torch.arange(group.channels) < kept_channels(group.channels, 0.4))
        for group in channel_groups(net, torch.zeros(1, 3, 8, 8), "all")
    ]
    cut_channels(net, plan)
    bits = {name: 1 for name in weights if name not in ("stem.conv", "classifier")}
    # 39, 77, 154 and 308 filters where the ideal is 38.4, 76.8, 153.6 and 307.2
    assert payload_compression(weights, layer_weights(net), bits) == pytest.approx(85.64, abs=0.005)


def test_a_fully_tied_layer_of_80_channels_reaches_the_layer_maximum_exactly() -> None:
    dense = nn.Sequential(nn.Conv2d(80, 80, 3, bias=False), nn.BatchNorm2d(80))
    kept = kept_channels(80, 0.4)
    assert kept == 48
    small = nn.Sequential(nn.Conv2d(kept, kept, 3, bias=False), nn.BatchNorm2d(kept))
    found = ratios(dense, small, {"0": 1}, packed_bytes=1000)
    assert found.layer_compression_max == 32 * 80**2 / 48**2
    assert found.layer_compression_max == pytest.approx(32 / (1 - 0.4) ** 2, rel=1e-12)
    assert round(found.layer_compression_max, 1) == 88.9
    assert found.payload_compression == found.layer_compression_max
    assert found.compression == 4 * (80 * 80 * 9 + 160) / 1000


def test_pruning_outputs_alone_gives_a_layer_53_times() -> None:
    dense, small = nn.Conv2d(80, 80, 3), nn.Conv2d(80, 48, 3)
    found = ratios(nn.Sequential(dense), nn.Sequential(small), {"0": 1}, packed_bytes=1)
    assert found.layer_compression_max == pytest.approx(32 / 0.6)


def test_the_dense_net_is_one_times_itself() -> None:
    net = build(ModelConfig(name="resnet8", width=4), 1, 10)
    initialise(net, torch.Generator().manual_seed(0))
    found = ratios(net, net, {}, packed_bytes=4 * sum(p.numel() for p in net.parameters()))
    assert (found.compression, found.payload_compression, found.layer_compression_max) == (1, 1, 1)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_solve_the_score_equation(counts: tuple[int, int]) -> None:
    correct, images = counts
    share = correct / images
    low, high = wilson(correct, images)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / images), rel=1e-6)


def test_wilson_published_example_and_refusals() -> None:
    # Newcombe, Statistics in Medicine 1998, table I: 81 of 263 and 0 of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    for correct, images in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="impossible"):
            wilson(correct, images)
