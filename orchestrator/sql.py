"""SQL over the tables of a results root: DuckDB reads the Parquet files, and can do nothing else.

The files are handed over as Arrow datasets; DuckDB itself is opened without access to files, network, extensions and
Python's variables, and its settings are locked, so that no statement reads or writes anything but these tables.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from orchestrator.analysis import parts, tables
from orchestrator.analysis.tables import CONFIG_SECTIONS, suggestion
from orchestrator.errors import TableError
from orchestrator.storage.places import AnyPath, opened
from orchestrator.storage.remote import RemotePath

FILES: Mapping[str, str] = {
    "trials": "trials.parquet",
    "stages": "_stages.parquet",
    "history": "_history.parquet",
    "latency": "_latency.parquet",
}

_SETTINGS: Mapping[str, str | bool] = {
    "enable_external_access": False,
    "python_enable_replacements": False,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
    "temp_directory": "",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a table; `study` is the folder's name."""

    study: str
    path: AnyPath


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of each table of `FILES`, and why files were left out."""

    files: Mapping[str, Sequence[Part]]
    warnings: Sequence[str] = ()


def sources(root: AnyPath, study: str | None = None, *, skip_damaged: bool = False) -> Sources:
    """The tables of all studies of a results root, or of one.

    Args:
        root: a results root; the folder of one study, and a folder of Parquet files with trials, are welcome.
        study: only this one.
        skip_damaged: leave files out that cannot be read, with a warning.

    Raises:
        TableError: no such folder or study, no tables in it, tables of another tool, or a damaged file.

    """
    folders = _folders(root, study)
    files = {
        table: [Part(name, path / file) for name, path in folders.items() if (path / file).is_file()]
        for table, file in FILES.items()
    }
    if not folders:
        files["trials"] = [Part(path.stem, path) for path in sorted(root.glob("[!_.]*.parquet"))]
    if not files["trials"]:
        msg = f"{root}: no study has results here; give a results root with --results, or run: orchestrator sweep"
        raise TableError(msg)
    warnings, left = list[str](), dict[str, list[Part]]()
    for table, found in files.items():
        left[table] = [part for part in found if not _is_damaged(part.path, warnings, skip_damaged=skip_damaged)]
    return Sources(left, warnings)


def _folders(root: AnyPath, study: str | None) -> dict[str, AnyPath]:
    """The folders of studies by name."""
    if not root.is_dir():
        near = suggestion(root.name, [path.name for path in root.absolute().parent.glob("*") if path.is_dir()])
        msg = f"{root}: no such folder{near or '; give a results root with --results'}"
        raise TableError(msg)
    if study is None and (root / FILES["trials"]).is_file():
        return {root.absolute().name: root}
    studies = {path.parent.name: path.parent for path in sorted(root.glob(f"*/{FILES['trials']}"))}
    if study is None:
        return studies
    if study not in studies:
        near = suggestion(study, studies) or f"; it has {', '.join(studies) or 'none'}"
        msg = f"{root}: no study {study!r}{near}"
        raise TableError(msg)
    return {study: studies[study]}


def _is_damaged(path: AnyPath, warnings: list[str], *, skip_damaged: bool, whole: bool = False) -> bool:
    try:
        with parts.readable(str(path)), opened(path) as file:
            schema = pq.read_table(file).schema if whole else pq.read_schema(file)
        parts.check_ours(schema.names, str(path))
    except TableError as error:
        if not skip_damaged:
            msg = f"{error} --skip-damaged leaves it out"
            raise TableError(msg) from error
        warnings.append(f"left out: {error}")
        return True
    return False


def query(statement: str, given: Sources) -> pa.Table:
    """The answer to one SELECT statement over `trials`, `stages`, `history` and `latency`.

    Tables of several studies are united by the names of their columns; what a study lacks is null. `stages`, `history`
    and `latency` have a column `study` in front.

    Raises:
        TableError: not exactly one SELECT, an unknown column or table, another fault of the statement, or a damaged
            file.

    """
    with closing(duckdb.connect(":memory:", config=dict(_SETTINGS))) as connection:
        for table in FILES:
            _register(connection, table, given.files[table])
        connection.execute("SET lock_configuration = true")
        try:
            _check(statement)
            return connection.sql(statement).to_arrow_table()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            for found in given.files.values():
                for part in found:
                    _is_damaged(part.path, [], skip_damaged=False, whole=_is_of_a_file(error))
            raise TableError(f"sql: {_told(str(error), statement, connection)}") from error


def _is_of_a_file(error: Exception) -> bool:
    """Whether an error may come from a damaged file, and not from the statement."""
    return not isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException)


def _register(connection: duckdb.DuckDBPyConnection, table: str, found: Sequence[Part]) -> None:
    """A view that unites the files; an empty part of today's columns gives those that no file has."""
    schemas = {
        "trials": lambda: tables.schema({}),
        "stages": tables.stages_schema,
        "history": tables.history_schema,
        "latency": tables.latency_schema,
    }
    connection.register(f"_{table}", schemas[table]().empty_table())
    selects = [_select(f"_{table}", "NULL::VARCHAR" if table != "trials" else "")]
    for i, part in enumerate(found):
        connection.register(f"_{table}_{i}", _rows(part.path))
        study = part.study.replace("'", "''")
        selects.append(_select(f"_{table}_{i}", f"'{study}'" if table != "trials" else ""))
    connection.execute(f"CREATE TEMP VIEW {table} AS {' UNION ALL BY NAME '.join(selects)}")


def _rows(path: AnyPath) -> ds.Dataset | pa.Table:
    """What DuckDB reads: of a file here no more than a statement needs, of one elsewhere all."""
    if not isinstance(path, RemotePath):
        return ds.dataset(path, format="parquet")
    with parts.readable(str(path)), opened(path) as file:
        return pq.read_table(file)


def _select(name: str, study: str) -> str:
    """All columns of a registered file, with the study in front where the file does not say it."""
    return f"SELECT {study + ' AS study, ' if study else ''}* FROM {name}"  # noqa: S608 (names are ours, text is quoted)


def _check(statement: str) -> None:
    """Nothing where there is one SELECT.

    Raises:
        TableError: there is something else.

    """
    found = duckdb.extract_statements(statement)
    kinds = [one.type.name for one in found]
    if kinds != ["SELECT"]:
        what = " and ".join(kinds) or "nothing"
        msg = f"sql: one SELECT is asked for, this is {what}; the tables are {', '.join(FILES)} and cannot be changed"
        raise TableError(msg)


def _told(text: str, statement: str, connection: duckdb.DuckDBPyConnection) -> str:
    """DuckDB's error in one line, with a suggestion for a name that is unknown."""
    first = next(iter(text.splitlines()), "the statement failed").strip()
    columns = list(dict.fromkeys(name for table in FILES for name in _columns(connection, table)))
    if unknown := re.search(r'Referenced column "(.*?)" not found|does not have a column named "(.*?)"', first):
        name = unknown[1] or unknown[2]
        return f"no column {name!r}{suggestion(name, columns) or '; see: orchestrator columns'}"
    if unknown := re.search(r'Referenced table "(.*?)" not found|Table with name (\S+) does not exist', first):
        name = (unknown[1] or unknown[2]).strip('"')
        if name in {*CONFIG_SECTIONS, "stage_keys", "versions"}:
            written = re.search(rf"\b{name}\.\w+", statement)
            example = written[0] if written else f"{name}.name"
            return f'no table {name!r}; a column with a dot stands in double quotes: "{example}"'
        return f"no table {name!r}{suggestion(name, FILES) or '; there are ' + ', '.join(FILES)}"
    if "file system operations are disabled" in first:
        return f"a statement reads the tables {', '.join(FILES)} and no other files"
    return first


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> Iterator[str]:
    yield from (row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall())
