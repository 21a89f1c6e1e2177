"""Trials stopped at rungs: whom, when, and what is left for others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Command

from orchestrator.analysis.objectives import Objective
from orchestrator.errors import PlanError, SpecError
from orchestrator.ledger import StageRecord
from orchestrator.plan import Plan, plan
from orchestrator.rungs import RungKeeper
from orchestrator.spec.load import load_spec
from orchestrator.spec.model import Rungs

STUDY = """\
# Which learning rate?
study: {study}
base:
  data: {{name: digits, train_size: 300}}
  model: {{name: resnet8, width: 4}}
  train: {{epochs: 2}}
  compress: {{method: stq, pfr: 0.2, epochs: 8}}
axes:
  compress.lr: [0.1, 0.0001, 0.0002]
seeds: 2
objectives: {{accuracy: max, compression: max}}
search: {search}
"""
RUNGS = "{rungs: {on: {val_accuracy: {max: 0.05}, compress.pfr: max}, at: [0.4, 0.8]}}"
SERIAL = ("--runner", "serial")


def text(search: str = RUNGS, study: str = "r") -> str:
    return STUDY.format(study=study, search=search)


def planned(folder: Path, study: str) -> Plan:
    path = folder / "study.yaml"
    path.write_text(study)
    return plan(load_spec(str(path)), lambda _: "fp32")


def compressions(found: Plan, seed: int = 0) -> list[str]:
    """The keys of the cells' compressions, in the order of the axis."""
    return [trial.path[-2] for trial in found.trials if trial.baseline is None and trial.seed == seed]


def record(found: Plan, key: str, epochs: dict[int, float], status: str = "paused") -> StageRecord:
    stage = found.stages[key]
    history = tuple({"epoch": float(n), "val_accuracy": value} for n, value in epochs.items())
    return StageRecord(
        key=key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status=status,  # pyright: ignore[reportArgumentType]
        busy_s=1.0, started_at=0.0, finished_at=0.0, history=history,
    )  # fmt: skip


class TestWhoStops:
    @pytest.fixture
    def found(self, tmp_path: Path) -> Plan:
        return planned(tmp_path, text())

    def keeper(self, found: Plan, rungs: Rungs | None = None) -> RungKeeper:
        keeper = RungKeeper(rungs or Rungs((Objective("val_accuracy", "max", 0.05),), (0.5,)))
        keeper.know(found)
        return keeper

    def test_the_first_at_a_rung_goes_on(self, found: Plan) -> None:
        first, *_ = compressions(found)
        assert self.keeper(found).reached(record(found, first, {4: 0.1}), {}) is None

    @pytest.mark.parametrize(("own", "stops"), [(0.84, True), (0.85, True), (0.86, False), (0.95, False)])
    def test_only_a_difference_of_the_margin_stops(self, found: Plan, own: float, stops: bool) -> None:
        first, second, _ = compressions(found)
        keeper = self.keeper(found)
        keeper.reached(record(found, first, {4: 0.9}), {})
        assert (keeper.reached(record(found, second, {4: own}), {}) is not None) == stops

    def test_a_trial_that_is_complete_is_compared_by_its_history(self, found: Plan) -> None:
        first, second, _ = compressions(found)
        done = record(found, first, {n: n / 10 for n in range(1, 9)}, "complete")
        reason = self.keeper(found).reached(record(found, second, {4: 0.3}), {first: done})
        assert reason is not None
        assert "at epoch 4 of 8" in reason
        assert "0.4 against 0.3" in reason
        assert self.keeper(found).reached(record(found, second, {4: 0.36}), {first: done}) is None

    def test_one_that_pauses_late_is_compared_at_the_same_rung(self, found: Plan) -> None:
        first, second, third = compressions(found)
        keeper = self.keeper(found)
        keeper.reached(record(found, first, {4: 0.9}), {})
        assert keeper.reached(record(found, second, {5: 0.8}), {}) is not None
        assert keeper.reached(record(found, third, {5: 0.87}), {}) is None

    def test_trials_of_other_seeds_are_not_compared(self, found: Plan) -> None:
        keeper = self.keeper(found)
        keeper.reached(record(found, compressions(found, seed=1)[0], {4: 0.9}), {})
        assert keeper.reached(record(found, compressions(found)[1], {4: 0.1}), {}) is None

    def test_a_trial_better_in_another_column_goes_on(self, tmp_path: Path) -> None:
        study = text().replace("compress.lr: [0.1, 0.0001, 0.0002]", "compress.pfr: [0.2, 0.4, 0.1]")
        found = planned(tmp_path, study)
        low, high, lowest = compressions(found)
        rungs = Rungs((Objective("val_accuracy", "max", 0.05), Objective("compress.pfr", "max")), (0.5,))
        keeper = self.keeper(found, rungs)
        keeper.reached(record(found, low, {4: 0.9}), {})
        assert keeper.reached(record(found, high, {4: 0.2}), {}) is None
        assert keeper.reached(record(found, lowest, {4: 0.8}), {}) is not None

    def test_successive_halving_keeps_its_share(self, tmp_path: Path) -> None:
        """Asynchronously: a score goes on if it is in the best half of those that came before, itself included."""
        ratios = [round(0.05 * n, 2) for n in range(1, 9)]
        found = planned(tmp_path, text().replace("compress.lr: [0.1, 0.0001, 0.0002]", f"compress.pfr: {ratios}"))
        keeper = self.keeper(found, Rungs((Objective("val_accuracy", "max"),), (0.5,), keep=0.5))
        scores = [0.5, 0.4, 0.6, 0.3, 0.7, 0.55, 0.2, 0.65]
        for number, (key, score) in enumerate(zip(compressions(found), scores, strict=True)):
            rank = sum(other > score for other in scores[:number])
            expected = number + 1 < 2 or rank < np.ceil((number + 1) / 2)
            assert (keeper.reached(record(found, key, {4: score}), {}) is None) == expected

    def test_rungs_are_epochs_that_are_still_to_come(self, found: Plan) -> None:
        first, *_ = compressions(found)
        keeper = self.keeper(found, Rungs((Objective("val_accuracy", "max"),), (0.3, 0.5, 0.99)))
        assert keeper.epochs(first) == (3, 4)
        keeper.reached(record(found, first, {3: 0.5}), {})
        assert keeper.epochs(first) == (4,)

    def test_baselines_never_pause(self, found: Plan) -> None:
        keeper = self.keeper(found)
        for trial in found.trials:
            if trial.baseline:
                assert not any(keeper.epochs(key) for key in trial.path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = Command(tmp_path_factory.mktemp("rungs"))
    command.study(text(), "r.yaml")
    command("sweep", "r.yaml", *SERIAL)
    return command


def test_a_beaten_trial_stops_and_says_why(stopped: Command) -> None:
    df = stopped.trials("r").query("role == 'cell'")
    early = df[df["status"] == "stopped"]
    assert set(early["compress.lr"]) <= {0.0001, 0.0002}
    assert len(early) >= 2
    assert early["error"].str.contains(r"stage compress: at epoch \d of 8, trial \w+ was better in val_accuracy").all()
    assert early["accuracy"].isna().all()
    assert (df.loc[df["compress.lr"] == 0.1, "status"] == "complete").all()
    assert set(stopped.trials("r").query("role == 'baseline'")["status"]) == {"complete"}


def test_a_stopped_trial_stays_stopped(stopped: Command) -> None:
    before = stopped.trials("r")
    assert "0 stages ran" in stopped("sweep", "r.yaml", *SERIAL)
    pd.testing.assert_frame_equal(stopped.trials("r"), before)


def test_another_study_goes_on_from_the_checkpoint_to_the_same_numbers(stopped: Command, tmp_path: Path) -> None:
    store = stopped.folder / "results" / ".store" / "checkpoints"
    waiting = {path.name for path in store.iterdir()}
    early = stopped.trials("r").query("status == 'stopped'")
    assert waiting == set(early["stage_keys.compress"])
    stopped.study(text("{name: grid}", "whole"), "whole.yaml")
    output = stopped("sweep", "whole.yaml", *SERIAL)
    assert f"{2 * len(early)} stages ran" in output, "the compressions that were stopped, and their evaluations"
    assert not any(store.iterdir())
    alone = Command(tmp_path)
    alone.study(text("{name: grid}", "whole"), "whole.yaml")
    alone("sweep", "whole.yaml", *SERIAL)
    columns = ["trial_id", "status", "accuracy", "val_accuracy", "compression"]
    pd.testing.assert_frame_equal(stopped.trials("whole")[columns], alone.trials("whole")[columns], check_exact=True)


FAULTS = {
    "{rungs: {at: [0.5]}}": "search.rungs.on: is required",
    "{rungs: {on: {val_accuracy: max}, at: [0.5, 0.2]}}": "must be rising shares of the epochs",
    "{rungs: {on: {val_accuracy: max}, at: [3]}}": "must be rising shares of the epochs",
    "{rungs: {on: {accuracy: max}, at: [0.5]}}": "search.rungs.on.accuracy: is not known at an epoch's end",
    "{rungs: {on: {compress.pfr: max}, at: [0.5]}}": "names nothing that an epoch shows",
    "{rungs: {on: {val_accuracy: max}, at: [0.5], keep: 2}}": "2 must be a share between 0 and 1",
    "{rungs: {on: {val_accuracy: max, loss: min}, at: [0.5], keep: 0.5}}": "ranks by one column",
    "{name: tpe, trials: 3, rungs: {on: {val_accuracy: max}, at: [0.5]}}": "tpe learns from whole trials",
    "{rungs: {on: {val_accuracy: min}, at: [0.5]}}": "contradicts the column table",
    "{rungs: {on: {val_accuracy: max, compress.pffr: max}, at: [0.5]}}": (
        "search.rungs.on.compress.pffr: is no config leaf; did you mean 'compress.pfr'?"
    ),
    "{rungs: {on: {val_accuracy: max, compress.score: max}, at: [0.5]}}": "compress.score: holds no number but one of",
    "{rungs: {on: {val_accuracy: max, compress.ratio: max}, at: [0.5]}}": "compress.ratio, which no trial of this",
}


@pytest.mark.parametrize("search", FAULTS)
def test_each_fault_of_the_rungs_is_told(tmp_path: Path, search: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text(search))
    with pytest.raises(SpecError) as caught:
        load_spec(str(path))
    assert FAULTS[search] in str(caught.value)


@pytest.mark.parametrize(
    ("epochs", "pfr", "share", "hopeless"),
    # masks of 3 epochs freeze before the third and have settled when it ends, which is the end; those of 4 before, too
    [(3, 0.2, 0.5, True), (3, 0.0, 0.5, False), (4, 0.2, 0.5, False), (2, 0.0, 0.75, True)],
)
def test_rungs_that_nobody_reaches_in_time_are_refused(
    tmp_path: Path, epochs: int, pfr: float, share: float, hopeless: bool
) -> None:
    study = text(f"{{rungs: {{on: {{val_accuracy: max}}, at: [{share}]}}}}")
    study = study.replace("pfr: 0.2, epochs: 8", f"pfr: {pfr}, epochs: {epochs}")
    if not hopeless:
        planned(tmp_path, study)
        return
    with pytest.raises(PlanError, match=r"search.rungs: no trial can stop: the first rung lies after epoch"):
        planned(tmp_path, study)


def test_a_record_of_a_stop_is_whole(stopped: Command) -> None:
    stages = stopped.stages("r")
    early = stages[stages["status"] == "stopped"]
    assert (early["busy_s"] > 0).all()
    assert set(StageRecord.__struct_fields__) >= {"status", "error", "busy_s"}
