"""Proximal operators solve their problem; what they take from a network is gone throughout, and can be cut out."""

import copy

import pytest
import torch
from pydantic import ValidationError
from tiny_methods import MODEL, assert_same, dense, images, settings, trained
from torch import Tensor, nn

from trainables.config import ModelConfig
from trainables.errors import InfeasibleError
from trainables.method_config import GroupSparsityConfig, LowRankConfig
from trainables.methods.group_sparsity import GroupSparsity
from trainables.methods.low_rank import LowRank, kept_rank, pays
from trainables.models.build import build, initialise
from trainables.pruning.groups import channel_groups
from trainables.pruning.sparsity import SparseGroups
from trainables.training.loop import Training, predict
from trainables.training.proximal import group_shrinkage, singular_value_threshold, soft_threshold
from trainables.training.sgd import Sgd


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(name: str = "resnet8", width: int = 6) -> nn.Module:
    model = build(ModelConfig(name=name, width=width), 1, 10)
    initialise(model, torch.Generator().manual_seed(0))
    return model


def no_better(found: Tensor, x: Tensor, penalty: float, norm: str) -> bool:
    """Whether no small step away from `found` makes ||y - x||^2 / 2 + penalty * norm(y) smaller."""

    def value(y: Tensor) -> float:
        norms = {"l1": y.abs().sum(), "l2": y.norm(), "nuclear": torch.linalg.svdvals(y).sum() if y.dim() > 1 else 0}
        return float((y - x).square().sum() / 2 + penalty * norms[norm])

    steps = [1e-3 * drawn(*x.shape, seed=seed) for seed in range(50)]
    return all(value(found) <= value(found + step) for step in [*steps, -1e-3 * found, 1e-3 * x])


@pytest.mark.parametrize("t", [0.1, 0.7, 2.0])
def test_each_operator_solves_its_problem(t: float) -> None:
    x = drawn(4, 6)
    assert no_better(soft_threshold(x, t), x, t, "l1")
    assert no_better(x * group_shrinkage(x.norm(), t), x, t, "l2")
    assert no_better(singular_value_threshold(x, t), x, t, "nuclear")


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_steps_with_momentum_find_the_minimum_for_a_penalty_that_is_smaller(momentum: float) -> None:
    """Of ||w - a||^2 / 2 + (1 - m) p ||w||, which is a (1 - (1 - m) p / ||a||)."""
    a, rate, penalty = drawn(6), 0.01, 0.5
    w = nn.Parameter(a.clone())
    optimizer = Sgd([w], momentum, 0.0)
    for _ in range(4000):
        w.grad = (w - a).detach()
        optimizer.step(rate)
        with torch.no_grad():
            w.mul_(group_shrinkage(w.norm(), rate * penalty))
    torch.testing.assert_close(w.detach(), a * (1 - (1 - momentum) * penalty / a.norm()), rtol=0, atol=0.02)


def test_they_give_exact_zeros() -> None:
    x = drawn(4, 6)
    largest = float(torch.linalg.svdvals(x)[0])
    assert int((singular_value_threshold(x, 0.99 * largest).abs() > 1e-12).any())
    assert not bool(singular_value_threshold(x, 1.01 * largest).any())
    assert float(group_shrinkage(x.norm(), float(x.norm()))) == 0
    assert float(group_shrinkage(torch.tensor(0.0), 0.1)) == 0
    assert float(group_shrinkage(torch.tensor(0.0), 0.0)) == 0
    assert torch.equal(soft_threshold(torch.tensor([-2.0, -0.5, 0.5, 2.0]), 1.0), torch.tensor([-1.0, -0.0, 0.0, 1.0]))


def test_a_step_follows_the_formula_and_holds_what_a_sum_ties_together() -> None:
    model = network()
    groups = channel_groups(model, torch.zeros(1, 1, 8, 8), "all")
    tied = next(group for group in groups if len(group.producers) > 1)
    theta = [
        parameter.detach().clone().reshape(tied.channels, -1)
        for member in (*tied.producers, *tied.norms)
        for parameter in model.get_submodule(member.name).parameters(recurse=False)
    ]
    whole = torch.cat(theta, 1)
    t = 0.3
    expected = whole * (1 - t * whole.shape[1] ** 0.5 / whole.norm(dim=1, keepdim=True)).clamp(min=0)
    SparseGroups([tied], [1.0], 0.0, 0).shrink(model, t)
    found = torch.cat(
        [
            parameter.detach().reshape(tied.channels, -1)
            for member in (*tied.producers, *tied.norms)
            for parameter in model.get_submodule(member.name).parameters(recurse=False)
        ],
        1,
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_sparse_share_takes_single_weights_first() -> None:
    model, t, share = network(), 0.1, 0.5
    group = channel_groups(model, torch.zeros(1, 1, 8, 8), "inner")[0]
    conv = model.get_submodule(group.name).get_parameter("weight")
    before = conv.detach().clone()
    SparseGroups([group], [1.0], share, 0).shrink(model, t)
    small = before.abs() <= t * share
    assert bool(small.any())
    assert not bool(conv[small].any())
    assert bool(conv[~small].all())


def test_a_strong_penalty_takes_all_channels_but_the_largest_and_the_network_stays_the_same_when_cut() -> None:
    data = images()
    config = GroupSparsityConfig(penalty=5.0, scope="all", min_filters=2, cut="end", free_share=0.0, epochs=2)
    model, method = trained(dense(data, MODEL), data, config)
    before = predict(model, data.test, data)
    finished = method.finalize(model)
    assert {kept for kept, _ in finished.kept.values()} == {2}
    assert [of for _, of in finished.kept.values()] == [6, 6, 12, 12, 24, 24]
    assert_same(predict(finished.model, data.test, data), before)


def test_early_groups_are_penalised_less() -> None:
    model, method = network(), GroupSparsity(GroupSparsityConfig(penalty=0.2, early_groups=2, early_share=0.25))
    method.transform(model, torch.zeros(1, 1, 8, 8))
    weights = {n: model.get_submodule(n).get_parameter("weight").detach().clone() for n in method.groups()}
    method.after_step(model, 0.1)
    shrunk = [
        float(model.get_submodule(name).get_parameter("weight").detach().norm() / before.norm())
        for name, before in weights.items()
    ]
    assert shrunk[0] > shrunk[2]
    assert shrunk[1] > shrunk[2]


def test_channels_are_cut_while_training_goes_on() -> None:
    data, sizes = images(), []
    model = copy.deepcopy(dense(data, MODEL))
    config = GroupSparsityConfig(penalty=0.06, scope="all", epochs=12, lr=0.1)
    method = GroupSparsity(config)
    method.transform(model, torch.zeros(1, 1, 8, 8))
    training = Training(model, data, settings(12, 0.1), 0, method)
    while not training.finished:
        training.run_epoch()
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2
    free = sizes[-3:]
    assert len(set(free)) == 1  # without a penalty nothing more goes
    assert sum(kept for kept, _ in method.finalize(model).kept.values()) < sum([6, 6, 12, 12, 24, 24])


def test_some_epoch_has_the_penalty() -> None:
    with pytest.raises(ValidationError, match="less than 1"):
        GroupSparsityConfig(free_share=1)
    most = GroupSparsity(GroupSparsityConfig(free_share=0.999, epochs=3))
    assert [most.protected(epoch, 3) for epoch in range(3)] == [True, True, False]


def test_without_a_penalty_it_is_finetuning() -> None:
    assert GroupSparsityConfig(penalty=0.0, scope="all").canonical().method == "finetune"  # pyright: ignore[reportAttributeAccessIssue]


def test_ranks_keep_the_asked_energy() -> None:
    weight = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    assert [kept_rank(weight, energy) for energy in (0.01, 0.4, 0.41, 0.7, 0.9, 0.91, 1.0)] == [1, 1, 2, 2, 3, 4, 4]
    assert kept_rank(torch.zeros(3, 2, 3, 3), 0.9) == 1
    assert [pays(torch.zeros(6, 4, 3, 3), rank) for rank in (5, 6)] == [True, False]  # 6 (6 + 36) > 216


def test_the_nuclear_norm_lowers_the_rank_at_equal_energy() -> None:
    """The source's claim: with the penalty the same energy needs fewer singular values."""
    data, ranks = images(), []
    for penalty in (0.0, 0.3):
        config = LowRankConfig(penalty=penalty, energy=0.9, split_at=1.0, epochs=4, lr=0.1)
        model, _ = trained(dense(data, MODEL), data, config)
        named = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and n != "stem.conv")
        ranks.append(sum(kept_rank(layer.weight, 0.9) for _, layer in named))
    assert ranks[1] < 0.8 * ranks[0]


def test_a_split_layer_computes_what_it_did_and_is_smaller() -> None:
    data = images()
    model, method = trained(dense(data, MODEL), data, LowRankConfig(energy=0.6, split_at=1.0, epochs=2, keep=()))
    before, params = predict(model, data.test, data), sum(p.numel() for p in model.parameters())
    finished = method.finalize(model)
    assert_same(predict(finished.model, data.test, data), before)
    assert sum(p.numel() for p in finished.model.parameters()) < params
    assert {"classifier", "stages.2.0.conv1"} <= {edit.place for edit in finished.edits}


def test_layers_are_split_in_the_middle_of_the_training() -> None:
    data, layers, weights = images(), list[int](), list[Tensor]()
    model = copy.deepcopy(dense(data, MODEL))
    method = LowRank(LowRankConfig(energy=0.7, split_at=0.5, epochs=4))
    method.transform(model, torch.zeros(1, 1, 8, 8))
    training = Training(model, data, settings(4), 0, method)
    while not training.finished:
        training.run_epoch()
        layers.append(sum(isinstance(module, nn.Conv2d) for module in model.modules()))
        split = [m for n, m in model.named_modules() if n == "stages.2.0.conv1.0"]
        weights += [layer.get_parameter("weight").detach().clone() for layer in split]
    assert len(weights) == 2
    assert not torch.equal(*weights)  # the new layers are trained
    assert layers[0] == layers[1] == 9
    assert layers[2] == layers[3] > 9
    assert [method.protected(epoch, 4) for epoch in range(4)] == [True, True, False, False]


def test_networks_that_cannot_be_split_or_have_no_channels_are_infeasible() -> None:
    grouped = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InfeasibleError, match="Sequential has no convolution of one group and no linear layer outside"):
        LowRank(LowRankConfig()).transform(grouped, torch.zeros(1, 1, 8, 8))
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InfeasibleError, match="no channels to prune"):
        GroupSparsity(GroupSparsityConfig()).transform(bare, torch.zeros(1, 1, 8, 8))
