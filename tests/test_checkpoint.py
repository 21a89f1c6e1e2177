"""A stage that is stopped at the ends of its epochs, and goes on elsewhere, ends with the bits of one never stopped."""

import hashlib
import json
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.config import DataConfig, TrialConfig, resolve
from trainables.data.load import Dataset, load
from trainables.errors import CheckpointError
from trainables.keys import PathFinder, Stage
from trainables.methods.registry import METHODS
from trainables.pruning.ramp import Ramp
from trainables.sources import importable, sources_sha256
from trainables.stages import Outcome, Paused, Progress, run_stage
from trainables.training.checkpoint import Checkpoint, Origin, save
from trainables.training.checkpoint import load as load_checkpoint
from trainables.training.randomness import global_states, set_global_states
from trainables.training.schedules import SCHEDULES

EPOCHS = 3
METHOD_CASES: dict[str, dict[str, object]] = {
    "target": {"method": "stq", "pfr": 0.5, "scope": "all"},
    "masks that come back": {"method": "stq", "pfr": 0.5, "ramp_share": 0.9, "freeze_share": 0.0, "lr": 0.5},
    "threshold": {"method": "stq", "mode": "threshold", "max_zero_share": 0.5, "min_filters": 1, "freeze_share": 0.6},
    "global budget": {"method": "stq", "pfr": 0.3, "budget": "global", "min_filters": 1, "score": "mean_abs"},
    "ternary and distilled": {"method": "stq", "weights": "ternary", "activations": "int8", "distill": 0.5},
    "two values": {"method": "stq", "pfr": 0.2, "scale": "two_valued", "score": "binarization_error"},
    "signs": {"method": "stq", "pfr": 0.3, "scope": "all", "activations": "sign"},
    "ternary both": {"method": "stq", "pfr": 0.3, "weights": "ternary", "activations": "ternary"},
    "binary": {"method": "binary"},
    "l1_prune": {"method": "l1_prune", "pfr": 0.5},
    "finetune": {"method": "finetune"},
    "followed": {
        "method": "group_sparsity",
        "penalty": 3,
        "scope": "all",
        "free_share": 0,
        "distill": 0.5,
        "distill_losses": ["attention", "relational"],
    },
    "decompose": {"method": "decompose", "between": "norm"},
    "dabn": {"method": "dabn"},
    "hybrid": {"method": "hybrid", "ratio": 0.5, "binary_share": 0.4},
    "xnet": {"method": "xnet", "reduction": 2, "keep": ["first"]},
    "lkam": {"method": "lkam", "soft_share": 0.4, "removal_share": 0.3},
    "expand": {"method": "expand", "factor": 2},
    "expand, nonlinear": {"method": "expand", "factor": 2, "init": "random", "nonlinear_share": 0.4},
    "group_sparsity": {"method": "group_sparsity", "penalty": 3, "scope": "all", "free_share": 0},
    "group_sparsity by epochs": {"method": "group_sparsity", "penalty": 3, "period": "epoch", "sparse_share": 0.5},
    "ptq_group": {"method": "ptq_group", "images": 64, "weight_bits": 2, "groups": 2, "block_steps": 20},
    "low_rank": {"method": "low_rank", "penalty": 0.3, "split_at": 0.4, "energy": 0.7},
    "low_rank at the end": {"method": "low_rank", "split_at": 1, "energy": 0.7},
    "low_rank that keeps all": {"method": "low_rank", "penalty": 0, "split_at": 0.4, "energy": 1},
}
TRAIN_CASES: dict[str, dict[str, dict[str, object]]] = {
    "onecycle": {},
    "cosine, no momentum": {"train": {"schedule": "cosine", "momentum": 0}},
    "bf16, smoothed": {"train": {"precision": "bf16", "label_smoothing": 0.1}},
    "flips and crops": {"data": {"augment": "crop_flip"}, "train": {"schedule": "cosine", "weight_decay": 0.05}},
    "bn_first, bf16, shifts": {
        "data": {"augment": "shift"}, "model": {"block": "bn_first"}, "train": {"precision": "bf16"},
    },
    "vgg": {"model": {"name": "vgg_small", "width": 4}},
}  # fmt: skip
"""Augmentation is none where nothing else is said, so that a wrong state of its generator is seen in some alone."""

OWN = """\
import random

import numpy
import torch
from torch import nn


class Restless(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * channels, classes))
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.seen += 1
            drawn = random.random() + random.gauss(0, 1) + numpy.random.rand() + numpy.random.normal()
            return self.body(x) * (1 + 0.01 * drawn + 0.01 * self.seen)
        return self.body(x)


def make(channels, classes):
    return Restless(channels, classes)
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tree(**sections: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """A small trial, some leaves of it replaced."""
    base: dict[str, dict[str, object]] = {
        "data": {"name": "digits", "train_size": 200, "augment": "none"},
        "model": {"name": "resnet8", "width": 4},
        "train": {"epochs": EPOCHS, "batch_size": 32},
    }
    return {name: {**base.get(name, {}), **sections.get(name, {})} for name in base | dict(sections)}


def path_of(content: Mapping[str, Mapping[str, object]]) -> tuple[Stage, ...]:
    return PathFinder().path(resolve(TrialConfig.model_validate_json(json.dumps(content)), "fp32"), 0)


def method_path(name: str) -> tuple[Stage, ...]:
    method = METHOD_CASES[name]
    few_bits = method.get("activations") in ("sign", "ternary") or method["method"] in ("dabn", "hybrid")
    block = "bn_first" if few_bits else "standard"
    return path_of(tree(model={"block": block}, compress={"epochs": EPOCHS, **method}))


def images(stage: Stage) -> Dataset:
    return read(stage.config.data.model_dump_json())


@cache
def read(config: str) -> Dataset:
    return load(DataConfig.model_validate_json(config), 0, Path())


def disturb() -> None:
    """Leave global random states behind that no stage may notice."""
    torch.manual_seed(random.randrange(1000))
    np.random.seed(random.randrange(1000))
    torch.rand(7)
    np.random.rand(7)


def always(_: Progress) -> bool:
    return True


def in_parts(stage: Stage, parent: bytes | None) -> Outcome:
    """The stage, stopped at the end of every epoch; nothing but bytes passes from part to part."""
    checkpoint: bytes | None = None
    for epoch in range(1, stage_epochs(stage) + 1):
        disturb()
        paused = run_stage(stage, images(stage), parent, resume=checkpoint, after_epoch=always)
        assert isinstance(paused, Paused)
        assert (paused.epoch, paused.epochs) == (epoch, stage_epochs(stage))
        checkpoint = paused.checkpoint
    disturb()
    return run_stage(stage, images(stage), parent, resume=checkpoint)


def stage_epochs(stage: Stage) -> int:
    config = stage.config
    return config.compress.epochs if stage.kind == "compress" and config.compress else config.train.epochs


def timeless(outcome: Outcome) -> tuple[object, ...]:
    """All of an outcome but times."""
    records = [{name: value for name, value in r.items() if name != "images_per_s"} for r in outcome.history]
    return outcome.artifact, dict(outcome.metrics), records


@pytest.fixture(scope="module")
def parents() -> dict[str, Outcome]:
    """Dense networks by the key of their stage; filled as they are needed."""
    return {}


def parent_of(path: tuple[Stage, ...], parents: dict[str, Outcome]) -> bytes:
    if path[0].key not in parents:
        parents[path[0].key] = run_stage(path[0], images(path[0]), None)
    return parents[path[0].key].artifact


@pytest.mark.parametrize("name", METHOD_CASES)
def test_a_method_that_is_stopped_at_every_epoch_gives_the_same_bits(name: str, parents: dict[str, Outcome]) -> None:
    path = method_path(name)
    parent = parent_of(path, parents)
    assert timeless(in_parts(path[1], parent)) == timeless(run_stage(path[1], images(path[1]), parent))


def test_every_registered_method_is_among_the_cases() -> None:
    configs = [method_path(name)[1].config.compress for name in METHOD_CASES]
    assert {type(config) for config in configs} == set(METHODS)


@pytest.mark.parametrize("name", TRAIN_CASES)
def test_training_that_is_stopped_at_every_epoch_gives_the_same_bits(name: str) -> None:
    stage = path_of(tree(**TRAIN_CASES[name]))[0]
    assert timeless(in_parts(stage, None)) == timeless(run_stage(stage, images(stage), None))


@pytest.fixture
def restless(tmp_path: Path) -> Iterator[Stage]:
    """The training of a network that draws from every global random state, dropout's included."""
    (tmp_path / "restless.py").write_text(OWN)
    name = "restless:make"
    with importable(tmp_path):
        model = {"name": name, "width": None, "code_sha256": sources_sha256(name)}
        yield path_of(tree(model=model))[0]
    del sys.modules["restless"]


def test_dropout_other_global_draws_and_hidden_buffers_go_on(restless: Stage) -> None:
    assert timeless(in_parts(restless, None)) == timeless(run_stage(restless, images(restless), None))


def test_what_a_hook_draws_does_not_move_the_training(restless: Stage) -> None:
    def draw(progress: Progress) -> bool:
        disturb()
        progress.checkpoint()
        disturb()
        return False

    watched = run_stage(restless, images(restless), None, after_epoch=draw)
    assert isinstance(watched, Outcome)
    assert timeless(watched) == timeless(run_stage(restless, images(restless), None))


ELSEWHERE = """\
import hashlib, json, sys
from pathlib import Path
import torch
from trainables.config import TrialConfig
from trainables.data.load import load
from trainables.keys import PathFinder
from trainables.stages import run_stage

torch.set_num_threads(1)
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    path = PathFinder().path(TrialConfig.model_validate_json((folder / f"{name}.json").read_text()), 0)
    parent = folder / f"{name}.parent"
    stage, output = (path[1], parent.read_bytes()) if parent.exists() else (path[0], None)
    data = load(stage.config.data, 0, Path())
    outcome = run_stage(stage, data, output, resume=(folder / f"{name}.checkpoint").read_bytes())
    records = [{key: value for key, value in record.items() if key != "images_per_s"} for record in outcome.history]
    print(json.dumps([hashlib.sha256(outcome.artifact).hexdigest(), dict(outcome.metrics), records]))
"""


def test_a_fresh_process_goes_on_to_the_same_bits(tmp_path: Path, parents: dict[str, Outcome]) -> None:
    expected: list[list[object]] = []
    methods = {name: method_path(name) for name in ("masks that come back", "ternary and distilled")}
    trained = path_of(tree(**TRAIN_CASES["bn_first, bf16, shifts"]))
    for name, path in (*methods.items(), ("trained", trained)):
        parent = parent_of(path, parents) if name in methods else None
        stage = path[0] if parent is None else path[1]
        if parent is not None:
            (tmp_path / f"{name}.parent").write_bytes(parent)
        paused = run_stage(stage, images(stage), parent, after_epoch=always)
        assert isinstance(paused, Paused)
        (tmp_path / f"{name}.checkpoint").write_bytes(paused.checkpoint)
        (tmp_path / f"{name}.json").write_text(stage.config.model_dump_json())
        artifact, metrics, records = timeless(run_stage(stage, images(stage), parent))
        assert isinstance(artifact, bytes)
        expected.append([hashlib.sha256(artifact).hexdigest(), metrics, records])
    words = [sys.executable, "-c", ELSEWHERE, str(tmp_path), *methods, "trained"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


def told(stage: Stage, parent: bytes | None) -> list[Progress]:
    """What a hook that never stops is told."""
    seen: list[Progress] = []

    def look(progress: Progress) -> bool:
        seen.append(progress)
        return False

    outcome = run_stage(stage, images(stage), parent, after_epoch=look)
    assert isinstance(outcome, Outcome)
    assert [progress.record for progress in seen] == outcome.history
    return seen


def test_the_hook_is_told_of_every_epoch_and_asks_for_no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Checkpoint) -> bytes:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr("trainables.stages.course.save", refuse)
    stage = path_of(tree(train={"epochs": 4}))[0]
    seen = told(stage, None)
    assert [(progress.epoch, progress.epochs) for progress in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(RuntimeError, match="asked for while the hook runs"):
        seen[0].checkpoint()


@pytest.mark.parametrize(("schedule", "first"), [("onecycle", 3), ("cosine", 1)])
def test_a_stage_may_not_be_stopped_while_its_rate_rises_and_at_its_end(schedule: str, first: int) -> None:
    """OneCycle rises for 30 % of ten epochs, half a cosine for 5 %."""
    stage = path_of(tree(train={"epochs": 10, "schedule": schedule, "batch_size": 60}))[0]
    rate = SCHEDULES[schedule]
    assert [progress.epoch for progress in told(stage, None) if progress.may_stop] == [*range(first, 10)]
    ends = [rate(3 * epoch - 1, 30, 1.0) for epoch in range(1, 11)]
    assert ends.index(max(ends)) == first - 1


def test_a_method_protects_its_ramp(parents: dict[str, Outcome]) -> None:
    """Masks settle before epoch floor(8 x (1 - 0.4)) = 4 (from 0): the fifth is the first to be judged by."""
    for leaves, first in (({"pfr": 0.5, "freeze_share": 0.4}, 5), ({"pfr": 0.0}, 3)):
        compress = {"method": "stq", "epochs": 8, "ramp_share": 0.4, **leaves}
        path = path_of(tree(compress=compress))
        seen = told(path[1], parent_of(path, parents))
        assert [progress.epoch for progress in seen if progress.may_stop] == [*range(first, 8)], leaves


def test_masks_settle_where_they_freeze_or_where_the_ramp_ends() -> None:
    assert [Ramp(0.4, 0.3).settled(epoch, 20) for epoch in (0, 8, 13, 14, 19)] == [False, False, False, True, True]
    assert [Ramp(0.4, 0.0).settled(epoch, 20) for epoch in (0, 7, 8, 19)] == [False, False, True, True]
    assert Ramp(0.0, 0.0).settled(0, 5)
    assert all(
        Ramp(ramp, freeze).settled(epochs - 1, epochs)
        for ramp, freeze, epochs in product((0, 0.3, 0.5), (0, 0.2, 0.5), (1, 2, 7, 20))
    )


def test_the_seconds_of_the_parts_add_up() -> None:
    stage = path_of(tree())[0]
    spent: list[float] = []
    checkpoint: bytes | None = None
    for _ in range(2):
        began = time.perf_counter()
        paused = run_stage(stage, images(stage), None, resume=checkpoint, after_epoch=always)
        assert isinstance(paused, Paused)
        assert 0 < paused.spent_s - sum(spent) < time.perf_counter() - began
        spent.append(paused.spent_s - sum(spent))
        checkpoint = paused.checkpoint
    assert run_stage(stage, images(stage), None, resume=checkpoint).before_s == sum(spent)
    assert run_stage(stage, images(stage), None).before_s == 0


ORIGIN = Origin("key", "parent", "2.0", "x86_64", 1, None)


def stored(origin: Origin = ORIGIN) -> bytes:
    tensors = {"model.weight": torch.arange(6.0).view(2, 3)}
    return save(Checkpoint(origin, 1, 2, 0.5, [{"epoch": 1, "loss": 1 / 3}], tensors))


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    found = load_checkpoint(stored(), ORIGIN)
    assert (found.epoch, found.epochs, found.spent_s, found.history) == (1, 2, 0.5, [{"epoch": 1, "loss": 1 / 3}])
    assert torch.equal(found.tensors["model.weight"], torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: data + b"x",
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: pickle.dumps({"epoch": 1}),
        lambda data: hashlib.sha256(data[32:-4]).digest() + data[32:-4],
        lambda data: hashlib.sha256(b"{}").digest() + b"{}",
    ],
)  # fmt: skip
def test_damaged_bytes_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CheckpointError, match="bytes"):
        load_checkpoint(spoil(stored()), ORIGIN)


@pytest.mark.parametrize(
    ("field", "other"),
    [("stage", "k"), ("parent", None), ("torch", "2.1"), ("machine", "arm"), ("threads", 2), ("gpu", "H200")],
)
def test_a_checkpoint_of_another_origin_is_refused_and_the_difference_told(field: str, other: Any) -> None:
    with pytest.raises(CheckpointError, match=f"of another {field}: .*, where the stage has {other}"):
        load_checkpoint(stored(), replace(ORIGIN, **{field: other}))


def test_a_checkpoint_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored()
    monkeypatch.setattr("trainables.training.checkpoint.CHECKPOINT_VERSION", 2)
    with pytest.raises(CheckpointError, match="of version 1; this program reads version 2"):
        load_checkpoint(data, ORIGIN)


def test_no_stage_takes_up_what_is_not_its_own(parents: dict[str, Outcome]) -> None:
    path = method_path("target")
    parent = parent_of(path, parents)
    paused = run_stage(path[0], images(path[0]), None, after_epoch=always)
    assert isinstance(paused, Paused)
    for stage in path[1:]:
        with pytest.raises(CheckpointError, match="of another stage"):
            run_stage(stage, images(stage), parent, resume=paused.checkpoint)
    torch.set_num_threads(2)
    with pytest.raises(CheckpointError, match="of another threads: 1, where the stage has 2"):
        run_stage(path[0], images(path[0]), None, resume=paused.checkpoint)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tensors": {}}, "another training"),
        ({"tensors": "narrower"}, r"torch.float32 \(1, 1, 3, 3\) in place of torch.float32 \(4, 1, 3, 3\)"),
        ({"tensors": "no global states"}, "without the random states"),
        ({"epochs": 9}, "after 1 of 9 epochs, with 1 records; the stage has 3 epochs"),
        ({"epoch": 2}, "after 2 of 3 epochs, with 1 records"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change: dict[str, Any], told: str) -> None:
    stage = path_of(tree())[0]
    paused = run_stage(stage, images(stage), None, after_epoch=always)
    assert isinstance(paused, Paused)
    found = load_checkpoint(paused.checkpoint, origin_in(paused.checkpoint))
    edited = {
        "narrower": {**found.tensors, "model.stem.conv.weight": torch.zeros(1, 1, 3, 3)},
        "no global states": {name: t for name, t in found.tensors.items() if not name.startswith("global.")},
    }
    change = {name: edited.get(value, value) if isinstance(value, str) else value for name, value in change.items()}
    with pytest.raises(CheckpointError, match=told):
        run_stage(stage, images(stage), None, resume=save(replace(found, **change)))


def origin_in(checkpoint: bytes) -> Origin:
    size = int.from_bytes(checkpoint[32:40], "little")
    return Origin(**json.loads(json.loads(checkpoint[40 : 40 + size])["__metadata__"]["meta"])["origin"])


def test_global_states_come_back_with_a_gauss_that_waits() -> None:
    random.gauss(0, 1)  # leaves the second of two numbers for the next call
    np.random.normal()
    states = global_states("cpu")
    drawn = [(random.gauss(0, 1), np.random.normal(), float(torch.randn(())), random.random()) for _ in range(3)]
    disturb()
    set_global_states(states, "cpu")
    assert [
        (random.gauss(0, 1), np.random.normal(), float(torch.randn(())), random.random()) for _ in range(3)
    ] == drawn
