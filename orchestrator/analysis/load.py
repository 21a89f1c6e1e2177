"""Read the tables of a study into pandas."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from orchestrator.analysis import accessor as accessor  # registers df.pareto
from orchestrator.analysis import parts
from orchestrator.analysis.parts import Where
from orchestrator.analysis.tables import suggestion
from orchestrator.errors import TableError

TABLE = "trials.parquet"


def load(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    where: Where | None = None,
    skip_damaged: bool = False,
) -> pd.DataFrame:
    """The trials of a study as a DataFrame; `df.pareto` is there afterwards.

    Args:
        path: `results/<study>`, one Parquet file, or a folder of Parquet files with trials, which are read one after
            the other in the order of their names; a column that one of them lacks is null there. A URI of a
            filesystem that pyarrow knows is welcome.
        columns: the columns to read, in this order; None reads all. The others are not touched on disk.
        where: rows to keep, applied while reading: a pyarrow expression, or comparisons (column, op, value) of which
            all must hold, as in pandas' `filters`; a list of such lists is an alternative of them. A comparison with
            null keeps nothing.
        skip_damaged: leave files out that cannot be read, with a warning that names them, if others can.

    Returns:
        Integers and truth values as pandas' nullable types, so that seeds stay integers beside nulls; real numbers as
        float64 with NaN for null.

    Raises:
        TableError: nothing at `path`, a folder without trials or with those of another tool, a damaged file, an unknown
            column, columns of one name whose types have nothing in common, or a comparison that cannot be made.

    """
    system, files = _locate(path)
    if len(files) > 1:
        table = parts.read(system, files, columns, where, skip_damaged=skip_damaged)
    else:
        table = _single(system, files[0], columns, where)
    return table.to_pandas(types_mapper=_NULLABLE.get)


def _single(system: fs.FileSystem, name: str, columns: Sequence[str] | None, where: Where | None) -> pa.Table:
    with parts.readable(name), system.open_input_file(name) as file:
        # One handle for schema and rows: a running study may replace the file between the two.
        schema = pq.ParquetFile(file).schema_arrow
        parts.check_ours(schema.names, name)
        wanted = None if columns is None else list(dict.fromkeys(columns))
        parts.check_columns(wanted or (), schema.names, name)
        return pq.read_table(file, columns=wanted, filters=parts.condition(where, schema, name))


_NULLABLE: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def _locate(path: str | Path) -> tuple[fs.FileSystem, list[str]]:
    """The filesystem and the files that hold the trials."""
    text = str(path)
    try:
        system, name = fs.FileSystem.from_uri(text) if "://" in text else (fs.LocalFileSystem(), text)
        kind = system.get_file_info(name).type
        if kind == fs.FileType.File:
            return system, [name]
        file = f"{name.rstrip('/')}/{TABLE}"
        if kind == fs.FileType.Directory and system.get_file_info(file).type == fs.FileType.File:
            return system, [file]
        if kind == fs.FileType.Directory and (found := _tables(system, name)):
            return system, found
    except (OSError, pa.ArrowException) as error:
        msg = f"{text}: cannot be opened ({parts.first_line(error)})"
        raise TableError(msg) from error
    raise TableError(_absent(system, name, is_folder=kind == fs.FileType.Directory))


def _absent(system: fs.FileSystem, name: str, *, is_folder: bool) -> str:
    if not is_folder:
        folder, _, last = name.rstrip("/").rpartition("/")
        near = suggestion(last, _studies(system, folder or "."))
        return f"{name}: no such folder or file{near or '; give results/<study> or a Parquet file'}"
    studies = _studies(system, name)
    hint = f"studies in it: {', '.join(studies)}" if studies else "give results/<study>, where a sweep wrote"
    if tool := _written_by(system, name):
        hint = f"it looks like a folder of {tool}; {hint}"
    return f"{name}: holds no {TABLE}; {hint}"


_MARKS = {
    "MLflow": ("meta.yaml", "mlflow.db"),
    "Ray Tune": ("tuner.pkl", "searcher-state", "experiment_state"),
    "Weights & Biases": ("wandb-metadata.json", "latest-run"),
    "Hydra": ("multirun.yaml", ".hydra"),
    "TensorBoard": ("events.out.tfevents",),
}


def _written_by(system: fs.FileSystem, folder: str) -> str | None:
    """The tool whose files lie in a folder, by the beginnings of their names."""
    entries = [entry.base_name for entry in system.get_file_info(fs.FileSelector(folder, allow_not_found=True))]
    return next((tool for tool, marks in _MARKS.items() if any(name.startswith(marks) for name in entries)), None)


def _tables(system: fs.FileSystem, folder: str) -> list[str]:
    """Parquet files that stand in a folder, hidden ones left out."""
    entries = system.get_file_info(fs.FileSelector(folder))
    files = [entry for entry in entries if entry.type == fs.FileType.File and entry.extension == "parquet"]
    return sorted(entry.path for entry in files if not entry.base_name.startswith(("_", ".")))


def _studies(system: fs.FileSystem, folder: str) -> list[str]:
    """Names of the subfolders that hold a table of trials."""
    entries = system.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    folders = [entry for entry in entries if entry.type == fs.FileType.Directory]
    tables = system.get_file_info([f"{entry.path}/{TABLE}" for entry in folders])
    return sorted(entry.base_name for entry, table in zip(folders, tables, strict=True) if table.is_file)
