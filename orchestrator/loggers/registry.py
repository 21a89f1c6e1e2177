"""The loggers by name. A tool is imported when its logger is opened, and no earlier."""

import importlib
import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import RunError, StoreError
from orchestrator.loggers.base import Logger


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a logger is, the module that it needs, what to install for that, and how to look at its runs."""

    module: str
    name: str
    needs: str
    install: str
    look: str


LOGGERS: Mapping[str, Entry] = {
    "mlflow": Entry(
        "orchestrator.loggers.mlflow", "MlflowLogger", "mlflow", '"sweep-orchestrator[mlflow]"',
        "mlflow ui --backend-store-uri sqlite:///{out}/mlflow.db (of the package mlflow)",
    ),
    "wandb": Entry(
        "orchestrator.loggers.wandb", "WandbLogger", "wandb", '"sweep-orchestrator[wandb]"',
        "wandb sync {out}/*/wandb/offline-run-* (uploads them)",
    ),
    "tensorboard": Entry(
        "orchestrator.loggers.tensorboard", "TensorboardLogger", "tensorboardX", "tensorboardX",
        "tensorboard --logdir {out} (of the package tensorboard)",
    ),
}  # fmt: skip


def check_installed(name: str) -> None:
    """Nothing where the logger `name` can be opened; nothing is imported.

    Raises:
        RunError: what it needs is not installed.

    """
    if importlib.util.find_spec(LOGGERS[name].needs) is None:
        raise _absent(name)


def _absent(name: str) -> RunError:
    entry = LOGGERS[name]
    return RunError(f"{entry.needs} is not installed; the logger {name} needs it: pip install {entry.install}")


def check_writable(out: Path) -> None:
    """Nothing where files can be made in a folder, which is made too; some tools would go on trying for minutes.

    Raises:
        StoreError: they cannot.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}; name another folder") from error


def open_logger(name: str, study: str, out: Path) -> Logger:
    """The logger `name`, which writes the runs of a study below the folder `out`.

    Raises:
        RunError: what it needs is not installed.
        StoreError: `out` cannot be written.

    """
    entry = LOGGERS[name]
    try:
        importlib.import_module(entry.needs)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != entry.needs:
            raise
        raise _absent(name) from error
    check_writable(out)
    logger: Logger = getattr(importlib.import_module(entry.module), entry.name)(study, out.resolve())
    return logger
