"""Knees, crowding, ranks and hypervolumes against brute force, closed forms, Optuna and pymoo."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.samplers.nsgaii import _elite_population_selection_strategy as optunas
from optuna.study import _multi_objective as multi_objective
from pymoo.indicators.hv import HV
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

import orchestrator
from orchestrator.analysis import dominance
from orchestrator.analysis.crowding import crowding, crowding_distances
from orchestrator.analysis.knee import knee, knee_mask
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.pareto import front, hypervolume, rank
from orchestrator.errors import TableError

Points = npt.NDArray[np.float64]
NAMES: tuple[str, ...] = ("a", "b", "c", "d")
unhurried = settings(deadline=None, max_examples=40)

assert orchestrator.load  # registers the accessor


def frame(points: Points) -> Any:
    return pd.DataFrame(points, columns=list(NAMES[: points.shape[1]]))


def down(objectives: int) -> dict[str, object]:
    return dict.fromkeys(NAMES[:objectives], "min")


def simplex(count: int, objectives: int, seed: int = 0) -> Points:
    """Points whose coordinates add up to 64 exactly, so that none dominates another."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, 65, size=(count, objectives - 1)), axis=1)
    return np.diff(cuts, axis=1, prepend=0, append=64).astype(np.float64)


SHAPES: dict[str, Callable[[], Points]] = {
    "random": lambda: np.random.default_rng(0).random((120, 3)),
    "two": lambda: np.random.default_rng(1).random((120, 2)),
    "four": lambda: np.random.default_rng(2).random((80, 4)),
    "simplex": lambda: np.unique(simplex(90, 3), axis=0),
    "duplicates": lambda: np.random.default_rng(3).integers(0, 5, size=(100, 3)).astype(np.float64),
    "flat": lambda: np.column_stack([np.random.default_rng(4).random((60, 2)), np.ones(60)]),
    "line": lambda: np.column_stack([np.arange(20.0), np.arange(20.0)]),
    "equal": lambda: np.ones((7, 3)),
    "one": lambda: np.zeros((1, 2)),
}


@pytest.fixture(params=list(SHAPES))
def points(request: pytest.FixtureRequest) -> Points:
    return SHAPES[request.param]()


def test_ranks_and_fronts_are_pymoos(points: Points) -> None:
    fronts: Any = NonDominatedSorting().do(points)
    ranks = rank(frame(points), down(points.shape[1]), role=None)
    for level, members in enumerate(fronts):
        assert ranks[ranks == level].index.tolist() == sorted(members.tolist())
    assert front(frame(points), down(points.shape[1]), role=None).index.tolist() == sorted(fronts[0].tolist())


def test_ranks_are_optunas(points: Points) -> None:
    ranks = rank(frame(points), down(points.shape[1]), role=None)
    assert ranks.tolist() == multi_objective._fast_non_domination_rank(points).tolist()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("name", ["random", "two", "four", "simplex", "duplicates", "flat"])
def test_hypervolumes_are_optunas_and_pymoos(name: str) -> None:
    found = SHAPES[name]()
    reference = found.max(axis=0) * 1.1
    ours = hypervolume(
        frame(found), dict(zip(NAMES, reference.tolist(), strict=False)), down(found.shape[1]), role=None
    )
    assert ours == pytest.approx(compute_hypervolume(found, reference))
    assert ours == pytest.approx(HV(ref_point=reference)(found))


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_the_hypervolume_of_a_staircase(steps: int) -> None:
    """Points (i, n - i) up to (n + 1, n + 1): 2 + 3 + ... + (n + 1) and the 1 of the last column."""
    i = np.arange(steps + 1.0)
    found = hypervolume(frame(np.column_stack([i, steps - i])), {"a": steps + 1, "b": steps + 1}, down(2), role=None)
    assert found == sum(range(1, steps + 2))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_hypervolume_of_boxes(objectives: int) -> None:
    one = np.full((1, objectives), 0.25)
    other = np.full((1, objectives), 0.5)
    other[0, 0] = 0.0
    reference = dict.fromkeys(NAMES[:objectives], 1.0)
    both = hypervolume(frame(np.concatenate([one, other])), reference, down(objectives), role=None)
    union = 0.75**objectives + 0.5 ** (objectives - 1) - 0.75 * 0.5 ** (objectives - 1)
    assert both == pytest.approx(union)


def test_the_hypervolume_below_a_simplex() -> None:
    """All integer points with a + b + c = n, up to n + 1: the cube without the tetrahedron of cubes above them."""
    n = 12
    grid = np.array([p for p in itertools.product(range(n + 1), repeat=3) if sum(p) == n], dtype=np.float64)
    found = hypervolume(frame(grid), dict.fromkeys(NAMES[:3], float(n + 1)), down(3), role=None)
    assert found == (n + 1) ** 3 - n * (n + 1) * (n + 2) / 6


def test_volumes_by_group_are_those_of_the_groups() -> None:
    df = frame(np.random.default_rng(5).random((60, 2))).assign(width=[1, 2, 3] * 20)
    volumes = hypervolume(df, {"a": 1, "b": 1}, down(2), by="width", role=None)
    for width in (1, 2, 3):
        assert volumes.loc[width] == hypervolume(df[df["width"] == width], {"a": 1, "b": 1}, down(2), role=None)


# Many points


@pytest.mark.parametrize("kind", ["random", "simplex", "coarse", "outlier", "huge"])
@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_thinning_changes_no_front(kind: str, objectives: int) -> None:
    source = np.random.default_rng(objectives)
    found = source.random((12_000, objectives))
    if kind == "simplex" and objectives > 1:
        found = simplex(12_000, objectives)
    if kind == "coarse":
        found = np.rint(4 * found)
    if kind == "outlier":
        found[0] = 1e300
    if kind == "huge":
        found = np.where(found > 0.5, 1e308, -1e308) * found
    plain = dominance.moocore.is_nondominated(found, keep_weakly=True)
    assert dominance.nondominated(found).tolist() == plain.tolist()
    assert 0 < plain.sum() <= len(found)


def test_random_points_are_thinned_and_a_simplex_is_not() -> None:
    thinned = dominance._thinned  # pyright: ignore[reportPrivateUsage]
    assert len(thinned(np.random.default_rng(0).random((20_000, 3)))) < 10_000
    assert len(thinned(simplex(20_000, 3))) == 20_000


# Crowding


def by_the_book(points: Points, order: tuple[int, ...]) -> Points:
    """Deb's procedure with rows in the given order before each stable sort; flat objectives are left out."""
    distances = np.zeros(len(points))
    for column in points.T:
        if np.ptp(column) == 0:
            continue
        line = sorted(order, key=lambda i: column[i])
        distances[[line[0], line[-1]]] = math.inf
        for before, i, after in zip(line, line[1:], line[2:], strict=False):
            distances[i] += (column[after] - column[before]) / np.ptp(column)
    return distances


def test_distances_are_pymoos_and_optunas() -> None:
    for found in (np.random.default_rng(0).random((50, 3)), np.random.default_rng(1).random((2, 2))):
        ours = crowding_distances(found)
        np.testing.assert_allclose(ours, calc_crowding_distance(found) * found.shape[1])
        trials = [optuna.trial.create_trial(values=row.tolist()) for row in found]
        for number, trial in enumerate(trials):
            trial.number = number
        theirs = optunas._calc_crowding_distance(list(trials))  # pyright: ignore[reportPrivateUsage]
        np.testing.assert_allclose(ours, [theirs[i] for i in range(len(found))])


@unhurried
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=5))
def test_ties_have_the_mean_of_all_their_orders(rows: list[tuple[int, int]]) -> None:
    found = np.array(rows, dtype=np.float64)
    if np.ptp(found, axis=0).max() == 0:
        assert np.isinf(crowding_distances(found)).all()
        return
    orders = [by_the_book(found, order) for order in itertools.permutations(range(len(found)))]
    np.testing.assert_allclose(crowding_distances(found), np.mean(orders, axis=0))


def test_infinite_values_are_ends_and_so_are_their_neighbours() -> None:
    found = np.array([[-math.inf, 5.0], [0.0, 4.0], [1.0, 3.0], [3.0, 2.0], [4.0, 1.0], [math.inf, 0.0]])
    np.testing.assert_allclose(
        crowding_distances(found), [np.inf, np.inf, 3 / 4 + 2 / 5, 3 / 4 + 2 / 5, np.inf, np.inf]
    )


def test_crowding_is_taken_within_ranks_and_groups() -> None:
    df = frame(np.random.default_rng(2).random((40, 2))).assign(width=[1, 2] * 20)
    df.loc[3, "a"] = np.nan
    ranks, found = rank(df, down(2), by="width", role=None), crowding(df, down(2), by="width", role=None)
    assert found.isna().tolist() == [i == 3 for i in range(40)]
    for (_, _), rows in df.groupby(["width", ranks]):
        np.testing.assert_allclose(found.loc[rows.index], crowding_distances(rows[["a", "b"]].to_numpy()))


# Knees


def farthest(points: Points) -> list[int]:
    """The points farthest below the straight line between the ends, in the unit square."""
    scaled = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    distance = (1 - scaled.sum(axis=1)) / math.sqrt(2)
    return np.flatnonzero(np.isclose(distance, distance.max(), rtol=0, atol=1e-12)).tolist()


@unhurried
@given(st.integers(0, 2**31), st.integers(3, 30))
def test_a_knee_is_farthest_from_the_line_between_the_ends(seed: int, count: int) -> None:
    source = np.random.default_rng(seed)
    points = np.column_stack([np.sort(source.random(count)), -np.sort(source.random(count))])
    assert np.flatnonzero(knee_mask(points)).tolist() == farthest(points)
    assert knee(frame(points * [1000, 1e-3]), down(2), role=None).index.tolist() == farthest(points)


def test_a_front_that_bulges_has_its_ends_as_knees() -> None:
    bulge = np.array([[0.0, 4.0], [3.0, 3.0], [4.0, 0.0]])
    assert knee(frame(bulge), down(2), role=None).index.tolist() == [0, 2]


def test_a_bent_front_bends_at_its_corner() -> None:
    corner = np.array([[0, 10], [1, 5], [2, 1], [6, 0.5], [10, 0]], dtype=np.float64)
    assert knee(frame(corner), down(2), role=None).index.tolist() == [2]
    up = frame(10 - corner)
    assert knee(up, dict.fromkeys("ab", "max"), role=None).index.tolist() == [2]


def test_corners_of_a_knee() -> None:
    one = frame(np.array([[1.0, 2.0]]))
    assert knee(one, down(2), role=None).index.tolist() == [0]
    same = frame(np.ones((3, 2)))
    assert knee(same, down(2), role=None).index.tolist() == [0, 1, 2]
    endless = frame(np.array([[-math.inf, 9.0], [1.0, 1.0], [2.0, 0.5], [3.0, -math.inf]]))
    assert len(knee(endless, down(2), role=None)) == 2
    assert knee(endless.iloc[[0, 3]], down(2), role=None).empty
    huge = frame(np.array([[-1.7e308, 1.7e308], [0.0, -1.6e308], [1.7e308, -1.7e308]]))
    assert knee(huge, down(2), role=None).index.tolist() == [1]


# What all questions share


QUESTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "front": lambda df, of: df.pareto.front(of, role=None),
    "knee": lambda df, of: df.pareto.knee(of, role=None),
    "rank": lambda df, of: df.pareto.rank(of, role=None).dropna(),
    "crowding": lambda df, of: df.pareto.crowding(of, role=None).dropna(),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_nothing_comes_of_nothing(ask: Callable[[Any, Any], Any]) -> None:
    missing = frame(np.full((4, 2), np.nan))
    assert len(ask(missing, down(2))) == 0
    assert len(ask(missing.iloc[:0], down(2))) == 0
    with pytest.raises(TableError, match="the frame has no column 'c'"):
        ask(missing, [Objective("a", "min"), Objective("c", "min")])


def test_names_alone_take_the_direction_of_the_column_table() -> None:
    df: Any = pd.DataFrame({"accuracy": [0.9, 0.8, 0.7], "macs": [5, 1, 3]})
    assert df.pareto.front(["accuracy", "macs"], role=None).index.tolist() == [0, 1]
    assert df.pareto.front("macs", role=None).index.tolist() == [1]
    assert df.pareto.rank(["accuracy", "macs"], role=None).tolist() == [0, 0, 1]
