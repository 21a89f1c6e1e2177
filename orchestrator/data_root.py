"""Data sets that lie elsewhere: fetched once a machine, checked, and read from there as if they lay here."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.storage.here import cache_folder, fingerprint
from orchestrator.storage.node_cache import alone
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import Facts, RemotePath
from trainables.config import DataConfig
from trainables.data.files import FILES
from trainables.data.whole import write_whole
from trainables.errors import DataError

READERS = 16


def local_root(given: AnyPath) -> Path:
    """The folder in which the data sets of a data root lie on this machine, once they were brought."""
    return cache_folder() / "data" / fingerprint(given) if isinstance(given, RemotePath) else given


def bring(given: AnyPath, data: DataConfig) -> None:
    """See to it that what a config reads of a data root elsewhere is here; a root on a disk is left as it is.

    Files of the known sets are checked by their md5 and fetched once; a folder of images follows the one elsewhere, by
    the sizes and times of its files, and is checked by the fingerprint that the plan has of it.

    Raises:
        DataError: something is not there, cannot be fetched, or is not the released file.

    """
    if not isinstance(given, RemotePath):
        return
    root = local_root(given)
    try:
        with alone(root / ".locks" / data.name):
            if data.name == "imagefolder":
                _follow(given, root, data)
            else:
                for path, md5 in FILES[data.name].items():
                    _fetch_known(given / path, root / path, md5)
    except OSError as error:
        raise DataError(
            f"{error.filename or given}: data set {data.name} cannot be fetched: {error.strerror}"
        ) from error


def _fetch_known(there: RemotePath, here: Path, md5: str) -> None:
    if here.is_file() and _md5(here.read_bytes()) == md5:
        return
    content = there.read_fixed()
    if _md5(content) != md5:
        raise DataError(f"{there}: damaged or incomplete (md5 {_md5(content)}, the release has {md5})")
    here.parent.mkdir(parents=True, exist_ok=True)
    write_whole(here, [content])


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _follow(given: RemotePath, root: Path, data: DataConfig) -> None:
    """Make the folder here what the one elsewhere is."""
    if Path(data.folder or "").is_absolute():
        return
    folder, local = given / (data.folder or ""), root / (data.folder or "")
    files = folder.files(recursive=True)
    found = {path.path.removeprefix(folder.path).strip("/"): (path, facts) for path, facts in files}
    if not found:
        raise DataError(f"{folder}: no folder of images there")
    if any(part in ("", ".", "..") for name in found for part in name.split("/")):
        raise DataError(f"{folder}: holds names with . or .. in them")
    new = [(path, local / name, facts) for name, (path, facts) in found.items() if not _same(local / name, facts)]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda one: _fetch(*one), new))
    _remove_others(local, found)


def _same(here: Path, facts: Facts) -> bool:
    try:
        known = here.stat()
    except OSError:
        return False
    return (known.st_size, known.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)


def _fetch(there: RemotePath, here: Path, facts: Facts) -> None:
    here.parent.mkdir(parents=True, exist_ok=True)
    write_whole(here, [there.read_bytes()])
    os.utime(here, ns=(facts.st_mtime_ns, facts.st_mtime_ns))


def _remove_others(local: Path, names: Iterable[str]) -> None:
    kept = {local / name for name in names}
    for path in local.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(local).parts)
        if path.is_file() and path not in kept and not hidden:
            path.unlink()
