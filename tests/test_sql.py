"""SQL over the tables of a results root: what it answers, what it refuses, and that it reaches nothing else."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import refused

from orchestrator.analysis import tables
from orchestrator.cli import main
from orchestrator.errors import TableError
from orchestrator.sql import Sources, query, sources

SECRET = "a,b\n7,8\n"


def write(path: Path, schema: pa.Schema, *rows: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    filled = [{name: row.get(name) for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(filled, schema=schema), path)


def trial(study: str, number: int, **values: object) -> dict[str, object]:
    usual: dict[str, object] = {
        "study": study, "trial_id": f"{study}{number}", "role": "cell", "seed": number, "status": "complete",
        "accuracy": 0.5 + number / 10, "packed_bytes": 100 * number,
    }  # fmt: skip
    return usual | values


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    results = tmp_path / "results"
    old = tables.schema({"compress.pfr": pa.int64()})
    old = old.remove(old.get_field_index("latency_ms"))
    write(results / "old" / "trials.parquet", old, *(trial("old", i, **{"compress.pfr": i}) for i in range(2)))
    new = tables.schema({"compress.pfr": pa.float64(), "select.budget": pa.int64()})
    rows = [trial("new", i, **{"compress.pfr": i / 4, "select.budget": 10, "latency_ms": 2.0}) for i in range(3)]
    write(results / "new" / "trials.parquet", new, *rows)
    write(results / "new" / "_stages.parquet", tables.stages_schema(), {"key": "k", "stage": "train", "busy_s": 2.0})
    write(results / "new" / "_history.parquet", tables.history_schema(), {"key": "k", "epoch": 1, "loss": 0.5})
    (tmp_path / "secret.csv").write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    return results


def ask(root: Path, statement: str, study: str | None = None) -> list[dict[str, Any]]:
    return query(statement, sources(root, study)).to_pylist()


def test_studies_of_different_columns_are_one_table(root: Path) -> None:
    rows = ask(root, 'select study, "compress.pfr" pfr, "select.budget" b, latency_ms ms from trials order by 1, 2')
    assert [tuple(row.values()) for row in rows] == [
        ("new", 0, 10, 2), ("new", 0.25, 10, 2), ("new", 0.5, 10, 2), ("old", 0, None, None), ("old", 1, None, None),
    ]  # fmt: skip
    assert ask(root, "select count(*) n, sum(packed_bytes) b from trials where accuracy > 0.5") == [{"n": 3, "b": 400}]


def test_one_study_of_a_root_its_folder_and_bare_files(root: Path) -> None:
    count = "select count(*) n from trials"
    assert ask(root, count, "old") == ask(root / "old", count) == [{"n": 2}]
    write(root.parent / "bare" / "x.parquet", tables.schema({}), trial("x", 1))
    assert ask(root.parent / "bare", "select study from trials") == [{"study": "x"}]


def test_tables_beside_the_trials_know_their_study_and_may_be_absent(root: Path) -> None:
    joined = "select s.study, s.key, h.loss from stages s join history h using (study, key)"
    assert ask(root, joined) == [{"study": "new", "key": "k", "loss": 0.5}]
    assert ask(root, "select * from latency") == []
    assert ask(root, "select busy_s from stages", "old") == []


def test_a_study_of_any_name_is_text(root: Path) -> None:
    (root / "new").rename(root / "it's; drop")
    assert ask(root, "select study from stages") == [{"study": "it's; drop"}]


def test_every_form_holds_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "sql",
        "select trial_id, latency_ms, sum(seed) over () s from trials order by trial_id",
        "--results",
        "results",
    ]
    assert main([*words, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert main([*words, "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert (
        [row["trial_id"] for row in rows]
        == [one["trial_id"] for one in objects]
        == ["new0", "new1", "new2", "old0", "old1"]
    )
    assert [one["latency_ms"] for one in objects] == [2.0, 2.0, 2.0, None, None]
    assert [one["s"] for one in objects] == [4] * 5
    assert rows[4]["latency_ms"] == ""
    assert all(one["trial_id"] in shown for one in objects)
    assert "5 rows" in shown


def test_values_that_json_lacks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statement = "select 'nan'::double a, timestamp '2030-01-02' b, [1, null] c, 1.5::decimal(4,2) d, {'x': 1} e"
    assert main(["sql", statement, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "a": None, "b": "2030-01-02T00:00:00", "c": [1, None], "d": 1.5, "e": "{'x': 1}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select acuracy from trials", "no column 'acuracy'; did you mean 'accuracy'"),
        ("select t.acuracy from trials t", "no column 'acuracy'; did you mean 'accuracy'"),
        ("select compress.pfr from trials", 'a column with a dot stands in double quotes: "compress.pfr"'),
        ("select * from trails", "no table 'trails'; did you mean 'trials'"),
        ("select * from zzzz", "no table 'zzzz'; there are trials, stages, history, latency"),
        ("selec 1", "syntax error at or near"),
        ("", "one SELECT is asked for, this is nothing"),
        ("select 1; select 2", "this is SELECT and SELECT"),
        ("select 'a'::int", "Could not convert string 'a'"),
        ("create table x as select 1", "this is CREATE"),
        ("insert into trials select * from trials", "this is INSERT"),
        ("drop view trials", "this is DROP"),
        ("delete from trials", "this is DELETE"),
    ],
)
def test_faults_of_a_statement_are_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], statement: str, message: str
) -> None:
    told = refused(capsys, "sql", statement)
    assert message in told
    assert told.startswith("sql: ")
    assert told.count("\n") == 1


REACHING = [
    "select * from read_csv('secret.csv')",
    "select * from 'secret.csv'",
    "select * from read_text('secret.csv')",
    "select * from read_blob('{folder}/secret.csv')",
    "select * from glob('*')",
    "select * from sniff_csv('secret.csv')",
    "select * from read_parquet('results/old/trials.parquet')",
    "select * from parquet_metadata('results/old/trials.parquet')",
    "select * from query('copy trials to ''out''')",
    "select * from query_table(['secret.csv'])",
    "select * from local_rows",
    "copy trials to 'out.csv'",
    "copy (select 1) to 'results/old/trials.parquet'",
    "export database 'out'",
    "attach 'out.db'",
    "attach 'results/old/trials.parquet'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset enable_external_access",
    "set lock_configuration = false",
    "pragma enable_profiling",
    "select * from read_json('http://127.0.0.1:9/x')",
    "select getenv('HOME')",
    "call pragma_database_size()",
    "vacuum",
    "create or replace table secret as select * from read_csv('secret.csv')",
    "select 1; copy trials to 'out.csv'",
]


@pytest.mark.parametrize("statement", REACHING)
def test_nothing_but_the_tables_is_reached(root: Path, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sql.local_rows", pa.table({"a": [1]}), raising=False)
    before = {path: path.stat().st_mtime_ns for path in root.parent.rglob("*")}
    contents = {path: path.read_bytes() for path in before if path.is_file()}
    with pytest.raises(TableError):
        query(statement.format(folder=root.parent), sources(root))
    assert {path: path.stat().st_mtime_ns for path in root.parent.rglob("*")} == before
    assert all(path.read_bytes() == content for path, content in contents.items())


def test_the_locks_hold_behind_the_check_of_the_statement(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check for one SELECT DuckDB itself refuses."""
    monkeypatch.setattr("orchestrator.sql._check", lambda _: None)
    for statement in ("copy trials to 'out.csv'", "attach 'out.db'", "export database 'out'", "set threads = 1"):
        with pytest.raises(TableError):
            query(statement, sources(root))
    assert sorted(path.name for path in root.parent.iterdir()) == ["results", "secret.csv"]


# Files


def damage(path: Path, kept: int = 50) -> Path:
    path.write_bytes(path.read_bytes()[:kept])
    return path


def test_a_truncated_file_is_named_and_skipped_with_a_flag_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(root / "old" / "trials.parquet")
    told = refused(capsys, "sql", "select count(*) n from trials")
    assert "results/old/trials.parquet: not a readable Parquet file" in told
    assert "--skip-damaged leaves it out" in told
    assert main(["sql", "select count(*) n from trials", "--csv", "--skip-damaged"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "n\n3\n"
    assert captured.err.startswith("warning: left out: results/old/trials.parquet")


def test_a_file_damaged_inside_is_named(root: Path) -> None:
    path = root / "new" / "trials.parquet"
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(pq.read_schema(path).names.index("accuracy"))
    raw = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    raw[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(raw)
    with pytest.raises(TableError, match=r"new/trials\.parquet: not a readable Parquet file"):
        ask(root, "select max(accuracy) from trials")
    assert ask(root, "select count(trial_id) n from trials") == [{"n": 5}]


def test_damage_everywhere_leaves_empty_tables(root: Path) -> None:
    for study in ("old", "new"):
        damage(root / study / "trials.parquet")
    given = sources(root, skip_damaged=True)
    assert len(given.warnings) == 2
    assert query("select * from trials", given).num_rows == 0


@pytest.mark.parametrize(
    ("folder", "study", "message"),
    [
        ("resluts", None, "resluts: no such folder; did you mean 'results'"),
        ("results", "odl", "no study 'odl'; did you mean 'old'"),
        ("results", "zzz", "no study 'zzz'; it has new, old"),
        ("empty", None, "empty: no study has results here"),
        ("foreign", None, "holds no trials of this project: no column trial_id, status; did another tool write it"),
    ],
)
def test_folders_that_are_no_results_are_told(root: Path, folder: str, study: str | None, message: str) -> None:
    (root.parent / "empty").mkdir()
    (root.parent / "foreign" / "run").mkdir(parents=True)
    pq.write_table(pa.table({"loss": [1.0]}), root.parent / "foreign" / "run" / "trials.parquet")
    with pytest.raises(TableError, match=message):
        sources(Path(folder), study)


def test_no_files_are_empty_tables() -> None:
    given = Sources(dict.fromkeys(("trials", "stages", "history", "latency"), ()))
    assert query("select count(*) n from trials", given).to_pylist() == [{"n": 0}]


def test_a_leaf_that_is_text_elsewhere(root: Path) -> None:
    write(
        root / "text" / "trials.parquet",
        tables.schema({"compress.pfr": pa.string()}),
        trial("text", 1, **{"compress.pfr": "low"}),
    )
    rows = ask(root, """select "compress.pfr" pfr from trials where study = 'text' or "compress.pfr" = '1'""")
    assert sorted(row["pfr"] for row in rows) == ["1", "low"]
