"""Reading the tables of a study."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import orchestrator
from orchestrator.analysis import tables
from orchestrator.analysis.parts import DamagedFileWarning
from orchestrator.errors import TableError

EXTRA = {"compress.pfr": pa.float64(), "data.name": pa.string()}


def rows(count: int) -> list[dict[str, object]]:
    return [
        {
            "study": "s",
            "trial_id": f"t{i}",
            "role": "cell" if i % 4 else "baseline",
            "seed": i % 3,
            "status": "complete" if i % 5 else "failed",
            "compress.pfr": i / 10 if i % 4 else None,
            "data.name": "digits",
            "accuracy": 0.9 + i / 1000 if i % 5 else None,
            "packed_bytes": 100 + i if i % 5 else None,
            "mixed_hosts": False if i % 5 else None,
        }
        for i in range(count)
    ]


def write(path: Path, count: int = 12) -> pa.Table:
    schema = tables.schema(EXTRA)
    filled = [{name: row.get(name) for name in schema.names} for row in rows(count)]
    table = pa.Table.from_pylist(filled, schema=schema)
    pq.write_table(table, path, row_group_size=4)
    return table


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "grid"
    folder.mkdir(parents=True)
    write(folder / "trials.parquet")
    pq.write_table(tables.stages_schema().empty_table(), folder / "_stages.parquet")
    (folder / "_study.yaml").write_text("study: grid\n")
    return folder


def test_a_folder_its_file_and_its_uri_are_the_same_table(study: Path) -> None:
    df = orchestrator.load(study)
    assert df["trial_id"].tolist() == [f"t{i}" for i in range(12)]
    pd.testing.assert_frame_equal(orchestrator.load(study / "trials.parquet"), df)
    pd.testing.assert_frame_equal(orchestrator.load(f"{study}/"), df)
    pd.testing.assert_frame_equal(orchestrator.load(study.as_uri()), df)


def test_plain_pandas_sees_the_same_rows(study: Path) -> None:
    plain = pd.read_parquet(study)
    df = orchestrator.load(study)
    assert list(plain.columns) == list(df.columns)
    pd.testing.assert_frame_equal(plain.astype({"mixed_hosts": "boolean"}), df, check_dtype=False)


def test_types_hold_null_without_losing_integers(study: Path) -> None:
    df = orchestrator.load(study)
    assert df["seed"].dtype == "Int64"
    assert df["packed_bytes"].dtype == "Int64"
    assert df["mixed_hosts"].dtype == "boolean"
    assert df["accuracy"].dtype == "float64"
    assert df["packed_bytes"].isna().tolist() == [i % 5 == 0 for i in range(12)]
    assert int(df["seed"].iloc[2]) == 2
    assert df["latency_ms"].isna().all()


def test_columns_come_alone_in_the_order_asked(study: Path) -> None:
    df = orchestrator.load(study, columns=["seed", "compress.pfr", "seed", "accuracy"])
    assert list(df.columns) == ["seed", "compress.pfr", "accuracy"]


def test_columns_that_are_not_asked_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write(path)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(pq.read_schema(path).names.index("accuracy"))
    raw = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    raw[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(raw)
    assert len(orchestrator.load(path, columns=["seed"])) == 12
    with pytest.raises(TableError, match=r"t\.parquet: not a readable Parquet file"):
        orchestrator.load(path)


@pytest.mark.parametrize(
    "where",
    [
        pc.field("compress.pfr") > 0.45,
        [("compress.pfr", ">", 0.45)],
        [[("compress.pfr", ">", 0.45), ("compress.pfr", "<", 0.65)], [("compress.pfr", ">=", 0.65)]],
    ],
)
def test_where_keeps_rows_as_pandas_would(study: Path, where: object) -> None:
    df = orchestrator.load(study)
    kept = orchestrator.load(study, where=where)  # pyright: ignore[reportArgumentType]
    pd.testing.assert_frame_equal(kept, df[df["compress.pfr"] > 0.45].reset_index(drop=True))
    assert len(kept) == 6


def test_where_may_use_a_column_that_is_not_asked(study: Path) -> None:
    df = orchestrator.load(study, columns=["trial_id"], where=[("seed", "==", 1), ("status", "==", "complete")])
    assert df.to_dict("list") == {"trial_id": ["t1", "t4", "t7"]}


def test_an_empty_list_of_comparisons_keeps_everything(study: Path) -> None:
    assert len(orchestrator.load(study, where=[])) == 12


def test_an_empty_table_is_an_empty_frame(tmp_path: Path) -> None:
    path = tmp_path / "trials.parquet"
    write(path, 0)
    df = orchestrator.load(tmp_path)
    assert len(df) == 0
    assert "accuracy" in df.columns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["acuracy"]}, r"trials\.parquet: no column 'acuracy'; did you mean 'accuracy'"),
        ({"columns": ["zzzzzz"]}, "no column 'zzzzzz'; it has study, trial_id"),
        ({"where": [("sed", "==", 1)]}, "no column 'sed'; did you mean 'seed'"),
        ({"where": pc.field("sed") == 1}, "no column 'sed'; did you mean 'seed'"),
        ({"where": [("seed", "~", 1)]}, "where cannot be applied: .*not a valid operator"),
        ({"where": [("seed", "==", "one")]}, "where cannot be applied"),
        ({"where": [("seed",)]}, "where cannot be applied"),
        ({"where": "seed == 1"}, "where cannot be applied"),
        ({"where": 3}, "where cannot be applied"),
    ],
)
def test_wrong_columns_and_comparisons_are_told(study: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        orchestrator.load(study, **options)  # pyright: ignore[reportArgumentType]


def test_a_missing_study_names_its_neighbour(study: Path) -> None:
    with pytest.raises(TableError, match="grd: no such folder or file; did you mean 'grid'"):
        orchestrator.load(study.parent / "grd")
    with pytest.raises(TableError, match="give results/<study>"):
        orchestrator.load(study.parent / "nowhere" / "at" / "all")


def test_a_folder_of_something_else_is_told_and_names_the_studies_in_it(study: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"holds no trials\.parquet; studies in it: grid"):
        orchestrator.load(study.parent)
    with pytest.raises(TableError, match=r"holds no trials\.parquet; give results/<study>"):
        orchestrator.load(tmp_path)


def test_an_unknown_filesystem_is_told() -> None:
    with pytest.raises(TableError, match=r"nosuch://\.\.\.: unknown kind of storage; known are s3://"):
        orchestrator.load("nosuch://bucket/x")


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_file_is_named(study: Path, kept: int) -> None:
    path = study / "trials.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TableError, match=r"trials\.parquet: not a readable Parquet file .*truncated"):
        orchestrator.load(study)


def test_a_name_of_a_column_that_is_no_text_is_told(study: Path) -> None:
    file = study / "trials.parquet"
    file.write_bytes(file.read_bytes().replace(b"accuracy", b"\x80ccuracy"))
    with pytest.raises(TableError, match=r"trials\.parquet: not a readable Parquet file .*utf-8"):
        orchestrator.load(study)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * 1000)
    with pytest.raises(TableError, match=r"notes\.txt: not a readable Parquet file"):
        orchestrator.load(tmp_path / "notes.txt")


def test_a_file_that_is_replaced_meanwhile_is_read_whole(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, path = pq.read_table, study / "trials.parquet"

    def replaced_before_the_rows_are_read(*arguments: Any, **options: Any) -> pa.Table:
        write(tmp_path / "next", 400)
        (tmp_path / "next").replace(path)
        return read(*arguments, **options)

    monkeypatch.setattr(pq, "read_table", replaced_before_the_rows_are_read)
    assert len(orchestrator.load(study)) == 12
    assert len(orchestrator.load(study)) == 400


# Folders of parts


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "a.parquet", 3)
    older = tables.schema({"compress.pfr": pa.int64(), "compress.new": pa.null()})
    older = older.remove(older.get_field_index("accuracy"))
    row: dict[str, Any] = {"study": "s", "trial_id": "old", "compress.pfr": 1, "seed": 9}
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(older.names) | row], schema=older), folder / "b.parquet")
    (folder / "_hidden.parquet").write_text("nothing")
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_parts_of_several_versions_are_one_table(parts: Path) -> None:
    df = orchestrator.load(parts)
    assert df["trial_id"].tolist() == ["t0", "t1", "t2", "old"]
    assert df["compress.pfr"].tolist()[1:] == [0.1, 0.2, 1.0]
    assert df["compress.pfr"].dtype == "float64"
    assert df["accuracy"].isna().tolist() == [True, False, False, True]
    assert df["seed"].dtype == "Int64"
    some = orchestrator.load(parts, columns=["trial_id", "accuracy"], where=[("compress.pfr", ">", 0.1)])
    assert some["trial_id"].tolist() == ["t2", "old"]
    assert list(some.columns) == ["trial_id", "accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["acuracy"]}, "a.parquet and 1 more: no column 'acuracy'; did you mean 'accuracy'"),
        ({"where": [("sed", "==", 1)]}, "no column 'sed'; did you mean 'seed'"),
    ],
)
def test_unknown_columns_of_parts_are_told(parts: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        orchestrator.load(parts, **options)


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_a_truncated_part_is_named_and_skipped_on_request(parts: Path, kept: int) -> None:
    path = parts / "b.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        TableError, match=r"b\.parquet: not a readable Parquet file .* skip_damaged=True, or --skip-damaged, leaves"
    ):
        orchestrator.load(parts)
    with pytest.warns(DamagedFileWarning, match=r"left out: .*b\.parquet: not a readable"):
        assert len(orchestrator.load(parts, skip_damaged=True)) == 3


def test_a_part_damaged_inside_is_skipped_too(parts: Path) -> None:
    path = parts / "a.parquet"
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(pq.read_schema(path).names.index("trial_id"))
    raw = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    raw[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(raw)
    with pytest.warns(DamagedFileWarning, match=r"a\.parquet"):
        assert orchestrator.load(parts, skip_damaged=True)["trial_id"].tolist() == ["old"]


def test_parts_that_are_all_damaged_are_an_error(parts: Path) -> None:
    for path in (parts / "a.parquet", parts / "b.parquet"):
        path.write_bytes(b"PAR1")
    with pytest.warns(DamagedFileWarning), pytest.raises(TableError, match=r"a\.parquet: neither .* nor the 1 beside"):
        orchestrator.load(parts, skip_damaged=True)


def test_columns_of_one_name_and_nothing_in_common_name_both_files(parts: Path) -> None:
    pq.write_table(pa.table({"trial_id": ["x"], "compress.pfr": ["much"]}), parts / "c.parquet")
    with pytest.raises(TableError, match=r"c\.parquet: does not fit .*a\.parquet.*compress\.pfr.*load them one by one"):
        orchestrator.load(parts)


def test_trials_of_another_tool_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"loss": [1.0], "status": ["done"]}), tmp_path / "trials.parquet")
    with pytest.raises(TableError, match="holds no trials of this project: no column trial_id; did another tool"):
        orchestrator.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "tool"),
    [("meta.yaml", "MLflow"), ("experiment_state-2030.json", "Ray Tune"), ("multirun.yaml", "Hydra")],
)
def test_the_folder_of_another_tool_is_recognised(tmp_path: Path, name: str, tool: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(TableError, match=f"holds no trials.parquet; it looks like a folder of {tool}; give results"):
        orchestrator.load(tmp_path)
