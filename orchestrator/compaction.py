"""Plan and stage records -> the Parquet tables of a study."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis import tables
from orchestrator.durable import publish
from orchestrator.errors import StoreError
from orchestrator.ledger import StageRecord
from orchestrator.memory import many_objects
from orchestrator.observations import here, latency_row, observation_rows
from orchestrator.plan import Plan, Trial, always_varied, without_effect
from orchestrator.storage.places import AnyPath
from trainables.config import TrialConfig

ROWS_AT_ONCE = 10_000
"""Rows that are held as mappings at a time, on their way to columns."""

Records = Mapping[str, StageRecord]
Row = dict[str, Any]


def write_tables(folder: AnyPath, plan: Plan, records: Records) -> None:
    """Replace `trials.parquet` and the tables beside it, each whole.

    Raises:
        StoreError: the folder cannot be written.

    """
    try:
        with many_objects():
            _write_all(folder, plan, records)
    except OSError as error:
        raise StoreError(f"{folder}: cannot write the tables: {error.strerror}") from error


def _write_all(folder: AnyPath, plan: Plan, records: Records) -> None:
    kept = [records[key] for key in plan.stages if key in records]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "trials.parquet", trial_table(plan, records))
    _write(folder / "_stages.parquet", stage_table(kept))
    _write(folder / "_history.parquet", history_table(kept))
    _write(folder / "_latency.parquet", _table(_latency_rows(plan, records), tables.latency_schema()))


def trial_table(plan: Plan, records: Records) -> pa.Table:
    """One row a trial of the plan, cells first; what has not been computed is null."""
    leaves = _leaf_columns(plan)
    schema = tables.schema({name: column.type for name, column in leaves.items()})
    names = [name for name in schema.names if name not in leaves and name != "study"]
    own = pa.schema([schema.field(name) for name in names])
    parts = [own.empty_table()]
    for first in range(0, len(plan.trials), ROWS_AT_ONCE):
        rows = [_row(trial, records) for trial in plan.trials[first : first + ROWS_AT_ONCE]]
        parts.append(pa.table({name: [row.get(name) for row in rows] for name in names}, schema=own))
    found = pa.concat_tables(parts).combine_chunks()
    study = pa.array([plan.spec.study] * found.num_rows, pa.string())
    columns = {name: found[name] for name in names} | leaves | {"study": study}
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _leaf_columns(plan: Plan) -> dict[str, pa.Array]:
    """The config's leaves as columns; looked at once a config, of which trials of other seeds have the same."""
    varied = always_varied(plan.spec)
    configs = {id(trial.config): trial.config for trial in plan.trials}
    places = {name: place for place, name in enumerate(configs)}
    rows = [_leaves(config, without_effect(config, varied)) for config in configs.values()]
    taken = pa.array([places[id(trial.config)] for trial in plan.trials], pa.int64())
    names = sorted({name for row in rows for name in row})
    found = {name: pa.array([row.get(name) for row in rows]) for name in names}
    return {name: pa.DictionaryArray.from_arrays(taken, values).dictionary_decode() for name, values in found.items()}


def stage_table(kept: Sequence[StageRecord]) -> pa.Table:
    """One row a finished stage."""
    schema = tables.stages_schema()
    found = {name: [getattr(one, name) for one in kept] for name in schema.names if hasattr(StageRecord, name)}
    found["stage"] = [one.kind for one in kept]
    found["earlier"] = [",".join(one.earlier) or None for one in kept]
    found |= {name: list(map(_timestamp, found[name])) for name in ("started_at", "finished_at")}
    return pa.table({name: found.get(name, [None] * len(kept)) for name in schema.names}, schema=schema)


def history_table(kept: Sequence[StageRecord]) -> pa.Table:
    """One row an epoch or a round of labelling."""
    schema = tables.history_schema()
    epochs = [epoch for one in kept for epoch in one.history]
    found: dict[str, list[Any]] = {name: [epoch.get(name) for epoch in epochs] for name in schema.names}
    found["key"] = [one.key for one in kept for _ in one.history]
    found["stage"] = [one.kind for one in kept for _ in one.history]
    return pa.table(found, schema=schema)


def _write(path: AnyPath, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    publish(path, buffer.getvalue())


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def trial_row(trial: Trial, records: Records, varied: Set[str]) -> Row:
    """The columns of a trial that are not null; `varied` are the axes that tell rows apart."""
    return _leaves(trial.config, without_effect(trial.config, varied)) | _row(trial, records)


def _row(trial: Trial, records: Records) -> Row:
    """The columns of a trial but its config's leaves."""
    path = [records.get(key) for key in trial.path]
    row: Row = {
        "trial_id": trial.id,
        "role": trial.role,
        "baseline": trial.baseline,
        "seed": trial.seed,
        **{f"stage_keys.{kind}": key for kind, key in zip(trial.kinds, trial.path, strict=True)},
        **_state(path),
    }
    finished = [record for record in path if record is not None]
    if row["status"] == "complete":
        for record in finished:
            row |= record.metrics
        row |= _selecting(finished)
        row |= _comparisons(trial, records, row["accuracy"])
        row |= latency_row(trial, records, here())
    return row | _seconds(finished) | _provenance(finished)


def _leaves(config: TrialConfig, left_out: Set[str]) -> Row:
    """The config's leaves by path, but for those of `left_out`."""
    leaves: Row = {}
    for section, values in config.model_dump(exclude_none=True).items():
        for name, value in values.items():
            path = f"{section}.{name}"
            if path not in left_out:
                leaves[path] = ",".join(map(str, value)) if isinstance(value, tuple | list) else value
    return leaves


def _state(path: Sequence[StageRecord | None]) -> Row:
    """A trial is what its first unfinished or failed stage is."""
    for record in path:
        if record is None:
            return {"status": None}
        if record.status != "complete":
            error = f"stage {record.kind}: {record.error}"
            return {"status": record.status, "failure": record.failure, "error": error}
    return {"status": "complete"}


def _comparisons(trial: Trial, records: Records, accuracy: float) -> Row:
    found: Row = {}
    for name, key in trial.baselines.items():
        record = records.get(key)
        found[f"{name}_accuracy"] = record.metrics.get("accuracy") if record and record.status == "complete" else None
    # Chance asks for the whole budget: where asking ended early its row has more labels, and is no comparison.
    if "random" in trial.baselines and _labels(trial.path[-1], records) != _labels(trial.baselines["random"], records):
        found["random_accuracy"] = None
    return found | {
        "accuracy_drop": _drop(found.get("dense_finetuned_accuracy"), accuracy),
        "binary_accuracy_drop": _drop(found.get("binary_accuracy"), accuracy),
        "all_labels_accuracy_drop": _drop(found.get("all_labels_accuracy"), accuracy),
        "random_accuracy_gain": _drop(accuracy, found.get("random_accuracy")),
    }


def _labels(key: str | None, records: Records) -> float | None:
    """Labelled images that the network of the evaluation `key` was trained on; null where they are not known."""
    while key is not None and key in records:
        record = records[key]
        if record.kind == "train":
            return record.metrics.get("labels")
        key = record.parent
    return None


def _drop(baseline: float | None, accuracy: float | None) -> float | None:
    return None if baseline is None or accuracy is None else baseline - accuracy


def _seconds(finished: Sequence[StageRecord]) -> Row:
    busy: defaultdict[str, float] = defaultdict(float)
    for record in finished:
        if record.status == "complete":
            busy[record.kind] += record.busy_s
    if "select" in busy:
        busy["select"] = _selecting(finished)["select_s"]
    spent = [busy[kind] for kind in ("select", "train", "compress") if kind in busy]
    return {
        "select_s": busy.get("select"),
        "train_s": busy.get("train"),
        "compress_s": busy.get("compress"),
        "measure_s": busy.get("evaluate"),
        "wall_time_s": sum(spent) if spent else None,
    }


def _selecting(finished: Sequence[StageRecord]) -> dict[str, float]:
    """What the rounds of a trial have cost together; validation is no part of it."""
    rounds = [record.metrics for record in finished if record.kind == "select" and record.status == "complete"]
    names = ("select_s", "select_train_s", "select_score_s", "select_query_s")
    return {name: sum(float(metrics.get(name) or 0.0) for metrics in rounds) for name in names} if rounds else {}


def _provenance(finished: Sequence[StageRecord]) -> Row:
    if not finished:
        return {}
    last = finished[-1]
    return {
        "threads": last.threads,
        "device": last.device,
        "hosts": ",".join(sorted({record.host for record in finished})),
        "machine": last.machine,
        "mixed_hosts": len({(record.machine, record.threads, record.device) for record in finished}) > 1,
        "finished_at": _timestamp(last.finished_at),
        **{f"versions.{name}": text for name, text in last.versions.items()},
    }


def _latency_rows(plan: Plan, records: Records) -> list[Row]:
    rows = observation_rows(plan, records, here())
    return [row | {"finished_at": _timestamp(row["finished_at"])} for row in rows]


def _timestamp(seconds: float) -> int:
    """Microseconds since 1970 (UTC), as a column of times takes them."""
    return round(seconds * 1e6)
