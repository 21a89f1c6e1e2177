"""Read the tables of a study into pandas."""

import contextlib
import re
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from orchestrator.analysis import accessor as accessor  # registers df.pareto
from orchestrator.analysis.tables import suggestion
from orchestrator.errors import TableError

TABLE = "trials.parquet"

Comparison = tuple[str, str, Any]
Where = pc.Expression | Sequence[Comparison] | Sequence[Sequence[Comparison]]


def load(path: str | Path, *, columns: Sequence[str] | None = None, where: Where | None = None) -> pd.DataFrame:
    """The trials of a study as a DataFrame; `df.pareto` is there afterwards.

    Args:
        path: `results/<study>`, or one Parquet file; a URI of a filesystem that pyarrow knows is welcome.
        columns: the columns to read, in this order; None reads all. The others are not touched on disk.
        where: rows to keep, applied while reading: a pyarrow expression, or comparisons (column, op, value) of which
            all must hold, as in pandas' `filters`; a list of such lists is an alternative of them. A comparison with
            null keeps nothing.

    Returns:
        Integers and truth values as pandas' nullable types, so that seeds stay integers beside nulls; real numbers as
        float64 with NaN for null.

    Raises:
        TableError: nothing at `path`, a folder without trials.parquet, a damaged file, an unknown column, or a
            comparison that cannot be made.

    """
    system, name = _locate(path)
    with _readable(name), system.open_input_file(name) as file:
        # One handle for schema and rows: a running study may replace the file between the two.
        schema = pq.ParquetFile(file).schema_arrow
        wanted = None if columns is None else list(dict.fromkeys(columns))
        _check_columns(wanted or (), schema.names, name)
        table = pq.read_table(file, columns=wanted, filters=_condition(where, schema, name))
    return table.to_pandas(types_mapper=_NULLABLE.get)


_NULLABLE: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def _locate(path: str | Path) -> tuple[fs.FileSystem, str]:
    """The filesystem and the file that holds the trials."""
    text = str(path)
    try:
        system, name = fs.FileSystem.from_uri(text) if "://" in text else (fs.LocalFileSystem(), text)
        kind = system.get_file_info(name).type
        if kind == fs.FileType.File:
            return system, name
        file = f"{name.rstrip('/')}/{TABLE}"
        if kind == fs.FileType.Directory and system.get_file_info(file).type == fs.FileType.File:
            return system, file
    except (OSError, pa.ArrowException) as error:
        msg = f"{text}: cannot be opened ({_first_line(error)})"
        raise TableError(msg) from error
    raise TableError(_absent(system, name, is_folder=kind == fs.FileType.Directory))


def _absent(system: fs.FileSystem, name: str, *, is_folder: bool) -> str:
    if not is_folder:
        folder, _, last = name.rstrip("/").rpartition("/")
        near = suggestion(last, _studies(system, folder or "."))
        return f"{name}: no such folder or file{near or '; give results/<study> or a Parquet file'}"
    studies = _studies(system, name)
    hint = f"studies in it: {', '.join(studies)}" if studies else "give results/<study>, where a sweep wrote"
    return f"{name}: holds no {TABLE}; {hint}"


def _studies(system: fs.FileSystem, folder: str) -> list[str]:
    """Names of the subfolders that hold a table of trials."""
    entries = system.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    folders = [entry for entry in entries if entry.type == fs.FileType.Directory]
    tables = system.get_file_info([f"{entry.path}/{TABLE}" for entry in folders])
    return sorted(entry.base_name for entry, table in zip(folders, tables, strict=True) if table.is_file)


@contextlib.contextmanager
def _readable(name: str) -> Generator[None]:
    """Tell what is wrong with a file that pyarrow refuses."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        msg = f"{name}: not a readable Parquet file ({_first_line(error)}); is it truncated, or of another kind?"
        raise TableError(msg) from error


def _condition(where: Where | None, schema: pa.Schema, name: str) -> pc.Expression | None:
    """`where` as an expression, tried on no rows so that its faults are told apart from the file's."""
    if where is None or (isinstance(where, Sequence) and not where):
        return None
    try:
        condition = where if isinstance(where, pc.Expression) else pq.filters_to_expression(where)
        schema.empty_table().filter(condition)
    except (pa.ArrowException, ValueError, TypeError) as error:
        cause = _first_line(error)
        if unknown := re.search(r"No match for FieldRef\.Name\((.*?)\) in", cause):
            _check_columns([unknown[1]], schema.names, name)
        msg = f"{name}: where cannot be applied: {cause}; write comparisons such as ('seed', '==', 0) or an expression"
        raise TableError(msg) from error
    return condition


def _check_columns(wanted: Sequence[str], present: Sequence[str], name: str) -> None:
    for column in wanted:
        if column not in present:
            near = suggestion(column, present)
            msg = f"{name}: no column {column!r}{near or '; it has ' + ', '.join(present)}"
            raise TableError(msg)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
