import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from orchestrator.layout import Layout
from orchestrator.ledger import replay as replayed
from trainables.active import network as networks
from trainables.active import trajectory
from trainables.active.memory import replay
from trainables.active.network import FlipCounter, ReadNetwork
from trainables.active.rounds import advance, start
from trainables.active.scoring import Reading
from trainables.config import (
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    SelectConfig,
    TrainConfig,
    TrialConfig,
    resolve,
)
from trainables.data.load import Dataset, Split
from trainables.errors import DivergedError, TrialError
from trainables.export import compact
from trainables.keys import PathFinder, Stage
from trainables.models.build import build, initialise
from trainables.stages import Outcome, run_stage
from trainables.training.loop import Settings, fit, predict
from trainables.training.randomness import generator
from trainables.training.schedules import fast


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config(budget: int = 90, model: Mapping[str, Any] | None = None, **select: Any) -> TrialConfig:
    """A resolved trial on 270 training digits."""
    leaves: dict[str, Any] = {"initial": 40, "query_sizes": (25,), "epochs": 2, "strategy": "least_confidence"} | select
    network: dict[str, Any] = {"name": "resnet8", "width": 4, **(model or {})}
    trial = TrialConfig(
        data=DataConfig(name="digits", train_size=300),
        select=SelectConfig(budget=budget, **leaves),
        model=ModelConfig(**network),
        train=TrainConfig(epochs=2, batch_size=32),
        compress=FinetuneConfig(epochs=1),
    )
    return resolve(trial, "fp32")


def run(trial: TrialConfig, data: Dataset, seed: int = 0) -> dict[str, list[Outcome]]:
    outcomes: dict[str, list[Outcome]] = {}
    artifact: bytes | None = None
    for stage in PathFinder().path(trial, seed):
        outcome = run_stage(stage, data, artifact)
        artifact = outcome.artifact
        outcomes.setdefault(stage.kind, []).append(outcome)
    return outcomes


def labelled(outcomes: Mapping[str, list[Outcome]]) -> Tensor:
    return trajectory.load(outcomes["select"][-1].artifact).labelled


def rounds_of(trial: TrialConfig, seed: int = 0) -> list[Stage]:
    return [stage for stage in PathFinder().path(trial, seed) if stage.kind == "select"]


# --- the chain of rounds --------------------------------------------------------------------------------------------


def test_budgets_are_points_of_one_trajectory() -> None:
    small, large = rounds_of(config(60)), rounds_of(config(110))
    assert [stage.key for stage in large[: len(small)]] == [stage.key for stage in small]
    assert [len(stage.config.select.rounds()) for stage in large if stage.config.select] == [0, 1, 2, 3]


def test_a_budget_inside_a_round_takes_that_round_whole_and_the_head_of_its_query(data: Dataset) -> None:
    inside, whole = run(config(70), data), run(config(90), data)
    assert labelled(inside).tolist() == labelled(whole).tolist()
    seen = compact.labelled(inside["train"][0].artifact)
    assert seen is not None
    assert seen.tolist() == labelled(inside)[:70].tolist()
    assert inside["train"][0].metrics["labels"] == 70
    assert rounds_of(config(70))[-1].key == rounds_of(config(90))[-1].key
    assert PathFinder().path(config(70), 0)[-1].key != PathFinder().path(config(90), 0)[-1].key


def test_the_last_query_size_repeats_and_its_repetition_changes_no_key() -> None:
    one = [stage.key for stage in rounds_of(config(115, query_sizes=(25,)))]
    assert one == [stage.key for stage in rounds_of(config(115, query_sizes=(25, 25, 25)))]
    assert one[:2] == [stage.key for stage in rounds_of(config(115, query_sizes=(25, 50)))][:2]
    assert config(115, query_sizes=(25, 50)).select.rounds() == (25, 50)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"strategy": "margin"}, False),
        ({"replay_ratio": 1.0}, False),
        ({"epochs": 3}, False),
        ({"schedule": "fast"}, False),
        ({"proxy": "resnet8"}, False),
        ({"pool_cap": 50}, False),
        ({"oversample": 2.0}, False),
        ({"locked_classes": 2}, False),
        ({"patience": 3}, False),
        ({"dropout": 0.5}, True),  # bald's alone
        ({"passes": 3}, True),
        ({"proxy_width": 6}, True),  # there is no proxy
        ({"proxy_image_size": 12}, True),
        ({"unlock_at": 0.5}, True),
        ({"min_gain": 0.1}, True),
    ],
)
def test_what_shapes_a_trajectory_is_in_its_key_and_nothing_else(change: Mapping[str, Any], same: bool) -> None:
    assert (rounds_of(config())[-1].key == rounds_of(config(**change))[-1].key) is same


@pytest.mark.parametrize(
    ("switch", "leaf"),
    [
        ({"proxy": "resnet8"}, {"proxy_width": 6}),
        ({"proxy": "resnet8"}, {"proxy_image_size": 12}),
        ({"strategy": "bald"}, {"dropout": 0.5}),
        ({"strategy": "bald"}, {"passes": 3}),
        ({"locked_classes": 2}, {"unlock_at": 0.5}),
        ({"patience": 3}, {"min_gain": 0.1}),
        ({"strategy": "random", "patience": 3}, {"epochs": 3}),
        ({"strategy": "random", "patience": 3}, {"replay_ratio": 1.0}),
    ],
)
def test_leaves_of_a_switch_that_is_on_are_in_the_key(switch: Mapping[str, Any], leaf: Mapping[str, Any]) -> None:
    assert rounds_of(config(**switch))[-1].key != rounds_of(config(**switch, **leaf))[-1].key


def test_chance_asks_no_network_and_a_proxy_not_the_model() -> None:
    wider = {"width": 6}
    assert rounds_of(config())[-1].key != rounds_of(config(model=wider))[-1].key
    chosen: list[dict[str, Any]] = [{"strategy": "random"}, {"proxy": "resnet8"}]
    for select in chosen:
        assert rounds_of(config(**select))[-1].key == rounds_of(config(model=wider, **select))[-1].key


def test_leaves_of_train_that_the_rounds_do_not_read_leave_their_keys() -> None:
    def key(train: Mapping[str, Any], **select: Any) -> str:
        base = config(**select)
        return rounds_of(base.model_copy(update={"train": base.train.model_copy(update=train)}))[-1].key

    assert key({"epochs": 5}) == key({"epochs": 7})
    assert key({"epochs": 5}, epochs=None) != key({"epochs": 7}, epochs=None)
    assert key({"lr": 0.05}) != key({"lr": 0.1})
    assert key({"lr": 0.05}, schedule="fast") == key({"lr": 0.1}, schedule="fast")


# --- what is labelled -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "select",
    [
        {},
        {"replay_ratio": 1.0, "schedule": "fast"},
        {"proxy": "resnet8", "proxy_width": 3, "proxy_image_size": 12},
        {"strategy": "bald"},
        {"strategy": "forgetting"},
        {"strategy": "badge", "pool_cap": 60},
        {"strategy": "random"},
    ],
)
def test_labelled_images_differ_and_equal_seeds_give_equal_ones(data: Dataset, select: Mapping[str, Any]) -> None:
    first, again, other = (labelled(run(config(**select), data, seed)) for seed in (0, 0, 1))
    assert len(first) == 90
    assert len(first.unique()) == 90
    assert 0 <= int(first.min()) <= int(first.max()) < len(data.train)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("select", [{}, {"strategy": "badge", "replay_ratio": 1.0}, {"strategy": "forgetting"}])
def test_what_is_asked_for_depends_on_no_image_held_out(data: Dataset, select: Mapping[str, Any]) -> None:
    def other(split: Split) -> Split:
        return Split(255 - split.images, (split.labels + 1) % 10)

    trial = config(**select)
    chosen = run(trial, data)["select"][-1]
    untested = run(trial, replace(data, test=other(data.test)))["select"][-1]
    assert untested.artifact == chosen.artifact
    unvalidated = run(trial, replace(data, val=other(data.val)))["select"][-1]
    assert torch.equal(trajectory.load(unvalidated.artifact).labelled, trajectory.load(chosen.artifact).labelled)


def test_every_strategy_begins_with_the_same_draw(data: Dataset) -> None:
    drawn = {
        name: start(config(strategy=name), 3, data).after.labelled.tolist()
        for name in ("random", "badge", "least_confidence")
    }
    assert drawn["random"] == drawn["badge"] == drawn["least_confidence"]
    assert drawn["random"] != start(config(), 4, data).after.labelled.tolist()


def test_a_round_asks_for_the_least_confident_of_what_is_unlabelled(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Any] = []
    read = networks.read_pool

    def spy(model: Any, *arguments: Any, **more: Any) -> Reading:
        models.append(model)
        return read(model, *arguments, **more)

    monkeypatch.setattr(networks, "read_pool", spy)
    before = start(config(), 0, data).after
    after = advance(config(65), 0, data, "cpu", before).after
    confidence = predict(models[0], data.train, data).softmax(1).amax(1)
    confidence[before.labelled] = 2.0
    assert sorted(after.newest.tolist()) == sorted(confidence.argsort(stable=True)[:25].tolist())
    assert torch.equal(after.labelled[:40], before.labelled)


def test_the_target_and_its_compression_see_labelled_images_alone(data: Dataset) -> None:
    spoiled = data.train.labels.clone()
    outcomes = run(config(), data)
    hidden = torch.ones(len(data.train), dtype=torch.bool)
    hidden[labelled(outcomes)[:90]] = False
    spoiled[hidden] = (spoiled[hidden] + 1) % 10
    other = replace(data, train=replace(data.train, labels=spoiled))
    again = run(config(), other)
    assert again["train"][0].artifact == outcomes["train"][0].artifact
    assert again["compress"][0].artifact == outcomes["compress"][0].artifact


def test_fewer_labels_than_a_batch_are_one_batch(data: Dataset) -> None:
    assert run(config(20, initial=20), data)["train"][0].metrics["labels"] == 20


# --- memory ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(1, 30), st.floats(0, 3), st.integers(0, 9))
def test_replay_is_all_that_is_new_and_some_old_images_once(older: int, newest: int, ratio: float, seed: int) -> None:
    old, new = torch.arange(older), torch.arange(100, 100 + newest)
    found = replay(old, new, ratio, torch.Generator().manual_seed(seed))
    assert len(found.unique()) == len(found) == newest + min(older, round(ratio * newest))
    assert set(new.tolist()) <= set(found.tolist()) <= set(old.tolist()) | set(new.tolist())
    assert len(replay(old, new, 1e308, torch.Generator())) == older + newest


def test_with_memory_a_round_goes_on_from_the_last_one_at_constant_cost(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counting(model: Any, images: Dataset, *arguments: Any, **more: Any) -> Any:
        seen.append(len(images.train))
        return fit(model, images, *arguments, **more)

    monkeypatch.setattr("trainables.active.rounds.fit", counting)
    with_memory = run(config(140, replay_ratio=1.0), data)
    assert seen == [40, 50, 50, 50, 140][: len(seen)]
    assert trajectory.load(with_memory["select"][-1].artifact).network
    seen.clear()
    from_scratch = run(config(140), data)
    assert seen == [40, 65, 90, 115, 140][: len(seen)]
    assert not trajectory.load(from_scratch["select"][-1].artifact).network


def test_the_fast_schedule_is_the_published_one() -> None:
    rates = [fast(step, 101, 0.2) for step in range(101)]
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.01, 0.2, 0.001))
    assert rates.index(max(rates)) == 30


# --- scenarios ------------------------------------------------------------------------------------------------------


def test_locked_classes_are_not_asked_for_until_enough_is_labelled(data: Dataset) -> None:
    trial = config(190, strategy="random", locked_classes=5, unlock_at=0.4)  # 108 of 270
    asked = data.train.labels[labelled(run(trial, data))]
    early, late = asked[:115], asked[115:]
    assert len(early.unique()) == 5
    assert len(late.unique()) > 5


def test_locked_classes_open_where_the_others_have_too_few_left(data: Dataset) -> None:
    trial = config(170, strategy="random", locked_classes=6, unlock_at=1.0)  # four classes have some 108 of 270
    asked = data.train.labels[labelled(run(trial, data))]
    assert len(asked[:90].unique()) == 4
    assert len(asked.unique()) == 10


def test_asking_ends_on_a_plateau_and_later_rounds_change_nothing(data: Dataset) -> None:
    outcomes = run(config(190, patience=1, min_gain=0.99), data)
    stopped = [trajectory.load(outcome.artifact).stopped for outcome in outcomes["select"]]
    assert stopped == sorted(stopped)
    assert stopped[-1]
    first = stopped.index(True)
    assert {outcome.artifact for outcome in outcomes["select"][first:]} == {outcomes["select"][first].artifact}
    assert outcomes["train"][0].metrics["labels"] == len(labelled(outcomes)) < 190


@pytest.mark.parametrize(
    ("accuracies", "rounds"),
    [
        ([0.5, 0.53, 0.56, 0.9], 3),  # small gains do not add up to one
        ([0.5, 0.53, 0.5625, 0.5, 0.62, 0.9], 5),  # a gain of min_gain counts, against the best and not the last
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.7, 0.7], 7),
    ],
)
def test_as_many_rounds_without_a_gain_as_patience_says_end_it(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, accuracies: list[float], rounds: int
) -> None:
    scripted = iter(accuracies)
    monkeypatch.setattr("trainables.active.rounds._Turn._validated", lambda *_: next(scripted))
    trial = config(270, strategy="random", initial=10, query_sizes=(5,), patience=2, min_gain=0.0625, epochs=1)
    after = start(trial, 0, data).after
    while not after.stopped:
        after = advance(trial, 0, data, "cpu", after).after
    assert len(after.sizes) == rounds + 1
    assert after.best == max(accuracies[: rounds - 2])


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ({"budget": 39}, "select.budget 39 is less than the 40 labels of the initial draw (select.initial)"),
        ({"budget": 271}, "select.budget 271 is more than the 270 training images of the pool"),
        ({"budget": 270, "query_sizes": (100,)}, "the last round asks for 100 images and 30 are left of the 270"),
        (
            {"pool_cap": 25},
            "select.pool_cap 25 leaves no choice to a round that asks for 25 images: chance would choose",
        ),
        ({"locked_classes": 10}, "select.locked_classes 10 leaves none of the 10 classes to ask for"),
    ],
)
def test_impossible_selections_are_told(select: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(").replace(")", r"\)")):
        config(**select)


def test_chance_and_rounds_that_are_never_reached_need_no_cap() -> None:
    assert config(pool_cap=25, strategy="random").select is not None
    assert config(pool_cap=26, query_sizes=(25, 25, 60)).select is not None


def test_scores_that_are_no_numbers_name_the_round(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(_: Any, images: Tensor, *__: Any, **___: Any) -> Reading:
        return Reading(torch.full((len(images), 10), float("nan")), None)

    monkeypatch.setattr(networks, "read_pool", spoiled)
    with pytest.raises(
        DivergedError, match="round 1 of labelling: the selection network gives scores that are no numbers"
    ):
        run(config(), data)


def exploding() -> TrainConfig:
    return TrainConfig(epochs=1, batch_size=8, lr=1e6, momentum=0.9999, weight_decay=1e4, precision="fp32")


def test_a_round_that_diverges_names_itself_and_the_leaf_to_change(data: Dataset) -> None:
    with pytest.raises(DivergedError, match=r"round 1 of labelling: the loss became .* select.schedule fast; with"):
        run(config(schedule="fast", epochs=4).model_copy(update={"train": exploding()}), data)
    with pytest.raises(DivergedError, match=r"round 1 of labelling: the loss became .* than [\d.e+]+$"):
        run(config(epochs=4).model_copy(update={"train": exploding()}), data)


def test_validation_logits_that_are_no_numbers_are_told(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(*_: Any, **__: Any) -> Tensor:
        return torch.full((30, 10), float("nan"))

    monkeypatch.setattr("trainables.active.rounds.predict", spoiled)
    with pytest.raises(DivergedError, match="round 1 of labelling: the logits of validation images are no numbers"):
        run(config(strategy="random", patience=3), data)


def test_a_trajectory_holds_no_times(data: Dataset) -> None:
    """Two sweeps that make the same round at once must leave the same bytes: a child asks for its parent's sum."""
    first, second = (run(config(replay_ratio=1.0), data) for _ in range(2))
    assert [o.artifact for o in first["select"]] == [o.artifact for o in second["select"]]


def test_dropout_is_drawn_anew_in_each_round_and_from_the_seed(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def noting(*arguments: Any, **more: Any) -> Any:
        drawn.append(float(torch.rand(())))  # what the first layer that draws would draw
        return fit(*arguments, **more)

    monkeypatch.setattr("trainables.active.rounds.fit", noting)
    first = advance(config(65), 0, data, "cpu", start(config(), 0, data).after).after
    advance(config(90), 0, data, "cpu", first)
    advance(config(65), 1, data, "cpu", start(config(), 1, data).after)
    advance(config(65), 0, data, "cpu", start(config(), 0, data).after)
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]


@pytest.mark.parametrize("damage", [b"", b"no trajectory", b"\x08" + bytes(30)])
def test_a_damaged_trajectory_is_told(damage: bytes) -> None:
    with pytest.raises(TrialError, match="a stored trajectory of"):
        trajectory.load(damage)


# --- the network ----------------------------------------------------------------------------------------------------


def test_images_are_read_once(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = networks.read_pool

    def counting(model: Any, images: Tensor, *arguments: Any, **more: Any) -> Reading:
        read.append(len(images))
        return plain(model, images, *arguments, **more)

    monkeypatch.setattr(networks, "read_pool", counting)
    model = build(ModelConfig(name="resnet8", width=4), 1, 10)
    initialise(model, generator(0, "init"))
    network = ReadNetwork(model, data, device="cpu", precision="fp32", features=True, dropout=0.5, flips=None)
    some = torch.tensor([5, 3, 9])
    expected = predict(model, data.train.subset(some), data)
    assert torch.allclose(network.logits(some), expected, atol=1e-5)
    assert network.features(torch.tensor([3, 7])).shape == (2, 16)
    assert torch.allclose(network.logits(torch.tensor([9, 5])), expected[[2, 0]], atol=1e-5)
    assert read == [3, 1]


def test_dropout_has_the_logits_as_its_mean(data: Dataset) -> None:
    model = build(ModelConfig(name="resnet8", width=4), 1, 10)
    initialise(model, generator(0, "init"))
    network = ReadNetwork(model, data, device="cpu", precision="fp32", features=True, dropout=0.3, flips=None)
    indices = torch.arange(20)
    drawn = network.dropout_logits(indices, 4000, torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 20, 10)
    spread = drawn.std(0) / 4000**0.5
    assert bool(((drawn.mean(0) - network.logits(indices)).abs() <= 5 * spread + 1e-5).all())
    assert bool((drawn.std(0) > 0).all())


def test_flips_count_changes_of_the_predicted_class(data: Dataset) -> None:
    model = build(ModelConfig(name="resnet8", width=4), 1, 10)
    initialise(model, generator(0, "init"))
    counter = FlipCounter(data, "cpu", "fp32")
    expected = torch.zeros(len(data.train), dtype=torch.int64)
    last: Tensor | None = None
    for epoch in range(3):
        counter.after_epoch(model, epoch, 3)
        predicted = predict(model, data.train, data).argmax(1)
        expected += torch.zeros_like(expected) if last is None else (predicted != last).long()
        last = predicted
        fit(model, data, SETTINGS, epoch)
    assert torch.equal(counter.flips, expected)
    assert int(expected.sum()) > 0


SETTINGS = Settings(
    epochs=1, lr=0.1, momentum=0.9, weight_decay=5e-4, batch_size=32, schedule="fast", label_smoothing=0.0,
    precision="fp32", augment="none", device="cpu",
)  # fmt: skip


def test_training_without_validation_is_the_same_training(data: Dataset) -> None:
    weights: list[dict[str, Tensor]] = []
    for validate in (True, False):
        model = build(ModelConfig(name="resnet8", width=4), 1, 10)
        initialise(model, generator(0, "init"))
        records = fit(model, data, SETTINGS, 0, validate=validate)
        assert ("val_accuracy" in records[0]) is validate
        weights.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


# --- as a study -----------------------------------------------------------------------------------------------------

STUDY = """\
# How many labels?
study: labels
base:
  data: {name: digits, train_size: 300}
  select: {initial: 40, query_sizes: [30], epochs: 2, replay_ratio: 1, schedule: fast}
  model: {name: resnet8, width: 4}
  train: {epochs: 2, batch_size: 32}
  compress: {method: stq, pfr: 0.25, epochs: 1}
axes:
  select.budget: [70, 130]
  compress.pfr: [0, 0.25]
seeds: 1
objectives: {accuracy: max, labels: min}
"""


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = Command(tmp_path_factory.mktemp("labels"), {"OMP_NUM_THREADS": "1"})
    command("sweep", command.study(STUDY, "labels.yaml"), "--runner", "serial")
    return command


def test_labels_and_pruning_are_one_grid(labels: Command) -> None:
    df = labels.trials("labels")
    cells = df[df["role"] == "cell"]
    assert sorted(cells["labels"]) == [70, 70, 130, 130]
    assert (cells["select_s"] > 0).all()
    assert (cells["wall_time_s"] > cells["select_s"]).all()
    by_budget = cells.groupby("labels")["select_s"].first()
    assert by_budget[70] < by_budget[130]
    assert cells.groupby("labels")["stage_keys.train"].nunique().tolist() == [1, 1]


def test_chance_and_all_labels_are_always_beside(labels: Command) -> None:
    df = labels.trials("labels")
    assert set(df["baseline"].dropna()) == {"dense", "dense_finetuned", "binary", "random", "all_labels"}
    cells = df[df["role"] == "cell"]
    gain = cells["accuracy"] - cells["random_accuracy"]
    assert cells["random_accuracy_gain"].tolist() == pytest.approx(gain.tolist())
    everything = df[df["baseline"] == "all_labels"]
    assert everything["labels"].isna().all()
    assert everything["select_s"].isna().all()
    assert cells["all_labels_accuracy"].isin(everything["accuracy"]).all()


def test_rounds_stand_in_the_history(labels: Command) -> None:
    import pandas as pd

    history = pd.read_parquet(labels.folder / "results" / "labels" / "_history.parquet")
    rounds = history[(history["stage"] == "select") & (history["round_train_s"] > 0)].sort_values("round")
    assert rounds["round"].tolist() == [1, 2, 3]
    assert rounds["labels"].tolist() == [70, 100, 130]
    assert rounds["candidates"].tolist() == [230, 200, 170]
    assert rounds["val_accuracy"].notna().all()


def test_a_larger_budget_runs_the_added_rounds_alone(labels: Command) -> None:
    path = labels.study(STUDY.replace("[70, 130]", "[70, 130, 160]"), "more.yaml")
    planned = labels("plan", path)
    (line,) = (line for line in planned.splitlines() if line.startswith("│ select"))
    in_all, to_run, cached = (int(cell) for cell in line.split("│")[2:5])
    assert (to_run, cached) == (2, in_all - 2)  # one round of the strategy, and one of chance


LONG = """\
study: long
base:
  data: {name: digits, train_size: 400}
  select: {initial: 40, query_sizes: [10], budget: 140, epochs: 20, strategy: badge, replay_ratio: 1, schedule: fast}
  model: {name: resnet8, width: 8}
  train: {epochs: 1, batch_size: 16}
seeds: 1
"""


def times(command: Command) -> dict[str, float]:
    """When each finished stage began."""
    records = replayed(Layout(command.folder / "results").ledger).records
    return {key: record.started_at for key, record in records.items()}


def stored(command: Command) -> list[trajectory.Trajectory]:
    """What is on disk of the trajectory, shortest first."""
    records = replayed(Layout(command.folder / "results").ledger).records.values()
    store = Layout(command.folder / "results").artifacts
    rounds = [record for record in records if record.kind == "select" and record.config.get("query")]
    own = [record for record in rounds if record.metrics["select_train_s"]]
    found = [trajectory.load(store.path(record.key).read_bytes()) for record in own]
    return sorted(found, key=lambda one: len(one.labelled))


def test_a_trajectory_killed_five_times_is_the_one_that_ran_through(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    threads = {"OMP_NUM_THREADS": "1"}
    killed, whole = Command(tmp_path, threads), Command(tmp_path_factory.mktemp("whole"), threads)
    path = killed.study(LONG, "long.yaml")
    for goal in (1, 2, 4, 6, 8):
        process = killed.start("sweep", path, "--runner", "serial")
        deadline = time.monotonic() + 60
        while len(stored(killed)) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, "it was to be killed in the middle"
        process.kill()
        process.communicate()
    before = times(killed)
    killed("sweep", path, "--runner", "serial")
    whole("sweep", whole.study(LONG, "long.yaml"), "--runner", "serial")
    first, second = stored(killed)[-1], stored(whole)[-1]
    assert len(before) >= 8
    assert torch.equal(first.labelled, second.labelled)
    assert all(torch.equal(first.network[name], second.network[name]) for name in second.network)
    assert before.items() <= times(killed).items(), "no round is run twice"
