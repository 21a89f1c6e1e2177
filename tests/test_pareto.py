"""Fronts against a brute-force oracle, against optuna, and the rows that take part in them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator
from orchestrator.analysis import pareto, tables
from orchestrator.analysis.dominance import on_grid
from orchestrator.analysis.objectives import Objective, parse_objectives
from orchestrator.analysis.repeats import mean_over_seeds
from orchestrator.errors import TableError

NAMES = ("a", "b", "c", "d", "e")
Points = npt.NDArray[np.float64]

unhurried = settings(deadline=None)  # a busy machine is no failure


def frame(points: Points) -> pd.DataFrame:
    return pd.DataFrame({name: points[:, i] for i, name in enumerate(NAMES[: points.shape[1]])})


def wanted(directions: Sequence[str], tolerance: object = 0) -> dict[str, object]:
    return {name: {way: tolerance} for name, way in zip(NAMES, directions, strict=False)}


def members(points: Points, directions: Sequence[str], tolerance: object = 0) -> list[int]:
    """Positions of the rows on the front."""
    found = pareto.front(frame(points), wanted(directions, tolerance), role=None)
    return found.index.tolist()


def oracle(points: Points, directions: Sequence[str]) -> list[int]:
    """Dominance by its definition, pair by pair."""
    losses = points * [1 if way == "min" else -1 for way in directions]

    def dominates(one: Points, other: Points) -> bool:
        return bool((one <= other).all() and (one < other).any())

    return [i for i, row in enumerate(losses) if not any(dominates(other, row) for other in losses)]


COARSE = st.integers(-3, 3).map(float)
FINE = st.floats(allow_nan=False, allow_infinity=True)
EXTREME = st.sampled_from([-math.inf, -1.7976931348623157e308, -1.0, -0.0, 0.0, 1.0, 1.7976931348623157e308, math.inf])


@st.composite
def problems(draw: st.DrawFn, values: st.SearchStrategy[float] = COARSE | FINE) -> tuple[Points, list[str]]:
    objectives = draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(values, min_size=objectives, max_size=objectives), max_size=30))
    directions = draw(st.lists(st.sampled_from(["max", "min"]), min_size=objectives, max_size=objectives))
    return np.array(rows, dtype=np.float64).reshape(-1, objectives), directions


@unhurried
@given(problems())
def test_front_is_the_definition(problem: tuple[Points, list[str]]) -> None:
    points, directions = problem
    assert members(points, directions) == oracle(points, directions)


@unhurried
@given(problems(COARSE) | problems(EXTREME))
def test_fronts_of_ties_and_of_extremes_are_the_definition(problem: tuple[Points, list[str]]) -> None:
    points, directions = problem
    assert members(points, directions) == oracle(points, directions)


@unhurried
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_a_simplex_is_all_front(seed: int, objectives: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 20, size=(40, objectives)).astype(np.float64)
    points = weights[:, 1:]
    on_plane = np.column_stack([points, 100 - points.sum(axis=1)])
    assert members(on_plane, ["min"] * objectives) == list(range(40))


@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_single(count: int) -> None:
    assert members(np.zeros((count, 3)), ["max", "min", "max"]) == list(range(count))


def test_degenerate_column_changes_nothing() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2))
    flat = np.column_stack([points, np.ones(200)])
    assert members(flat, ["max", "min", "max"]) == members(points, ["max", "min"])


@pytest.mark.parametrize("objectives", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_large_fronts_equal_the_definition(objectives: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, 12, size=(600, objectives)).astype(np.float64)
    directions = ["max", "min", "max", "min"][:objectives]
    assert members(points, directions) == oracle(points, directions)


@pytest.mark.parametrize("objectives", [2, 3])
def test_front_is_optunas(objectives: int) -> None:
    directions: list[Literal["minimize", "maximize"]] = ["minimize", "maximize", "minimize"]
    directions = directions[:objectives]
    points = np.random.default_rng(3).integers(0, 15, size=(150, objectives)).astype(np.float64)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=directions)
    study.add_trials([optuna.trial.create_trial(values=row.tolist()) for row in points])
    assert members(points, [way[:3] for way in directions]) == sorted(trial.number for trial in study.best_trials)


@unhurried
@given(problems(st.floats(-1e6, 1e6)), st.sampled_from([0.5, 1e3, "5%", "300%"]), st.randoms(use_true_random=False))
def test_tolerance_knows_neither_order_nor_duplicates(
    problem: tuple[Points, list[str]], tolerance: object, random: Any
) -> None:
    points, directions = problem
    order = list(range(len(points)))
    random.shuffle(order)
    found = set(members(points, directions, tolerance))
    assert {order[i] for i in members(points[order], directions, tolerance)} == found
    twice = members(np.concatenate([points, points]), directions, tolerance)
    assert set(twice) == found | {i + len(points) for i in found}


@unhurried
@given(problems())
def test_tolerance_zero_is_plain_dominance(problem: tuple[Points, list[str]]) -> None:
    points, directions = problem
    assert members(points, directions, "0%") == members(points, directions, 0) == members(points, directions)


@unhurried
@given(problems(st.floats(-1e6, 1e6)), st.sampled_from([0.5, 1e3, "5%", "300%"]))
def test_front_with_tolerance_is_the_definition_on_the_grid(
    problem: tuple[Points, list[str]], tolerance: str | float
) -> None:
    points, directions = problem
    relative = isinstance(tolerance, str)
    amount = float(tolerance.rstrip("%")) / 100 if isinstance(tolerance, str) else tolerance
    grid = np.stack([on_grid(column, amount, relative=relative) for column in points.T], axis=1)
    assert members(points, directions, tolerance) == oracle(grid, directions)


TOLERANCES = st.floats(1e-3, 10)
NUMBERS = st.floats(-1e9, 1e9)


@unhurried
@given(NUMBERS, NUMBERS, TOLERANCES, st.booleans())
def test_grid_is_monotone(one: float, other: float, tolerance: float, relative: bool) -> None:
    low, high = on_grid(np.array(sorted([one, other])), tolerance, relative=relative)
    assert low <= high


@unhurried
@given(st.floats(-1e6, 1e6), st.floats(1.001, 3), TOLERANCES)
def test_a_linear_cell_is_no_wider_than_the_tolerance(value: float, steps: float, tolerance: float) -> None:
    left, right = on_grid(np.array([value, value + steps * tolerance]), tolerance, relative=False)
    assert 1 <= right - left <= steps + 1


@unhurried
@given(st.floats(1e-300, 1e290), st.floats(1.001, 3), TOLERANCES, st.booleans())
def test_a_logarithmic_cell_is_no_wider_than_the_tolerance(
    value: float, steps: float, tolerance: float, negative: bool
) -> None:
    pair = np.array([value, value * (1 + tolerance) ** steps]) * (-1 if negative else 1)
    left, right = on_grid(pair, tolerance, relative=True)
    assert 1 <= abs(right - left) <= steps + 1
    assert (left < 0) == (right < 0) == negative


def test_multiples_of_the_tolerance_are_told_apart() -> None:
    percent = np.arange(101) / 100
    assert on_grid(percent, 0.01, relative=False).tolist() == list(range(101))


@pytest.mark.parametrize("relative", [True, False])
def test_grid_keeps_infinity_zero_and_sign(relative: bool) -> None:
    values = np.array([-math.inf, -1e308, -5e-324, 0.0, 5e-324, 1e308, math.inf])
    cells = on_grid(values, 0.5, relative=relative)
    assert (cells[0], cells[3], cells[-1]) == (-math.inf, 0, math.inf)
    assert (cells[:-1] <= cells[1:]).all()
    assert not relative or (cells[:-1] < cells[1:]).all()


def test_a_time_within_its_tolerance_makes_no_front() -> None:
    df = pd.DataFrame({"accuracy": [0.95, 0.90, 0.80], "wall_time_s": [100.0, 99.9, 50.0]})
    plain = pareto.front(df, {"accuracy": "max", "wall_time_s": "min"}, role=None)
    tolerant = pareto.front(df, {"accuracy": "max", "wall_time_s": {"min": "5%"}}, role=None)
    assert plain.index.tolist() == [0, 1, 2]
    assert tolerant.index.tolist() == [0, 2]


def trial(**values: object) -> dict[str, object]:
    usual: dict[str, object] = {
        "study": "s", "role": "cell", "baseline": None, "seed": 0, "status": "complete", "mixed_hosts": False,
        "compress.pfr": 0.0, "accuracy": 0.9, "val_accuracy": 0.9, "compression": 10.0, "wall_time_s": 5.0,
    }  # fmt: skip
    return usual | values


def trials(*rows: Mapping[str, object]) -> pd.DataFrame:
    return pd.DataFrame([trial(**row) for row in rows])


SIZE = {"accuracy": "max", "compression": "max"}


def test_rows_that_cannot_be_compared_are_left_out_and_counted() -> None:
    df = trials(
        {"accuracy": 0.5},
        {"accuracy": 0.99, "status": "failed"},
        {"accuracy": 0.99, "status": None},
        {"accuracy": None},
        {"compression": math.nan},
        {"accuracy": 0.99, "mixed_hosts": True},
        {"accuracy": 0.99, "role": "baseline"},
    )
    timed = pareto.front(df)
    assert timed.index.tolist() == [0]
    assert timed.attrs["left_out"] == 5
    assert timed.attrs["left_out_because"] == {"status": 2, "mixed_hosts": 1, "missing": 2}
    untimed = pareto.front(df, SIZE)
    assert untimed.index.tolist() == [5]
    assert untimed.attrs["left_out"] == 4


def test_nothing_comparable_is_an_empty_front_with_all_columns() -> None:
    df = trials({"accuracy": None}, {"accuracy": None})
    for found in (pareto.front(df), pareto.front(df, by="study"), pareto.front(df.iloc[:0])):
        assert len(found) == 0
        assert list(found.columns) == list(df.columns)
    assert list(pareto.front(df, over="seed")["n_seeds"]) == []


def test_infinite_values_are_compared() -> None:
    df = trials({"compression": math.inf}, {"compression": 5.0}, {"accuracy": 0.91, "compression": -math.inf})
    assert pareto.front(df, SIZE).index.tolist() == [0, 2]


def test_roles() -> None:
    df = trials({"accuracy": 0.8}, {"accuracy": 0.9, "role": "baseline"})
    assert pareto.front(df).index.tolist() == [0]
    assert pareto.front(df, role="baseline").index.tolist() == [1]
    assert pareto.front(df, role=None).index.tolist() == [1]


def test_equal_rows_all_stay_even_with_one_index_label() -> None:
    df = trials({"accuracy": 0.8}, {}, {}).set_axis([7, 7, 7])
    assert len(pareto.front(df)) == 2


def test_the_frame_is_left_as_it_was() -> None:
    df = seeded()
    before = df.copy(deep=True)
    pareto.front(df, over="seed", by="compress.pfr")
    pd.testing.assert_frame_equal(df, before)
    assert df.attrs == {}


def test_validation_chooses_and_test_is_reported() -> None:
    df = trials({"accuracy": 0.8, "val_accuracy": 0.95}, {"accuracy": 0.9, "val_accuracy": 0.85})
    assert pareto.front(df, SIZE).index.tolist() == [1]
    chosen = pareto.front(df, SIZE, select_on="val_accuracy")
    assert chosen["accuracy"].tolist() == [0.8]


def test_each_group_has_its_own_front() -> None:
    df = trials(
        {"study": "b", "accuracy": 0.5},
        {"study": "a", "accuracy": 0.9},
        {"study": "b", "accuracy": 0.6},
        {"study": None, "accuracy": 0.1},
        {"study": "a", "accuracy": 0.8},
    )
    assert pareto.front(df, by="study").index.tolist() == [1, 2, 3]
    assert pareto.front(df, by=["study", "accuracy"]).index.tolist() == [0, 1, 2, 3, 4]


def seeded() -> pd.DataFrame:
    return trials(
        {"compress.pfr": 0.4, "seed": 0, "accuracy": 0.70, "compression": 30.0},
        {"compress.pfr": 0.0, "seed": 0, "accuracy": 0.90, "compression": 20.0},
        {"compress.pfr": 0.4, "seed": 1, "accuracy": 0.80, "compression": 32.0},
        {"compress.pfr": 0.0, "seed": 1, "accuracy": 0.94, "compression": 20.0},
        {"compress.pfr": 0.2, "seed": 1, "accuracy": 0.89, "compression": 19.0},
        {"compress.pfr": 0.2, "seed": 0, "accuracy": 0.99, "compression": 40.0, "status": "failed"},
    )


def test_over_seed_compares_means_and_tells_the_spread() -> None:
    found = pareto.front(seeded(), SIZE, over="seed")
    assert found["compress.pfr"].tolist() == [0.4, 0.0]
    assert found["n_seeds"].tolist() == [2, 2]
    np.testing.assert_allclose(found["accuracy"], [0.75, 0.92])
    np.testing.assert_allclose(found["accuracy_std"], [0.05 * math.sqrt(2), 0.02 * math.sqrt(2)])
    np.testing.assert_allclose(found["compression_std"], [math.sqrt(2), 0])
    np.testing.assert_allclose(found["wall_time_s"], [5, 5])
    assert found.attrs["left_out"] == 1
    assert "seed" not in found.columns


def test_a_cell_with_fewer_seeds_stays_and_shows_it() -> None:
    cells = mean_over_seeds(seeded().iloc[:5], ["accuracy"]).set_index("compress.pfr")
    assert cells["n_seeds"].to_dict() == {0.4: 2, 0.0: 2, 0.2: 1}
    assert math.isnan(float(cells["accuracy_std"].loc[0.2]))


def test_the_interval_of_one_trial_is_no_interval_of_the_mean() -> None:
    cells = mean_over_seeds(seeded().iloc[:5].assign(accuracy_low=0.8, packed_bytes=7), ["accuracy"])
    assert "accuracy_low" not in cells.columns
    assert cells["packed_bytes"].tolist() == [7, 7, 7]


def test_means_keep_baselines_studies_and_lists_apart() -> None:
    df = trials(
        {"compress.full_precision": ["first", "last"]},
        {"compress.full_precision": ["first"]},
        {"study": "t", "compress.full_precision": ["first", "last"]},
        {"role": "baseline", "baseline": "dense"},
        {"role": "baseline", "baseline": "binary"},
        {"seed": 1, "compress.full_precision": ["first", "last"]},
    )
    cells = mean_over_seeds(df, ["accuracy"])
    assert cells["n_seeds"].tolist() == [2, 1, 1, 1, 1]
    assert cells["compress.full_precision"].tolist()[0] == ("first", "last")


def test_over_seed_reports_the_accuracy_that_did_not_choose() -> None:
    found = pareto.front(seeded(), SIZE, over="seed", select_on="val_accuracy")
    assert {"accuracy", "accuracy_std", "val_accuracy", "val_accuracy_std"} <= set(found.columns)


def test_a_config_leaf_may_be_an_objective_over_seeds() -> None:
    found = pareto.front(seeded(), {"accuracy": "max", "compress.pfr": "max"}, over="seed")
    assert found["compress.pfr"].tolist() == [0.4, 0.0, 0.2]
    assert list(found.columns).count("compress.pfr") == 1


def test_a_mean_that_is_undefined_is_left_out() -> None:
    undefined: list[dict[str, object]] = [{"compression": math.inf}, {"compression": -math.inf, "seed": 1}]
    df = trials(*({"accuracy": 0.99} | row for row in undefined), {"compress.pfr": 0.4})
    found = pareto.front(df, SIZE, over="seed")
    assert found["compress.pfr"].tolist() == [0.4]
    assert found.attrs["left_out_because"] == {"status": 0, "mixed_hosts": 0, "missing": 1}


def test_infinite_means_stay_infinite() -> None:
    df = trials({"compression": math.inf}, {"compression": 5.0, "seed": 1})
    assert pareto.front(df, SIZE, over="seed")["compression"].tolist() == [math.inf]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": {"acuracy": "max"}}, "unknown column; did you mean 'accuracy'"),
        ({"objectives": {"macs": "min"}}, "the frame has no column 'macs'"),
        ({"objectives": {"accuracy": "min"}}, "contradicts the column table"),
        ({"objectives": {"compress.name": "max"}}, "no column 'compress.name'"),
        ({"objectives": {"note": "max"}}, "column 'note' holds .*, not numbers"),
        ({"objectives": ["acuracy"]}, "unknown column; did you mean 'accuracy'"),
        ({"objectives": ["compress.pfr"]}, "the column table has no direction for it; write {'compress.pfr': 'max'}"),
        ({"objectives": ["seed"]}, "this column has no better direction"),
        ({"objectives": [3]}, "must be a mapping as"),
        ({"objectives": []}, "must be a mapping as"),
        ({"objectives": {"compression": "max"}, "select_on": "val_accuracy"}, "stands in for the objective accuracy"),
        ({"select_on": "val_acc"}, "did you mean 'val_accuracy'"),
        ({"select_on": "accuracy_drop"}, "contradicts"),
        ({"by": "nothing"}, "the frame has no column 'nothing'"),
        ({"over": "epoch"}, "over='epoch' is not supported; valid are 'seed' and 'expected'"),
        ({"over": "seed", "by": "seed"}, "the frame has no column 'seed'"),
        ({"role": "cells"}, "role 'cells' is unknown; valid are cell, baseline and None"),
    ],
)
def test_wrong_questions_are_told(options: dict[str, Any], message: str) -> None:
    df = seeded().assign(note="text")
    with pytest.raises(TableError, match=message):
        pareto.front(df, **options)


@pytest.mark.parametrize("absent", ["role", "status", "mixed_hosts"])
def test_a_frame_without_its_guards_is_refused_unless_every_row_is_meant(absent: str) -> None:
    df = trials({}).drop(columns=absent)
    with pytest.raises(TableError, match=rf"needs the column\(s\) {absent}, which .* pass role=None"):
        pareto.front(df)
    assert len(pareto.front(df, role=None)) == 1


def test_cells_that_cannot_be_told_apart_are_not_averaged() -> None:
    with pytest.raises(TableError, match="seed 0 occurs twice in one cell"):
        pareto.front(seeded().iloc[:5].assign(**{"compress.pfr": 0.0}), SIZE, over="seed")
    with pytest.raises(TableError, match="needs the column seed and the config columns"):
        pareto.front(seeded().drop(columns="compress.pfr"), SIZE, over="seed")


def test_parsed_objectives_are_taken_as_they_are() -> None:
    df = trials({"accuracy": 0.8}, {})
    parsed = parse_objectives({"accuracy": "max"})
    assert pareto.front(df, parsed).index.tolist() == [1]
    assert pareto.front(df, [Objective("accuracy", "max", 0.5)]).index.tolist() == [0, 1]


@unhurried
@given(problems(COARSE) | problems(EXTREME))
def test_ranks_peel_fronts(problem: tuple[Points, list[str]]) -> None:
    points, directions = problem
    df = frame(points)
    ranks = pareto.rank(df, wanted(directions), role=None)
    left, level = df, 0
    while len(left):
        found = pareto.front(left, wanted(directions), role=None)
        assert ranks[ranks == level].index.tolist() == found.index.tolist()
        left, level = left.drop(found.index), level + 1


def test_rows_timed_elsewhere_than_most_are_left_out_of_a_front_on_time_alone() -> None:
    df = trials(
        {"accuracy": 0.8, "wall_time_s": 100.0, "machine": "laptop", "threads": 1},
        {"accuracy": 0.9, "wall_time_s": 100.0, "machine": "laptop", "threads": 1},
        {"accuracy": 0.9, "wall_time_s": 1.0, "machine": "server", "threads": 1},
        {"accuracy": 0.9, "wall_time_s": 1.0, "machine": "laptop", "threads": 8},
    )
    timed = pareto.front(df, {"accuracy": "max", "wall_time_s": "min"})
    assert timed.index.tolist() == [1]
    assert timed.attrs["left_out_because"]["mixed_hosts"] == 2
    assert pareto.front(df, {"accuracy": "max"}).index.tolist() == [1, 2, 3]


def test_latencies_compare_where_they_were_timed_whatever_trained_the_network() -> None:
    df = trials(
        {"machine": "a", "latency_ms": 1.0, "latency_machine": "x"},
        {"machine": "b", "latency_ms": 2.0, "latency_machine": "x", "accuracy": 0.99},
        {"machine": "a", "latency_ms": 0.1, "latency_machine": "y", "accuracy": 0.999},
    )
    found = pareto.front(df, {"accuracy": "max", "latency_ms": "min"})
    assert sorted(found["latency_ms"]) == [1.0, 2.0]
    assert found.attrs["left_out_because"]["mixed_hosts"] == 1


def test_rows_left_out_have_no_rank() -> None:
    ranks = pareto.rank(trials({"accuracy": 0.8}, {"accuracy": None}, {}, {"role": "baseline"}))
    assert ranks.dtype == "Int64"
    assert ranks.isna().tolist() == [False, True, False, True]
    assert ranks.dropna().tolist() == [1, 0]


def test_hypervolume_is_the_area_of_the_staircase() -> None:
    df = trials(
        {"accuracy": 0.5, "compression": 30.0},
        {"accuracy": 0.9, "compression": 10.0},
        {"accuracy": 0.4, "compression": 9.0},
        {"accuracy": 0.9, "compression": 0.5},
        {"accuracy": None},
    )
    volume = pareto.hypervolume(df, {"accuracy": 0.1, "compression": 1}, SIZE)
    assert volume == pytest.approx((0.5 - 0.1) * (30 - 1) + (0.9 - 0.5) * (10 - 1))
    assert pareto.hypervolume(df.iloc[4:], {"accuracy": 0, "compression": 1}, SIZE) == 0


@pytest.mark.parametrize(("size", "volume"), [(math.inf, math.inf), (-math.inf, 0.5 * 2 * 4)])
def test_hypervolume_of_infinite_values(size: float, volume: float) -> None:
    df = trials(
        {"compression": size},
        {"accuracy": 0.8, "compression": size, "wall_time_s": -math.inf},
        {"accuracy": 0.5, "compression": 3.0},
    )
    found = pareto.hypervolume(df, {"accuracy": 0, "compression": 1, "wall_time_s": 9})
    assert found == pytest.approx(volume)


@pytest.mark.parametrize("reference", [{}, {"accuracy": 0.1}, {"accuracy": 0.1, "compression": math.inf}])
def test_hypervolume_needs_a_finite_reference(reference: dict[str, float]) -> None:
    with pytest.raises(TableError, match="must hold a finite number for accuracy, compression"):
        pareto.hypervolume(trials({}), reference, SIZE)


def test_a_reference_without_names_and_an_objective_named_twice_are_refused() -> None:
    given: Any = [0, 0]
    with pytest.raises(TableError, match=r"reference \[0, 0\] names no objectives; write {'accuracy': 0, 'compress"):
        pareto.hypervolume(trials({}), given, SIZE)
    for twice in (["accuracy", "compression", "accuracy"], [Objective("accuracy", "max"), "accuracy"]):
        with pytest.raises(TableError, match="accuracy named more than once"):
            pareto.front(trials({}), twice)


@pytest.mark.parametrize("reader", ["load", "pandas", "pandas-arrow"])
def test_one_line_from_the_file_to_the_front(tmp_path: Path, reader: str) -> None:
    schema = tables.schema({"compress.pfr": pa.float64()})
    rows = [*seeded().to_dict("records"), trial(mixed_hosts=None, status=None, accuracy=0.99)]
    rows[3]["mixed_hosts"] = None
    filled = [{name: row.get(name) for name in schema.names} for row in rows]
    table = pa.Table.from_pylist(filled, schema=schema)
    pq.write_table(table, tmp_path / "trials.parquet")
    assert orchestrator.load(tmp_path).shape == (7, len(schema.names))
    readers = {
        "load": orchestrator.load,
        "pandas": pd.read_parquet,
        "pandas-arrow": lambda path: pd.read_parquet(path, dtype_backend="pyarrow"),
    }
    df: Any = readers[reader](tmp_path)
    found = df.pareto.front({"accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}})
    assert found.index.tolist() == [2, 3]
    assert found.attrs["left_out"] == 2
    assert len(df.pareto.front(over="seed")) == 2
    assert df.pareto.rank(SIZE).notna().sum() == 5
    assert df.pareto.hypervolume({"accuracy": 0, "compression": 1}, SIZE) > 0
