"""MLflow: a run per trial in an experiment named like the study, kept in `<out>/mlflow.db` (SQLite, no server)."""

import logging
import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StoreError
from orchestrator.loggers.base import Run

_TRIAL, _DIGEST = "orchestrator.trial_id", "orchestrator.digest"
_PAGE = 1000
_PARAMS_AT_ONCE, _METRICS_AT_ONCE = 100, 1000
_LONGEST, _LONGEST_NAME = 5000, 250
"""Characters of a parameter or a tag, and of a run's name, that MLflow keeps."""


class MlflowLogger:
    """Parameters, metrics, and numbers by epoch; see `base.Logger`."""

    def __init__(self, study: str, out: Path) -> None:
        self._known: dict[str, tuple[str, str, bool]] | None = None
        # A tool that counts its users over the network has no place in a program that works offline.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._file = out / "mlflow.db"
        with self._at_work():
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=f"sqlite:///{self._file}")
            known = self._client.get_experiment_by_name(study)
            artifacts = (out / "artifacts").as_uri()
            self._experiment = (
                known.experiment_id if known else self._client.create_experiment(study, artifact_location=artifacts)
            )

    def written(self) -> Mapping[str, str]:
        """As `base.Logger` says; a run that was cut off while it was written is none."""
        self._known = self._runs()
        return {trial: digest for trial, (_, digest, whole) in self._known.items() if whole}

    def write(self, run: Run) -> None:
        """As `base.Logger` says."""
        if self._known is None:
            self.written()
        former = (self._known or {}).get(run.trial_id)
        at = round(1000 * run.ended_s)
        tags = {name: value[:_LONGEST] for name, value in run.tags.items()}
        with self._at_work():
            if former is not None:
                self._client.delete_run(former[0])
            made = self._client.create_run(
                self._experiment, start_time=at, run_name=run.name[:_LONGEST_NAME] or run.trial_id,
                tags={**tags, _TRIAL: run.trial_id, _DIGEST: run.digest},
            )  # fmt: skip
            self._log(made.info.run_id, run, at)
            self._client.set_terminated(
                made.info.run_id, "FINISHED" if run.status == "complete" else "FAILED", end_time=at
            )

    def _log(self, run_id: str, run: Run, at: int) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(name, str(value)[:_LONGEST]) for name, value in run.params.items()]
        metrics = [Metric(name, number, at, 0) for name, number in run.metrics.items()]
        metrics += [Metric(name, number, at, step.epoch) for step in run.steps for name, number in step.numbers.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])

    def close(self) -> None:
        """Nothing stays open between runs."""

    def _runs(self) -> dict[str, tuple[str, str, bool]]:
        """MLflow's id, the digest, and whether it was ended, by trial."""
        found: dict[str, tuple[str, str, bool]] = {}
        token: str | None = None
        with self._at_work():
            while True:
                page = self._client.search_runs([self._experiment], max_results=_PAGE, page_token=token)
                for one in page:
                    tags = one.data.tags
                    if _TRIAL in tags:
                        whole = one.info.status in ("FINISHED", "FAILED")
                        found[tags[_TRIAL]] = one.info.run_id, tags.get(_DIGEST, ""), whole
                token = page.token
                if not token:
                    return found

    @contextmanager
    def _at_work(self) -> Generator[None]:
        """MLflow at work: its errors are told in a line."""
        with _quiet():
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            try:
                yield
            except (MlflowException, SQLAlchemyError) as error:
                why = next(iter(str(error).splitlines()), type(error).__name__)
                raise StoreError(f"{self._file}: MLflow cannot use it: {why}") from error


@contextmanager
def _quiet() -> Generator[None]:
    """Without what MLflow and its database layer say of their own workings."""
    names = ("mlflow", "alembic")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
