"""Channel groups, scores, ramp, masks and cutting, on every model family and on real digits."""

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from zeroed_channels import zero_channels

from trainables.config import DataConfig, L1PruneConfig, ModelConfig, TrialConfig, resolve
from trainables.data.load import load, normalise
from trainables.errors import InfeasibleError
from trainables.models.build import build, initialise
from trainables.pruning.cut import Plan, cut_channels
from trainables.pruning.filters import FilterPruner
from trainables.pruning.groups import ChannelGroup, channel_groups
from trainables.pruning.masks import ChannelMasks, switch
from trainables.pruning.ramp import Ramp, Rounding, kept_channels
from trainables.pruning.scores import binarization_error, mean_abs, relative, zero_share
from trainables.pruning.selection import GlobalBudget, LayerBudget, RankLimit, Selection
from trainables.quantize import near_zero

torch.set_num_threads(1)

Scope = Literal["inner", "all"]

FAMILIES: dict[str, dict[str, Any]] = {
    "resnet8": {"name": "resnet8", "width": 6},
    "resnet14 bn_first": {"name": "resnet14", "width": 6, "block": "bn_first"},
    "resnet18": {"name": "resnet18", "width": 5},
    "resnet18 bn_first": {"name": "resnet18", "width": 5, "block": "bn_first"},
    "resnet18 imagenet": {"name": "resnet18", "width": 5, "stem": "imagenet"},
    "resnet18 imagenet bn_first": {"name": "resnet18", "width": 5, "stem": "imagenet", "block": "bn_first"},
    "vgg_small": {"name": "vgg_small", "width": 6},
}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """24 normalised real digits, 32 pixels a side."""
    config = TrialConfig(data=DataConfig(name="digits", image_size=32), model=ModelConfig(name="resnet8"))
    data = load(resolve(config, "fp32").data, 0, Path())
    return normalise(data.train.images[:24], data)


def randomise_norms(model: nn.Module, seed: int) -> None:
    """BN layers as after training: no channel is left with scale 1, shift 0, mean 0, variance 1."""
    draw = source(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5, generator=draw)
            nn.init.uniform_(module.bias, -1, 1, generator=draw)
            nn.init.uniform_(module.get_buffer("running_mean"), -1, 1, generator=draw)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2, generator=draw)


def network(family: str, seed: int = 0) -> nn.Module:
    model = build(ModelConfig(**FAMILIES[family]), 1, 10)
    initialise(model, source(seed))
    randomise_norms(model, seed)
    return model.eval()


def random_plan(groups: tuple[ChannelGroup, ...], seed: int) -> Plan:
    """About half of the channels of each group stay, at least one."""
    draw = source(seed)
    plan: list[tuple[ChannelGroup, Tensor]] = []
    for group in groups:
        stays = torch.rand(group.channels, generator=draw) < 0.5
        stays[int(torch.randint(group.channels, (1,), generator=draw))] = True
        plan.append((group, stays))
    return plan


@torch.no_grad()
def logits_three_ways(model: nn.Module, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Of `model` with channels masked, set to zero, and cut; changes the model."""
    masks = ChannelMasks.attach(model, [group for group, _ in plan])
    masks.keep(model, [stays for _, stays in plan])
    masked = model(images)
    for read, (_, stays) in zip(masks.kept(model), plan, strict=True):
        assert torch.equal(read, stays)
    masks.detach(model)
    zero_channels(model, plan)
    zeroed = model(images)
    cut_channels(model, plan)
    return masked, zeroed, model(images)


@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_equals_zeroed_equals_cut(family: str, scope: Scope, digits: Tensor) -> None:
    model = network(family)
    whole = model(digits)
    groups = channel_groups(model, digits[:1], scope)
    params = sum(p.numel() for p in model.parameters())
    masked, zeroed, cut = logits_three_ways(model, digits, random_plan(groups, seed=1))
    torch.testing.assert_close(zeroed, masked, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cut, masked, rtol=1e-4, atol=1e-4)
    assert (masked - whole).abs().max() > 0.01
    assert sum(p.numel() for p in model.parameters()) < params


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hidden_channel_is_in_exactly_one_group_of_scope_all(family: str) -> None:
    model = network(family)
    produced = [
        (member.name, place)
        for group in channel_groups(model, torch.zeros(1, 1, 32, 32), "all")
        for member in group.producers
        for place in member.index
    ]
    convs = {name: m.out_channels for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert sorted(produced) == sorted((name, place) for name, width in convs.items() for place in range(width))


def test_inner_groups_of_a_residual_net_are_the_insides_of_its_blocks() -> None:
    model = network("resnet18")
    names = [group.name for group in channel_groups(model, torch.zeros(1, 1, 32, 32), "inner")]
    assert names == [f"stages.{stage}.{block}.conv1" for stage in range(4) for block in range(2)]
    tied = [g for g in channel_groups(model, torch.zeros(1, 1, 32, 32), "all") if not g.inner]
    assert [g.name for g in tied] == ["stem.conv", *(f"stages.{stage}.0.conv2" for stage in (1, 2, 3))]
    assert [m.name for m in tied[0].producers] == ["stem.conv", "stages.0.0.conv2", "stages.0.1.conv2"]


def test_tracing_changes_nothing() -> None:
    model = network("resnet8").train()
    model.get_submodule("stem.bn").eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        channel_groups(model, torch.ones(1, 1, 8, 8), "all")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def conv_norm(inputs: int, outputs: int, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=True), nn.BatchNorm2d(outputs), nn.ReLU6()]


class Concatenated(nn.Module):
    """Two branches side by side before one BN, as in a DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(1, 7, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.read = nn.Conv2d(12, 4, 3)
        self.classifier = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = self.norm(torch.cat([self.left(x), self.right(x)], 1)).relu()
        return self.classifier(self.read(both).mean((2, 3)))


OTHERS: dict[str, nn.Module] = {
    "flattened": nn.Sequential(*conv_norm(1, 6), nn.MaxPool2d(8), nn.Flatten(), nn.Linear(6 * 16, 10)),
    "hidden linear": nn.Sequential(nn.Flatten(), nn.Linear(1024, 9), nn.ReLU(), nn.Linear(9, 4)),
    "no norm": nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 784, 3)),
    "depthwise": nn.Sequential(
        *conv_norm(1, 6), *conv_norm(6, 6, 6), *conv_norm(6, 4), nn.Flatten(), nn.Linear(4096, 3)
    ),
    "concatenated": Concatenated(),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_masked_equals_cut_on_other_ways_to_couple_channels(kind: str, digits: Tensor) -> None:
    model = OTHERS[kind].eval()
    randomise_norms(model, 3)
    groups = channel_groups(model, digits[:1], "all")
    masked, zeroed, cut = logits_three_ways(model, digits, random_plan(groups, seed=2))
    torch.testing.assert_close(zeroed, masked, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cut, masked, rtol=1e-4, atol=1e-4)


def test_a_layer_that_cannot_be_cut_is_named() -> None:
    grouped = nn.Sequential(*conv_norm(1, 8), *conv_norm(8, 8, 2), nn.Flatten(), nn.Linear(512, 3))
    with pytest.raises(InfeasibleError, match="layer 3 has 2 groups"):
        channel_groups(grouped, torch.zeros(1, 1, 8, 8), "all")
    other = nn.Sequential(nn.Conv2d(1, 8, 3), nn.PReLU(8), nn.Flatten(), nn.Linear(8 * 36, 3))
    with pytest.raises(InfeasibleError, match=r"layer 1 \(PReLU\) cannot be cut"):
        channel_groups(other, torch.zeros(1, 1, 8, 8), "all")
    with pytest.raises(InfeasibleError, match="no channels to prune in scope inner"):
        channel_groups(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.zeros(1, 1, 8, 8), "inner")


def test_scores_by_hand() -> None:
    w = torch.tensor([[[[3.0, -1.0]]], [[[0.5, -0.5]]], [[[2.0, 2.0]]]])  # layer: mean|W| 1.5, max|W| 3
    assert float(near_zero(w, 0.7, "mean")) == pytest.approx(1.05)
    assert float(near_zero(w, 0.2, "max")) == pytest.approx(0.6)
    assert zero_share(w, 0.7, "mean").tolist() == [0.5, 1.0, 0.0]
    assert zero_share(w, 0.2, "max").tolist() == [0.0, 1.0, 0.0]
    assert mean_abs(w).tolist() == [2.0, 0.5, 2.0]
    assert binarization_error(w).tolist() == [1.0, 0.0, 0.0]  # ((3-2)^2 + (-1+2)^2) / 2
    assert relative(torch.tensor([1.0, 3.0])).tolist() == [0.5, 1.5]
    assert relative(torch.zeros(2)).tolist() == [0.0, 0.0]


@given(st.integers(1, 2048), st.floats(0, 0.999), st.integers(1, 64))
def test_kept_channels_is_the_smallest_allowed_number(channels: int, pfr: float, round_to: int) -> None:
    allowed = [k for k in range(1, channels + 1) if k % round_to == 0 or k == channels]
    expected = next(k for k in allowed if k >= (1 - pfr) * channels - 1e-9)
    assert kept_channels(channels, pfr, Rounding(round_to)) == expected


@given(st.integers(1, 512), st.floats(0, 0.99), st.floats(0, 0.99), st.integers(1, 16))
def test_a_higher_pfr_never_keeps_more(channels: int, one: float, other: float, round_to: int) -> None:
    low, high = sorted((one, other))
    for to in ("up", "nearest"):
        rounding = Rounding(round_to, to)
        assert kept_channels(channels, high, rounding) <= kept_channels(channels, low, rounding)


def test_kept_channels_where_floats_are_not_exact() -> None:
    assert [kept_channels(80, pfr) for pfr in (0, 0.1, 0.19, 0.3, 0.4, 0.5, 0.6)] == [80, 72, 65, 56, 48, 40, 32]
    assert kept_channels(10, 0.3, Rounding(4)) == 8


def test_rounded_filter_counts_of_a_resnet18() -> None:
    widths = (64, 128, 256, 512)
    assert [kept_channels(width, 0.4) for width in widths] == [39, 77, 154, 308]
    assert [kept_channels(width, 0.4, Rounding(16)) for width in widths] == [48, 80, 160, 320]
    assert [kept_channels(width, 0.4, Rounding(16, "nearest")) for width in widths] == [32, 80, 160, 304]
    assert [kept_channels(width, 0.4, Rounding(8, "nearest")) for width in widths] == [40, 80, 152, 312]
    assert [Rounding(16, "nearest")(count, 64) for count in (0, 1, 7, 8, 23, 24, 25)] == [0, 16, 16, 16, 16, 32, 32]


@given(st.integers(0, 80), st.integers(1, 80), st.integers(1, 16), st.integers(0, 80))
def test_rounding_keeps_whole_groups_minima_and_multiples(count: int, channels: int, step: int, least: int) -> None:
    for to in ("up", "nearest"):
        kept = Rounding(step, to)(count, channels, least)
        assert min(channels, least) <= kept <= channels
        assert (kept == channels) if count >= channels else (kept % step == 0 or kept == channels)
        assert (kept == 0) == (count == 0 and least == 0)
        assert to == "nearest" or kept >= min(count, channels)


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1))
def test_the_ramp_rises_to_all_of_it_before_the_freeze(epochs: int, share: float, cut: float) -> None:
    ramp = Ramp(ramp_share=share, freeze_share=cut * (1 - share))
    last = ramp.last_update(epochs)
    values = [ramp.progress(epoch, epochs) for epoch in range(epochs)]
    assert values == sorted(values)
    assert all(value == 1 for value in values[last:])
    assert 0 <= last < epochs
    assert epochs - last >= ramp.freeze_share * epochs - 1e-6


def test_the_ramp_is_cubic() -> None:
    ramp = Ramp(ramp_share=0.4, freeze_share=0.3)
    assert [ramp.progress(epoch, 20) for epoch in (0, 2, 4, 8, 19)] == pytest.approx([0, 1 - 0.75**3, 1 - 0.5**3, 1, 1])
    assert ramp.last_update(20) == 14
    assert ramp.progress(0, 1) == 1


ranked = st.lists(st.lists(st.sampled_from([x / 8 for x in range(9)]), min_size=1, max_size=9), min_size=1, max_size=4)


def chosen(selection: Selection, ranks: list[list[float]], progress: float = 1.0) -> list[list[bool]]:
    return [stays.tolist() for stays in selection([torch.tensor(rank) for rank in ranks], progress)]


@given(ranked, st.floats(0, 0.99), st.integers(1, 4), st.integers(0, 3))
def test_a_layer_budget_keeps_the_lowest_ranks_of_each_group(
    ranks: list[list[float]], pfr: float, round_to: int, least: int
) -> None:
    for rank, stays in zip(ranks, chosen(LayerBudget(pfr, Rounding(round_to), least), ranks), strict=True):
        assert sum(stays) == kept_channels(len(rank), pfr, Rounding(round_to), least)
        assert sum(stays) >= min(len(rank), least)
        assert_lowest(rank, stays)


def assert_lowest(rank: list[float], stays: list[bool]) -> None:
    order = sorted(range(len(rank)), key=lambda place: (rank[place], place))
    assert {place for place, kept in enumerate(stays) if kept} == set(order[: sum(stays)])


@given(ranked, st.floats(0, 0.99))
def test_a_global_budget_keeps_the_lowest_ranks_of_all(ranks: list[list[float]], pfr: float) -> None:
    stays = chosen(GlobalBudget(pfr), ranks)
    every, flat = [r for rank in ranks for r in rank], [kept for group in stays for kept in group]
    assert sum(flat) == math.ceil((1 - pfr) * len(every) - 1e-9)
    assert_lowest(every, flat)


def test_a_global_budget_rises_with_the_ramp() -> None:
    ranks = [[0.1, 0.2, 0.7, 0.8], [0.3, 0.4, 0.5, 0.6]]
    kept = [sum(map(sum, chosen(GlobalBudget(0.5), ranks, progress))) for progress in (0, 0.25, 0.5, 1)]
    assert kept == [8, 7, 6, 4]
    assert chosen(GlobalBudget(0.5, Rounding(3, "nearest")), ranks, 0) == [[True] * 4, [True] * 4]


def test_a_global_budget_may_take_one_group_whole() -> None:
    ranks = [[0.1, 0.2], [0.8, 0.9]]
    assert chosen(GlobalBudget(0.5), ranks) == [[True, True], [False, False]]
    assert chosen(GlobalBudget(0.5, min_filters=1), ranks) == [[True, True], [True, False]]
    assert chosen(GlobalBudget(0.5, Rounding(2), min_filters=1), ranks) == [[True, True], [True, True]]
    assert chosen(LayerBudget(0.5), ranks) == [[True, False], [True, False]]


@given(ranked, st.sampled_from([0.25, 0.5, 1.0]))
def test_a_limit_takes_all_above_it_and_no_other(ranks: list[list[float]], limit: float) -> None:
    assert chosen(RankLimit(limit), ranks) == [[r <= limit for r in rank] for rank in ranks]


def test_a_limit_rises_with_the_ramp() -> None:
    ranks = [[0.9, 0.7, 0.8, 0.1]]
    kept = [chosen(RankLimit(0.5), ranks, progress)[0] for progress in (0, 0.34, 0.67, 1)]
    assert kept == [
        [True, True, True, True],
        [False, True, True, True],
        [False, True, False, True],
        [False, False, False, True],
    ]
    assert chosen(RankLimit(0.5, Rounding(2)), ranks) == [[False, True, False, True]]


def test_a_group_pruned_to_nothing_is_infeasible_and_named() -> None:
    model = network("resnet8").train()
    groups = channel_groups(model, torch.zeros(1, 1, 8, 8), "inner")
    pruner = FilterPruner(lambda w: -mean_abs(w), RankLimit(-1e9), Ramp(0.4, 0.3), groups, model)
    told = r"layer stages\.0\.0\.conv1 is pruned to nothing; .*compress\.min_filters"
    with pytest.raises(InfeasibleError, match=told):
        pruner.before_epoch(model, 10, 20)


def test_switch_masks_forward_and_passes_the_gradient() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([1.0, 0.0, 1.0])
    y = switch(x, mask)
    assert y.tolist() == [[1.0, 0.0, 3.0]]
    y.backward(torch.tensor([[5.0, 6.0, 7.0]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[5.0, 6.0, 7.0]]


def pruned_net(config: L1PruneConfig) -> tuple[nn.Module, FilterPruner]:
    model = network("resnet8").train()
    groups = channel_groups(model, torch.zeros(1, 1, 8, 8), config.scope)
    ramp = Ramp(config.ramp_share, config.freeze_share)
    return model, FilterPruner(lambda w: -mean_abs(w), LayerBudget(config.pfr), ramp, groups, model)


def filter_gradient(model: nn.Module, name: str, digits: Tensor) -> Tensor:
    model.zero_grad()
    model(digits).square().sum().backward()
    grad = model.get_submodule(name).get_parameter("weight").grad
    assert grad is not None
    return grad.abs().flatten(1).sum(1)


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_a_masked_filter_learns_and_may_return_until_the_freeze(scope: Scope, digits: Tensor) -> None:
    model, pruner = pruned_net(L1PruneConfig(pfr=0.5, scope=scope))
    for place, group in enumerate(pruner.groups):
        pruner.before_epoch(model, 13, 20)
        masked = int((~pruner.masks.kept(model)[place]).nonzero()[0])
        for member in group.producers:
            assert filter_gradient(model, member.name, digits)[masked] > 0
            model.get_submodule(member.name).get_parameter("weight").data[masked] *= 100
        pruner.before_epoch(model, 14, 20)
        assert bool(pruner.masks.kept(model)[place][masked])
        frozen = pruner.masks.kept(model)[place]
        out = int((~frozen).nonzero()[0])
        for member in group.producers:
            model.get_submodule(member.name).get_parameter("weight").data[out] *= 10_000
        for epoch in range(15, 20):
            pruner.before_epoch(model, epoch, 20)
            assert torch.equal(pruner.masks.kept(model)[place], frozen)


def test_frozen_masks_let_no_gradient_through(digits: Tensor) -> None:
    model, pruner = pruned_net(L1PruneConfig(pfr=0.5))
    pruner.before_epoch(model, 14, 20)
    name, stays = pruner.groups[0].name, pruner.masks.kept(model)[0]
    assert bool(((filter_gradient(model, name, digits) > 0) == stays).all())


def test_masks_survive_saving_and_loading_in_the_frozen_epochs() -> None:
    model, pruner = pruned_net(L1PruneConfig(pfr=0.5, scope="all"))
    pruner.before_epoch(model, 14, 20)
    state = model.state_dict()
    resumed, again = pruned_net(L1PruneConfig(pfr=0.5, scope="all"))
    resumed.load_state_dict(state)
    again.before_epoch(resumed, 15, 20)
    x = torch.randn(4, 1, 8, 8, generator=source())
    assert torch.equal(resumed.eval()(x), model.eval()(x))
    for one, other in zip(pruner.release(model), again.release(resumed), strict=True):
        assert torch.equal(one[1], other[1])


def test_released_networks_carry_no_trace_of_the_masks() -> None:
    model, pruner = pruned_net(L1PruneConfig(pfr=0.5))
    fresh = network("resnet8")
    pruner.before_epoch(model, 14, 20)
    pruner.release(model)
    x = torch.randn(4, 1, 8, 8, generator=source())
    assert list(model.state_dict()) == list(fresh.state_dict())
    assert torch.equal(model.eval()(x), fresh(x))


def test_ties_keep_the_lower_index() -> None:
    model, pruner = pruned_net(L1PruneConfig(pfr=0.5))
    for group in pruner.groups:
        nn.init.ones_(model.get_submodule(group.name).get_parameter("weight"))
    pruner.before_epoch(model, 19, 20)  # beyond the last update: nothing is computed
    assert all(bool(stays.all()) for stays in pruner.masks.kept(model))
    pruner.before_epoch(model, 10, 20)
    for stays in pruner.masks.kept(model):
        half = kept_channels(len(stays), 0.5)
        assert stays.tolist() == [True] * half + [False] * (len(stays) - half)
