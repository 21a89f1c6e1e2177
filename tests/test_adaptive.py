"""Adaptive repeats: closed cases, properties, and simulated studies whose full repeats are known."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.analysis.dominance import nondominated
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.seed_model import expected_means
from orchestrator.search.adaptive import uncertain

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PLAIN = (Objective("a", "min"), Objective("b", "min"))
unhurried = settings(deadline=None, max_examples=25)


def replay(full: Floats, objectives: Sequence[Objective] = PLAIN, wrong: float = 0.02) -> npt.NDArray[np.intp]:
    """How many seeds each config gets; `full` holds all losses, shape (configs, seeds, objectives)."""
    counts = np.ones(len(full), dtype=np.intp)
    while chosen := uncertain(so_far(full, counts), objectives, full.shape[1], wrong=wrong):
        assert chosen == sorted(set(chosen))
        counts[chosen] += 1
        assert counts.max() <= full.shape[1]
    return counts


def so_far(full: Floats, counts: npt.NDArray[np.intp]) -> list[Floats]:
    return [seeds[:n] for seeds, n in zip(full, counts, strict=True)]


def front(full: Floats, counts: npt.NDArray[np.intp]) -> Mask:
    return nondominated(expected_means(so_far(full, counts), PLAIN, full.shape[1]).round(9))  # ties but for rounding


def staircase(configs: int, spread: float, rng: np.random.Generator, seeds: int = 5) -> Floats:
    """Configs about a convex front, with noise and effects of seeds in the first objective; the second is exact."""
    second = rng.uniform(0, 1, configs)
    behind = rng.exponential(0.5, configs) * (rng.uniform(size=configs) < 0.8)
    first = (1 - second) ** 2 + behind
    noise = rng.normal(0, spread, (configs, seeds)) + rng.normal(0, 3 * spread, seeds)
    return np.stack([first[:, None] + noise, np.repeat(second[:, None], seeds, axis=1)], axis=2)


def test_a_config_dominated_by_far_never_gets_a_second_seed() -> None:
    rng = np.random.default_rng(0)
    near = np.array([[[x, 1 - x]] * 4 for x in np.linspace(0, 1, 9)])
    near[:, :, 0] += rng.normal(0, 0.05, (9, 4))
    far = np.array([[[3.0, 3.0]] * 4]) + rng.normal(0, 0.05, (1, 4, 1)) * [1, 0]
    counts = replay(np.concatenate([far, near]), wrong=0.01)
    assert counts[0] == 1
    assert counts[1:].max() > 1


def test_two_configs_within_noise_get_all_seeds_and_clear_winners_do_not() -> None:
    rng = np.random.default_rng(1)
    levels = np.array([0.0, 0.0, *np.linspace(5, 13, 9)])
    full = np.stack([levels[:, None] + rng.normal(0, 0.3, (11, 4)), np.tile(-levels[:, None], 4)], axis=2)
    full[:2, :, 1] = 1.0
    counts = replay(full, wrong=0.005)
    assert counts[:2].tolist() == [4, 4]
    assert set(counts[2:].tolist()) == {1, 2}  # eight of all were asked for the noise


def test_exact_ties_end_after_the_noise_has_been_looked_for() -> None:
    full = np.array([[[1 / 3, 2 / 3]] * 5] * 12)
    counts = replay(full, wrong=0.0)
    assert sorted(counts.tolist()) == [1] * 4 + [2] * 8
    assert front(full, counts).all()


def test_one_config_and_full_repeats_are_settled() -> None:
    assert uncertain([np.array([[1.0, 2.0]])], PLAIN, 3) == []
    rng = np.random.default_rng(2)
    assert uncertain(list(rng.normal(size=(5, 3, 2))), PLAIN, 3, wrong=0) == []


def test_the_first_second_seeds_are_spread_over_the_front() -> None:
    line = [np.array([[x, 29.0 - x]]) for x in range(30)]
    beaten = [np.array([[40.0, 40.0]])] * 3
    assert uncertain([*beaten, *line], PLAIN, 3) == [3 + round(x * 29 / 7) for x in range(8)]


def test_the_expected_number_of_errors_is_the_closed_one() -> None:
    """Two configs, one objective, two of four seeds: M_i is normal of variance s_i^2 (4 - 2) / (4 x 2)."""
    first, second = np.array([[0.0], [1.0]]), np.array([[0.9], [2.7]])
    residual = ((2.7 - 0.9) - (1.0 - 0.0)) / 4  # of each value, once configs and seeds have their means
    squares, pooled = 2 * residual**2, 4 * residual**2
    variance = (4 * pooled + squares) / 5 * (4 - 2) / (4 * 2)
    difference = 1.8 - 0.5
    for scale in (1.0, 0.1):
        shifted = second - difference * (1 - scale)
        error = math.erfc(scale * difference / math.sqrt(2 * variance) / math.sqrt(2)) / 2
        slack = 2 * 4 * math.sqrt(error * (1 - error) / 400) + 1e-9
        assert uncertain([first, shifted], PLAIN[:1], 4, wrong=2 * error + slack) == []
        assert scale == 1.0 or uncertain([first, shifted], PLAIN[:1], 4, wrong=2 * error - slack)


def test_seeds_that_did_not_run_are_filled_in_by_the_effects_of_seeds() -> None:
    level, effect = np.array([0.0, 1.0, 5.0]), np.array([0.0, -2.0, 10.0])
    full = (level[:, None] + effect)[:, :, None]
    seen = [full[0], full[1, :1], full[2, :2]]
    assert expected_means(seen, PLAIN[:1], 3)[:, 0] == pytest.approx(full.mean(axis=(1, 2)))


def test_times_are_filled_in_as_proportions() -> None:
    wanted = (Objective("wall_time_s", "min"),)
    full = np.array([1.0, 20.0, 300.0])[:, None] * np.array([1.0, 1.5, 0.5])
    seen = [full[0, :, None], full[1, :1, None], full[2, :2, None]]
    assert expected_means(seen, wanted, 3)[:, 0] == pytest.approx(full.mean(axis=1))


@pytest.mark.parametrize("lowest", [-1.0, 0.0])
@pytest.mark.parametrize("objective", [Objective("wall_time_s", "min"), Objective("a", "min", 0.05, relative=True)])
def test_proportions_that_reach_zero_are_modelled_as_they_are(objective: Objective, lowest: float) -> None:
    full = np.array([lowest, 1.0, 5.0])[:, None] + np.array([0.0, 2.0, 1.0])
    seen = [full[0, :, None], full[1, :1, None], full[2, :2, None]]
    assert expected_means(seen, (objective,), 3)[:, 0] == pytest.approx(full.mean(axis=1))
    assert expected_means([-one for one in seen], (objective,), 3)[:, 0] == pytest.approx(-full.mean(axis=1))
    assert uncertain([one[:2, None] for one in full], (objective,), 3) == [], "sums explain all: there is no noise"


def test_of_two_configs_the_one_with_fewer_seeds_gets_the_next() -> None:
    rng = np.random.default_rng(3)
    full = rng.normal(0, 1, (8, 4, 1))
    full[2:] += 50
    seen = [full[0], full[1, :2], *(seeds[:2] for seeds in full[2:])]
    assert uncertain(seen, PLAIN[:1], 4, wrong=0.001) == [1]


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        (np.zeros((0, 2)), r"losses\[1\] has shape \(0, 2\); wanted are 1 to 3 seeds x 2 objectives"),
        (np.zeros((4, 2)), r"losses\[1\] has shape \(4, 2\)"),
        (np.zeros((1, 3)), r"losses\[1\] has shape \(1, 3\)"),
        (np.array([[np.nan, 0]]), r"losses\[1\] holds a value that is not finite"),
    ],
)
def test_what_is_no_loss_is_told(losses: Floats, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        uncertain([np.zeros((1, 2)), losses], PLAIN, 3)


@st.composite
def studies(draw: st.DrawFn) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Losses on a coarse grid, so that ties occur, and how many seeds have run."""
    configs, most = draw(st.integers(2, 14)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    full = np.round(rng.normal(0, 1, (configs, 1, 2)) + rng.normal(0, draw(st.sampled_from([0, 0.3])), (1, most, 2)), 1)
    full = full + np.round(rng.normal(0, 0.3, (configs, most, 2)), 1) * [1, draw(st.sampled_from([0, 1]))]
    return full, rng.integers(1, most + 1, configs)


@unhurried
@given(studies(), st.sampled_from([0.0, 0.3, 1.0]))
def test_it_ends_with_at_most_all_seeds(study: tuple[Floats, npt.NDArray[np.intp]], wrong: float) -> None:
    full, _ = study
    counts = replay(full, wrong=wrong)
    if wrong == 0:
        assert (front(full, counts) == nondominated(full.mean(axis=1).round(9))).all()


@unhurried
@given(studies(), st.integers(0, 1000))
def test_the_order_of_configs_changes_nothing(study: tuple[Floats, npt.NDArray[np.intp]], shuffle: int) -> None:
    full, counts = study
    order = np.random.default_rng(shuffle).permutation(len(full))
    seen = so_far(full, counts)
    there = uncertain(seen, PLAIN, full.shape[1], wrong=0.3)
    back = uncertain([seen[i] for i in order], PLAIN, full.shape[1], wrong=0.3)
    assert sorted(seen[i].tolist() for i in there) == sorted(seen[order[i]].tolist() for i in back)


@unhurried
@given(studies(), st.integers(-20, 20))
def test_the_unit_of_an_objective_changes_nothing(study: tuple[Floats, npt.NDArray[np.intp]], power: int) -> None:
    full, counts = study
    scaled = full * np.array([2.0**power, 1.0])
    asked = [uncertain(so_far(one, counts), PLAIN, full.shape[1], wrong=0.3) for one in (full, scaled)]
    assert asked[0] == asked[1]


def test_simulated_studies_end_with_the_front_of_full_repeats() -> None:
    """120 configs, five seeds: hardly a member in ten is wrong, at far fewer trials."""
    rng = np.random.default_rng(4)
    errors, sizes, spent = [], [], []
    for _ in range(5):
        full = staircase(120, 0.02, rng)
        counts, whole = replay(full), nondominated(full.mean(axis=1))
        errors.append(int((front(full, counts) != whole).sum()))
        sizes.append(int(whole.sum()))
        spent.append(counts.sum() / full[:, :, 0].size)
    assert sum(errors) <= 0.1 * sum(sizes)
    assert max(spent) < 0.6
