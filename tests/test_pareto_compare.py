"""Comparing two tables, from Python and from the command line; and what the document on fronts says."""

import csv
import io
import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import report_tables as made
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator
from orchestrator.cli import main
from orchestrator.errors import TableError

ROOT = Path(__file__).parent.parent
SIZE: dict[str, object] = {"accuracy": "max", "compression": "max"}

assert orchestrator.load  # registers the accessor


def table(points: Mapping[str, tuple[float, float]], **columns: Any) -> Any:
    """Trials by id, of one seed each."""
    rows = [
        {"study": "s", "trial_id": name, "role": "cell", "baseline": None, "seed": 0, "status": "complete",
         "mixed_hosts": False, "error": None, "compress.pfr": ord(name[0]) / 100, "accuracy": accuracy,
         "compression": size, "wall_time_s": 1.0, "finished_at": pd.Timestamp("2030-01-01", tz="UTC")}
        for name, (accuracy, size) in points.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


BEFORE = {"a": (0.9, 10.0), "b": (0.7, 20.0), "c": (0.5, 5.0), "d": (0.6, 25.0)}
AFTER = BEFORE | {"e": (0.8, 22.0), "f": (0.1, 1.0)}


def changes(found: pd.DataFrame) -> dict[str, tuple[str, bool]]:
    return {row["trial_id"]: (row["change"], bool(row["beaten"])) for _, row in found.iterrows()}


def test_what_is_new_kept_and_gone() -> None:
    found = table(BEFORE).pareto.compare(table(AFTER), SIZE)
    assert changes(found.trials) == {
        "a": ("kept", False), "d": ("kept", False), "e": ("new", False), "b": ("gone", True),
    }  # fmt: skip
    assert found.reference == {"accuracy": 0.1, "compression": 1.0}
    before = 0.5 * 24 + 0.1 * 19 + 0.2 * 9
    after = 0.5 * 24 + 0.2 * 21 + 0.1 * 9
    row = found.hypervolume.iloc[0]
    assert row.tolist() == pytest.approx([before, after, after - before, after / before - 1])


def test_two_other_studies_show_who_beats_whom() -> None:
    other = {"x": (0.95, 9.0), "y": (0.65, 19.0)}
    found = table(BEFORE).pareto.compare(table(other, study="t"), SIZE, reference={"accuracy": 0, "compression": 0})
    assert changes(found.trials) == {
        "x": ("new", False), "y": ("new", True), "a": ("gone", False), "b": ("gone", False), "d": ("gone", False),
    }  # fmt: skip
    assert found.hypervolume["after"].tolist() == pytest.approx([0.65 * 19 + 0.3 * 9])


points = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float)), max_size=6
)


@settings(deadline=None, max_examples=40)
@given(points, points)
def test_changes_are_those_of_sets(one: dict[str, tuple[float, float]], other: dict[str, tuple[float, float]]) -> None:
    empty = table(BEFORE).iloc[:0]
    before, after = (table(given) if given else empty for given in (one, other))
    found = before.pareto.compare(after, SIZE)
    fronts = [set(df.pareto.front(SIZE)["trial_id"]) for df in (before, after)]
    for change, names in zip(
        ("new", "kept", "gone"), (fronts[1] - fronts[0], fronts[1] & fronts[0], fronts[0] - fronts[1]), strict=True
    ):
        assert set(found.trials.loc[found.trials["change"] == change, "trial_id"]) == names
    together = pd.concat([before.assign(side="gone"), after.assign(side="new")], ignore_index=True)
    joint = together.pareto.front(SIZE)
    unbeaten = found.trials[~found.trials["beaten"].astype(bool)]
    assert {(row["trial_id"], row["accuracy"], row["compression"]) for _, row in unbeaten.iterrows()} <= {
        (row["trial_id"], row["accuracy"], row["compression"]) for _, row in joint.iterrows()
    }
    back = after.pareto.compare(before, SIZE)
    assert back.hypervolume["change"].tolist() == [-value for value in found.hypervolume["change"]]


def test_a_cell_that_got_more_seeds_stays_itself() -> None:
    before = table({"a": (0.9, 10.0), "b": (0.7, 20.0)})
    more = table({"a2": (0.92, 10.0), "b2": (0.2, 20.0), "c": (0.8, 19.0)}, seed=1)
    found = before.pareto.compare(pd.concat([before, more], ignore_index=True), SIZE, over="seed").trials
    assert dict(zip(found["compress.pfr"], found["change"], strict=True)) == {0.97: "kept", 0.98: "kept", 0.99: "new"}
    assert dict(zip(found["compress.pfr"], found["n_seeds"], strict=True)) == {0.97: 2, 0.98: 2, 0.99: 1}
    assert "accuracy_t_low" in found.columns


def test_groups_are_compared_within_themselves() -> None:
    before = table(BEFORE, width=[1, 1, 2, 2])
    after = table({"a": (0.9, 10.0), "g": (0.95, 30.0)}, width=[1, 3])
    found = before.pareto.compare(after, SIZE, by="width", reference={"accuracy": 0, "compression": 0})
    assert changes(found.trials) == {
        "a": ("kept", False), "g": ("new", False), "b": ("gone", False), "d": ("gone", False),
    }  # fmt: skip
    volumes = found.hypervolume.set_index("width")
    assert volumes["before"].to_dict() == pytest.approx({1: 0.7 * 20 + 0.2 * 10, 2: 0.6 * 25, 3: 0})
    assert volumes["after"].to_dict() == pytest.approx({1: 9, 2: 0, 3: 0.95 * 30})
    assert volumes["relative_change"].isna().to_dict() == {1: False, 2: False, 3: True}


def test_corners_of_a_comparison() -> None:
    nothing = table(BEFORE).assign(accuracy=math.nan)
    found = nothing.pareto.compare(nothing, SIZE)
    assert found.trials.empty
    assert found.hypervolume.iloc[0].fillna(-1).tolist() == [0, 0, 0, -1]
    assert found.trials.attrs["left_out_because"]["missing"] == 8
    endless = table(BEFORE).pareto.compare(table({"a": (0.9, math.inf)}), SIZE)
    assert endless.hypervolume["after"].tolist() == [math.inf]
    assert endless.reference["compression"] == 5
    with pytest.raises(TableError, match="no column 'trial_id'"):
        table(BEFORE).drop(columns="trial_id").pareto.compare(table(AFTER), SIZE)
    with pytest.raises(TableError, match="must hold a finite number for accuracy, compression"):
        table(BEFORE).pareto.compare(table(AFTER), SIZE, reference={"accuracy": 0.1})


# The command


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, of in (("one", BEFORE), ("two", AFTER)):
        (tmp_path / "results" / name).mkdir(parents=True)
        table(of, study=name).to_parquet(tmp_path / "results" / name / "trials.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = ("compare", "results/one", "results/two", "--max", "accuracy", "--max", "compression")


def test_the_command_says_what_python_says(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = table(BEFORE).pareto.compare(table(AFTER), SIZE, over="seed")
    assert main([*WORDS, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["change"] for row in rows] == expected.trials["change"].tolist()
    assert main([*WORDS, "--json", "--over", "none", "--reference", "accuracy=0", "--reference", "compression=0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["trial_id"] for one in found["trials"]] == ["a", "d", "e", "b"]
    assert found["reference"] == {"accuracy": 0, "compression": 0}
    assert found["hypervolume"]["after"] == pytest.approx(0.6 * 25 + 0.2 * 22 + 0.1 * 10)
    assert main([*WORDS]) == 0
    told = capsys.readouterr().out
    assert "1 new, 2 kept, 1 gone" in told
    assert "hypervolume 15.7 -> 17.1 (+1.4, +8.92 %)" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("results/one", "results/tow"), "tow: no such folder or file; did you mean 'two'"),
        (("results", "results/two"), "results: holds no trials.parquet; studies in it: one, two"),
        (("results/one", "results/two", "--max", "acuracy"), "unknown column; did you mean 'accuracy'"),
        (("results/one", "results/two", "--min", "accuracy"), "min contradicts the column table"),
        (("results/one", "results/two", "--reference", "accuracy"), "--reference accuracy: write COLUMN=VALUE"),
        (("results/one", "foreign"), "trials.parquet: holds no trials of this project: no column trial_id, status"),
    ],
)
def test_mistakes_are_told(
    tables: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    (tables / "foreign").mkdir()
    pd.DataFrame({"loss": [1.0]}).to_parquet(tables / "foreign" / "trials.parquet")
    told = refused(capsys, "compare", *words)
    assert message in told
    assert told.count("\n") == 1


def test_a_damaged_part_is_skipped_on_request_and_named(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tables / "parts").mkdir()
    table(AFTER).to_parquet(tables / "parts" / "a.parquet")
    (tables / "parts" / "b.parquet").write_bytes((tables / "parts" / "a.parquet").read_bytes()[:-30])
    words = ("compare", "results/one", "parts", "--max", "accuracy")
    assert "parts/b.parquet: not a readable Parquet file" in refused(capsys, *words)
    assert main([*words, "--skip-damaged"]) == 0
    assert "warning: left out: parts/b.parquet" in capsys.readouterr().err


OWN, OTHER = "{accuracy: max, packed_bytes: min}", "{compression: {max: 1%}, accuracy: max}"


def studied(folder: Path, objectives: str) -> str:
    """A study's results; the objectives stand in its file."""
    usual = "{accuracy: max, compression: max, wall_time_s: {min: 5%}}"
    text = made.STUDY.format(spite="it")
    assert usual in text
    (made.write(folder, made.rows()) / "_study.yaml").write_text(text.replace(usual, objectives))
    return str(folder)


def test_a_folders_front_is_that_of_its_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = studied(tmp_path / "one", OWN)
    assert main(["pareto", folder]) == 0
    assert "accuracy max, packed_bytes min" in capsys.readouterr().out
    assert main(["pareto", folder, "--max", "compression"]) == 0
    assert "2 points, compression max\n" in capsys.readouterr().out
    bare = (tmp_path / "one" / "trials.parquet").rename(tmp_path / "one" / "bare.parquet")
    assert main(["pareto", str(bare)]) == 0
    assert "accuracy max, compression max, wall_time_s min within 5 %" in capsys.readouterr().out
    bare.rename(tmp_path / "one" / "trials.parquet")
    (tmp_path / "one" / "_study.yaml").write_text("study: [")
    assert main(["pareto", folder]) == 0
    shown = capsys.readouterr()
    assert "wall_time_s min within 5 %" in shown.out
    assert shown.err.startswith("warning: _study.yaml cannot be read")


@pytest.mark.parametrize(
    ("second", "reference"),
    [(OWN, ["accuracy", "packed_bytes"]), (OTHER, ["accuracy", "compression", "wall_time_s"])],
)
def test_two_runs_of_a_study_are_compared_by_its_objectives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: str, reference: list[str]
) -> None:
    one, two = studied(tmp_path / "one", OWN), studied(tmp_path / "two", second)
    assert main(["compare", one, two, "--json"]) == 0
    told = capsys.readouterr()
    assert list(json.loads(told.out)["reference"]) == reference
    differ = f"{one} and {two} have different objectives; compared by accuracy, compression, wall_time_s"
    assert told.err.count("\n") == (second == OTHER)
    assert (differ in told.err) == (second == OTHER)


# The document


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for name in ("pfr_grid", "smoke"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        df = orchestrator.load(ROOT / "results" / "reference" / "fashion_mnist_pfr.parquet")
        (df if name == "pfr_grid" else df[df["compress.pfr"] < 0.5]).to_parquet(folder / "trials.parquet")
    return tmp_path


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "pareto.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_python_of_the_document_runs_as_it_stands(studies: Path) -> None:
    words = [sys.executable, "-W", "error", "-c", "\n".join(blocks("python"))]
    done = subprocess.run(words, cwd=studies, check=True, timeout=120, capture_output=True, text=True)
    for column in ("accuracy_t_low", "membership", "n_seeds", "beaten", "relative_change"):
        assert column in done.stdout


def test_the_commands_of_the_document_run_as_they_stand(
    studies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(studies)
    lines = [line for block in blocks("console") for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "orchestrator"
        assert main(words) == 0, line
        assert capsys.readouterr().out or "--json" in words  # the tables beside the trials are not there


def test_links_of_the_document_lead_somewhere() -> None:
    text = (ROOT / "docs" / "pareto.md").read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert targets
    assert all((ROOT / "docs" / target).exists() for target in targets)
