"""Fronts as a person reads them, and the bounds of a search that all of them keep to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
import report_tables as made
from rich.console import Console

from orchestrator.analysis.objectives import parse_objectives
from orchestrator.cli import main
from orchestrator.fronts import Settings, bounded_front_report, front_report, varied
from orchestrator.layout import Layout
from orchestrator.report.bounds import nearest, within
from orchestrator.report.data import payload
from orchestrator.report.source import read
from orchestrator.spec.model import Constraint
from orchestrator.watch import Follower

OBJECTIVES = parse_objectives({"accuracy": "max", "compression": "max", "wall_time_s": "min"})


def table(**columns: list[object]) -> pd.DataFrame:
    n = 4
    rows: dict[str, list[object]] = {
        "trial_id": [f"35da476edc1{i}" for i in range(n)],
        "role": ["cell"] * n,
        "status": ["complete"] * n,
        "mixed_hosts": [False] * n,
        "seed": [0, 0, 1, 1],
        "compress.pfr": [0.1, 0.6] * 2,
        "compress.threshold": [0.7, 0.3] * 2,
        "accuracy": [0.95, 0.85, 0.93, 0.83],
        "val_accuracy": [0.94, 0.88, 0.86, 0.84],
        "compression": [10.0, 20.0] * 2,
        "wall_time_s": [12.5, 11.5] * 2,
    }
    return pd.DataFrame(rows | columns)


def shown(
    df: pd.DataFrame, width: int = 80, where: tuple[Constraint, ...] = (), over: Literal["seed"] | None = "seed"
) -> str:
    terminal = Console(width=width, record=True, force_terminal=True, color_system=None)
    kept = within(df, where)
    bounded_front_report(terminal, df, kept, kept.pareto.front(OBJECTIVES, over=over), OBJECTIVES, where)
    return terminal.export_text()


def test_of_eighty_columns_no_word_and_no_identifier_is_broken() -> None:
    lines = shown(table(**{"model.width": list[object]([8, 16] * 2)}).iloc[:2], over=None).splitlines()
    rows = [line for line in lines if "│" in line and "%" in line]
    assert len(rows) == 2, "no row is folded"
    assert all(len(line) <= 80 for line in lines)
    assert all(f"35da476edc1{i}" in "".join(rows) for i in (0, 1))
    heads = [cell.strip() for line in lines if "┃" in line for cell in line.split("┃")]
    assert set(heads) <= {
        "", "compress.", "pfr", "threshold", "trial_id", "trial_", "id", "accuracy", "compression", "wall_", "time_",
        "s", "model.", "width",
    }  # fmt: skip


def test_a_table_that_pandas_read_has_fronts_after_the_import_that_is_documented() -> None:
    script = "import pandas; import orchestrator.analysis.accessor; pandas.DataFrame().pareto; pandas.DataFrame().al"
    assert "import orchestrator.analysis.accessor" in Path("results/README.md").read_text()
    subprocess.run([sys.executable, "-c", script], check=True)


def test_headings_stay_whole_where_there_is_room() -> None:
    assert "wall_time_s" in shown(table(), width=160)


def test_the_caption_says_how_many_seeds_there_are() -> None:
    assert "mean ± standard deviation of 2 seeds each" in shown(table())
    assert "n_seeds" not in shown(table())
    one = shown(table().iloc[:2])
    assert "one seed each" in one
    assert "±" not in one
    assert "n_seeds" in shown(table().iloc[:3], 160)


def test_a_front_keeps_the_bounds_of_the_means() -> None:
    bound = (Constraint("val_accuracy", ">=", 0.87),)
    assert within(table(), bound)["compress.pfr"].unique().tolist() == [0.1], "0.9 of both seeds, though one has 0.86"
    assert within(table(), ()).equals(table())
    text = shown(table(), where=bound)
    assert text.startswith("Among the trials with val_accuracy >= 0.87:\nPareto front: 1 point")


def test_bounds_that_nobody_keeps_are_all_that_is_said() -> None:
    bound = (Constraint("val_accuracy", ">=", 0.99), Constraint("compression", "<=", 5))
    assert shown(table(), 160, where=bound) == (
        "No config keeps val_accuracy >= 0.99 and compression <= 5; the nearest there is: val_accuracy 0.9, "
        "compression 10.\n"
    )
    open_still = table(status=[None] * 4, val_accuracy=[None] * 4)
    assert nearest(open_still, bound[:1]) == ""
    assert "as none is complete yet" in shown(open_still, where=bound[:1])


def test_a_column_without_any_value_is_named() -> None:
    text = shown(table(accuracy=[float("nan")] * 4))
    assert text == "accuracy has no value in any complete trial, so there is no front.\n"
    terminal = Console(record=True)
    nothing = table(status=[None] * 4, accuracy=[float("nan")] * 4)
    front_report(terminal, nothing, nothing.iloc[:0], OBJECTIVES)
    assert terminal.export_text() == "No trial has all objectives yet, so there is no front.\n"


@pytest.fixture
def bounded(tmp_path: Path) -> Path:
    """A table of six settings of which four keep the bound."""
    folder = made.bounded(made.write(tmp_path / "results" / "made_up", made.rows()))
    text = (folder / "_study.yaml").read_text().replace("val_accuracy >= 0.2", f"val_accuracy >= {middle(folder)}")
    (folder / "_study.yaml").write_text(text)
    return folder


def middle(folder: Path) -> float:
    df = pd.read_parquet(folder / "trials.parquet")
    means = df[df["role"] == "cell"].groupby(["compress.pfr", "model.width"])["val_accuracy"].mean()
    return float(means.sort_values().iloc[2:4].mean())


def test_all_fronts_of_a_study_keep_its_bounds(
    bounded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = middle(bounded)

    def lowest(*more: str) -> float:
        assert main(["pareto", str(bounded), "--json", *more]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return min(row["val_accuracy"] for row in rows)

    assert lowest() >= bound > lowest("--all")
    asked = ("--max", "compression")
    assert lowest(*asked) >= bound > lowest(*asked, "--all")
    assert main(["pareto", str(bounded)]) == 0
    assert f"Among the trials with val_accuracy >= {bound:g}: (--all takes all trials)" in capsys.readouterr().out

    points = payload(read(bounded), {})["points"]
    kept = [value for value, member in zip(points["mean"]["val_accuracy"], points["front"], strict=True) if member]
    assert min(kept) >= bound

    follower = Follower(Layout(bounded.parent), "made_up")
    follower.look()
    found = follower.front()
    assert found is not None
    assert found[1]["val_accuracy"].min() >= bound

    assert main(["plot", str(bounded), "--kind", "front", "--out", str(tmp_path / "f.svg")]) == 0
    assert "Among the trials with val_accuracy >=" in capsys.readouterr().out
    assert main(["compare", str(bounded), str(bounded), "--json"]) == 0
    told = capsys.readouterr()
    assert "Among the trials with val_accuracy >=" in told.err
    assert min(row["val_accuracy"] for row in json.loads(told.out)["trials"]) >= bound
    assert main(["compare", str(bounded), str(bounded / "trials.parquet"), "--json"]) == 0


def test_of_many_leaves_a_row_has_those_that_tell_it_from_its_like() -> None:
    df = pd.read_parquet("results/reference/methods.parquet")
    settings = Settings(df, varied(df))
    assert settings.headings == ["setting"]
    told = {row["trial_id"]: settings.told(row)[0] for row in df[df["role"] == "cell"].to_dict("records")}
    assert len(set(told.values())) == 28
    assert {"stq, activations float, pfr 0.2, weights binary", "combine, expand + stq", "expand"} <= set(told.values())
    few = Settings(df, ["compress.method", "compress.pfr"])
    assert few.headings == ["compress.method", "compress.pfr"]
    assert few.told({"compress.method": "stq", "compress.pfr": 0.2}) == ["stq", "0.2"]
