"""What travels to a cluster that has no folder in common with this machine: the study and the code, nothing else."""

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from orchestrator.cluster.request import Request
from orchestrator.errors import RunError
from trainables.errors import CodeError
from trainables.sources import importable, source_files

STUDY_FILE = "study.yaml"
MOST_BYTES = 20 * 2**20
PACKAGES = ("orchestrator", "trainables")
DISTRIBUTION = "sweep-orchestrator"


def shipped(request: Request, code_folder: Path | None) -> dict[str, bytes]:
    """The files of a shipment by their relative paths: the study, these packages, own models of `code_folder`.

    Raises:
        RunError: own sources are absent, or all of it is larger than `MOST_BYTES`.

    """
    files = {STUDY_FILE: request.text.encode()}
    for package in PACKAGES:
        folder = _folder(package)
        files |= {f"{package}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in _of(folder)}
    files |= _own(request, code_folder)
    files |= {f"{DISTRIBUTION.replace('-', '_')}-{_version()}.dist-info/METADATA": _metadata()}
    _refuse_large(files)
    return files


def write(files: dict[str, bytes], folder: Path) -> None:
    """Lay a shipment out below an empty folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RunError(f"the package {package} is not in a folder, so that its sources cannot be sent")
    return Path(next(iter(spec.submodule_search_locations)))


def _of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _own(request: Request, code_folder: Path | None) -> dict[str, bytes]:
    """Own models as their keys know them; those installed elsewhere are the cluster's to have."""
    found: dict[str, bytes] = {}
    if code_folder is None:
        return found
    try:
        with importable(code_folder):
            for name in request.models:
                for path in source_files(name):
                    if path.is_relative_to(code_folder):
                        found[path.relative_to(code_folder).as_posix()] = path.read_bytes()
    except (CodeError, OSError) as error:
        raise RunError(str(error)) from error
    return found


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"


def _metadata() -> bytes:
    """Each result records the version that made it; without a distribution nobody could tell it there."""
    return f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {_version()}\n".encode()


def _refuse_large(files: dict[str, bytes]) -> None:
    total = sum(map(len, files.values()))
    if total <= MOST_BYTES:
        return
    largest = sorted(files, key=lambda name: -len(files[name]))[:3]
    told = ", ".join(f"{name} ({len(files[name]) / 2**20:.1f} MiB)" for name in largest)
    raise RunError(
        f"the code to send has {total / 2**20:.1f} MiB and at most {MOST_BYTES / 2**20:.0f} are sent; largest: {told}. "
        "Data and results never travel: keep them out of the packages, and name them by --data-root and --results"
    )


def removed(folder: Path) -> None:
    """Take a laid out shipment away."""
    shutil.rmtree(folder, ignore_errors=True)
