"""TensorBoard: an event file per trial in `<out>/<study>/<trial_id>`, written by tensorboardX."""

from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from orchestrator.loggers.base import Run, receipts, whole_folder


class TensorboardLogger:
    """Scalars by epoch, and the trial's parameters and metrics for the HPARAMS page; see `base.Logger`."""

    def __init__(self, study: str, out: Path) -> None:
        self._folder = out / study

    def written(self) -> Mapping[str, str]:
        """As `base.Logger` says."""
        return {trial: digest for trial, (_, digest) in receipts(self._folder, "*").items()}

    def write(self, run: Run) -> None:
        """As `base.Logger` says."""
        with whole_folder(self._folder / run.trial_id, run) as folder, SummaryWriter(logdir=str(folder)) as writer:
            for summary in hparams(dict(run.params), dict(run.metrics)):
                writer.file_writer.add_summary(summary)  # pyright: ignore[reportOptionalMemberAccess]
            writer.add_text("trial", _text(run), 0, walltime=run.ended_s)
            for step in run.steps:
                for name, number in step.numbers.items():
                    writer.add_scalar(name, number, step.epoch, walltime=run.ended_s)
            for name, number in run.metrics.items():
                writer.add_scalar(name, number, 0, walltime=run.ended_s)

    def close(self) -> None:
        """Nothing stays open between runs."""


def _text(run: Run) -> str:
    """A Markdown list; what a study's author wrote stays text."""
    facts = {"trial_id": run.trial_id, "name": run.name, **run.tags}
    return "\n".join(f"    {name}: {' '.join(value.split())}" for name, value in facts.items())
