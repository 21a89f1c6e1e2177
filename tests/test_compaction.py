"""From records to tables: what a ledger may hold, however many rows there are."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import TINY
from msgspec.structs import replace

from orchestrator import compaction
from orchestrator.compaction import one_kind, write_tables
from orchestrator.errors import StoreError
from orchestrator.ledger import Repeated, StageRecord
from orchestrator.plan import Plan, Planner
from orchestrator.spec.load import load_spec
from trainables.keys import Stage

METRICS = {"accuracy": 0.9, "val_accuracy": 0.8, "test_images": 360, "macs": 1000}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "tiny.yaml"
    path.write_text(TINY)
    return Planner(load_spec(str(path)), lambda _: "fp32").plan


def records_of(plan: Plan, **metrics: Any) -> dict[str, StageRecord]:
    return {key: record_of(stage, **metrics) for key, stage in plan.stages.items()}


def record_of(stage: Stage, **metrics: Any) -> StageRecord:
    found = METRICS | metrics if stage.kind == "evaluate" else {}
    return StageRecord(
        key=stage.key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status="complete", busy_s=1.0,
        started_at=1e9, finished_at=1e9 + 1, metrics=found, history=({"epoch": 1.0, "loss": 0.5},),
        config=stage.own_config(), versions={"torch": "2"},
    )  # fmt: skip


def test_tables_are_the_same_in_row_groups_of_any_size(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = records_of(plan)
    write_tables(tmp_path / "one", plan, records)
    monkeypatch.setattr(compaction, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(compaction, "GROUP_ROWS", 4)
    write_tables(tmp_path / "many", plan, records)
    for name in ("trials", "_stages", "_history", "_latency"):
        one, many = (pq.read_table(tmp_path / folder / f"{name}.parquet") for folder in ("one", "many"))
        assert one.schema == many.schema
        assert one.to_pylist() == many.to_pylist()
    assert pq.ParquetFile(tmp_path / "many" / "trials.parquet").num_row_groups == -(-len(plan.trials) // 4)


def test_an_evaluation_without_an_accuracy_has_none(tmp_path: Path, plan: Plan) -> None:
    records = {key: replace(one, metrics={"macs": 5}) for key, one in records_of(plan).items()}
    write_tables(tmp_path, plan, records)
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert {row["accuracy"] for row in rows} == {None}
    assert {row["accuracy_drop"] for row in rows} == {None}


def test_a_number_that_a_column_does_not_hold_is_told_with_its_name(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(StoreError, match=r"error: the ledger has a number for it that no sweep writes: .* got a 'int'"):
        write_tables(tmp_path, plan, records_of(plan, error=3))


def test_a_metric_takes_no_columns_place(tmp_path: Path, plan: Plan) -> None:
    write_tables(tmp_path, plan, records_of(plan, seed=77, status=3, role=1))
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"complete"}
    assert {row["seed"] for row in rows} == set(plan.spec.seeds)


def test_repeated_values_are_one_object_and_records_stay_what_they_were(plan: Plan) -> None:
    stages = [stage for stage in plan.stages.values() if stage.kind == "compress"]
    first, again = record_of(stages[0]), record_of(stages[0])
    other = record_of(next(stage for stage in stages if stage.own_config() != stages[0].own_config()))
    assert first.config is not again.config
    repeated, before = Repeated(), replace(other)
    shared = [repeated.shared(one) for one in (first, again, other)]
    assert shared[0].config is shared[1].config
    assert shared[0].versions is shared[2].versions
    assert shared[2].config == before.config != shared[0].config
    assert shared[2] == before


def test_a_leaf_that_is_text_for_one_method_and_a_number_for_another_is_text() -> None:
    assert one_kind([None, 0.5, "channel", 4]) == [None, "0.5", "channel", "4"]
    assert one_kind([None, 0.5, 4]) == [None, 0.5, 4]
