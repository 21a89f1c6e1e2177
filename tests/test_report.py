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

    frame = pd.DataFrame({"compress.pfr": np.linspace(0, 1, 501), "data.name": [f"set {i % 30}" for i in range(501)]})
    bins = steps(frame, "compress.pfr")
    assert bins.edges == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert bins.at == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert not bins.log
    assert np.bincount(bins.code).tolist() == [100, 100, 100, 100, 101]
    names = steps(frame, "data.name")
    assert names.cut
    assert len(names.values) == MOST_VALUES
    kept = frame["data.name"][names.code >= 0]
    assert [names.values[code] for code in names.code[names.code >= 0]] == list(kept)


def test_an_axis_that_was_drawn_has_bins_and_the_scale_of_its_distribution(tmp_path: Path) -> None:
    from orchestrator.report.effects import steps
    from orchestrator.report.settings import Sampled

    drawn = pd.DataFrame({"compress.lr": np.geomspace(0.011, 0.09, 12)})
    bins = steps(drawn, "compress.lr", Sampled(0.01, 0.1, log=True))
    assert bins.log
    edges = np.array(bins.edges)
    assert edges[[0, -1]].tolist() == [0.01, 0.1]
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(10) / 8, rtol=0.15)  # two digits
    np.testing.assert_allclose(bins.at, np.sqrt(edges[1:] * edges[:-1]), rtol=1e-6)
    values = drawn["compress.lr"].to_numpy()
    assert ((values >= edges[bins.code]) & (values < edges[bins.code + 1])).all()
    few = steps(drawn.iloc[:5], "compress.lr", Sampled(0.01, 0.1, log=True))
    assert (few.edges, few.log, few.at) == ([], True, few.values)
    # A list of as many values stays one.
    assert steps(drawn, "compress.lr").at == pytest.approx(values.tolist(), rel=1e-6)


def test_the_study_or_else_the_values_tell_that_an_axis_was_drawn(tmp_path: Path) -> None:
    rows = [made.cell(round(0.013 + 0.04 * i, 3), 8 + 8 * (i % 2), 0) | {"trial_id": f"t{i}"} for i in range(14)]
    folder = made.write(tmp_path / "made_up", rows)
    study = (folder / "_study.yaml").read_text()
    drawn = "{uniform: [0, 0.6]}\n"
    (folder / "_study.yaml").write_text(
        study.replace("[0, 0.2, 0.4]\n", drawn) + "search: {name: random, trials: 14}\n"
    )
    for path, edges in ((folder, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), (folder / "trials.parquet", None)):
        axes = {one["name"]: one for one in told(path)["effects"]["axes"]}
        assert axes["model.width"]["edges"] == []
        assert axes["compress.pfr"]["edges"] == (edges or axes["compress.pfr"]["edges"])
        assert len(axes["compress.pfr"]["edges"]) > 2
    (folder / "_study.yaml").write_text(study)
    assert told(folder)["effects"]["axes"][0]["edges"] == []


def test_latencies_are_told_by_runtime_and_batch_and_for_the_front(study: Path) -> None:
    assert "_latency.parquet is not in" in told(study)["latency"]["why"]
    trials = orchestrator.load(study)
    keys = sorted(trials["stage_keys.evaluate"].dropna())
    pd.DataFrame(
        [
            {
                "stage_keys.evaluate": key, "runtime": "openvino", "batch": batch, "threads": 1, "repeats": 5,
                "status": "failed" if (i, batch) == (0, 8) else "complete", "error": "it broke" if i == 0 else None,
                "latency_ms": None if (i, batch) == (0, 8) else batch * (1.0 + i), "latency_q1_ms": 0.5,
                "latency_q3_ms": 9.0, "latency_ratio": 2.0, "runtime_agreement": 1 - i / 100, "calls": 10 + i,
                "machine": "that machine", "versions": "openvino 1",
            }
            for i, key in enumerate(keys) for batch in (1, 8)
        ]
    ).to_parquet(study / "_latency.parquet")  # fmt: skip
    found = told(study)
    one, eight = found["latency"]["kinds"]
    n = len(keys)
    assert (one["batch"], one["networks"], one["complete"], one["median"]) == (1, n, n, (n + 1) / 2)
    assert (one["least"], one["most"], one["ratio"], one["agreement"]) == (1, n, 2, pytest.approx(1 - (n - 1) / 100))
    assert (one["turns"], one["calls"]) == ("5", f"10 to {9 + n}")
    assert (eight["complete"], eight["errors"]) == (n - 1, ["1 it broke"])
    assert found["latency"]["machines"] == ["that machine"]
    ids = decoded(found["rows"]["columns"]["trial_id"])
    for told_of in found["latency"]["settings"]:
        own = trials.loc[trials["trial_id"].isin([ids[row] for row in found["points"]["rows"][told_of["point"]]])]
        for value in told_of["values"]:
            times = [value["batch"] * (1.0 + keys.index(key)) for key in own["stage_keys.evaluate"].dropna()]
            times = [time for time in times if time != 8.0 or value["batch"] == 1]
            assert (value["n"], value["latency_ms"]) == (len(times), pytest.approx(np.mean(times)))
    shown = [told_of["point"] for told_of in found["latency"]["settings"]]
    front = [i for i, member in enumerate(found["points"]["front"]) if member]
    assert shown[: len(front)] == front


def test_settings_with_more_seeds_or_fewer_are_compared_as_the_sweep_does(study: Path) -> None:
    assert "Settings have 1 to 2 complete seeds; the front is that of their plain means." in told(study)["remarks"]
    text = (study / "_study.yaml").read_text()
    (study / "_study.yaml").write_text(text + "search: {name: grid, repeats: adaptive}\n")
    found = told(study)
    assert any("which all seeds are expected to give" in line for line in found["remarks"])
    df = orchestrator.load(study)
    wanted = {"accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}}
    front = df.pareto.front(wanted, over="expected", seeds=[0, 1])
    assert sum(found["points"]["front"]) == len(front)
    (pfr,) = (one for one in found["effects"]["alone"] if one["axis"] == "compress.pfr")
    # The last setting has its first seed alone and counts as much as the others.
    expected = [
        np.mean([made.accuracy(value, 8, 0) + 0.01, made.accuracy(value, 16, 0) + (0 if value == 0.4 else 0.01)])
        for value in made.PFRS
    ]
    assert pfr["objectives"]["accuracy"]["mean"] == pytest.approx(expected, rel=1e-6)
    assert pfr["objectives"]["accuracy"]["half"] == [None, None, None]
    assert pfr["cells"] == [2, 2, 2]


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
    assert not [line for line in told(study)["remarks"] if "Settings have" not in line]
    assert main(["report", str(made.bounded(study)), "--max", "accuracy", "--min", "latency_ms"]) == 0
    said = capsys.readouterr().out
    assert "\nlatency_ms has no value in any trial\n" in said
    assert f"\n{made.TOLD_OF_BOUND}\n" in said
    alone = made.write(tmp_path / "alone", [row | {"accuracy": None} for row in made.rows()], beside=False)
    found = told(alone)
    assert "accuracy" not in [one["name"] for one in found["objectives"]]
    assert found["remarks"][:1] == ["accuracy has no value in any trial and is left out"]


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
    grown = settings.Settings(found.axes, {}, found.measured, np.tile(found.number, 2000), found.table, {})
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
