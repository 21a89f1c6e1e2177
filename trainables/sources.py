"""A user's own model, `package.module:function`: where its sources are and the SHA-256 that names them.

Nothing of it is imported here: a study is planned, and may be refused, before any of its code has run.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

from trainables.errors import CodeError


@contextmanager
def importable(folder: Path | None) -> Generator[None]:
    """Let `folder` be searched for modules, after everything that is installed; None adds nothing."""
    entry = str(folder)
    if folder is None or entry in sys.path:
        yield
        return
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def sources_sha256(name: str) -> str:
    """SHA-256 of the sources behind `package.module:function`.

    Taken in are all .py files of the top-level package, in the order of their relative paths, each with its path and
    length; or the one file of a top-level module. What they import from elsewhere is not.

    Raises:
        CodeError: the module cannot be found, or has no sources.

    """
    module = name.partition(":")[0]
    spec = _top_level(name, module.partition(".")[0])
    digest = hashlib.sha256()
    try:
        for relative, path in _files(name, module, spec):
            content = path.read_bytes()
            digest.update(f"{relative}\0{len(content)}\0".encode())
            digest.update(content)
    except OSError as error:
        msg = f"model.name {name}: {error.filename} cannot be read: {error.strerror}"
        raise CodeError(msg) from error
    return digest.hexdigest()


def source_files(name: str) -> tuple[Path, ...]:
    """The files whose SHA-256 is `sources_sha256(name)`.

    Raises:
        CodeError: the module cannot be found, or has no sources.

    """
    module = name.partition(":")[0]
    return tuple(path for _, path in _files(name, module, _top_level(name, module.partition(".")[0])))


def _top_level(name: str, package: str) -> ModuleSpec:
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # what runs as a script has no spec
        spec = None
    if spec is None:
        msg = f"model.name {name}: there is no module {package}, neither in the working folder nor installed"
        raise CodeError(msg)
    return spec


def _files(name: str, module: str, spec: ModuleSpec) -> Iterator[tuple[str, Path]]:
    """(relative path, path) of every source, sorted."""
    inner = module.split(".")[1:]
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        if inner or not spec.origin or not spec.origin.endswith(".py"):
            raise _absent(name, module, spec.origin or spec.name)
        yield Path(spec.origin).name, Path(spec.origin)
        return
    if not any(_holds(folder, inner) for folder in folders):
        raise _absent(name, module, ", ".join(map(str, folders)))
    for folder in folders:
        yield from sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py"))


def _holds(folder: Path, inner: list[str]) -> bool:
    """Whether a package's folder has the sources of a module of it (of itself, where `inner` is empty)."""
    place = folder.joinpath(*inner)
    return (place / "__init__.py").is_file() or bool(inner and place.with_suffix(".py").is_file())


def _absent(name: str, module: str, place: str) -> CodeError:
    return CodeError(f"model.name {name}: there are no Python sources of {module} in {place}")
