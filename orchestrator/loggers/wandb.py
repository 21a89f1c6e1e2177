"""Weights & Biases: an offline run per trial in `<out>/<study>/wandb`, which its owner may upload with `wandb sync`."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import wandb

from orchestrator.errors import StoreError
from orchestrator.loggers.base import Run, receipts, whole_folder


class WandbLogger:
    """Config, summary, and numbers by epoch; see `base.Logger`. Nothing is sent anywhere."""

    def __init__(self, study: str, out: Path) -> None:
        self._study = study
        self._folder = out / study / "wandb"
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

    def written(self) -> Mapping[str, str]:
        """As `base.Logger` says."""
        return {trial: digest for trial, (_, digest) in receipts(self._folder, "offline-run-*").items()}

    def write(self, run: Run) -> None:
        """As `base.Logger` says."""
        former = receipts(self._folder, f"offline-run-*-{run.trial_id}").get(run.trial_id)
        ended = time.strftime("%Y%m%d_%H%M%S", time.gmtime(run.ended_s))
        place = former[0] if former else self._folder / f"offline-run-{ended}-{run.trial_id}"
        with whole_folder(place, run) as folder:
            scratch = folder.parent / "wandb-writes-here"
            scratch.mkdir()
            self._write(run, scratch)
            (made,) = (scratch / "wandb").glob("offline-run-*")
            folder.rmdir()
            made.rename(folder)

    def _write(self, run: Run, folder: Path) -> None:
        settings = wandb.Settings(
            mode="offline", silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
        )  # fmt: skip
        try:
            with wandb.init(
                project=self._study, id=run.trial_id, name=run.name or run.trial_id, dir=str(folder),
                config=dict(run.params), notes="\n".join(f"{name}: {value}" for name, value in run.tags.items()),
                settings=settings, reinit="create_new",
            ) as opened:  # fmt: skip
                # Steps must rise; the epochs of compression come after those of training.
                for number, step in enumerate(run.steps, start=1):
                    opened.log({**step.numbers, "epoch": step.epoch}, step=number)
                opened.summary.update(dict(run.metrics))
        except wandb.Error as error:
            raise StoreError(
                f"{self._folder}: Weights & Biases cannot write the run of {run.trial_id}: {error}"
            ) from error

    def close(self) -> None:
        """End the process that wandb writes with."""
        wandb.teardown()
