from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config import DataConfig, ModelConfig, StqConfig, TrainConfig, TrialConfig, resolve
from trainables.data.load import Dataset, load, normalise
from trainables.keys import PathFinder
from trainables.models.build import build, initialise
from trainables.stages import Paused, run_stage
from trainables.training.loop import CHUNK_BYTES, Settings, accuracy, fit
from trainables.training.randomness import generator
from trainables.training.sgd import Sgd
from trainables.training.state import reset_state
from trainables.training.steps import EagerStep, RecordedStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SETTINGS = Settings(
    epochs=8, lr=0.1, momentum=0.9, weight_decay=5e-4, batch_size=64, schedule="onecycle", label_smoothing=0.0,
    precision="bf16", augment="none", device="cuda",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean() -> None:
    reset_state(1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DataConfig(name="digits", image_size=8, train_size=1437, augment="none"), 0, Path())


def network() -> nn.Module:
    model = build(ModelConfig(name="resnet8", width=8), 1, 10)
    initialise(model, generator(0, "init"))
    return model.to("cuda", memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.autocast("cuda", torch.bfloat16):
        logits = model(images)
    return F.cross_entropy(logits.float(), labels)


def test_recorded_steps_move_the_weights_as_eager_ones_do(digits: Dataset) -> None:
    moved: list[dict[str, Tensor]] = []
    losses: list[list[float]] = []
    for recorded in (False, True):
        model = network()
        eager = EagerStep(model, Sgd(model.parameters(), 0.9, 5e-4), loss)
        step = RecordedStep(eager) if recorded else eager
        seen: list[float] = []
        for epoch in range(2):
            step.begin_epoch()
            for number in range(6):
                chosen = slice(64 * number, 64 * number + 64)
                images = normalise(digits.train.images[chosen].cuda(), digits)
                seen.append(float(step(images, digits.train.labels[chosen].cuda(), 0.1 / (1 + number + epoch))))
        moved.append(model.state_dict())
        losses.append(seen)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert all(
        torch.allclose(a.float(), b.float(), rtol=1e-2, atol=1e-3)
        for a, b in zip(*(m.values() for m in moved), strict=True)
    )


def test_a_gpu_learns_digits(digits: Dataset) -> None:
    model = network()
    history = fit(model, digits, SETTINGS, 0)
    assert history[-1]["loss"] < 0.2 < history[0]["loss"]
    assert accuracy(model, digits.test, digits, device="cuda") > 0.9


def test_equal_arguments_give_equal_weights_on_one_gpu(digits: Dataset) -> None:
    first, second = network(), network()
    for model in (first, second):
        fit(model, digits, replace(SETTINGS, epochs=2), 0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_path_of_stages_runs_on_a_gpu(digits: Dataset) -> None:
    config = TrialConfig(
        data=DataConfig(name="digits"),
        model=ModelConfig(name="resnet8", width=8),
        train=TrainConfig(epochs=8, precision="bf16"),
        compress=StqConfig(method="stq", pfr=0.25, scope="all", epochs=8, distill=0.3),
    )
    artifact: bytes | None = None
    found: dict[str, float | int | None] = {}
    for stage in PathFinder("cuda").path(resolve(config, "bf16"), 0):
        outcome = run_stage(stage, digits, artifact)
        artifact = outcome.artifact
        found |= outcome.metrics
    assert (found["accuracy"] or 0) > 0.8
    assert found["pfr_achieved"] == pytest.approx(0.25, abs=0.02)


def test_a_stage_that_is_stopped_at_every_epoch_gives_the_same_bits(digits: Dataset) -> None:
    config = TrialConfig(
        data=DataConfig(name="digits", augment="crop_flip"),
        model=ModelConfig(name="resnet8", width=8),
        train=TrainConfig(epochs=3, precision="bf16"),
        compress=StqConfig(method="stq", pfr=0.25, scope="all", epochs=3, distill=0.3),
    )
    parent: bytes | None = None
    for stage in PathFinder("cuda").path(resolve(config, "bf16"), 0)[:2]:
        checkpoint: bytes | None = None
        for _ in range(3):
            torch.cuda.manual_seed(17)
            paused = run_stage(stage, digits, parent, resume=checkpoint, after_epoch=lambda _: True)
            assert isinstance(paused, Paused)
            checkpoint = paused.checkpoint
        whole, parts = run_stage(stage, digits, parent), run_stage(stage, digits, parent, resume=checkpoint)
        assert whole.artifact == parts.artifact
        assert [record["loss"] for record in whole.history] == [record["loss"] for record in parts.history]
        parent = whole.artifact


def test_images_come_in_larger_chunks_to_a_gpu() -> None:
    assert CHUNK_BYTES["cuda"] > CHUNK_BYTES["cpu"]
