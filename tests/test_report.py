"""What a report says, checked against closed forms and against what the tables say themselves."""

import base64
import gzip
import http.client
import json
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_tables as made
from conftest import Command, refused

import orchestrator
from orchestrator.analysis.repeats import t_quantile
from orchestrator.cli import main
from orchestrator.errors import OrchestratorError, RunError
from orchestrator.report import render, settings
from orchestrator.report.data import payload
from orchestrator.report.plain import encoded, plain, plains
from orchestrator.report.render import in_script, page
from orchestrator.report.rows import chosen
from orchestrator.report.seconds import unshared
from orchestrator.report.serve import LiveReport, Server
from orchestrator.report.source import objectives_of, read


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return made.write(tmp_path / "results" / "made_up", made.rows())


def told(path: Path | str, **asked: object) -> dict[str, Any]:
    return payload(read(str(path)), asked)


def decoded(column: dict[str, Any]) -> list[Any]:
    """An encoded column as the page reads it."""
    if "values" in column:
        return column["values"]
    return [None if place < 0 else column["set"][place] for place in column["at"]]


def data_of(text: str) -> dict[str, Any]:
    """The payload of a page, as a browser reads it: up to the first `</script` after its beginning."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.DOTALL)
    assert block
    found = json.loads(block[1])
    return found | {"rows": json.loads(gzip.decompress(base64.b64decode(found["rows"])))}


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
    assert unshared(stages, trials) == {"train": 3 * 8.0, "compress": 2.0, "evaluate": 0.5}


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


# --- the page is data and two scripts --------------------------------------------------------------------------------


def test_nothing_of_a_users_text_stands_in_the_page_as_html(study: Path) -> None:
    text = page(told(study))
    assert "window.spite" in text
    assert "<script>window.spite" not in text
    assert "<img src=x" not in text
    found = data_of(text)
    assert found["study"]["question"] == f"What does {made.SPITE} cost?"
    assert made.SPITE in found["study"]["text"]


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"</script><!--": ["&lt;", "\u2028", "<!--<script>", "é"]}
    text = in_script(value)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == value


def test_the_policy_lets_only_the_pages_own_scripts_run(study: Path) -> None:
    text = page(told(study))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    assert [one for script in scripts if (one := render._hash(script)) not in policy[1]] == []  # pyright: ignore[reportPrivateUsage]
    directives = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in directives["script-src"]
    assert directives["connect-src"] == "'none'"
    assert len(text) < 8e6


def test_without_plotly_the_message_says_what_to_install(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType]
    assert "pip install" in refused(capsys, "report", study)
    with pytest.raises(OrchestratorError, match="sweep-orchestrator\\[plot\\]"):
        render.plotly()


# --- wrong input ----------------------------------------------------------------------------------------------------


def test_unknown_study_foreign_folder_and_damaged_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'made_up'" in refused(capsys, "report", study.with_name("mad_up"))
    foreign = study.with_name("foreign")
    foreign.mkdir()
    (foreign / "results.csv").write_text("a,b\n1,2\n")
    assert "trials.parquet" in refused(capsys, "report", foreign)
    pd.DataFrame({"loss": [1.0], "step": [2]}).to_parquet(foreign / "trials.parquet")
    assert "did another tool write it?" in refused(capsys, "report", foreign)
    pd.DataFrame({"trial_id": ["a"], "status": ["complete"]}).to_parquet(foreign / "trials.parquet")
    assert "it lacks the columns study, role, baseline" in refused(capsys, "report", foreign)
    whole = (study / "trials.parquet").read_bytes()
    (study / "trials.parquet").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(capsys, "report", study)


def test_a_damaged_table_beside_is_told_and_the_rest_is_shown(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "_stages.parquet").write_bytes(b"PAR1 and no more")
    pd.DataFrame({"other": [1]}).to_parquet(study / "_history.parquet")
    (study / "_study.yaml").write_text("study: [")
    assert main(["report", str(study), "--max", "accuracy"]) == 0
    warned = capsys.readouterr().err
    assert all(f"warning: {name} cannot be read" in warned for name in ("_stages.parquet", "_history.parquet"))
    assert "warning: _study.yaml cannot be read" in warned
    found = data_of((study / "_report" / "report.html").read_text())
    assert "truncated" in found["seconds"]["why"]
    assert "lacks the columns key" in found["training"]["why"]
    assert found["study"]["text"] == "study: ["


def test_objectives_of_the_command_are_checked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'accuracy'" in refused(capsys, "report", study, "--max", "acuracy")
    assert "contradicts" in refused(capsys, "report", study, "--min", "accuracy")
    assert main(["report", str(study), "--min", "packed_bytes", "--max", "accuracy:1%"]) == 0
    found = data_of((study / "_report" / "report.html").read_text())
    assert {one["name"]: one["within"] for one in found["objectives"]} == {"accuracy": "1 %", "packed_bytes": ""}


def test_a_place_that_cannot_be_written_is_told(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "_report").write_text("in the way")
    assert "name a file with --out" in refused(capsys, "report", study)
    assert "name another --out" in refused(capsys, "report", study, "--out", tmp_path / "no" / "where.html")
    mine = tmp_path / "mine.html"
    mine.write_text("<h1>My own</h1>")
    assert "is no report" in refused(capsys, "report", study, "--out", mine)
    assert mine.read_text() == "<h1>My own</h1>"

    def read_only(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system", str(path))

    (study / "_report").unlink()
    monkeypatch.setattr("orchestrator.durable.publish", read_only)
    message = refused(capsys, "report", study)
    assert "Read-only file system" in message
    assert "--out" in message


def test_out_may_be_a_folder_or_an_older_report(study: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["report", str(study), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").stat().st_size > 4e6


# --- the server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(study: Path) -> Generator[Server]:
    with Server(LiveReport(str(study), {}), 0) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_server_follows_the_tables(server: Server, study: Path) -> None:
    status, text = ask(server, "/")
    assert status == 200
    first = json.loads(ask(server, "/version")[1])
    found = data_of(text.decode())
    assert found["live"] == first["version"]
    assert found["counts"]["complete"] == 12
    made.write(study, made.rows()[:5])
    second = json.loads(ask(server, "/version")[1])
    assert second["version"] != first["version"]
    assert data_of(ask(server, "/")[1].decode())["counts"]["complete"] == 5


def test_a_table_that_breaks_leaves_the_last_page_and_says_why(server: Server, study: Path) -> None:
    before = ask(server, "/")[1]
    (study / "trials.parquet").write_bytes(b"PAR1")
    assert ask(server, "/") == (200, before)
    assert "trials.parquet" in json.loads(ask(server, "/version")[1])["fault"]


def test_the_server_answers_its_own_name_and_reading_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", "127.0.0.1:1"):
        assert ask(server, "/", host=host)[0] == 421
        assert ask(server, "/version", host=host)[0] == 421
    assert ask(server, "/version", host=f"localhost:{server.server_port}")[0] == 200
    assert [ask(server, "/", method)[0] for method in ("POST", "PUT", "DELETE", "OPTIONS")] == [501] * 4
    assert ask(server, "/", "HEAD") == (200, b"")
    assert ask(server, "/../trials.parquet")[0] == 404


def test_a_taken_port_and_a_wrong_one_are_one_line(
    server: Server, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "serve", study, "--port", server.server_port)
    assert "cannot be used" in message
    assert len(message.splitlines()) == 1
    with pytest.raises(RunError, match="--port"):
        Server(LiveReport(str(study), {}), server.server_port)
    with pytest.raises(SystemExit):
        main(["serve", str(study), "--port", "70000"])


def test_serving_what_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, "serve", tmp_path / "nothing")


def test_ctrl_c_ends_the_server_quietly(study: Path, tmp_path: Path) -> None:
    process = Command(tmp_path).start("serve", study)
    assert process.stdout
    assert "http://127.0.0.1:" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in output


def test_the_pages_files_are_in_the_package() -> None:
    assert all(render._own(name) for name in (*render.SCRIPTS, "page.html", "style.css"))  # pyright: ignore[reportPrivateUsage]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_well_formed(tmp_path: Path) -> None:
    (tmp_path / "own.js").write_text(render.own_script())
    subprocess.run(["node", "--check", str(tmp_path / "own.js")], check=True)
