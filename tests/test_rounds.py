"""Rounds of labelling as a plan sees them: how many, what they are expected to take, what they are compared with."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Command

from orchestrator.estimate import images_seen
from orchestrator.label_desk import settings_of
from trainables.config import MAX_ROUNDS, DataConfig, ModelConfig, SelectConfig, TrainConfig, TrialConfig, resolve
from trainables.keys import PathFinder, Stage


def config(**select: Any) -> TrialConfig:
    """A resolved trial on 270 training digits."""
    leaves: dict[str, Any] = {"budget": 90, "initial": 40, "query_sizes": (25,), "epochs": 2, **select}
    trial = TrialConfig(
        data=DataConfig(name="digits", train_size=300),
        select=SelectConfig(**leaves),
        model=ModelConfig(name="resnet8", width=4),
        train=TrainConfig(epochs=2, batch_size=32),
    )
    return resolve(trial, "fp32")


def rounds_of(trial: TrialConfig) -> list[Stage]:
    return [stage for stage in PathFinder().path(trial, 0) if stage.kind == "select"]


def of_mnist(budget: int) -> TrialConfig:
    select = SelectConfig(strategy="random", initial=100, query_sizes=(1,), budget=budget)
    return resolve(TrialConfig(data=DataConfig(name="mnist"), select=select, model=ModelConfig(name="resnet8")), "fp32")


def test_rounds_without_end_are_told_and_as_many_as_may_be_are_planned() -> None:
    with pytest.raises(
        ValueError, match=r"select.query_sizes: 2,001 rounds to the budget; at most 2,000: ask for more"
    ):
        of_mnist(100 + MAX_ROUNDS + 1)
    assert len(rounds_of(of_mnist(100 + MAX_ROUNDS))) == MAX_ROUNDS + 1


def test_rounds_are_counted_in_linear_time() -> None:
    started = time.process_time()
    assert len(SelectConfig(initial=1, query_sizes=(1,), budget=80_001).rounds()) == 80_000
    assert time.process_time() - started < 2, "a sum from the start in every round takes ten times as long"


@pytest.mark.parametrize("select", [{}, {"epochs": None}, {"schedule": "fast"}, {"proxy": "resnet8"},
                                    {"strategy": "random"}])  # fmt: skip
@pytest.mark.parametrize("change", [{"epochs": 5}, {"lr": 0.05}, {"schedule": "cosine"}, {"momentum": 0.8}, "model"])
def test_a_person_goes_on_with_labels_where_a_sweep_would_find_the_trajectory(
    select: Mapping[str, Any], change: Mapping[str, Any] | str
) -> None:
    def settings(config: TrialConfig) -> Mapping[str, Any]:
        desk: Any = SimpleNamespace(config=config, seed=0, device="cpu")
        return settings_of(desk)

    one = config(**select)
    update = {"model": one.model.model_copy(update={"width": 6})}
    if not isinstance(change, str):
        update = {"train": one.train.model_copy(update=change)}
    other = one.model_copy(update=update)
    assert (settings(one) == settings(other)) is (rounds_of(one)[-1].key == rounds_of(other)[-1].key)


def test_watching_for_forgetting_is_expected_to_read_the_pool_every_epoch() -> None:
    plain, watching = (images_seen(rounds_of(config(strategy=name))[-1]) for name in ("margin", "forgetting"))
    assert watching - plain == 2 * 270 // 3


EARLY = """\
study: early
base:
  data: {name: digits, train_size: 300}
  select: {initial: 40, query_sizes: [30], epochs: 1, patience: 1, min_gain: 0.99}
  model: {name: resnet8, width: 4}
  train: {epochs: 1, batch_size: 32}
axes:
  select.budget: [70, 130]
seeds: 1
"""


def test_chance_with_more_labels_is_no_comparison(tmp_path: Path) -> None:
    command = Command(tmp_path, {"OMP_NUM_THREADS": "1"})
    command("sweep", command.study(EARLY, "early.yaml"), "--runner", "serial")
    df = command.trials("early")
    cells = df[df["role"] == "cell"].set_index("select.budget").sort_index()
    assert cells["labels"].tolist() == [70] * len(cells), "asking ended after the first round"
    chance = df[df["baseline"] == "random"]
    assert set(chance["labels"]) == {70, 130}
    assert cells.loc[70, ["random_accuracy", "random_accuracy_gain"]].notna().all().all()
    assert cells.loc[130, ["random_accuracy", "random_accuracy_gain"]].isna().all().all()
    assert cells["all_labels_accuracy"].notna().all()
    assert (chance["random_accuracy"] == chance["accuracy"]).all()
