"""Learning curves against closed forms and brute force, the rows that take part in them, and their figure."""

import itertools
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import orchestrator
from orchestrator.analysis import curves, plots, tables
from orchestrator.analysis.points import NETWORK_LEAVES
from orchestrator.analysis.repeats import mean_and_interval, t_quantile
from orchestrator.errors import OrchestratorError, TableError
from trainables.select_config import SelectConfig

ROOT = Path(__file__).parent.parent
unhurried = settings(deadline=None, max_examples=25)
dear = settings(deadline=None, max_examples=5)

Line = Mapping[int, float] | Sequence[tuple[int, float]]


def row(**values: object) -> dict[str, object]:
    usual: dict[str, object] = {
        "study": "s", "role": "cell", "baseline": None, "seed": 0, "status": "complete", "mixed_hosts": False,
        "machine": "m", "threads": 1, "device": "cpu", "data.name": "digits", "train.epochs": 5,
        "select.strategy": "margin", "select.budget": 100, "labels": 100, "accuracy": 0.9, "val_accuracy": 0.8,
        "select_s": 2.0, "wall_time_s": 3.0,
    }  # fmt: skip
    if "labels" in values:
        usual["select.budget"] = values["labels"]
    return usual | values


def rows(strategy: str, line: Line, **values: object) -> list[dict[str, object]]:
    points = line.items() if isinstance(line, Mapping) else line
    named: dict[str, object] = {"select.strategy": strategy}
    return [row(**named, labels=labels, accuracy=height, **values) for labels, height in points]


def every_label(**values: object) -> dict[str, object]:
    nothing: dict[str, object] = {"select.strategy": None, "select.budget": None}
    return row(role="baseline", baseline="all_labels", labels=None, **values) | nothing


def frame(*parts: Sequence[dict[str, object]]) -> pd.DataFrame:
    df = pd.DataFrame([one for part in parts for one in part])
    return df.astype({"labels": "Int64", "select.budget": "Int64"})


def realistic(
    seeds: int = 3, budgets: Sequence[int] = (500, 1000, 2000, 5000, 10000), pfr: float | None = None
) -> pd.DataFrame:
    """Saturating curves with noise, random as a baseline, and all labels."""
    tops = {"margin": 0.62, "least_confidence": 0.6, "badge": 0.66, "random": 0.5}
    parts: list[list[dict[str, object]]] = []
    values: dict[str, object] = {} if pfr is None else {"compress.pfr": pfr}
    for i, (strategy, rate) in enumerate(tops.items()):
        for seed in range(seeds):
            noise = np.random.default_rng([seed, i]).normal(0, 0.003, len(budgets))
            line = [(b, 0.94 - 0.3 * (b / 300) ** -rate + e) for b, e in zip(budgets, noise, strict=True)]
            of = {"role": "baseline", "baseline": "random"} if strategy == "random" else {}
            own = rows(strategy, line, seed=seed, **of, **values)
            for k, one in enumerate(own):
                one["select_s"] = 0.001 if strategy == "random" else 3.0 * (k + 1) * (1 + i)
            parts.append(own)
    parts.append([every_label(seed=seed, accuracy=0.945 + seed / 1000, **values) for seed in range(seeds)])
    return frame(*parts)


def shuffled(df: pd.DataFrame, seed: int) -> pd.DataFrame:
    return df.iloc[np.random.default_rng(seed).permutation(len(df))]


# Means and intervals


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_quantiles_are_students(confidence: float) -> None:
    found = [t_quantile(confidence, n) for n in range(1, 40)]
    np.testing.assert_allclose(found, stats.t.ppf((1 + confidence) / 2, np.arange(1, 40)), rtol=1e-11)


def test_the_quantile_of_one_degree_is_the_tangent() -> None:
    assert t_quantile(0.5, 1) == pytest.approx(1)
    assert t_quantile(0.95, 1000) == pytest.approx(1.959964, rel=2e-3)


def test_an_interval_of_few_values() -> None:
    three = mean_and_interval(np.array([0.7, 0.8, 0.9]), 0.95)
    assert (three["mean"], three["std"], three["n"]) == (pytest.approx(0.8), pytest.approx(0.1), 3)
    assert three["high"] - three["mean"] == pytest.approx(4.302652729911275 * 0.1 / math.sqrt(3))
    one, none = mean_and_interval(np.array([0.7]), 0.95), mean_and_interval(np.array([]), 0.95)
    assert (one["mean"], one["n"], none["n"]) == (0.7, 1, 0)
    assert all(math.isnan(value) for value in (one["std"], one["low"], one["high"], none["mean"], none["low"]))


heights = st.floats(0, 1)
lines = st.dictionaries(st.integers(1, 5000), heights, min_size=2, max_size=6)


@unhurried
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([10, 20]), st.integers(0, 5), heights)))
def test_curves_are_the_means_of_their_groups(drawn: list[tuple[str, int, int, float]]) -> None:
    values = {(strategy, labels, seed): height for strategy, labels, seed, height in drawn}
    df = frame(
        rows("z", {10: 0.5}),
        *(rows(strategy, {labels: height}, seed=seed) for (strategy, labels, seed), height in values.items()),
    )
    found = curves.curve(df).set_index(["select.strategy", "labels"])
    assert found["n"].sum() == len(values) + 1
    for strategy, labels, _ in values:
        own = [height for (s, n, _), height in values.items() if (s, n) == (strategy, labels)]
        at: Any = found.loc[(strategy, labels)]
        assert at["n"] == len(own)
        assert at["mean"] == pytest.approx(sum(own) / len(own))
        assert len(own) == 1 or at["std"] == pytest.approx(np.std(own, ddof=1))


@dear
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_no_bit(seed: int) -> None:
    df = pd.concat([realistic(2, (500, 1000), pfr) for pfr in (0.0, 0.4)], ignore_index=True)
    other = shuffled(df, seed)
    for function in (curves.curve, curves.area, curves.savings):
        pd.testing.assert_frame_equal(function(df), function(other), check_exact=True)


@dear
@given(st.permutations(range(3)))
def test_names_of_seeds_change_nothing(order: list[int]) -> None:
    df = realistic()
    renamed = df.assign(seed=df["seed"].map(dict(enumerate(order))))
    for function in (curves.curve, curves.area, curves.savings):
        pd.testing.assert_frame_equal(function(df), function(renamed), check_exact=True)


def test_the_frame_is_left_as_it_was() -> None:
    df = realistic()
    before = df.copy(deep=True)
    for function in (curves.curve, curves.area, curves.savings):
        function(df)
    pd.testing.assert_frame_equal(df, before)
    assert df.attrs == {}


def test_any_column_of_numbers_may_be_the_value() -> None:
    found = curves.curve(realistic(), "val_accuracy", confidence=0.5)
    np.testing.assert_allclose(found[["mean", "low", "high"]], 0.8)


# Which rows make which curve


def test_leaves_that_vary_tell_curves_apart_and_others_are_silent() -> None:
    df = frame(
        rows("margin", {10: 0.5}, **{"select.proxy": "resnet8", "compress.pfr": 0.0}),
        rows("margin", {10: 0.6}, **{"select.proxy": None, "compress.pfr": 0.4}),
        rows("bald", {10: 0.6}, **{"select.passes": 20, "compress.pfr": 0.0}),
        rows("random", {10: 0.3}, **{"compress.pfr": 0.0}),
    )
    found = curves.curve(df)
    assert list(found.columns[:4]) == ["select.strategy", "select.proxy", "compress.pfr", "labels"]
    assert found["select.strategy"].tolist() == ["bald", "margin", "margin", "random"]
    assert found["select.proxy"].isna().tolist() == [True, False, True, True]
    assert found["compress.pfr"].tolist() == [0.0, 0.0, 0.4, 0.0]


def test_leaves_without_effect_at_one_value_of_another_tell_nothing() -> None:
    pruned: dict[str, object] = {"compress.pfr": 0.4, "compress.scope": "inner"}
    plain: dict[str, object] = {"compress.pfr": 0.0, "compress.scope": None, "compress.threshold": None}
    line = {100: 0.5, 200: 0.6}
    parts = [rows("margin", line, **plain), rows("margin", line, **pruned, **{"compress.threshold": 0.5})]
    parts += [rows("margin", line, **pruned, **{"compress.threshold": 0.7})]
    found = curves.curve(frame(*parts))
    told = ["select.strategy", "compress.pfr", "compress.threshold"]
    assert list(found.columns[: found.columns.get_loc("labels")]) == told  # pyright: ignore[reportArgumentType]
    assert len(found) == 6
    apart = curves.curve(frame(rows("margin", line, **{"train.swa": 1}), rows("margin", line, **{"train.swa": None})))
    assert "train.swa" in apart.columns
    assert len(apart) == 4


def test_lists_are_values_too() -> None:
    df = frame(
        rows("margin", {10: 0.5}, **{"select.query_sizes": [5, 10]}),
        rows("margin", {10: 0.7}, **{"select.query_sizes": [10]}),
    )
    assert curves.curve(df)["select.query_sizes"].tolist() == [(10,), (5, 10)]


def test_studies_are_curves_of_their_own() -> None:
    both = pd.concat([realistic(), realistic().assign(study="t")])
    assert len(curves.curve(both)) == 2 * len(curves.curve(realistic()))


def test_other_baselines_belong_to_no_curve() -> None:
    dense = [row(role="baseline", baseline=name, accuracy=0.1) for name in ("dense", "dense_finetuned", "binary")]
    pd.testing.assert_frame_equal(curves.curve(frame(rows("margin", {100: 0.9}), dense)), curves.curve(frame([row()])))


RANDOM = {"role": "baseline", "baseline": "random"}


@pytest.mark.parametrize("sources", [("cell",), ("baseline",), ("cell", "baseline"), ("baseline", "cell")])
def test_random_labels_are_one_curve_wherever_they_stand(sources: Sequence[str]) -> None:
    """Where both stand in the table the cell speaks, here by another value than the baseline's."""
    line = {"cell": {10: 0.3, 20: 0.5}, "baseline": {10: 0.31, 20: 0.5, 30: 0.6}}
    parts = [rows("random", line[source], **(RANDOM if source == "baseline" else {})) for source in sources]
    found = curves.curve(frame(rows("margin", {10: 0.4}), *parts))
    chance = found[found["select.strategy"] == "random"]
    expected = line[sources[0]] if len(sources) == 1 else line["baseline"] | line["cell"]
    assert dict(zip(chance["labels"], chance["mean"], strict=True)) == expected
    assert set(chance["n"]) == {1}


def test_random_labels_do_not_split_by_what_has_no_effect_on_them() -> None:
    """An axis of the selection network leaves copies of one random trial."""
    axis: list[dict[str, Any]] = [{"select.replay_ratio": 1.0}, {"select.replay_ratio": None}]
    df = frame(*(rows(name, {10: 0.5, 20: 0.6}, **leaf) for name in ("margin", "random") for leaf in axis))
    found = curves.curve(df)
    assert (found["select.strategy"] == "random").sum() == 2
    saved = curves.savings(df)
    assert saved["saved"].tolist() == [0.0] * 4
    patient = curves.curve(df.assign(**{"select.patience": 3}))
    assert (patient["select.strategy"] == "random").sum() == 4


def test_what_chance_does_not_heed_is_what_the_config_says() -> None:
    inert = SelectConfig(strategy="random", budget=1, locked_classes=1).inert() - {"min_gain"}
    assert {f"select.{name}" for name in inert} == set(NETWORK_LEAVES)


def test_all_labels_are_rows_without_labels_in_their_setting_alone() -> None:
    df = frame(
        rows("margin", {10: 0.5}, **{"compress.pfr": 0.0}),
        rows("margin", {10: 0.4}, **{"compress.pfr": 0.4}),
        [every_label(seed=seed, accuracy=0.9 + seed / 10, **{"compress.pfr": 0.0}) for seed in range(2)],
        [every_label(accuracy=0.99, **{"compress.pfr": 0.8})],
    )
    found = curves.curve(df)
    full = found[found["select.strategy"] == "all_labels"]
    assert full["mean"].tolist() == [pytest.approx(0.95)]
    assert full["labels"].isna().all()
    assert full["compress.pfr"].tolist() == [0.0]
    assert found.attrs["left_out_because"] == {"status": 0, "missing": 0, "mixed_hosts": 0, "setting": 1}


def test_a_trajectory_that_ended_early_is_one_point() -> None:
    df = frame(rows("margin", {10: 0.5, 20: 0.6}))
    stopped = [row(labels=20, accuracy=0.6) | {"select.budget": budget} for budget in (40, 80)]
    found = curves.curve(pd.concat([df, frame(stopped)]))
    pd.testing.assert_frame_equal(found, curves.curve(df))


def test_rows_that_cannot_take_part_are_counted() -> None:
    bad = [
        row(seed=1, status="failed"), row(seed=2, status=None), row(seed=3, accuracy=None), row(seed=4, labels=None),
        row(seed=5, accuracy=math.inf), row(seed=6, role="baseline", baseline="random", accuracy=math.nan),
    ]  # fmt: skip
    for function in (curves.curve, curves.area):
        found = function(frame(rows("margin", {100: 0.5, 200: 0.6}), bad))
        assert found.attrs["left_out"] == 6
        assert found.attrs["left_out_because"] | {"one_budget": 0} == {
            "status": 2, "missing": 4, "mixed_hosts": 0, "setting": 0, "one_budget": 0,
        }  # fmt: skip
        assert found["n"].max() == 1


def test_seconds_of_mixed_machines_and_of_other_places_are_left_out_of_seconds_alone() -> None:
    df = frame(
        [
            row(seed=0, select_s=2.0), row(seed=1, select_s=4.0), row(seed=2, select_s=1000.0, mixed_hosts=True),
            row(seed=3, select_s=1000.0, machine="server"),
        ]
    )  # fmt: skip
    found = curves.curve(df)
    assert found["select_s"].tolist() == [3.0]
    assert found["n"].tolist() == [4]
    assert found.attrs["seconds_left_out"] == 2
    assert "select_s" not in curves.curve(df.drop(columns="mixed_hosts")).columns
    timed = curves.curve(df, "select_s")
    assert (timed["mean"].tolist(), timed["n"].tolist()) == ([3.0], [2])
    assert timed.attrs["left_out_because"]["mixed_hosts"] == 2
    with pytest.raises(TableError, match="no column 'mixed_hosts'; load it too"):
        curves.curve(df.drop(columns="mixed_hosts"), "select_s")


def test_nothing_complete_is_an_empty_curve() -> None:
    df = realistic().assign(status=None)
    found = curves.curve(df)
    assert len(found) == 0
    assert found.attrs["left_out"] == len(df)
    assert list(found.columns) == [
        "select.strategy",
        "labels",
        "mean",
        "std",
        "n",
        "low",
        "high",
        "select_s",
        "wall_time_s",
    ]


# Area


def test_the_area_under_a_straight_line_is_its_middle() -> None:
    found = curves.area(frame(rows("margin", {100: 0.2, 300: 0.4, 500: 0.6}), rows("random", {100: 0.1, 500: 0.3})))
    assert found["mean"].tolist() == [pytest.approx(0.4), pytest.approx(0.2)]
    assert found["labels_from"].tolist() == [100, 100]
    assert found["labels_to"].tolist() == [500, 500]


def test_the_area_of_each_seed_comes_before_the_mean() -> None:
    seeds = [rows("margin", {100: 0.2 + d, 200: 0.4 + d}, seed=seed) for seed, d in enumerate((0.0, 0.1, 0.2))]
    found = curves.area(frame(*seeds)).iloc[0]
    assert (found["mean"], found["std"], found["n"]) == (pytest.approx(0.4), pytest.approx(0.1), 3)


def test_areas_are_taken_over_the_labels_that_all_share() -> None:
    """One curve is longer by a steep end, which adds nothing; lines are cut between their points."""
    df = frame(
        rows("margin", {100: 0.2, 300: 0.4, 1000: 0.9}),
        rows("random", {200: 0.1, 400: 0.3}),
        rows("badge", {7: 0.5, 8: 0.6}, **{"data.name": "cifar10"}),
        rows("badge", {7: 0.5}, **{"data.name": "cifar10", "seed": 1}),
    )
    found = curves.area(df).set_index("select.strategy")
    slope = 0.5 / 700
    assert found.loc["margin", "mean"] == pytest.approx((0.35 * 100 + (0.4 + 50 * slope) * 100) / 200)
    assert found.loc["random", "mean"] == pytest.approx(0.2)
    assert found.loc[["margin", "random"], "labels_from"].tolist() == [200, 200]
    assert (found.loc["badge", "mean"], found.loc["badge", "n"]) == (pytest.approx(0.55), 1)
    assert found.attrs["left_out_because"]["one_budget"] == 1


def test_curves_that_share_no_labels_have_no_area() -> None:
    found = curves.area(frame(rows("a", {10: 0.5, 20: 0.6}), rows("b", {20: 0.5, 30: 0.6}), rows("c", {15: 0.5})))
    assert found["mean"].isna().all()
    assert found["n"].tolist() == [0, 0, 0]


@unhurried
@given(lines)
def test_an_area_lies_between_the_lowest_and_the_highest_point(line: dict[int, float]) -> None:
    found = curves.area(frame(rows("margin", line)))["mean"].iloc[0]
    assert min(line.values()) - 1e-12 <= found <= max(line.values()) + 1e-12
    xs = sorted(line)
    by_hand = sum((b - a) * (line[a] + line[b]) / 2 for a, b in itertools.pairwise(xs)) / (xs[-1] - xs[0])
    assert found == pytest.approx(by_hand)


# Savings


def test_savings_on_straight_lines_are_exact() -> None:
    """Random gains 0.1 each 100 labels; margin is 0.1 above it."""
    df = frame(rows("random", {100: 0.1, 300: 0.3, 500: 0.5}), rows("margin", {100: 0.2, 200: 0.3, 400: 0.5, 500: 0.6}))
    found = curves.savings(df)
    assert found["labels"].tolist() == [100, 200, 400, 500]
    assert found["labels_against"].tolist()[:3] == [pytest.approx(200), 300, 500]
    assert found["saved"].tolist()[:3] == [pytest.approx(1 / 2), pytest.approx(1 / 3), pytest.approx(1 / 5)]
    assert math.isnan(found["saved"].iloc[3])
    assert found["unknown"].tolist()[3] == "above"
    assert found["unknown"].isna().tolist() == [True, True, True, False]


def test_a_saving_is_null_where_random_does_not_bracket_it_and_negative_where_random_is_better() -> None:
    df = frame(
        rows("random", {100: 0.4, 200: 0.6}, **{"compress.pfr": 0.0}),
        rows("margin", {100: 0.39, 200: 0.5}, **{"compress.pfr": 0.0}),
        rows("margin", {100: 0.5}, **{"compress.pfr": 0.4}),
    )
    found = curves.savings(df)
    assert found["saved"].tolist()[1] == pytest.approx(1 - 200 / 150)
    assert found["saved"].isna().tolist() == [True, False, True]
    assert found["unknown"].tolist()[0::2] == ["below", "absent"]


def test_the_first_crossing_of_a_curve_that_falls_counts() -> None:
    line = [(100, 0.2), (200, 0.5), (300, 0.4), (400, 0.6), (500, 0.6)]
    df = frame(rows("random", line), rows("margin", {50: 0.45, 60: 0.5, 70: 0.6}))
    found = curves.savings(df)["labels_against"].tolist()
    assert found == [pytest.approx(100 + 100 * 0.25 / 0.3), 200, 400]


def test_savings_of_the_mean_curves() -> None:
    df = frame(
        rows("random", {100: 0.1, 200: 0.3}, seed=0), rows("random", {100: 0.3, 200: 0.5}, seed=1),
        rows("margin", {100: 0.2}, seed=0), rows("margin", {100: 0.4}, seed=1),
    )  # fmt: skip
    found = curves.savings(df).iloc[0]
    assert (found["mean"], found["labels_against"], found["n"]) == (pytest.approx(0.3), pytest.approx(150), 2)


def test_savings_compare_the_same_seeds_while_a_study_is_unfinished() -> None:
    """Seed 1 is easier: a mean over other seeds would be another height. Both curves lack some of its points."""
    df = frame(
        rows("random", {100: 0.1, 200: 0.2, 300: 0.3}, seed=0), rows("random", {100: 0.5, 300: 0.7}, seed=1),
        rows("margin", {100: 0.2, 200: 0.25}, seed=0), rows("margin", {100: 0.6}, seed=1),
        rows("margin", {100: 0.9}, seed=2),
    )  # fmt: skip
    found = curves.savings(df)
    assert found["n"].tolist() == [2, 1]
    assert found["mean"].tolist() == [pytest.approx(0.4), 0.25]
    assert found["labels_against"].tolist() == [pytest.approx(200), pytest.approx(250)]
    alone = curves.savings(df[(df["seed"] == 2) | (df["select.strategy"] == "random")]).iloc[0]
    assert (alone["n"], alone["mean"], alone["unknown"]) == (1, 0.9, "seeds")
    apart = df[(df["select.strategy"] == "margin") | ((df["seed"] == 0) == (df["labels"] == 100))]
    assert curves.savings(apart)["unknown"].tolist() == ["seeds", "above"]


def test_another_strategy_may_be_the_measure_with_its_own_network() -> None:
    proxies: list[dict[str, Any]] = [{"select.proxy": "resnet8"}, {"select.proxy": "resnet14"}]
    df = frame(
        *(rows("entropy", {100: 0.1, 200: height}, **leaf) for leaf, height in zip(proxies, (0.2, 0.4), strict=True)),
        *(rows("margin", {100: 0.15}, **leaf) for leaf in proxies),
        rows("random", {100: 0.1}),
    )
    found = curves.savings(df, against="entropy").dropna(subset="select.proxy").set_index("select.proxy")
    assert found["labels_against"].to_dict() == {
        "resnet8": pytest.approx(150),
        "resnet14": pytest.approx(100 + 100 * 0.05 / 0.3),
    }
    one_proxy = df[(df["select.strategy"] == "margin") | (df["select.proxy"] == "resnet8")]
    absent = curves.savings(one_proxy, against="entropy").set_index("select.proxy")["unknown"]
    assert absent.dropna().to_dict() == {"resnet14": "absent"}


@unhurried
@given(lines, st.floats(0, 1))
def test_a_crossing_is_on_the_line_and_nothing_before_it_is_as_high(line: dict[int, float], height: float) -> None:
    points = np.array(sorted(line.items()), dtype=np.float64)
    at, unknown = curves.first_crossing(points, height)
    if unknown is not None:
        assert math.isnan(at)
        assert (points[0, 1] > height) if unknown == "below" else (points[:, 1].max() < height)
        return
    assert points[0, 0] <= at <= points[-1, 0]
    assert np.interp(at, *points.T) == pytest.approx(height, abs=1e-9)
    before = points[points[:, 0] < at, 1]
    assert (before < height).all() or height == points[0, 1]


# Mistakes


def call_plot(df: pd.DataFrame, **wrong: Any) -> None:
    plots.plot(df, **wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda df: curves.curve(df.drop(columns="select.strategy")), "no column 'select.strategy'"),
        (lambda df: curves.curve(df.drop(columns="labels")), "the frame has no column 'labels'; load it too"),
        (lambda df: curves.curve(df.assign(**{"select.strategy": None})), "labels every image.*section `select`"),
        (lambda df: curves.curve(df, "acuracy"), "no column 'acuracy'; did you mean 'accuracy'"),
        (lambda df: curves.curve(df, "study"), "column 'study' holds .*, not numbers"),
        (lambda df: curves.curve(df, over="epoch"), "over='epoch' is not supported; valid is 'seed'"),
        (lambda df: curves.curve(df, by="select.budget"), "by: select.budget runs along the curve"),
        (lambda df: curves.curve(df, by=["nothing"]), "the frame has no column 'nothing'"),
        (lambda df: curves.curve(df, confidence=95), "confidence 95 must lie between 0 and 1"),
        (lambda df: curves.area(df[df["labels"] == 500]), "area of accuracy: a curve needs two budgets or more"),
        (lambda df: curves.savings(df[df["select.strategy"] == "margin"]), "'random' to compare with; .*'margin'"),
        (lambda df: curves.savings(df, against="entropy"), "no complete row of the strategy 'entropy'.*'badge'"),
        (lambda df: curves.savings(df.assign(status=None)), "'random' to compare with; no row is complete"),
        (lambda df: call_plot(df, x="epochs"), "plot: unknown x 'epochs'; valid are labels, select_s, wall_time_s"),
        (lambda df: call_plot(df, band="range"), "plot: unknown band 'range'; valid are interval, std"),
        (lambda df: plots.plot(df, "curves.jpeg"), r"curves.jpeg: the suffix .* \.svg, \.png, \.pdf"),
        (lambda df: plots.plot(df.assign(status=None)), "no row of a curve is complete yet"),
        (lambda df: plots.plot(df.assign(mixed_hosts=True), x="select_s"), "no row has a select_s that compares"),
        (lambda df: plots.plot(df.drop(columns="mixed_hosts"), x="select_s"), "x='select_s' needs the columns"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(TableError, match=message) as caught:
        call(realistic())
    assert "\n" not in str(caught.value)


def test_a_seed_that_occurs_twice_is_told_with_what_differs() -> None:
    wide: dict[str, object] = {"model.width": 32}
    df = frame(rows("margin", {10: 0.5}, **{"model.width": 16}), rows("margin", {10: 0.6}, **wide))
    assert len(curves.curve(df)) == 2
    with pytest.raises(TableError, match=r"margin at 10 labels: seed 0 occurs twice; .* differ in model\.width"):
        curves.curve(df, by="data.name")
    with pytest.raises(TableError, match="differ in no config column: load study"):
        curves.curve(df.drop(columns="model.width"))
    full = [every_label(**{"model.width": width}, accuracy=width / 100) for width in (16, 32)]
    with pytest.raises(TableError, match=r"curve all_labels: seed 0 occurs twice; .* model\.width"):
        curves.curve(frame(rows("margin", {10: 0.5}), full), by="data.name")


# Figure


def ticks_overlap(figure: Any) -> bool:
    """Whether two tick labels of one axis meet."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [t.label1 for t in axis.get_major_ticks() if t.label1.get_text() and low <= t.get_loc() <= high]
            boxes = [text.get_window_extent() for text in shown if text.get_visible()]
            if any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]):
                return True
    return False


def test_the_tick_check_can_fail() -> None:
    figure = plots.plot(realistic())
    figure.axes[0].set_xticks([500, 501, 502], ["10,000"] * 3)
    assert ticks_overlap(figure)


@pytest.mark.parametrize("x", ["labels", "select_s", "wall_time_s"])
@pytest.mark.parametrize("budgets", [(100, 300, 500, 900), (1000, 10000), (10, 1000, 100000)])
def test_a_figure_has_named_axes_and_ticks_apart(x: Any, budgets: Sequence[int]) -> None:
    df = realistic(budgets=budgets)
    df["wall_time_s"] = df["select_s"] + df["labels"].fillna(60000).astype(float) / 100
    figure = plots.plot(df, x=x)
    (axes,) = figure.axes
    assert axes.get_xlabel() == plots.X_LABELS[x]
    assert axes.get_ylabel() == "test accuracy (%)"
    assert not ticks_overlap(figure)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == "all\N{NO-BREAK SPACE}labels"
    assert len(names) == 5
    free = f"random, {budgets[-1]:,}\N{NO-BREAK SPACE}labels"
    assert names[-1].replace("\n", " ") == (free if x == "select_s" else "random")
    legend, inner = figure.legends[0].get_window_extent(), axes.get_window_extent()
    assert not legend.overlaps(inner)
    assert legend.x1 <= figure.bbox.x1
    width = inner.width / figure.bbox.width
    assert width > 0.4


def test_lines_are_the_means_in_percent_and_random_is_grey() -> None:
    df = realistic()
    figure = plots.plot(df)
    found = curves.curve(df)
    drawn = {
        tuple(np.round(np.asarray(line.get_ydata(), dtype=np.float64), 9)): line for line in figure.axes[0].get_lines()
    }
    for name, own in found.groupby("select.strategy"):
        heights = 100 * own["mean"].to_numpy()
        line = drawn[tuple(np.round(np.repeat(heights, 2) if name == "all_labels" else heights, 9))]
        assert (line.get_color() == "#808080") == (name == "random")
    colours = [line.get_color() for line in drawn.values()]
    assert len(set(colours)) == len(colours)


def test_each_setting_has_its_panel_with_its_title() -> None:
    df = pd.concat([realistic(pfr=pfr) for pfr in (0.0, 0.2, 0.4, 0.6)])
    figure = plots.plot(df)
    assert [axes.get_title() for axes in figure.axes] == ["pfr 0", "pfr 0.2", "pfr 0.4", "pfr 0.6"]
    assert not ticks_overlap(figure)
    with pytest.raises(TableError, match=r"13 settings of compress\.pfr, at most 12 fit"):
        plots.plot(pd.concat([realistic(1, pfr=i / 20) for i in range(13)]))


def test_more_curves_than_styles_are_refused() -> None:
    def many(count: int) -> pd.DataFrame:
        return frame(*(rows("margin", {10: 0.5, 20: 0.6}, **{"select.epochs": i}) for i in range(count)))

    (axes,) = plots.plot(many(18)).axes
    styles = {(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in axes.get_lines()}
    assert len(axes.get_lines()) == 18
    assert len({(colour, marker) for colour, _, marker in styles}) == 6
    with pytest.raises(TableError, match="19 curves cannot be told apart, at most 18"):
        plots.plot(many(19))


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_a_file_is_written_and_equal_tables_give_equal_files(tmp_path: Path, suffix: str) -> None:
    one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
    plots.plot(realistic(), one)
    plots.plot(shuffled(realistic(), 1), other)
    assert one.stat().st_size > 5000
    assert one.read_bytes() == other.read_bytes()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OrchestratorError, match=r"none/a.png: the figure cannot be written: No such file"):
        plots.plot(realistic(), tmp_path / "none" / "a.png")


def test_without_matplotlib_there_is_one_line_of_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(OrchestratorError, match="matplotlib is not installed; figures need it: pip install matplotlib"):
        plots.plot(realistic())


class Absent:
    """An import hook under which matplotlib is not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_analysis_loads_neither_torch_nor_ray_nor_matplotlib() -> None:
    code = (
        "import sys; from orchestrator.analysis import load, plots\n"
        "print(*{n.partition('.')[0] for n in sys.modules} & {'torch', 'ray', 'matplotlib', 'scipy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


# From the file, and as the document says


@pytest.fixture
def study(tmp_path: Path) -> Path:
    df = realistic()
    leaves = {"data.name": pa.string(), "train.epochs": pa.int64()}
    schema = tables.schema(leaves | {"select.strategy": pa.string(), "select.budget": pa.int64()})
    filled = [
        {name: one.get(name) for name in schema.names}
        for one in df.astype(object).where(df.notna(), None).to_dict("records")
    ]
    folder = tmp_path / "results" / "al_budget"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(filled, schema=schema), folder / "trials.parquet")
    return folder


@pytest.mark.parametrize("reader", ["load", "pandas", "pandas-arrow"])
def test_one_line_from_the_file_to_the_curves(study: Path, reader: str) -> None:
    readers = {
        "load": orchestrator.load,
        "pandas": pd.read_parquet,
        "pandas-arrow": lambda path: pd.read_parquet(path, dtype_backend="pyarrow"),
    }
    df: Any = readers[reader](study)
    assert len(df.al.curve()) == 4 * 5 + 1
    np.testing.assert_allclose(df.al.curve()["mean"], curves.curve(realistic())["mean"])
    np.testing.assert_allclose(df.al.area()["mean"], curves.area(realistic())["mean"])
    np.testing.assert_allclose(df.al.savings()["saved"], curves.savings(realistic())["saved"])
    assert df.al.plot(study / "_curves.png").axes


def test_the_document_runs_as_it_stands(study: Path) -> None:
    text = (ROOT / "docs" / "learning_curves.md").read_text()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=study.parent.parent, check=True, timeout=120)
    assert {path.name for path in study.parent.parent.iterdir()} == {"results", "curves.svg", "cost.png"}
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert targets
    assert all((ROOT / "docs" / target).exists() for target in targets)
