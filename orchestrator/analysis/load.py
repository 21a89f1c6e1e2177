"""Read the tables of a study into pandas."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis import accessor as accessor  # registers df.pareto
from orchestrator.analysis import parts
from orchestrator.analysis.parts import Where
from orchestrator.analysis.tables import suggestion
from orchestrator.errors import StoreError, TableError
from orchestrator.storage.places import AnyPath, located, opened

TABLE = "trials.parquet"


def load(
    path: str | AnyPath,
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
    files = _locate(path)
    if len(files) > 1:
        table = parts.read(files, columns, where, skip_damaged=skip_damaged)
    else:
        table = _single(files[0], columns, where)
    return table.to_pandas(types_mapper=_NULLABLE.get)


def _single(path: AnyPath, columns: Sequence[str] | None, where: Where | None) -> pa.Table:
    name = str(path)
    with parts.readable(name), opened(path) as file:
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


def _locate(given: str | AnyPath) -> list[AnyPath]:
    """The files that hold the trials."""
    try:
        path = located(given)
    except StoreError as error:
        raise TableError(str(error)) from error
    try:
        if path.is_file():
            return [path]
        file = path / TABLE
        if file.is_file():
            return [file]
        is_folder = path.is_dir()
        if is_folder and (found := _tables(path)):
            return found
    except OSError as error:
        raise TableError(f"{path}: cannot be opened ({error.strerror})") from error
    raise TableError(_absent(path, is_folder=is_folder))


def _absent(path: AnyPath, *, is_folder: bool) -> str:
    if not is_folder:
        near = suggestion(path.name, _studies(path.parent))
        return f"{path}: no such folder or file{near or '; give results/<study> or a Parquet file'}"
    studies = _studies(path)
    hint = f"studies in it: {', '.join(studies)}" if studies else "give results/<study>, where a sweep wrote"
    if tool := _written_by(path):
        hint = f"it looks like a folder of {tool}; {hint}"
    return f"{path}: holds no {TABLE}; {hint}"


_MARKS = {
    "MLflow": ("meta.yaml", "mlflow.db"),
    "Ray Tune": ("tuner.pkl", "searcher-state", "experiment_state"),
    "Weights & Biases": ("wandb-metadata.json", "latest-run"),
    "Hydra": ("multirun.yaml", ".hydra"),
    "TensorBoard": ("events.out.tfevents",),
}


def _written_by(folder: AnyPath) -> str | None:
    """The tool whose files lie in a folder, by the beginnings of their names."""
    names = [path.name for path in folder.iterdir()]
    return next((tool for tool, marks in _MARKS.items() if any(name.startswith(marks) for name in names)), None)


def _tables(folder: AnyPath) -> list[AnyPath]:
    """Parquet files that stand in a folder, hidden ones left out."""
    return sorted(path for path in folder.glob("[!_.]*.parquet") if path.is_file())


def _studies(folder: AnyPath) -> list[str]:
    """Names of the subfolders that hold a table of trials."""
    return sorted(path.parent.name for path in folder.glob(f"*/{TABLE}"))
