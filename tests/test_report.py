"""What a report says, checked against closed forms and against what the tables say themselves."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_tables as made
from conftest import Command
from report_tables import data_of, decoded, told

import orchestrator
from orchestrator.analysis.busy import busy_seconds
from orchestrator.analysis.repeats import t_quantile
from orchestrator.cli import main
from orchestrator.report import settings
from orchestrator.report.plain import encoded, plain, plains
from orchestrator.report.rows import chosen
from orchestrator.report.source import objectives_of, read


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return made.write(tmp_path / "results" / "made_up", made.rows())


# --- what it says ---------------------------------------------------------------------------------------------------


def test_points_are_means_over_the_complete_seeds_and_the_front_is_that_of_the_table(study: Path) -> None:
    found = told(study)
    points = found["points"]
    config = {name: decoded(column) for name, column in points["config"].items()}
    cells = [i for i, role in enumerate(decoded(points["role"])) if role == "cell"]
    assert [(config["compress.pfr"][i], config["model.width"][i]) for i in cells] == [
        (pfr, width) for pfr in made.PFRS for width in made.WIDTHS
    ]
    for i in cells:
        seeds = [0] if i == cells[-1] else [0, 1]  # the last one's second seed failed
        values = [made.accuracy(config["compress.pfr"][i], config["model.width"][i], seed) for seed in seeds]
        assert points["seeds"][i] == len(seeds)
        assert points["mean"]["accuracy"][i] == pytest.approx(np.mean(values), rel=1e-6)
        spread = points["std"]["accuracy"][i]
        assert spread is None if len(seeds) == 1 else spread == pytest.approx(np.std(values, ddof=1), rel=1e-6)
    front = orchestrator.load(study).pareto.front(
        {"accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}}, over="seed"
    )
    members = {(config["compress.pfr"][i], config["model.width"][i]) for i in cells if points["front"][i]}
    assert members == set(zip(front["compress.pfr"], front["model.width"], strict=True)) != set()
    assert found["left_out"] == {"not complete": 1}


def test_a_point_leads_to_its_trials(study: Path) -> None:
    found = told(study)
    ids = decoded(found["rows"]["columns"]["trial_id"])
    for point, rows in enumerate(found["points"]["rows"]):
        pfr = decoded(found["points"]["config"]["compress.pfr"])[point]
        width = decoded(found["points"]["config"]["model.width"])[point]
        if decoded(found["points"]["role"])[point] == "baseline":
            assert [ids[row] for row in rows] == ["b0"]
        else:
            assert [ids[row] for row in rows] == [f"c{round(10 * pfr)}{width:02d}{seed}" for seed in made.SEEDS]


def test_the_effect_of_an_axis_is_a_mean_of_seeds_with_students_interval(study: Path) -> None:
    found = told(study)["effects"]
    (pfr,) = (one for one in found["alone"] if one["axis"] == "compress.pfr")
    for place, value in enumerate(made.PFRS[:2]):
        seeds = [np.mean([made.accuracy(value, width, seed) for width in made.WIDTHS]) for seed in made.SEEDS]
        half = t_quantile(0.95, 1) * np.std(seeds, ddof=1) / np.sqrt(2)
        assert pfr["objectives"]["accuracy"]["mean"][place] == pytest.approx(np.mean(seeds), rel=1e-6)
        assert pfr["objectives"]["accuracy"]["half"][place] == pytest.approx(half, rel=1e-6)
    assert pfr["cells"] == [4, 4, 3]
    (heat,) = found["together"]
    names = [axis["name"] for axis in found["axes"]]
    assert (names[heat["x"]], names[heat["y"]]) == ("compress.pfr", "model.width")
    expected = [[np.mean([made.accuracy(pfr, width, seed) for seed in made.SEEDS]) for pfr in made.PFRS[:2]]
                for width in made.WIDTHS]  # fmt: skip
    np.testing.assert_allclose([row[:2] for row in heat["z"]["accuracy"]], expected, rtol=1e-6)


def test_many_values_of_an_axis_are_put_together() -> None:
    from orchestrator.report.effects import MOST_VALUES, steps

    frame = pd.DataFrame({"compress.lr": np.linspace(0, 1, 501), "data.name": [f"set {i % 30}" for i in range(501)]})
    bins = steps(frame, "compress.lr")
    assert bins.binned
    assert len(bins.values) == MOST_VALUES
    assert np.bincount(bins.code).min() >= 500 // MOST_VALUES - 1
    np.testing.assert_allclose(
        bins.values, [frame["compress.lr"][bins.code == i].mean() for i in range(MOST_VALUES)], rtol=1e-6
    )
    names = steps(frame, "data.name")
    assert len(names.values) == MOST_VALUES
    kept = frame["data.name"][names.code >= 0]
    assert [names.values[code] for code in names.code[names.code >= 0]] == list(kept)


def test_sharing_is_what_the_paths_of_all_trials_would_have_taken(study: Path) -> None:
    found = told(study)["seconds"]
    by_kind = {one["kind"]: one for one in found["kinds"]}
    # Four dense networks, twelve compressions, eleven evaluations of cells and one of the baseline.
    assert {kind: one["stages"] for kind, one in by_kind.items()} == {"train": 4, "compress": 12, "evaluate": 12}
    assert found["once"] == 4 * made.TRAIN_S + 12 * made.COMPRESS_S + 12 * made.MEASURE_S
    assert by_kind["train"]["each"] == 13 * made.TRAIN_S
    assert found["each"] == 13 * made.TRAIN_S + 12 * made.COMPRESS_S + 12 * made.MEASURE_S
    assert found["failed"] == made.COMPRESS_S


def test_a_dense_network_counts_for_each_unfinished_trial_that_waits_on_it() -> None:
    stages = pd.DataFrame(
        [("t", None, "train", 8.0), ("c", "t", "compress", 2.0), ("e", "c", "evaluate", 0.5)],
        columns=["key", "parent", "stage", "busy_s"],
    )
    paths = [("t", "c", "e"), ("t", "not yet", "nor this"), ("t", "later", "still later"), ("other", None, None)]
    trials = pd.DataFrame(paths, columns=[f"stage_keys.{kind}" for kind in ("train", "compress", "evaluate")])
    found = {kind: one.each for kind, one in busy_seconds(trials, stages).items()}
    assert found == {"train": 3 * 8.0, "compress": 2.0, "evaluate": 0.5}


def test_training_curves_are_quantiles_of_all_stages_and_single_ones_of_the_front_first(study: Path) -> None:
    train, compress = told(study)["training"]["kinds"]
    assert (train["stages"], compress["stages"]) == (4, 12)
    assert compress["val_accuracy"]["q1"] == pytest.approx([0.5, 0.75, 1 - 0.5 / 3])
    trials = orchestrator.load(study).set_index("trial_id")
    front = [line["trial"] for line in compress["lines"]][:2]
    assert all(trials.loc[one, "role"] == "cell" for one in front)
    assert len(compress["lines"]) == 12


def test_failures_are_grouped_by_their_error(study: Path) -> None:
    (failure,) = told(study)["failures"]
    assert failure["trials"] == 1
    assert failure["some"] == ["c4161"]
    assert made.FORMULA in failure["error"]


def test_learning_curves_are_those_of_the_accessor() -> None:
    table = "results/reference/al_budget.parquet"
    df = orchestrator.load(table)
    curve = df.al.curve("accuracy")
    lines = told(table)["labelling"]["lines"]
    assert sum(len(line["mean"]) for line in lines) == len(curve)
    for line in lines:
        own = curve.loc[curve["select.strategy"] == line["strategy"]]
        assert line["mean"] == plains(own["mean"])
        assert line["low"] == plains(own["low"])


@pytest.mark.parametrize("name", ["fashion_mnist_pfr", "al_budget", "cifar10_resnet18", "fashion_mnist_width"])
def test_a_table_alone_gives_a_report_that_says_what_is_missing(name: str) -> None:
    table = f"results/reference/{name}.parquet"
    df = orchestrator.load(table)
    found = told(table)
    objectives = {one["name"]: one["direction"] for one in found["objectives"]}
    expected = len(df.pareto.front(objectives_of(read(table), {}), over="seed"))
    assert sum(found["points"]["front"]) == expected > 0
    assert set(objectives) <= set(df.columns)
    for part in ("seconds", "training"):
        assert "single file" in found[part]["why"]
    assert "single file" in found["study"]["why"]
    assert found["rows"]["n"] == len(df)


def test_bounds_of_the_study_are_told_and_so_are_objectives_without_a_value(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(study)["remarks"] == []
    assert main(["report", str(made.bounded(study)), "--max", "accuracy", "--min", "latency_ms"]) == 0
    said = capsys.readouterr().out
    assert "\nlatency_ms has no value in any trial\n" in said
    assert f"\n{made.TOLD_OF_BOUND}\n" in said
    alone = made.write(tmp_path / "alone", [row | {"accuracy": None} for row in made.rows()], beside=False)
    found = told(alone)
    assert "accuracy" not in [one["name"] for one in found["objectives"]]
    assert found["remarks"] == ["accuracy has no value in any trial and is left out"]


def test_several_studies_in_a_folder_are_told_apart(tmp_path: Path) -> None:
    for name in ("first", "second"):
        made.write(tmp_path, [row | {"study": name, "trial_id": name + row["trial_id"]} for row in made.rows()])
        (tmp_path / "trials.parquet").rename(tmp_path / f"{name}.parquet")
    found = told(tmp_path, accuracy="max", compression="max")
    assert found["axes"][0] == "study"
    assert found["points"]["of"] == 12
    assert found["counts"]["trials"] == 26
    assert found["study"]["name"] == "first, second"


def test_real_tables_and_their_stages_agree(tmp_path: Path) -> None:
    command = Command(tmp_path)
    command("sweep", command.study(), "--runner", "serial")
    folder = tmp_path / "results" / "tiny"
    found = told(folder)
    df, stages = command.trials(), command.stages()
    spent = df["wall_time_s"].sum() + df["measure_s"].sum()
    assert found["seconds"]["each"] == pytest.approx(spent, rel=1e-6)
    assert found["seconds"]["once"] == pytest.approx(stages["busy_s"].sum(), rel=1e-6)
    assert found["axes"] == ["compress.pfr", "compress.threshold"]
    assert found["study"]["question"] == "Does the whole path work?"
    assert found["study"]["store"]
    told_lines = command("report", "results/tiny")
    assert "front: " in told_lines
    out = folder / "_report" / "report.html"
    assert len(pd.read_parquet(folder)) == len(df)  # the report is no part of the data set
    rows = data_of(out.read_text())["rows"]
    ids = decoded(rows["columns"]["trial_id"])
    assert ids == list(df["trial_id"])
    assert decoded(rows["columns"]["accuracy"]) == plains(df["accuracy"])
    assert rows["constant"]["study"] == "tiny"
    before, after = found["study"]["export"]
    assert before + ids[0] + after == f"orchestrator export {ids[0]} --format packed --results {folder.parent}"


def test_a_table_without_a_finished_trial_gives_a_report_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"status": None, "accuracy": None, "compression": None, "wall_time_s": None} for row in made.rows()]
    folder = made.write(tmp_path / "results" / "made_up", rows, beside=False)
    assert main(["report", str(folder), "--max", "accuracy", "--max", "compression"]) == 0
    assert "no front" in capsys.readouterr().out
    found = data_of((folder / "_report" / "report.html").read_text())
    assert sum(found["points"]["front"]) == 0
    assert found["counts"]["unfinished"] == len(rows)


def test_an_empty_table_gives_a_report_too(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "results" / "made_up", made.rows(), beside=False)
    pd.read_parquet(folder / "trials.parquet").head(0).to_parquet(folder / "trials.parquet")
    assert main(["report", str(folder)]) == 0


# --- very many trials -----------------------------------------------------------------------------------------------


def test_of_many_trials_the_front_and_an_even_choice_are_kept(tmp_path: Path) -> None:
    n = 7_000
    rng = np.random.default_rng(0)
    small = pd.read_parquet(made.write(tmp_path / "s", made.rows(), beside=False) / "trials.parquet").head(1)
    many = pd.concat([small] * n, ignore_index=True).assign(
        trial_id=[f"t{i}" for i in range(n)],
        **{"compress.pfr": np.arange(n) / n, "accuracy": rng.uniform(size=n), "compression": rng.uniform(size=n)},
    )
    many.loc[::100, "status"] = "failed"
    many.to_parquet(tmp_path / "many.parquet")
    found = told(tmp_path / "many.parquet", accuracy="max", compression="max")
    front = orchestrator.load(tmp_path / "many.parquet").pareto.front({"accuracy": "max", "compression": "max"})
    ids = decoded(found["rows"]["columns"]["trial_id"])
    assert set(front["trial_id"]) <= set(ids)
    assert len(ids) == 5000 + len(front)
    assert set(many["trial_id"][::100]) <= set(ids)
    assert len(found["points"]["front"]) == settings.MOST_DRAWN
    assert sum(found["points"]["front"]) == len(front)
    assert all(len(rows) == 1 for rows in found["points"]["rows"])
    (raster,) = found["rasters"]
    assert sum(map(sum, raster["counts"])) == n - n // 100


def test_a_front_of_everything_is_cut(tmp_path: Path) -> None:
    source = read(str(made.write(tmp_path / "made_up", made.rows())))
    found = settings.settings_of(source, objectives_of(source, {}))
    found.table["front"] = True
    many = pd.concat([source.trials] * 2000, ignore_index=True)
    grown = settings.Settings(found.axes, found.measured, np.tile(found.number, 2000), found.table, {})
    assert len(chosen(many, grown, settings.drawn(grown))) == 9000


# --- values as JSON -------------------------------------------------------------------------------------------------


def test_values_are_plain_json() -> None:
    values = [None, pd.NA, pd.NaT, float("nan"), float("inf"), True, np.int64(3), 0.1 + 0.2, 1 / 3, 2.0, "x"]
    assert plains(values) == [None, None, None, None, None, True, 3, 0.3, 0.3333333, 2, "x"]
    assert plain(pd.Timestamp("2026-01-02 03:04:05", tz="UTC")) == "2026-01-02 03:04:05"


def test_encoding_a_column_loses_nothing() -> None:
    for column in (
        pd.Series(["a", None, "a", "a", "b", "b", "a"]),
        pd.Series([1, None, 1, 1, 1, 1, 2], dtype="Int64"),
        pd.Series([0.5, np.nan, 0.25]),
        pd.Series([None, None], dtype="float64"),
    ):
        assert decoded(encoded(column)) == plains(column)
