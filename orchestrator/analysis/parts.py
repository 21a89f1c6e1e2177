"""Reading Parquet files: several as one table, and what is told of those that cannot be read."""

import contextlib
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from orchestrator.analysis.tables import suggestion
from orchestrator.errors import TableError
from orchestrator.storage.places import AnyPath, arrow, opened

Comparison = tuple[str, str, Any]
Where = pc.Expression | Sequence[Comparison] | Sequence[Sequence[Comparison]]

_IDENTITY = ("trial_id", "status")


class DamagedFileWarning(UserWarning):
    """A file could not be read and was left out, as was asked."""


def read(
    files: Sequence[AnyPath],
    columns: Sequence[str] | None,
    where: Where | None,
    *,
    skip_damaged: bool = False,
) -> pa.Table:
    """The rows of several files, those of the first file first; a column that a file lacks is null there.

    Files may be of different versions: integers beside real numbers become real numbers, a column of nulls has the
    type that it has elsewhere.

    Raises:
        TableError: as `load`.

    """
    names = {file: arrow(file)[1] for file in files}
    schemas: dict[str, pa.Schema] = {}
    for file, name in names.items():
        try:
            schemas[name] = _schema(file, whole=skip_damaged)
        except TableError as error:
            if not skip_damaged:
                msg = f"{error} skip_damaged=True, or --skip-damaged, leaves it out"
                raise TableError(msg) from error
            warnings.warn(f"left out: {error}", DamagedFileWarning, stacklevel=4)
    if not schemas:
        msg = f"{files[0]}: neither this file nor the {len(files) - 1} beside it can be read"
        raise TableError(msg)
    schema = _common(schemas)
    shown = f"{next(iter(schemas))} and {len(schemas) - 1} more"
    wanted = None if columns is None else list(dict.fromkeys(columns))
    check_columns(wanted or (), schema.names, shown)
    rows = condition(where, schema, shown)
    with readable(shown):
        dataset = ds.dataset(list(schemas), schema=schema, filesystem=arrow(files[0])[0], format="parquet")
        return dataset.to_table(columns=wanted, filter=rows)


def _schema(path: AnyPath, *, whole: bool) -> pa.Schema:
    """The schema of one file; `whole` tries whether its pages can be read too."""
    with readable(str(path)), opened(path) as file:
        reader = pq.ParquetFile(file)
        if whole:
            for _ in reader.iter_batches():
                pass
        return reader.schema_arrow.remove_metadata()


def _common(schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """One schema for all files."""
    common, seen = pa.schema([]), list[str]()
    for name, schema in schemas.items():
        try:
            common = pa.unify_schemas([common, schema], promote_options="permissive")
        except pa.ArrowException as error:
            msg = f"{name}: does not fit {', '.join(seen[:3])}: {first_line(error)}; load them one by one"
            raise TableError(msg) from error
        seen.append(name)
    return common


@contextlib.contextmanager
def readable(name: str) -> Generator[None]:
    """Tell what is wrong with a file that pyarrow refuses.

    Raises:
        TableError: pyarrow refused it.

    """
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:  # a name of a column may be no text
        msg = f"{name}: not a readable Parquet file ({first_line(error)}); is it truncated, or of another kind?"
        raise TableError(msg) from error


def condition(where: Where | None, schema: pa.Schema, name: str) -> pc.Expression | None:
    """`where` as an expression, tried on no rows so that its faults are told apart from the file's.

    Raises:
        TableError: it cannot be applied.

    """
    if where is None or (isinstance(where, Sequence) and not where):
        return None
    try:
        condition = where if isinstance(where, pc.Expression) else pq.filters_to_expression(where)
        schema.empty_table().filter(condition)
    except (pa.ArrowException, ValueError, TypeError) as error:
        cause = first_line(error)
        if unknown := re.search(r"No match for FieldRef\.Name\((.*?)\) in", cause):
            check_columns([unknown[1]], schema.names, name)
        msg = f"{name}: where cannot be applied: {cause}; write comparisons such as ('seed', '==', 0) or an expression"
        raise TableError(msg) from error
    return condition


def check_columns(wanted: Sequence[str], present: Sequence[str], name: str) -> None:
    """Nothing where all columns are there.

    Raises:
        TableError: one is absent.

    """
    for column in wanted:
        if column not in present:
            near = suggestion(column, present)
            msg = f"{name}: no column {column!r}{near or '; it has ' + ', '.join(present)}"
            raise TableError(msg)


def check_ours(present: Sequence[str], name: str) -> None:
    """Nothing where a file called `trials.parquet` holds trials.

    Raises:
        TableError: it was written by something else.

    """
    absent = [column for column in _IDENTITY if column not in present]
    if absent and name.rpartition("/")[2] == "trials.parquet":
        msg = f"{name}: holds no trials of this project: no column {', '.join(absent)}; did another tool write it?"
        raise TableError(msg)


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return next(iter(str(error).splitlines()), type(error).__name__)
