"""Sweeps whose stages are formulas: all of the orchestration, none of the training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from orchestrator import sweep as story
from orchestrator.artifacts import ArtifactStore
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay
from orchestrator.locks import Holder
from orchestrator.plan import Plan, Planner
from orchestrator.runner.base import Driver, Missing
from orchestrator.screen import SweepScreen, console
from orchestrator.shards import Shard
from orchestrator.spec.load import load_spec
from orchestrator.sweep import Options, Summary, sweep
from trainables.keys import Stage

Metrics = Mapping[str, float]
Formula = Callable[[Stage], Metrics | None]


class Stopped(Exception):  # noqa: N818 - no error: the run is killed here
    """The run ends as if killed."""


@dataclass
class FormulaRunner:
    """One worker; an evaluation's metrics are what `formula` says of its stage, None is a failure."""

    formula: Formula
    artifacts: Path
    most: int = 10**9
    ran: list[Stage] = field(default_factory=list)

    def run(self, driver: Driver) -> None:
        driver.begin(workers=1)
        while (task := driver.take()) is not None:
            for stage in task.stages:
                if len(self.ran) >= self.most:
                    raise Stopped
                if stage.parent and stage.parent not in driver.records:
                    continue
                if stage.key in driver.schedule.open:
                    driver.commit([self._record(stage)])

    def _record(self, stage: Stage) -> StageRecord:
        self.ran.append(stage)
        metrics = self.formula(stage) if stage.kind == "evaluate" else {}
        now = 1_700_000_000.0 + len(self.ran)
        failed = metrics is None
        return StageRecord(
            key=stage.key, kind=stage.kind, parent=stage.parent, seed=stage.seed,
            status="failed" if failed else "complete", failure="diverged" if failed else None,
            error="diverged" if failed else None, busy_s=1.0, started_at=now, finished_at=now, metrics=metrics or {},
            config=stage.own_config(), artifact_sha256=ArtifactStore(self.artifacts).write(stage.key, b"weights"),
            machine="formula", host="here", run="formula",
        )  # fmt: skip


class Silent(SweepScreen):
    """Says nothing."""

    def __init__(self) -> None:
        super().__init__(console())

    def warned(self, message: str) -> None: ...

    def waiting(self, holder: Holder) -> None: ...

    def started(self, plan: Plan, todo: Missing) -> None: ...

    def _say(self, text: str) -> None: ...


@dataclass(frozen=True)
class FormulaSweep:
    """A results root, and sweeps of studies over it."""

    folder: Path

    def planner(self, text: str) -> Planner:
        path = self.folder / "study.yaml"
        path.write_text(text)
        return Planner(load_spec(str(path)), lambda _: "fp32")

    def __call__(
        self,
        text: str,
        formula: Formula,
        most: int = 10**9,
        journal: Path | None = None,
        shard: Shard | None = None,
        root: str = "results",
    ) -> tuple[Summary | None, list[Stage]]:
        layout = Layout(self.folder / root)
        runner = FormulaRunner(formula, self.folder / root / ".store" / "artifacts", most)
        options = Options(layout, self.folder / "data", latency=False, optuna_journal=journal, shard=shard)
        replaced, story._runner = story._runner, lambda *_: runner  # pyright: ignore[reportPrivateUsage]
        try:
            return sweep(self.planner(text), options, Silent()), runner.ran
        except Stopped:
            return None, runner.ran
        finally:
            story._runner = replaced  # pyright: ignore[reportPrivateUsage]

    def trials(self, study: str) -> pd.DataFrame:
        df = pd.read_parquet(self.folder / "results" / study)
        return df[df["role"] == "cell"].reset_index(drop=True)

    def events(self) -> list[object]:
        found = replay(Layout(self.folder / "results").ledger).events
        return [event for events in found.values() for event in events]


def smooth(stage: Stage) -> Metrics:
    """A front in two leaves: accuracy falls with pfr, and has its best learning rate at 0.02."""
    compress = stage.config.compress
    pfr = getattr(compress, "pfr", 0.0)
    lr = compress.lr if compress else 0.02
    accuracy = 0.95 - 0.3 * pfr**2 - 0.02 * math.log(lr / 0.02) ** 2
    return {
        "accuracy": accuracy - 0.5, "val_accuracy": accuracy, "compression": 10 / (1 - pfr), "test_images": 100,
    }  # fmt: skip
