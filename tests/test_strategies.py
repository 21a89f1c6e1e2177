"""One suite for all query strategies, and an oracle for each: brute force, closed form or the explicit embedding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import select_config
from trainables.active.pool import Pool, Strategy
from trainables.active.strategies import geometry, typiclust
from trainables.active.strategies.badge import badge, gradients
from trainables.active.strategies.bald import Bald, information
from trainables.active.strategies.clustering import k_means, nearest_centre
from trainables.active.strategies.entropy import nats
from trainables.active.strategies.k_center import farthest_first, k_center
from trainables.active.strategies.margin import closeness
from trainables.active.strategies.ranking import doubt
from trainables.active.strategies.registry import STRATEGIES, strategy_of
from trainables.active.strategies.seeding import drawn
from trainables.active.strategies.wrappers import Oversample, PoolCap
from trainables.errors import InfeasibleError
from trainables.select_config import SelectConfig

NAMES = tuple(STRATEGIES)
BY_SCORE = ("least_confidence", "margin", "entropy", "forgetting")
STOCHASTIC = ("random", "badge", "bald", "typiclust")
WITH_FEATURES = ("k_center", "badge", "typiclust")

unhurried = settings(deadline=None, max_examples=60)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Tables:
    """A network that looks its answers up, and remembers what it was asked."""

    outputs: Tensor
    inputs: Tensor
    changes: Tensor
    asked: set[int] = field(default_factory=set[int])
    passes: int = 0

    def logits(self, indices: Tensor) -> Tensor:
        self.asked |= set(indices.tolist())
        return self.outputs[indices]

    def features(self, indices: Tensor) -> Tensor:
        self.asked |= set(indices.tolist())
        return self.inputs[indices]

    def dropout_logits(self, indices: Tensor, passes: int, source: torch.Generator) -> Tensor:
        self.asked |= set(indices.tolist())
        self.passes = passes
        kept = torch.rand(passes, len(indices), self.outputs.shape[1], generator=source) > 0.3
        return self.outputs[indices] * kept

    def flips(self, indices: Tensor) -> Tensor:
        self.asked |= set(indices.tolist())
        return self.changes[indices]


class Headless(Tables):
    """A network that does not end in a linear layer."""

    def features(self, indices: Tensor) -> Tensor:
        raise InfeasibleError("no linear layer at its end")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tables(images: int = 120, classes: int = 5, width: int = 6, seed: int = 0) -> Tables:
    source = seeded(seed)
    return Tables(
        torch.randn(images, classes, generator=source) * 3,
        torch.randn(images, width, generator=source),
        torch.randint(4, (images,), generator=source),
    )


def pool_of(network: Tables, labelled: Sequence[int] = (3, 50, 7)) -> Pool:
    """Every third image is in nobody's reach: neither labelled nor a candidate."""
    images, classes = network.outputs.shape
    taken = {*labelled, *range(2, images, 3)}
    free = [i for i in range(images) if i not in taken]
    known = torch.tensor(labelled, dtype=torch.int64)
    return Pool(torch.tensor(free), known, known % classes, classes, network)


def strategy(name: str, **leaves: object) -> Strategy:
    return strategy_of(SelectConfig.model_validate({"strategy": name, "budget": 1000, "passes": 4, **leaves}))


def chosen(name: str, pool: Pool, count: int, seed: int = 0) -> list[int]:
    return strategy(name)(pool, count, seeded(seed)).tolist()


def check(answer: Tensor, pool: Pool, count: int) -> None:
    assert answer.dtype == torch.int64
    assert answer.shape == (count,)
    assert len(set(answer.tolist())) == count
    assert set(answer.tolist()) <= set(pool.candidates.tolist())


ODD: dict[str, Tables] = {
    "ordinary": tables(),
    "one class": tables(classes=1),
    "many classes": tables(classes=150),
    "one feature": tables(width=1),
    "constant": Tables(torch.full((120, 5), 0.25), torch.full((120, 6), 1.7), torch.zeros(120, dtype=torch.int64)),
    "all zero": Tables(torch.zeros(120, 5), torch.zeros(120, 6), torch.zeros(120, dtype=torch.int64)),
    "large": Tables(tables().outputs * 1e37, tables().inputs * 1e37, tables().changes * 10**6),
    "tiny": Tables(tables().outputs * 1e-37, tables().inputs * 1e-37, tables().changes),
    "vanishing": Tables(tables().outputs * 1e-42, tables().inputs * 1e-42, tables().changes),
    "sure": Tables(tables().outputs * 200, tables().inputs, tables().changes),
    "doubles": Tables(tables(6).outputs.repeat(20, 1), tables(6).inputs.repeat(20, 1), tables(6).changes.repeat(20)),
}


# --- what every strategy keeps to


def test_every_name_of_the_config_has_a_strategy() -> None:
    assert set(STRATEGIES) == set(get_args(select_config.Strategy))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("count", [1, 17, "all"])
def test_as_many_different_candidates_as_asked_for(name: str, case: str, count: int | str) -> None:
    pool = pool_of(ODD[case])
    wanted = count if isinstance(count, int) else len(pool.candidates)
    check(strategy(name)(pool, wanted, seeded()), pool, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_one_candidate_left(name: str) -> None:
    pool = replace(pool_of(tables()), candidates=torch.tensor([9]))
    assert chosen(name, pool, 1) == [9]


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_a_single_class(name: str) -> None:
    pool = pool_of(tables())
    check(strategy(name)(replace(pool, labels=torch.zeros_like(pool.labels)), 9, seeded()), pool, 9)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_labelled(name: str) -> None:
    pool = pool_of(tables(), labelled=())
    check(strategy(name)(pool, 9, seeded()), pool, 9)


@pytest.mark.parametrize("name", NAMES)
def test_equal_sources_give_equal_answers(name: str) -> None:
    pool = pool_of(tables())
    assert chosen(name, pool, 12, seed=5) == chosen(name, pool, 12, seed=5)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_matters_to_those_that_draw(name: str) -> None:
    pool = pool_of(tables())
    answers = {tuple(chosen(name, pool, 12, seed)) for seed in range(5)}
    assert (len(answers) > 1) == (name in STOCHASTIC)


@pytest.mark.parametrize("name", NAMES)
def test_chance_comes_from_the_source_alone(name: str) -> None:
    pool, before = pool_of(tables()), torch.get_rng_state()
    answer = chosen(name, pool, 12)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        assert chosen(name, pool, 12) == answer


@pytest.mark.parametrize("name", NAMES)
def test_only_candidates_and_labelled_images_are_looked_at(name: str) -> None:
    network = tables()
    pool = pool_of(network)
    chosen(name, pool, 12)
    assert network.asked <= {*pool.candidates.tolist(), *pool.labelled.tolist()}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_handed_in_is_changed(name: str) -> None:
    network = tables()
    pool = pool_of(network)
    held = [pool.candidates, pool.labelled, pool.labels, network.outputs, network.inputs, network.changes]
    copies = [tensor.clone() for tensor in held]
    chosen(name, pool, 12)
    assert all(torch.equal(now, then) for now, then in zip(held, copies, strict=True))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STOCHASTIC])
@pytest.mark.parametrize("case", ["constant", "all zero"])
def test_ties_fall_to_the_earlier_candidate(name: str, case: str) -> None:
    pool = pool_of(ODD[case])
    assert chosen(name, pool, 20) == pool.candidates[:20].tolist()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STOCHASTIC])
def test_a_smaller_query_is_the_beginning_of_a_larger_one(name: str) -> None:
    pool = pool_of(tables())
    assert chosen(name, pool, 30)[:11] == chosen(name, pool, 11)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_features_stops_those_that_need_them(name: str) -> None:
    plain = tables()
    pool = pool_of(Headless(plain.outputs, plain.inputs, plain.changes))
    if name in WITH_FEATURES:
        with pytest.raises(InfeasibleError, match="no linear layer"):
            chosen(name, pool, 3)
    else:
        check(strategy(name)(pool, 3, seeded()), pool, 3)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor held."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("name", NAMES)
def test_no_table_of_all_pairs_is_made(name: str) -> None:
    network = tables(9000, classes=3, width=4)
    pool = pool_of(network, labelled=tuple(range(0, 900, 3)))
    with Largest() as largest:
        strategy(name)(pool, 50, seeded())
    assert largest.numbers <= max(geometry.ROWS * typiclust.WITNESSES, 9000 * 4) < len(pool.candidates) ** 2 / 4


@unhurried
@given(
    name=st.sampled_from(NAMES),
    images=st.integers(1, 40),
    classes=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_any_pool(name: str, images: int, classes: int, seed: int, data: st.DataObject) -> None:
    order = torch.randperm(images, generator=seeded(seed))
    known = data.draw(st.integers(0, images - 1))
    labelled, candidates = order[:known], order[known:].sort().values
    pool = Pool(candidates, labelled, labelled % classes, classes, tables(images, classes, 3, seed))
    count = data.draw(st.integers(1, len(candidates)))
    check(strategy(name)(pool, count, seeded(seed)), pool, count)


# --- random


def test_chance_takes_every_candidate_equally_often() -> None:
    pool, source = pool_of(tables(18)), seeded()
    draws = [int(strategy("random")(pool, 1, source)) for _ in range(4000)]
    shares = np.bincount(draws, minlength=18)[pool.candidates.numpy()] / 4000
    spread = math.sqrt(1 / len(shares) / 4000)
    assert np.abs(shares - 1 / len(shares)).max() < 4 * spread


def test_chance_asks_nothing_of_the_network() -> None:
    network = tables()
    chosen("random", pool_of(network), 5)
    assert network.asked == set()


# --- scores of probabilities


def softmax(logits: Tensor) -> Any:
    z = logits.numpy().astype(np.float64)
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def wanted(name: str, logits: Tensor) -> Any:
    """The scores by their definitions, larger is more wanted."""
    p = np.sort(softmax(logits), 1)[:, ::-1]
    if name == "least_confidence":
        return 1 - p[:, 0]
    if name == "margin":
        return -(p[:, 0] - p[:, 1])
    return -(p * np.log(p)).sum(1)


@pytest.mark.parametrize("name", ["least_confidence", "margin", "entropy"])
@unhurried
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 12), count=st.integers(1, 60))
def test_scores_by_their_definitions(name: str, seed: int, classes: int, count: int) -> None:
    network = tables(100, classes, seed=seed)
    pool = pool_of(network)
    scores = wanted(name, network.outputs)
    best = np.sort(scores[pool.candidates.numpy()])[::-1][:count]
    np.testing.assert_allclose(scores[chosen(name, pool, count)], best, rtol=0, atol=1e-12)


def test_closed_forms() -> None:
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.3, 0.2, 0.0]], dtype=torch.float64)
    mixed = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    torch.testing.assert_close(nats(p), torch.tensor([math.log(4), 0.0, mixed], dtype=torch.float64))
    torch.testing.assert_close(doubt(p), torch.tensor([0.75, 0.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(closeness(p), torch.tensor([1.0, 0.0, 0.8], dtype=torch.float64))


def test_the_three_scores_disagree_where_they_should() -> None:
    p = torch.tensor([[0.5, 0.5, 1e-9], [0.45, 0.275, 0.275], [0.9, 0.05, 0.05]])
    network = Tables(p.log(), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    pool = Pool(torch.arange(3), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 3, network)
    assert chosen("margin", pool, 3) == [0, 1, 2]
    assert chosen("least_confidence", pool, 3) == [1, 0, 2]
    assert chosen("entropy", pool, 3) == [1, 0, 2]


@pytest.mark.parametrize("name", BY_SCORE)
def test_all_but_sure_images_keep_their_order(name: str) -> None:
    """1 - p is 0 in double precision from a lead of 37 on."""
    leads = torch.tensor([300.0, 50.0, 200.0, 45.0, 100.0])
    network = Tables(torch.stack([leads, torch.zeros(5)], 1), torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64))
    pool = Pool(torch.arange(5), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 2, network)
    assert chosen(name, pool, 5) == [3, 1, 4, 2, 0]


def test_forgetting_is_changes_then_least_confidence() -> None:
    network = tables()
    pool = pool_of(network)
    doubts = wanted("least_confidence", network.outputs)
    by_hand = sorted(pool.candidates.tolist(), key=lambda i: (-int(network.changes[i]), -doubts[i]))
    assert chosen("forgetting", pool, len(by_hand)) == by_hand


# --- k-center


def greedy(rows: Any, centres: Any, count: int) -> list[int]:
    """The definition: all distances to all centres, again for each pick."""
    picks: list[int] = []
    for _ in range(count):
        known = np.concatenate([centres, rows[picks]])
        gaps = ((rows[:, None] - known[None]) ** 2).sum(-1).min(1) if len(known) else np.full(len(rows), np.inf)
        gaps[picks] = -1
        picks.append(int(gaps.argmax()))
    return picks


@unhurried
@given(
    rows=st.integers(1, 4).flatmap(
        lambda d: st.lists(st.lists(st.integers(-3, 3), min_size=d, max_size=d), min_size=1, max_size=30)
    ),
    active=st.integers(1, 8),
    data=st.data(),
)
def test_k_center_is_the_greedy_definition(rows: list[list[int]], active: int, data: st.DataObject) -> None:
    """Whole numbers: distances are exact, so that even ties must agree."""
    points = torch.tensor(rows, dtype=torch.float32)
    known = data.draw(st.integers(0, len(rows) - 1))
    count = data.draw(st.integers(1, len(rows) - known))
    found = farthest_first(points[known:], points[:known], count, active)
    assert found == greedy(points[known:].numpy(), points[:known].numpy(), count)


@pytest.mark.parametrize("active", [1, 16, 5000])
def test_k_center_over_blocks_is_the_greedy_definition(active: int) -> None:
    rows = torch.randn(2 * geometry.ROWS + 5, 8, generator=seeded())
    centres = torch.randn(geometry.CENTRES + 3, 8, generator=seeded(1))
    near = np.min([((rows.double() - c.double()) ** 2).sum(1).numpy() for c in centres], axis=0)
    by_hand: list[int] = []
    for _ in range(60):
        by_hand.append(int(near.argmax()))
        near = np.minimum(near, ((rows.double() - rows[by_hand[-1]].double()) ** 2).sum(1).numpy())
    assert farthest_first(rows, centres, 60, active) == by_hand


def test_k_center_in_a_plane_is_the_greedy_definition() -> None:
    """Where each pick changes many distances, what lies outside of the active rows matters."""
    rows = torch.rand(600, 2, generator=seeded())
    by_hand = greedy(rows.double().numpy(), np.zeros((1, 2)), 150)
    for active in (5, 40, 200):
        assert farthest_first(rows, torch.zeros(1, 2), 150, active) == by_hand


@pytest.mark.parametrize("active", range(1, 15))
def test_k_center_breaks_ties_by_place_wherever_the_active_rows_end(active: int) -> None:
    rows = torch.cat([2 * torch.eye(13)[:12], 9 * torch.eye(13)[12:]])
    assert farthest_first(rows, torch.zeros(1, 13), 13, active) == [12, *range(12)]
    assert farthest_first(rows.flip(0), torch.zeros(1, 13), 13, active) == list(range(13))


def test_k_center_sees_doubles_through_rounding() -> None:
    distinct = torch.randn(50, 64, generator=seeded()) + 3
    rows = distinct.repeat(3, 1)
    for active in (20, 1000):
        picks = farthest_first(rows, distinct[:1] + 1, 150, active)
        assert sorted(place % 50 for place in picks[:50]) == list(range(50))
        assert picks[50:] == sorted(set(range(150)) - set(picks[:50]))


def test_k_center_starts_from_what_is_labelled() -> None:
    places = torch.tensor([[0.0], [1.0], [5.0], [9.0], [10.0]])
    network = Tables(torch.zeros(5, 2), places, torch.zeros(5, dtype=torch.int64))
    pool = Pool(torch.tensor([0, 1, 2, 3]), torch.tensor([4]), torch.tensor([0]), 2, network)
    assert k_center(pool, 4, seeded()).tolist() == [0, 2, 1, 3]


def test_k_center_does_not_depend_on_the_unit() -> None:
    network = tables()
    pool = pool_of(network)
    answer = chosen("k_center", pool, 40)
    for unit in (2.0**-118, 2.0**120):
        scaled = replace(pool, network=replace(network, inputs=network.inputs * unit))
        assert chosen("k_center", scaled, 40) == answer


# --- BADGE


def embedding(network: Tables, indices: Tensor) -> Any:
    """(C, classes * D), as the paper writes it."""
    p = softmax(network.outputs[indices])
    p[np.arange(len(p)), p.argmax(1)] -= 1
    return (p[:, :, None] * network.inputs[indices].numpy().astype(np.float64)[:, None, :]).reshape(len(p), -1)


def test_badge_picks_what_the_explicit_embedding_picks_from_the_same_draws() -> None:
    network = tables(1200, classes=7, width=5)
    pool = pool_of(network)
    g = embedding(network, pool.candidates)
    picks = [int((g**2).sum(1).argmax())]
    for draw in torch.rand(79, dtype=torch.float64, generator=seeded(4)).tolist():
        gaps = ((g[:, None] - g[picks][None]) ** 2).sum(-1).min(1).cumsum()
        picks.append(int(np.searchsorted(gaps, draw * gaps[-1], side="right")))
    assert badge(pool, 80, seeded(4)).tolist() == pool.candidates[picks].tolist()


def test_factored_products_are_those_of_the_embedding() -> None:
    network = tables()
    indices = torch.arange(120)
    points = gradients(network.outputs, network.inputs)
    unit = float(torch.frexp(network.inputs.abs().max()).exponent)
    g = embedding(network, indices) / 2**unit
    np.testing.assert_allclose(points.norms().numpy(), (g**2).sum(1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(points.products(17).numpy(), g @ g[17], rtol=1e-4, atol=1e-7)


def test_badge_takes_each_gradient_once_before_any_twice() -> None:
    doubles = ODD["doubles"]
    pool = replace(pool_of(doubles), candidates=torch.arange(120))
    picks = badge(pool, 30, seeded())
    assert sorted((picks[:6] % 6).tolist()) == list(range(6))


@pytest.mark.parametrize(("draw", "place"), [(0.0, 1), (0.2499, 1), (0.25, 3), (0.999999, 3), (1 - 2**-53, 3)])
def test_a_draw_falls_in_proportion_to_the_weights(draw: float, place: int) -> None:
    assert drawn(torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0]), draw) == place


def test_without_weights_nothing_can_be_drawn() -> None:
    assert drawn(torch.zeros(4), 0.5) is None


# --- BALD


def logits_of(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).clamp(min=1e-300).log()


def test_information_in_closed_form() -> None:
    even, sure = [0.5, 0.5], [1.0, 0.0]
    passes = logits_of([[sure, even, [0.9, 0.1], sure], [sure, even, [0.1, 0.9], sure[::-1]]])
    mixed = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    torch.testing.assert_close(information(passes), torch.tensor([0, 0, mixed, math.log(2)], dtype=torch.float64))


@unhurried
@given(seed=st.integers(0, 2**31), passes=st.integers(1, 6), classes=st.integers(1, 6))
def test_information_is_a_mean_divergence_and_bounded(seed: int, passes: int, classes: int) -> None:
    logits = torch.randn(passes, 20, classes, generator=seeded(seed)) * 4
    p = np.stack([softmax(one) for one in logits])
    divergence = (p * np.log(p / p.mean(0))).sum(-1).mean(0)
    found = information(logits).numpy()
    np.testing.assert_allclose(found, divergence, atol=1e-11)
    assert (found >= 0).all()
    assert (found <= math.log(min(passes, classes)) + 1e-11).all()


def test_passes_that_agree_tie() -> None:
    logits = torch.randn(40, 5, generator=seeded()).expand(7, 40, 5)
    assert information(logits).tolist() == [0.0] * 40


def test_bald_ranks_by_information_and_takes_its_passes_from_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tables()
    pool = pool_of(network)
    answer = strategy("bald", passes=9)(pool, 15, seeded(2)).tolist()
    assert network.passes == 9
    scores = information(network.dropout_logits(pool.candidates, 9, seeded(2)))
    assert answer == pool.candidates[scores.argsort(descending=True, stable=True)[:15]].tolist()
    monkeypatch.setattr("trainables.active.strategies.bald.NUMBERS", 9 * 5 * 7)
    check(Bald(9)(pool, 15, seeded(2)), pool, 15)


# --- TypiClust-like


def blobs(sizes: Sequence[int], noise: float = 0.02) -> tuple[Tensor, Tensor]:
    """Features around the axes, and the blob of each image, mixed."""
    home = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    home = home[torch.randperm(len(home), generator=seeded(3))]
    return torch.eye(len(sizes))[home] + noise * torch.randn(len(home), len(sizes), generator=seeded(4)), home


def blob_pool(features: Tensor, labelled: Tensor) -> Pool:
    images = len(features)
    network = Tables(torch.zeros(images, 2), features, torch.zeros(images, dtype=torch.int64))
    free = torch.ones(images, dtype=torch.bool)
    free[labelled] = False
    return Pool(torch.nonzero(free).flatten(), labelled, torch.zeros_like(labelled), 2, network)


@pytest.mark.parametrize("seed", range(5))
def test_every_blob_without_a_label_is_covered_largest_first(seed: int) -> None:
    features, home = blobs([60, 30, 50, 20, 40, 10])
    labelled = torch.nonzero(home == 0).flatten()[:1]
    answer = typiclust.typiclust(blob_pool(features, labelled), 5, seeded(seed))
    assert home[answer].tolist() == [2, 4, 1, 3, 5]


def test_the_most_typical_image_lies_in_the_middle() -> None:
    angle = torch.linspace(-0.3, 0.3, 61) ** 3
    features = torch.stack([angle.cos(), angle.sin()], 1)
    answer = typiclust.typiclust(blob_pool(features, torch.zeros(0, dtype=torch.int64)), 1, seeded())
    assert abs(int(answer) - 30) <= 10


def test_typicality_by_brute_force() -> None:
    rows = torch.randn(90, 4, generator=seeded())
    home = torch.cat([torch.randint(3, (89,), generator=seeded(1)), torch.tensor([3])])
    for i, found in enumerate(typiclust.typicality(rows, home, seeded()).tolist()):
        gaps = sorted(math.dist(rows[i], rows[j]) for j in range(90) if j != i and home[j] == home[i])[:20]
        assert found == pytest.approx(1 / np.mean(gaps) if gaps else 0.0, rel=1e-3)


def test_large_clusters_are_measured_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(400, 2, generator=seeded())
    home = torch.zeros(400, dtype=torch.int64)
    whole = typiclust.typicality(rows, home, seeded())
    monkeypatch.setattr(typiclust, "WITNESSES", 200)
    part = typiclust.typicality(rows, home, seeded())
    assert not torch.equal(whole, part)
    assert float(torch.corrcoef(torch.stack([whole, part]))[0, 1]) > 0.9


@unhurried
@given(home=st.lists(st.integers(0, 5), min_size=1, max_size=40), seed=st.integers(0, 99), data=st.data())
def test_turns_are_the_greedy_rule(home: list[int], seed: int, data: st.DataObject) -> None:
    candidates = data.draw(st.integers(1, len(home)))
    typical = torch.randint(4, (len(home),), generator=seeded(seed)).float()
    left = set(range(candidates))
    covered = [home[candidates:].count(c) for c in range(6)]
    by_hand: list[int] = []
    while left:
        cluster = min({home[i] for i in left}, key=lambda c: (covered[c], -home.count(c), c))
        best = min((i for i in left if home[i] == cluster), key=lambda i: (-typical[i], i))
        covered[cluster] += 1
        left.remove(best)
        by_hand.append(best)
    assert typiclust.in_turns(torch.tensor(home), typical, candidates).tolist() == by_hand


def test_k_means_finds_blobs_and_ends_where_means_are() -> None:
    rows, home = blobs([30, 20, 10, 40])
    found = k_means(rows, 4, seeded())
    assert len({(int(a), int(b)) for a, b in zip(home, found, strict=True)}) == 4
    means = torch.stack([rows[found == c].mean(0) for c in range(4)])
    assert torch.equal(nearest_centre(rows, means), found)


def test_k_means_makes_no_more_clusters_than_rows_differ() -> None:
    rows = torch.randn(3, 4, generator=seeded()).repeat(10, 1)
    found = k_means(rows, 20, seeded())
    assert found.unique().tolist() == [0, 1, 2]
    assert torch.equal(found[:3].repeat(10), found)


# --- wrappers


def test_plain_settings_wrap_nothing() -> None:
    assert strategy("margin") is STRATEGIES["margin"](SelectConfig(budget=1))
    assert strategy("random", pool_cap=5, oversample=3.0) is strategy("random")


def test_the_pool_is_capped_first() -> None:
    wrapped = strategy("entropy", pool_cap=30, oversample=2.5)
    assert wrapped == PoolCap(Oversample(strategy("entropy"), 2.5), 30)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_a_cap_shows_the_strategy_a_part_and_chooses_within(name: str) -> None:
    network = tables()
    pool = pool_of(network)
    answer = strategy(name, pool_cap=30)(pool, 8, seeded())
    check(answer, pool, 8)
    seen = network.asked - set(pool.labelled.tolist())
    assert len(seen) == 30
    assert set(answer.tolist()) <= seen


def test_a_cap_takes_the_best_of_another_part_each_time() -> None:
    network = tables()
    pool, source = pool_of(network), seeded()
    parts: list[frozenset[int]] = []
    for _ in range(3):
        network.asked.clear()
        answer = strategy("margin", pool_cap=30)(pool, 8, source).tolist()
        parts.append(frozenset(network.asked))
        part = replace(pool, candidates=torch.tensor(sorted(network.asked)))
        assert chosen("margin", part, 8) == answer
    assert len(set(parts)) == 3


def test_a_capped_pool_is_in_order_and_otherwise_the_same() -> None:
    seen: list[Pool] = []

    def spy(pool: Pool, count: int, source: torch.Generator) -> Tensor:
        seen.append(pool)
        return pool.candidates[:count]

    pool = pool_of(tables())
    PoolCap(spy, 30)(pool, 4, seeded())
    assert seen[0].candidates.tolist() == sorted(seen[0].candidates.tolist())
    assert replace(seen[0], candidates=pool.candidates) == pool


def test_a_cap_below_the_query_gives_way_and_one_above_the_pool_draws_nothing() -> None:
    pool = pool_of(tables())
    check(strategy("margin", pool_cap=5)(pool, 20, seeded()), pool, 20)
    source, before = seeded(), seeded().get_state()
    assert strategy("margin", pool_cap=1000)(pool, 20, source).tolist() == chosen("margin", pool, 20)
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_oversampling_draws_from_the_best_and_keeps_their_order(name: str) -> None:
    pool = pool_of(tables())
    best = chosen(name, pool, 30)
    answers = [strategy(name, oversample=2.5)(pool, 12, seeded()).tolist() for _ in range(2)]
    assert answers[0] == answers[1]
    places = [best.index(index) for index in answers[0]]
    assert places == sorted(places)
    assert places != list(range(12))


def test_oversampling_reaches_every_one_of_the_best_equally_often() -> None:
    pool, source = pool_of(tables()), seeded()
    best = chosen("margin", pool, 20)
    picks = [i for _ in range(1500) for i in strategy("margin", oversample=2)(pool, 10, source).tolist()]
    shares = np.bincount([best.index(i) for i in picks], minlength=20) / 1500
    assert np.abs(shares - 0.5).max() < 4 * math.sqrt(0.25 / 1500)


def test_oversampling_by_one_is_the_plain_strategy() -> None:
    pool, source = pool_of(tables()), seeded()
    for name in BY_SCORE:
        assert Oversample(strategy(name), 1.0)(pool, 12, source).tolist() == chosen(name, pool, 12)
    assert torch.equal(source.get_state(), seeded().get_state())


def test_oversampling_more_than_there_is() -> None:
    pool = pool_of(tables())
    everything = len(pool.candidates)
    check(strategy("badge", oversample=50)(pool, everything, seeded()), pool, everything)
    check(strategy("badge", oversample=50)(pool, 10, seeded()), pool, 10)
    check(strategy("badge", oversample=1e308)(pool, 10, seeded()), pool, 10)
