"""Plan and stage records -> the Parquet tables of a study."""

import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis import tables
from orchestrator.durable import publish
from orchestrator.errors import StoreError
from orchestrator.ledger import StageRecord
from orchestrator.lines import always_varied, inert
from orchestrator.memory import many_objects
from orchestrator.observations import here, latency_row, observation_rows
from orchestrator.plan import Plan, Trial
from orchestrator.storage.places import AnyPath
from trainables.config import Section, TrialConfig
from trainables.method_config import CombineConfig

ROWS_AT_ONCE = 10_000
"""Rows that are held as mappings at a time, on their way to columns."""

GROUP_ROWS = 3 * ROWS_AT_ONCE
"""Rows that are held as columns at a time, on their way to the file."""

Records = Mapping[str, StageRecord]
Row = dict[str, Any]
Parts = tuple[pa.Schema, Iterable[pa.Table]]
"""A table of some length: its columns, and its rows a row group at a time."""


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
    _write(folder / "trials.parquet", *_trials(plan, records))
    _write(folder / "_stages.parquet", *_stages(kept))
    _write(folder / "_history.parquet", *_history(kept))
    latency = tables.latency_schema()
    _write(folder / "_latency.parquet", latency, _parts(_latency_rows(plan, records), latency))


def trial_table(plan: Plan, records: Records) -> pa.Table:
    """One row a trial of the plan, cells first; what has not been computed is null."""
    schema, parts = _trials(plan, records)
    return pa.concat_tables([schema.empty_table(), *parts])


def _trials(plan: Plan, records: Records) -> Parts:
    leaves = _leaf_columns(plan)
    schema = tables.schema({name: column.dictionary.type for name, column in leaves.items()})
    own = pa.schema([schema.field(name) for name in schema.names if name not in leaves and name != "study"])

    def whole(first: int, part: pa.Table) -> pa.Table:
        study = pa.repeat(pa.scalar(plan.spec.study, pa.string()), part.num_rows)
        columns = {name: part[name] for name in own.names} | {"study": study}
        columns |= {name: one.slice(first, part.num_rows).dictionary_decode() for name, one in leaves.items()}
        return pa.table({name: columns[name] for name in schema.names}, schema=schema)

    rows = (_row(trial, records) for trial in plan.trials)
    return schema, (whole(number * GROUP_ROWS, part) for number, part in enumerate(_parts(rows, own)))


def _leaf_columns(plan: Plan) -> dict[str, pa.DictionaryArray]:
    """The config's leaves as columns; each section is looked at once, of which a great many trials have the same."""
    varied = always_varied(plan.spec)
    columns: dict[str, pa.DictionaryArray] = {}
    for section in TrialConfig.model_fields:
        places: dict[int, int] = {}
        rows: list[Row] = []
        taken: list[int] = []
        for trial in plan.trials:
            part = getattr(trial.config, section)
            place = places.setdefault(id(part), len(rows))
            if place == len(rows):
                rows.append(_leaves(section, part, varied))
            taken.append(place)
        indices = pa.array(taken, pa.int32())
        for name in {name for row in rows for name in row}:
            values = pa.array(one_kind([row.get(name) for row in rows]))
            columns[name] = pa.DictionaryArray.from_arrays(indices, values)
    return {name: columns[name] for name in sorted(columns)}


def one_kind(values: Sequence[Any]) -> Sequence[Any]:
    """The values of a leaf; all as texts where some are: what one method counts another may name."""
    texts = any(isinstance(value, str) for value in values)
    return [value if value is None else str(value) for value in values] if texts else values


def _stages(kept: Sequence[StageRecord]) -> Parts:
    """One row a finished stage."""
    schema = tables.stages_schema()
    names = [name for name in schema.names if hasattr(StageRecord, name)]

    def row(one: StageRecord) -> Row:
        found: Row = {name: getattr(one, name) for name in names}
        found |= {name: _timestamp(found[name]) for name in ("started_at", "finished_at")}
        return found | {"stage": one.kind, "earlier": ",".join(one.earlier) or None}

    return schema, _parts(map(row, kept), schema)


def _history(kept: Sequence[StageRecord]) -> Parts:
    """One row an epoch or a round of labelling."""
    schema = tables.history_schema()
    rows = ({**epoch, "key": one.key, "stage": one.kind} for one in kept for epoch in one.history)
    return schema, _parts(rows, schema)


def _write(path: AnyPath, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part)
    publish(path, buffer.getvalue())


def _parts(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows as tables of a row group each; few are mappings at a time, which take much more memory."""
    rows = iter(rows)
    while group := [_columns(part, schema) for part in _batches(rows)]:
        yield pa.concat_tables(group).combine_chunks()


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batches = (list(islice(rows, ROWS_AT_ONCE)) for _ in range(GROUP_ROWS // ROWS_AT_ONCE))
    return filter(None, batches)


def _columns(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    return pa.table([_column(field, [row.get(field.name) for row in rows]) for field in schema], schema=schema)


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    """The values of one column.

    Raises:
        StoreError: they are numbers, and the column holds none.

    """
    try:
        return pa.array(values, field.type)
    except pa.ArrowException as error:
        if not {*map(type, values)} <= {int, float, type(None)}:
            raise
        msg = f"{field.name}: the ledger has a number for it that no sweep writes: {error}. Is a ledger not yours?"
        raise StoreError(msg) from error


def trial_row(trial: Trial, records: Records, varied: Set[str]) -> Row:
    """The columns of a trial that are not null; `varied` are the axes that tell rows apart."""
    leaves: Row = {}
    for name in TrialConfig.model_fields:
        leaves |= _leaves(name, getattr(trial.config, name), varied)
    return leaves | _row(trial, records)


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
        row = {name: value for record in finished for name, value in record.metrics.items()} | row
        row |= _selecting(finished)
        row |= _pruned(finished)
        row |= _comparisons(trial, records, row.get("accuracy"))
        row |= latency_row(trial, records, here())
    return row | _seconds(finished) | _provenance(finished)


def _leaves(name: str, section: Section | None, varied: Set[str]) -> Row:
    """The leaves of a config's section by path, but for those that have no effect in it and do not tell rows apart."""
    if section is None:
        return {}
    left_out = inert(name, section) - varied
    leaves = {f"{name}.{leaf}": value for leaf, value in section.model_dump(exclude_none=True).items()}
    if isinstance(section, CombineConfig):
        leaves |= _steps(f"{name}.steps", section)
    return {
        path: ",".join(map(str, value)) if isinstance(value, tuple | list) else value
        for path, value in leaves.items()
        if path not in left_out
    }


def _steps(name: str, pipeline: CombineConfig) -> Row:
    """The names of a pipeline's steps, and the leaves of each."""
    leaves: Row = {name: tuple(step.name for step in pipeline.steps)}
    for step in pipeline.steps:
        leaves |= {
            f"{name}.{step.name}.{leaf}": value for leaf, value in step.config.model_dump(exclude_none=True).items()
        }
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


def _pruned(finished: Sequence[StageRecord]) -> Row:
    """The share of filters that the steps of a pipeline removed together, each of those that were left."""
    found = [share for one in finished if isinstance(share := one.metrics.get("pfr_achieved"), int | float)]
    return {"pfr_achieved": 1 - math.prod(1 - share for share in found)} if len(found) > 1 else {}


def _comparisons(trial: Trial, records: Records, accuracy: float | None) -> Row:
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
