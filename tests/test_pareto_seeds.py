"""Intervals, membership and attainment over seeds, against enumeration of all draws and of all points."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import orchestrator
from orchestrator.analysis import membership as members_of
from orchestrator.analysis.bootstrap import mean_interval, resamples, weighted_means
from orchestrator.analysis.membership import membership, possible
from orchestrator.analysis.objectives import Objective, parse_objectives
from orchestrator.errors import TableError

Values = npt.NDArray[np.float64]
SIZE: dict[str, object] = {"accuracy": "max", "compression": "max"}
unhurried = settings(deadline=None, max_examples=25)

assert orchestrator.load  # registers the accessor


def cells(*values: Sequence[Sequence[float]], **columns: Any) -> Any:
    """Cells with one row of (accuracy, compression) for each seed."""
    rows: list[dict[str, Any]] = []
    for number, seeds in enumerate(values):
        for seed, (accuracy, compression) in enumerate(seeds):
            rows.append(
                {"study": "s", "trial_id": f"{number}-{seed}", "role": "cell", "baseline": None, "seed": seed,
                 "status": "complete", "compress.pfr": number / 10, "accuracy": accuracy, "compression": compression}
                | {name: of[number] for name, of in columns.items()}
            )  # fmt: skip
    return pd.DataFrame(rows)


def dominated(point: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    return any(
        all(o >= p for o, p in zip(other, point, strict=True)) and tuple(other) != tuple(point) for other in others
    )


# Intervals


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_the_bootstrap_counts_all_draws(seeds: int, confidence: float) -> None:
    values = np.random.default_rng(seeds).normal(size=seeds)
    means = np.sort([np.mean(draw) for draw in itertools.product(values, repeat=seeds)])
    count = math.ceil(len(means) * (1 - confidence) / 2 - 1e-9)
    low, high = mean_interval(values[None], confidence)
    np.testing.assert_allclose([low[0], high[0]], [means[count - 1], means[-count]])


def test_more_seeds_are_drawn_and_come_near_to_the_normal() -> None:
    values = np.random.default_rng(0).normal(size=(1, 200))
    low, high = mean_interval(values, 0.95)
    half = 1.96 * values.std() / math.sqrt(200)
    np.testing.assert_allclose([low[0], high[0]], [values.mean() - half, values.mean() + half], atol=0.15 * half)
    assert mean_interval(values, 0.95)[0] == low


@pytest.mark.parametrize("seeds", range(1, 7))
def test_draws_with_their_probabilities_are_all_there_are(seeds: int) -> None:
    counts, probabilities = resamples(seeds)
    assert len(counts) == math.comb(2 * seeds - 1, seeds) == len({tuple(row) for row in counts.tolist()})
    assert probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(probabilities @ counts, np.ones(seeds))


@pytest.mark.parametrize("value", [0.1, 0.7, 1.1, math.inf])
@pytest.mark.parametrize("seeds", [2, 3, 5, 6])
def test_equal_seeds_have_their_own_mean_in_every_draw(value: float, seeds: int) -> None:
    means = weighted_means(np.full((1, seeds, 1), value), resamples(seeds)[0])
    assert set(means[:, 0].tolist()) == {value}


def test_fronts_over_seeds_tell_both_intervals() -> None:
    df = cells([(0.7, 20), (0.8, 20), (0.9, 20)], [(0.5, 30)], [(0.1, 1), (0.1, 2)])
    found = df.pareto.front(SIZE, over="seed", confidence=0.9)
    three, one = found.iloc[0], found.iloc[1]
    expected = stats.t.interval(0.9, 2, loc=0.8, scale=0.1 / math.sqrt(3))
    np.testing.assert_allclose([three["accuracy_t_low"], three["accuracy_t_high"]], expected)
    # One draw in 27 is three times the worst seed, three are twice the worst and once the middle one.
    np.testing.assert_allclose([three["accuracy_bootstrap_low"], three["accuracy_bootstrap_high"]], [2.2 / 3, 2.6 / 3])
    assert three["compression_t_low"] == three["compression_bootstrap_high"] == 20
    assert one[["accuracy_t_low", "accuracy_bootstrap_high"]].isna().all()
    assert one["n_seeds"] == 1


def test_an_infinite_seed_leaves_no_interval() -> None:
    found = cells([(0.7, math.inf), (0.8, 20)]).pareto.front(SIZE, over="seed")
    assert found["compression"].tolist() == [math.inf]
    assert found[["compression_t_low", "compression_bootstrap_low", "compression_bootstrap_high"]].isna().all(axis=None)


def test_an_unchosen_accuracy_that_is_missing_in_a_seed_has_the_interval_of_the_others() -> None:
    df = cells([(math.nan, 20), (0.7, 20), (0.9, 20)]).assign(val_accuracy=0.5)
    found = df.pareto.front(SIZE, over="seed", select_on="val_accuracy").iloc[0]
    expected = stats.t.interval(0.95, 1, loc=0.8, scale=0.1)
    np.testing.assert_allclose([found["accuracy_t_low"], found["accuracy_t_high"]], expected)


@pytest.mark.parametrize("confidence", [0, 1, -1, 2, math.nan])
def test_a_confidence_lies_between_0_and_1(confidence: float) -> None:
    with pytest.raises(TableError, match="must lie between 0 and 1"):
        cells([(0.7, 20), (0.8, 20)]).pareto.front(SIZE, over="seed", confidence=confidence)


def test_every_trial_has_the_rank_and_the_crowding_of_its_cell() -> None:
    df = cells([(0.7, 20), (0.8, 20)], [(0.9, 10), (0.9, 12)], [(0.1, 1), (math.nan, 2)])
    assert df.pareto.rank(SIZE, over="seed").tolist()[:5] == [0, 0, 0, 0, 1]
    assert df.pareto.rank(SIZE, over="seed").isna().tolist() == [False] * 5 + [True]
    assert df.pareto.crowding(SIZE, over="seed").notna().tolist() == [True] * 5 + [False]
    assert df.pareto.hypervolume({"accuracy": 0, "compression": 0}, SIZE, over="seed") == pytest.approx(
        0.75 * 20 + 0.15 * 11
    )
    assert df.pareto.knee(SIZE, over="seed")["compress.pfr"].tolist() == [0.0, 0.1]


# Membership


def exact(values: Sequence[Sequence[Sequence[float]]], *, paired: bool = False) -> list[float]:
    """The probability that each cell is on the front, by all draws there are."""
    hits, count = [0] * len(values), 0
    sequences = [list(itertools.product(range(len(seeds)), repeat=len(seeds))) for seeds in values]
    together = zip(*sequences, strict=True) if paired else itertools.product(*sequences)
    for draw in together:
        means = [
            tuple(round(math.fsum(seeds[i][k] for i in drawn) / len(drawn), 12) for k in range(2))
            for seeds, drawn in zip(values, draw, strict=True)
        ]
        count += 1
        for number, mean in enumerate(means):
            hits[number] += not dominated(mean, means)
    return [hit / count for hit in hits]


PROBLEMS: dict[str, list[list[tuple[float, float]]]] = {
    "overlapping": [[(0.7, 20), (0.9, 21)], [(0.8, 19), (0.75, 22)], [(0.6, 25), (0.85, 18), (0.7, 20)]],
    "a constant size": [[(0.7, 20), (0.9, 20), (0.75, 20)], [(0.8, 20), (0.74, 20), (0.78, 20)]],
    "one seed": [[(0.8, 20)], [(0.7, 20), (0.9, 20)]],
    "equal cells": [[(0.8, 20), (0.7, 20)], [(0.8, 20), (0.7, 20)]],
    "a clear loser": [[(0.8, 20), (0.9, 21)], [(0.1, 2), (0.2, 3)], [(0.5, 30), (0.6, 31)]],
}


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_membership_is_its_probability(name: str, paired: bool) -> None:
    values = PROBLEMS[name]
    if paired and len({len(seeds) for seeds in values}) > 1:
        values = [seeds[:2] for seeds in values if len(seeds) > 1]
    draws = 4000
    found = membership(cells(*values), SIZE, draws=draws, paired=paired)["membership"]
    for share, probability in zip(found, exact(values, paired=paired), strict=True):
        assert abs(share - probability) <= 5 * math.sqrt(probability * (1 - probability) / draws)


@pytest.mark.parametrize("lucky", [0, 3, 7])
def test_membership_with_many_seeds_is_its_probability(lucky: int) -> None:
    """One of eight seeds decides: it is in a draw with the probability 1 - (7 / 8)^8."""
    values = [(float(seed == lucky), 20.0) for seed in range(8)]
    found = membership(cells(values, [(1 / 16, 20)] * 8), SIZE, draws=4000)["membership"]
    probability = 1 - (7 / 8) ** 8
    assert abs(found.iloc[0] - probability) < 5 * math.sqrt(probability * (1 - probability) / 4000)
    assert found.sum() == pytest.approx(1)


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    df = cells(*PROBLEMS["overlapping"])
    found = membership(df, SIZE)["membership"].tolist()
    monkeypatch.setattr(members_of, "_BLOCK", 20)
    assert membership(df, SIZE)["membership"].tolist() == found


values_of_cells = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 0.6, 0.7, 1.0, math.inf, -math.inf]) | st.floats(0, 1),
            st.integers(0, 4).map(float),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=12,
)


@unhurried
@given(values_of_cells, st.booleans(), st.sampled_from([0, 0.25]))
def test_cells_that_are_left_undrawn_would_have_been_0(
    values: list[list[tuple[float, float]]], paired: bool, tolerance: float
) -> None:
    df, wanted = cells(*values), {"accuracy": {"max": tolerance}, "compression": "max"}
    pruned = membership(df, wanted, draws=40, paired=paired)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members_of, "possible", lambda given, _: np.ones(len(given), dtype=np.bool_))
        whole = membership(df, wanted, draws=40, paired=paired)
    pd.testing.assert_frame_equal(pruned, whole)


def test_most_cells_need_no_draws() -> None:
    source = np.random.default_rng(0)
    values = np.repeat(source.random((3000, 1, 3)), 5, axis=1) + source.normal(0, 0.005, (3000, 5, 3))
    wanted = [Objective("a", "max"), Objective("b", "max"), Objective("c", "min", 0.05, relative=True)]
    mask = possible(values, wanted)
    assert 20 < mask.sum() < 1000
    low, high = values.min(axis=1), values.max(axis=1)
    best = np.column_stack([-high[:, :2], np.rint(np.log(low[:, 2].clip(1e-9)) / np.log1p(0.05))])
    worst = np.column_stack([-low[:, :2], np.rint(np.log(high[:, 2].clip(1e-9)) / np.log1p(0.05))])
    ruled_out = [bool(((worst <= one).all(axis=1) & (worst < one).any(axis=1)).any()) for one in best]
    assert mask.tolist() == [not out for out in ruled_out]


def test_neither_order_nor_other_cells_change_the_draws() -> None:
    df = cells(*PROBLEMS["overlapping"])
    found = membership(df, SIZE).set_index("compress.pfr")["membership"]
    mixed = membership(df.sample(frac=1, random_state=1), SIZE).set_index("compress.pfr")["membership"]
    assert found.to_dict() == mixed.to_dict()
    other = pd.concat([df, cells([(0.0, 0.0), (0.1, 0.1)]).assign(**{"compress.pfr": 9.0})], ignore_index=True)
    assert membership(other, SIZE).set_index("compress.pfr")["membership"].to_dict() == found.to_dict() | {9.0: 0.0}
    nullable = df.astype({"seed": "Int64"}).assign(**{"compress.scope": None})
    assert membership(nullable, SIZE)["membership"].tolist() == found.tolist()
    assert membership(df, SIZE, seed=1)["membership"].tolist() != found.tolist()


def test_membership_by_group_is_that_of_the_group() -> None:
    df = cells(*PROBLEMS["overlapping"], *PROBLEMS["overlapping"], **{"model.width": [1, 1, 1, 2, 2, 2]})
    both = membership(df, SIZE, by="model.width")
    for width, rows in df.groupby("model.width"):
        alone = membership(rows, SIZE)["membership"].tolist()
        assert both.loc[both["model.width"] == width, "membership"].tolist() == alone


def test_membership_tells_who_is_on_the_front_of_the_means() -> None:
    df = cells(*PROBLEMS["overlapping"], [(math.inf, 1), (-math.inf, 1)], [(math.nan, 1)])
    found = membership(df, SIZE)
    assert (
        found["on_front"].tolist()
        == found["compress.pfr"].isin(df.pareto.front(SIZE, over="seed")["compress.pfr"]).tolist()
    )
    assert len(found) == 3
    assert found.attrs["left_out_because"]["missing"] == 2
    assert membership(df.iloc[:0], SIZE).empty
    assert list(membership(df.assign(accuracy=math.nan), SIZE)["membership"]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 at least 0"),
        ({"objectives": {"acuracy": "max"}}, "did you mean 'accuracy'"),
        ({"objectives": {"accuracy": "min"}}, "contradicts the column table"),
        ({"by": "widht"}, "no column 'widht'"),
    ],
)
def test_wrong_questions_are_told(options: Mapping[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"objectives": SIZE, **options}
    with pytest.raises(TableError, match=message):
        membership(cells(*PROBLEMS["overlapping"]), **arguments)


# Attainment


def surface(points: Values, seeds: Sequence[int], needed: int) -> set[tuple[float, ...]]:
    """Front of all combinations of coordinates that so many seeds attain."""
    candidates = list(itertools.product(*({*column} for column in points.T.tolist())))
    attained = [
        candidate
        for candidate in candidates
        if len(
            {
                seed
                for row, seed in zip(points.tolist(), seeds, strict=True)
                if all(r >= c for r, c in zip(row, candidate, strict=True))
            }
        )
        >= needed
    ]
    return {one for one in attained if not dominated(one, attained)}


@unhurried
@given(
    st.integers(1, 3).flatmap(
        lambda m: st.lists(
            st.tuples(
                st.integers(0, 3), st.lists(st.sampled_from([-math.inf, 0, 1, 2, 3, math.inf]), min_size=m, max_size=m)
            ),
            min_size=1,
            max_size=9,
        )
    ),
    st.integers(1, 4),
)
def test_surfaces_are_those_of_all_points(rows: list[tuple[int, list[float]]], needed: int) -> None:
    seeds, points = [seed for seed, _ in rows], np.array([row for _, row in rows], dtype=np.float64)
    count = len(set(seeds))
    needed = min(needed, count)
    columns = ["accuracy", "compression", "pfr_achieved"][: points.shape[1]]
    df = pd.DataFrame(points, columns=columns).assign(seed=seeds)
    found = df.pareto.attainment(needed / count, columns, role=None)
    assert {tuple(row) for row in found[columns].to_numpy().tolist()} == surface(points, seeds, needed)
    assert len(found) == len(found.drop_duplicates())
    assert found["n_seeds"].eq(count).all()


@pytest.mark.parametrize(
    ("level", "attained"), [(0.01, 0.9), (1 / 3, 0.9), (0.34, 0.8), (2 / 3, 0.8), (0.67, 0.7), (1, 0.7)]
)
def test_a_level_asks_for_at_least_its_share(level: float, attained: float) -> None:
    df = cells([(0.9, 20), (0.7, 20), (0.8, 20)])
    for wanted in (["accuracy"], SIZE):
        assert df.pareto.attainment(level, wanted)["accuracy"].tolist() == [attained]


def test_directions_levels_and_groups_of_surfaces() -> None:
    df = pd.DataFrame(
        {"accuracy": [0.9, 0.8, 0.7, 0.6], "macs": [4, 3, 2, 1], "seed": [0, 1, 0, 1], "width": [1, 1, 2, 2]}
    )
    found = df.pareto.attainment([0.5, 1], ["accuracy", "macs"], by="width", role=None)
    assert found[["width", "level", "accuracy", "macs"]].to_numpy().tolist() == [
        [1, 0.5, 0.9, 4], [1, 0.5, 0.8, 3], [1, 1, 0.8, 4],
        [2, 0.5, 0.7, 2], [2, 0.5, 0.6, 1], [2, 1, 0.6, 2],
    ]  # fmt: skip
    assert df.iloc[:0].pareto.attainment(1, ["accuracy", "macs"], by="width", role=None).columns.tolist() == [
        "width", "level", "n_seeds", "accuracy", "macs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "objectives", "message"),
    [
        (0, SIZE, r"level 0 must lie in \(0, 1\]"),
        ([0.5, 1.1], SIZE, "level 1.1"),
        ([], SIZE, "level"),
        (math.nan, SIZE, "level nan"),
        (1, {**SIZE, "compress.pfr": "max", "seed_count": "max"}, "at most 3"),
    ],
)
def test_wrong_surfaces_are_told(level: Any, objectives: dict[str, object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        cells(*PROBLEMS["overlapping"]).assign(seed_count=1).pareto.attainment(level, objectives)


def test_a_parsed_objective_keeps_its_tolerance_out_of_a_surface() -> None:
    df = cells([(0.91, 20)], [(0.92, 20)])
    wide = parse_objectives({"accuracy": {"max": 0.5}, "compression": "max"})
    assert df.pareto.attainment(1, wide)["accuracy"].tolist() == [0.92]
