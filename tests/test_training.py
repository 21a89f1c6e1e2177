import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trainables.config import DataConfig, ModelConfig, TrialConfig, resolve
from trainables.data.load import Dataset, load, normalise
from trainables.errors import DivergedError, InfeasibleError
from trainables.methods.base import Method
from trainables.models.build import build, initialise
from trainables.training import augment, probe
from trainables.training.loop import Hooks, Settings, accuracy, fit, predict
from trainables.training.randomness import generator
from trainables.training.schedules import SCHEDULES, cosine, onecycle
from trainables.training.sgd import Sgd

SETTINGS = Settings(
    epochs=2,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    batch_size=64,
    schedule="onecycle",
    label_smoothing=0.0,
    precision="fp32",
    augment="none",
    device="cpu",
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    config = TrialConfig(data=DataConfig(name="digits"), model=ModelConfig(name="resnet8"))
    return load(resolve(config, "fp32").data, 0, Path("unused"))


@pytest.fixture
def few(digits: Dataset) -> Dataset:
    """The first 300 training images."""
    return replace(digits, train=digits.train.subset(torch.arange(300)))


def network(width: int = 8, seed: int = 0) -> nn.Module:
    model = build(ModelConfig(name="resnet8", width=width), 1, 10)
    initialise(model, generator(seed, "init"))
    return model


def trained(data: Dataset, seed: int = 0, hooks: Hooks | None = None, **leaves: float | str) -> dict[str, Tensor]:
    model = network()
    fit(model, data, replace(SETTINGS, **leaves), seed, hooks)
    return model.state_dict()


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_digits_are_learnt(digits: Dataset) -> None:
    model = network(width=16)
    records = fit(model, digits, replace(SETTINGS, epochs=4), seed=0)
    assert records[-1]["val_accuracy"] >= 0.95
    assert accuracy(model, digits.test, digits) >= 0.93
    assert records[-1]["loss"] < records[0]["loss"] / 5


def test_bfloat16_learns_and_keeps_fp32_weights(digits: Dataset) -> None:
    model = network()
    records = fit(model, digits, replace(SETTINGS, epochs=4, precision="bf16"), seed=0)
    assert records[-1]["val_accuracy"] >= 0.9
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not equal(model.state_dict(), trained(digits, epochs=4))
    assert predict(model, digits.val, digits).dtype == torch.float32


def test_records_hold_what_is_promised(few: Dataset) -> None:
    records = fit(network(), few, SETTINGS, seed=0)
    steps = 2 * (300 // 64)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["lr"] for record in records] == [onecycle(step, steps, 0.1) for step in (steps // 2 - 1, steps - 1)]
    assert all(set(record) == {"epoch", "loss", "lr", "val_accuracy", "images_per_s"} for record in records)


@pytest.mark.parametrize(("augmented", "precision"), [("none", "fp32"), ("shift", "fp32"), ("crop_flip", "bf16")])
def test_same_seed_gives_the_same_bits_whatever_the_global_generator(
    few: Dataset, augmented: str, precision: str
) -> None:
    first = trained(few, augment=augmented, precision=precision)
    torch.rand(17)
    before = torch.random.get_rng_state()
    assert equal(first, trained(few, augment=augmented, precision=precision))
    assert torch.equal(before, torch.random.get_rng_state())


def test_seed_changes_the_order_alone(few: Dataset) -> None:
    assert not equal(trained(few, seed=0), trained(few, seed=1))
    # One batch of everything: the order within it changes sums by rounding only.
    first, second = (trained(few, seed=seed, batch_size=300) for seed in (0, 1))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_augmentation_draws_do_not_move_the_batches(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trained(few)

    def draw_and_discard(images: Tensor, source: torch.Generator) -> Tensor:
        torch.rand(100, generator=source)
        return images

    monkeypatch.setitem(augment.AUGMENTATIONS, "shift", draw_and_discard)
    assert equal(plain, trained(few, augment="shift"))


def reference_fit(model: nn.Module, data: Dataset, settings: Settings, seed: int) -> None:
    """The loop as one would write it down, image by image order, with torch.optim.SGD."""
    decayed = [p for name, p in model.named_parameters() if name.endswith("weight") and "bn" not in name]
    others = [p for name, p in model.named_parameters() if not (name.endswith("weight") and "bn" not in name)]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1, momentum=settings.momentum, nesterov=True)
    order, steps = generator(seed, "batches"), len(data.train) // settings.batch_size
    model.train()
    for epoch in range(settings.epochs):
        images = torch.randperm(len(data.train), generator=order).tolist()
        for step in range(steps):
            batch = images[step * settings.batch_size : (step + 1) * settings.batch_size]
            pixels = (data.train.images[batch] / 255 - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
            for group in optimizer.param_groups:
                group["lr"] = onecycle(epoch * steps + step, settings.epochs * steps, settings.lr)
            criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            criterion(model(pixels), data.train.labels[batch]).backward()
            optimizer.step()


def test_loop_equals_the_plain_one(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, label_smoothing=0.1, lr=0.02, weight_decay=0.05)
    expected = network()
    reference_fit(expected, few, settings, seed=3)
    for chunk in (1, 1 << 20):  # images prepared batch by batch, and all at once
        monkeypatch.setattr("trainables.training.loop.CHUNK_BYTES", {"cpu": chunk})
        model = network()
        fit(model, few, settings, seed=3)
        torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torchs(momentum: float) -> None:
    ours, theirs = network(), network()
    decayed, others = ([p for p in theirs.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=momentum, nesterov=momentum > 0, foreach=False)
    optimizer = Sgd(ours.parameters(), momentum, 0.01)
    source = generator(0, "calibration")
    for lr in (0.1, 0.05, 0.2):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=source)
            other.grad = mine.grad.clone()
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
        optimizer.step(lr)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_sgd_leaves_parameters_without_gradient_alone() -> None:
    frozen, unused, used = (nn.Parameter(torch.ones(2, 2), requires_grad=kind > 0) for kind in range(3))
    optimizer = Sgd([frozen, unused, used], 0.9, 0.1)
    used.grad = torch.ones(2, 2)
    optimizer.step(0.5)
    assert torch.equal(frozen, torch.ones(2, 2))
    assert torch.equal(unused, torch.ones(2, 2))
    # v = 1 + 0.1; w = 1 - 0.5 (1.1 + 0.9 x 1.1)
    torch.testing.assert_close(used.detach(), torch.full((2, 2), 1 - 0.5 * (1.1 + 0.9 * 1.1)))


def test_velocities_stay_with_the_parameters_that_stay() -> None:
    kept, gone, new = (nn.Parameter(torch.ones(2, 2)) for _ in range(3))
    before = Sgd([kept, gone], 0.9, 0.0)
    kept.grad = gone.grad = torch.ones(2, 2)
    before.step(0.1)
    after = Sgd([new, kept], 0.9, 0.0, before)
    assert not bool(after.speeds()[new].any())
    assert torch.equal(after.speeds()[kept], torch.ones(2, 2))
    assert before.moves([gone, kept])
    assert not before.moves([new, kept])


class Recorder(Method):
    def __init__(self, weight: float = 0.0) -> None:
        self.calls: list[str] = []
        self.weight = weight

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        self.calls.append(f"before {epoch}/{epochs}")

    def loss(self, model: nn.Module, images: Tensor, logits: Tensor, task: Tensor) -> Tensor:
        assert len(images) == len(logits)
        self.calls.append("loss")
        return task + self.weight * model.get_parameter("classifier.weight").square().sum() if self.weight else task

    def after_step(self, model: nn.Module, lr: float) -> None:
        self.calls.append("step")

    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        self.calls.append(f"after {epoch}/{epochs}")


def test_hooks_are_called_in_order_and_alone_change_nothing(few: Dataset) -> None:
    recorder = Recorder()
    assert equal(trained(few), trained(few, hooks=recorder))
    steps = ["loss", "step"] * (300 // 64)
    assert recorder.calls == ["before 0/2", *steps, "after 0/2", "before 1/2", *steps, "after 1/2"]


def test_the_loss_of_a_hook_is_minimised(few: Dataset) -> None:
    plain, pulled = (trained(few, hooks=Recorder(weight))["classifier.weight"].norm() for weight in (0.0, 3.0))
    assert pulled < plain / 4


def test_diverged_loss_names_the_epoch(few: Dataset) -> None:
    class Poison(Method):
        def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
            if epoch == 1:
                nn.init.constant_(model.get_parameter("classifier.bias"), math.inf)

    with pytest.raises(DivergedError, match=r"the loss became nan in epoch 2 of 5; try a smaller lr than 0\.1"):
        fit(network(), few, replace(SETTINGS, epochs=5), seed=0, hooks=Poison())


def test_weights_spoilt_by_the_last_step_are_divergence(few: Dataset) -> None:
    class Poison(Method):
        def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
            nn.init.constant_(model.get_parameter("classifier.bias"), math.nan)

    with pytest.raises(DivergedError, match="logits of validation images are not finite in epoch 1 of 1"):
        fit(network(), few, replace(SETTINGS, epochs=1), seed=0, hooks=Poison())


def test_huge_rate_diverges(few: Dataset) -> None:
    with pytest.raises(DivergedError, match="try a smaller lr"):
        fit(network(), few, replace(SETTINGS, lr=1e30), seed=0)


def test_fewer_images_than_a_batch_are_refused(few: Dataset) -> None:
    with pytest.raises(InfeasibleError, match="300 training images are less than one batch of 301"):
        fit(network(), few, replace(SETTINGS, batch_size=301), seed=0)


def test_prediction_is_the_networks_in_eval_mode(digits: Dataset) -> None:
    model = network().train()
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    logits = predict(model, digits.test, digits, batch_size=100)
    assert model.training
    assert equal(saved, model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(normalise(digits.test.images, digits)))
    hits = [int(row.argmax()) == int(label) for row, label in zip(logits, digits.test.labels, strict=True)]
    assert accuracy(model, digits.test, digits) == sum(hits) / 360


@given(st.integers(1, 400), st.floats(1e-4, 10))
def test_schedules_stay_between_0_and_the_largest_rate(steps: int, lr: float) -> None:
    for schedule in SCHEDULES.values():
        rates = [schedule(step, steps, lr) for step in range(steps)]
        assert all(0 <= rate <= lr * (1 + 1e-9) for rate in rates)
        top = rates.index(max(rates))
        assert all(a <= b + 1e-12 for a, b in pairwise(rates[: top + 1]))
        assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))


def test_schedules_have_their_closed_forms() -> None:
    rates = [onecycle(step, 101, 2.0) for step in range(101)]
    assert (rates[0], rates[30], rates[100]) == pytest.approx((2 / 25, 2, 2e-4))
    assert rates[15] == pytest.approx((2 / 25 + 2) / 2)  # half-way up
    assert rates[65] == pytest.approx((2 + 2e-4) / 2)  # half-way down
    rates = [cosine(step, 101, 2.0) for step in range(101)]
    assert (rates[0], rates[5], rates[100]) == pytest.approx((2 / 25, 2, 0))
    assert rates[1] == pytest.approx(2 / 25 + (2 - 2 / 25) / 5)
    assert rates[24] == pytest.approx(1 + math.cos(math.pi * 0.2))


def test_onecycle_agrees_with_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        0.3,
        total_steps=101,
        pct_start=31 / 101,  # torch's peak stands at pct_start x total_steps - 1
        div_factor=25,
        final_div_factor=10_000 / 25,
        cycle_momentum=False,
    )
    for step in range(101):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(onecycle(step, 101, 0.3))
        optimizer.step()
        if step < 100:
            reference.step()


def test_probe_measures_a_ratio_and_leaves_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "STEP_S", 0.01)
    before = torch.random.get_rng_state()
    config = TrialConfig(data=DataConfig(name="mnist"), model=ModelConfig(name="resnet8", width=4))
    assert 0.05 < probe.measure(resolve(config, "fp32")) < 20
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="resolved config"):
        probe.measure(config)


def test_probe_compares_the_medians_of_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"fp32": [1, 10, 9, 10, 30, 11], "bf16": [1000, 20, 21, 5]}

    def speed(_model: nn.Module, _config: TrialConfig, _size: int, _batch: int, precision: str) -> float:
        return speeds[precision].pop(0)

    monkeypatch.setattr(probe, "_speed", speed)
    config = TrialConfig(data=DataConfig(name="cifar10"), model=ModelConfig(name="resnet8", width=4))
    # Two fp32 calls choose the batch, the first turn of each warms up: medians of 10, 30, 11 and of 20, 21, 5.
    assert probe.measure(resolve(config, "fp32")) == 20 / 11
    small = TrialConfig(data=DataConfig(name="digits"), model=ModelConfig(name="resnet8"))
    assert probe.measure(resolve(small, "fp32")) == 1


def test_training_loads_no_compiler() -> None:
    code = (
        "import sys; from trainables.config import *; from trainables.training import probe; probe.STEP_S = 0.01;"
        "trial = TrialConfig(data=DataConfig(name='mnist'), model=ModelConfig(name='resnet8', width=4));"
        "probe.measure(resolve(trial, 'fp32')); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
