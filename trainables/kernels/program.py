"""The one compiled function: it runs a table of operations, so that Python is entered once for a whole network."""

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numba
from numba import types
from numba.core import config

from trainables.kernels.elementwise import run_affine, run_mean
from trainables.kernels.emitter import convolution
from trainables.kernels.fields import COLUMNS, Op, Pass
from trainables.kernels.memory import column
from trainables.kernels.passes import image, linear, pool_bits, pool_float, unpack, window_sum

Program = Callable[[int, int], None]

binary_wide = convolution("binary_wide")
binary_tall = convolution("binary_tall")
ternary = convolution("ternary")
planes = convolution("planes")
floats = convolution("float")


def run(table: int, rows: int) -> None:  # noqa: C901 - a dispatcher: one case an operation
    """Run the `rows` operations of the table of int64 at the address `table`."""
    for row in range(rows):
        op = table + 8 * COLUMNS * row
        kind = column(op, Pass.KIND)
        if kind == Op.BINARY_WIDE:
            binary_wide(op)
        elif kind == Op.BINARY_TALL:
            binary_tall(op)
        elif kind == Op.TERNARY:
            ternary(op)
        elif kind == Op.PLANES:
            planes(op)
        elif kind == Op.FLOAT:
            floats(op)
        elif kind == Op.IMAGE:
            image(op)
        elif kind == Op.AFFINE:
            run_affine(op)
        elif kind == Op.UNPACK:
            unpack(op)
        elif kind == Op.POOL_BITS:
            pool_bits(op)
        elif kind == Op.POOL_FLOAT:
            pool_float(op)
        elif kind == Op.WINDOW_SUM:
            window_sum(op)
        elif kind == Op.MEAN:
            run_mean(op)
        elif kind == Op.LINEAR:
            linear(op)


@functools.cache
def program() -> Program:
    """`run`, compiled for this CPU: from the cache folder where an earlier process left it there.

    Where no cache folder can be written, each process compiles for itself.
    """
    signature = types.void(types.int64, types.int64)
    folder = cache_folder()
    if folder is None:
        return numba.njit(signature, nogil=True)(run)
    with _cache_in(folder):
        return numba.njit(signature, nogil=True, cache=True)(run)


def cache_folder() -> Path | None:
    """A folder that can be written, of this very source: $NUMBA_CACHE_DIR, or the user's cache folder; else None.

    Its name holds a hash of this package, as numba looks at the file of `run` alone when it asks whether a cached
    function is still the same.
    """
    home = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(home) if home else Path.home() / ".cache") / "sweep-orchestrator" / f"kernels-{_source_hash()}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: no home folder is known
        return None


def _source_hash() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _cache_in(folder: Path) -> Generator[None]:
    before = config.CACHE_DIR  # pyright: ignore[reportAttributeAccessIssue] - numba sets it from the environment
    config.CACHE_DIR = str(folder)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]
