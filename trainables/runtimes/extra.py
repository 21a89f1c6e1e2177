"""What a user without the runtimes is told."""

from collections.abc import Generator
from contextlib import contextmanager

from trainables.errors import MissingExtraError

PARTS = ("llvmlite", "numba", "onnx", "onnxruntime", "onnxscript", "openvino")


@contextmanager
def deploy_extra() -> Generator[None]:
    """Imports inside need the extra `deploy`.

    Raises:
        MissingExtraError: a package of the extra is not installed.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        if absent not in PARTS:
            raise
        msg = f'{absent} is not installed; exported networks need it: pip install "sweep-orchestrator[deploy]"'
        raise MissingExtraError(msg) from error
