"""The column table, the data dictionary and the parse of objectives."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.analysis import tables
from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, Objective, parse_objectives
from orchestrator.errors import TableError

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "ray", "pandas", "numpy", "pyarrow", "moocore")


def loaded_after(statement: str) -> set[str]:
    """Which heavy packages a fresh process holds after a statement."""
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["orchestrator", "orchestrator.analysis.objectives", "orchestrator.analysis.tables"])
def test_a_fresh_process_loads_nothing_heavy(module: str) -> None:
    assert loaded_after(f"import {module}") == set()


def test_the_fresh_process_check_can_fail_and_load_stays_clear_of_torch_and_ray() -> None:
    found = loaded_after("import orchestrator; orchestrator.load")
    assert {"pandas", "numpy", "pyarrow", "moocore"} == found


def test_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    import orchestrator

    assert orchestrator.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="'lod'"):
        _ = orchestrator.lod  # pyright: ignore[reportAttributeAccessIssue]


def test_the_readme_of_results_is_the_data_dictionary() -> None:
    assert (ROOT / "results" / "README.md").read_text() == tables.document()


def test_the_module_writes_the_data_dictionary() -> None:
    command = [sys.executable, "-m", "orchestrator.analysis.tables"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == tables.document()


@pytest.mark.parametrize("columns", [tables.COLUMNS, tables.STAGE_COLUMNS, tables.HISTORY_COLUMNS])
def test_every_column_is_documented_once_with_its_facts(columns: dict[str, tables.Column]) -> None:
    document = tables.document()
    for name, column in columns.items():
        assert column.name == name
        certain = "yes" if column.deterministic else "no"
        facts = (f"`{name}`", column.unit or "-", column.direction or "-", certain, column.dtype, column.doc)
        assert f"| {' | '.join(facts)} |" in document
        assert "|" not in column.doc


def test_times_are_never_deterministic_and_shrink() -> None:
    for column in tables.COLUMNS.values():
        if column.unit in ("s", "ms"):
            assert (column.direction, column.deterministic) == ("min", False)
    assert tables.timed_by("wall_time_s") == ("machine", "threads", "device")
    assert tables.timed_by("latency_ms") == tables.timed_by("latency_ratio") == ("latency_machine",)
    assert tables.timed_by("accuracy") == tables.timed_by("train.epochs") == ()


def test_names_carry_their_units() -> None:
    for name, column in tables.COLUMNS.items():
        if column.unit in ("s", "ms", "bytes"):
            assert name.endswith(f"_{column.unit}")


def test_schema_holds_the_table_and_the_config_between() -> None:
    schema = tables.schema({"compress.pfr": pa.float64(), "data.name": pa.string()})
    assert set(schema.names) == {*tables.COLUMNS, "compress.pfr", "data.name"}
    assert schema.field("seed").type == pa.int64()
    assert schema.field("finished_at").type == pa.timestamp("us", tz="UTC")
    assert schema.names.index("error") < schema.names.index("compress.pfr") < schema.names.index("accuracy")


def test_stage_and_history_schemas() -> None:
    assert tables.stages_schema().names == list(tables.STAGE_COLUMNS)
    assert tables.history_schema().names == list(tables.HISTORY_COLUMNS)


def test_schema_refuses_a_second_column_of_one_name() -> None:
    with pytest.raises(TableError, match="already has the columns accuracy"):
        tables.schema({"accuracy": pa.float64()})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("compress.pfr", True),
        ("compress.steps.2_stq.pfr", True),
        ("latency.batch", True),
        ("compress", False),
        ("compress.", False),
        ("stage_keys.train", False),
        ("versions.torch", False),
        ("accuracy", False),
    ],
)
def test_config_columns_are_known_by_their_section(name: str, expected: bool) -> None:
    assert tables.is_config_column(name) is expected


def test_no_column_of_the_table_is_taken_for_config() -> None:
    assert not any(map(tables.is_config_column, tables.COLUMNS))


def test_objectives_of_the_default() -> None:
    assert parse_objectives(DEFAULT_OBJECTIVES) == (
        Objective("accuracy", "max"),
        Objective("compression", "max"),
        Objective("wall_time_s", "min", 0.05, relative=True),
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("min", Objective("macs", "min")),
        ({"min": 1000}, Objective("macs", "min", 1000.0)),
        ({"min": "1000"}, Objective("macs", "min", 1000.0)),
        ({"min": "2.5 %"}, Objective("macs", "min", 0.025, relative=True)),
        ({"min": 0}, Objective("macs", "min", 0.0)),
    ],
)
def test_forms_of_an_objective(wanted: object, expected: Objective) -> None:
    assert parse_objectives({"macs": wanted}) == (expected,)


def test_config_leaves_and_named_columns_may_be_objectives_in_either_direction() -> None:
    parsed = parse_objectives({"compress.epochs": "min", "mine": "max"}, also=["mine"])
    assert [(one.column, one.direction) for one in parsed] == [("compress.epochs", "min"), ("mine", "max")]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "names no column"),
        (["accuracy"], "names no column"),
        ({"acuracy": "max"}, "objective acuracy: unknown column; did you mean 'accuracy'"),
        ({"zzzzzzzzz": "max"}, "unknown column; valid are accuracy, "),
        ({"status": "max"}, "objective status: this column has no better direction"),
        ({"accuracy": "up"}, "objective accuracy: unknown direction 'up'; valid are max and min"),
        ({"accuracy": None}, "unknown direction None; valid are max and min"),
        ({"accuracy": ["max"]}, "unknown direction"),
        ({"accuracy": {"up": 1}}, "unknown direction 'up'"),
        ({"accuracy": {}}, "one direction"),
        ({"accuracy": {"max": 1, "min": 2}}, "one direction"),
        ({"accuracy": "min"}, "min contradicts the column table, where max is better"),
        ({"wall_time_s": {"max": "5%"}}, "max contradicts the column table, where min is better"),
        ({"wall_time_s": {"min": "5 percent"}}, r"tolerance '5 percent' is neither a number >= 0 \(s\) nor"),
        ({"wall_time_s": {"min": "-5%"}}, "'-5%'"),
        ({"wall_time_s": {"min": -1}}, "-1"),
        ({"wall_time_s": {"min": "%"}}, "'%'"),
        ({"wall_time_s": {"min": "5%%"}}, "'5%%'"),
        ({"wall_time_s": {"min": float("nan")}}, "nan"),
        ({"wall_time_s": {"min": "inf%"}}, "inf"),
        ({"wall_time_s": {"min": True}}, "True"),
        ({"wall_time_s": {"min": None}}, "None"),
        ({"wall_time_s": {"min": [5]}}, r"\[5\]"),
    ],
)
def test_wrong_objectives_are_told(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        parse_objectives(mapping)
