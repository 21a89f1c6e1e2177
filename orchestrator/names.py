"""Names that a table or a person gave, before they become names of files."""

from pathlib import PurePosixPath

from orchestrator.errors import TableError

LONGEST = 255
"""Bytes of a file's name on most filesystems."""


def is_plain(name: str) -> bool:
    """Whether a file of this name lies in its folder, and nowhere else."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    parts = PurePosixPath(name).parts
    return (
        0 < size <= LONGEST and "\0" not in name and "\\" not in name and parts == (name,) and name not in ("..", "/")
    )


def plain(name: str, what: str) -> str:
    """The name, where it is one.

    Raises:
        TableError: a file of this name would lie elsewhere, or nowhere.

    """
    if not is_plain(name):
        raise TableError(f"{what} {ascii(name)[:80]} is no name of a file; whoever wrote this table was no sweep")
    return name
