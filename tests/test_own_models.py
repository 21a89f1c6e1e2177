"""A user's own network, `package.module:function`: leave, hash, import, faults, the whole path."""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from torch import Tensor, nn

from orchestrator.errors import PlanError
from orchestrator.plan import Plan, plan
from orchestrator.sources import Sources
from orchestrator.spec.load import load_spec
from trainables.config import ModelConfig, TrialConfig, resolve
from trainables.data.load import load as load_data
from trainables.errors import CodeError, InfeasibleError
from trainables.keys import PathFinder
from trainables.models.build import build, initialise
from trainables.models.foreign import refuse_images
from trainables.sources import importable, sources_sha256
from trainables.stages import run_stage
from trainables.training.randomness import generator

OWN = """\
import random

import numpy
from torch import nn


class Bare(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.scale = nn.Parameter(nn.init.normal_(__import__("torch").empty(1)))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 6), nn.LayerNorm(6), nn.Linear(6, classes))

    def forward(self, x):
        return self.scale * self.body(x)


ONE = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def make(channels, classes):
    return Bare(channels, classes)


def drawn(channels, classes):
    model = Bare(channels, classes)
    model.body[1].bias.data[:3].fill_(random.random())
    model.body[1].bias.data[3:].fill_(numpy.random.rand())
    return model


def one(channels, classes):
    return ONE


def dropping(channels, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * channels, classes))


def small(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, classes))


def broken(channels, classes):
    raise ZeroDivisionError("their own mistake")


def nothing(channels, classes):
    return "a network"


def narrow(channels, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def pair(channels, classes):
    class Pair(nn.Sequential):
        def forward(self, x):
            y = super().forward(x)
            return (y, y) if self.training else y
    return Pair(nn.Flatten(), nn.Linear(64, classes))


def large(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 9), nn.Flatten(), nn.Linear(4, classes))


def lazy(channels, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def images(count: int, channels: int, size: int) -> Tensor:
    return torch.randn((count, channels, size, size), generator=generator(0, "calibration"))


def finite(model: nn.Module) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A package `ownnets` in a folder of its own, importable for the time of a test."""
    package = tmp_path / "ownnets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(OWN)
    with importable(tmp_path):
        yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "ownnets"]:
        del sys.modules[name]


def own_config(function: str) -> ModelConfig:
    name = f"ownnets.models:{function}"
    return ModelConfig(name=name, code_sha256=sources_sha256(name))


def own_model(function: str, seed: int = 0) -> nn.Module:
    model = build(own_config(function), 1, 10, allow_code=True)
    initialise(model, generator(seed, "init"))
    return model


def test_own_code_is_not_imported_without_leave(own: Path) -> None:
    config = own_config("make")
    with pytest.raises(CodeError, match="only run where --allow-code says so"):
        build(config, 1, 10)
    assert "ownnets" not in sys.modules
    build(config, 1, 10, allow_code=True)
    assert "ownnets.models" in sys.modules


def test_layer_norms_and_bare_parameters_are_built_initialised_and_trained(own: Path) -> None:
    model = own_model("make")
    assert finite(model)
    assert not torch.equal(model.get_parameter("scale"), own_model("make", seed=1).get_parameter("scale"))
    model(images(2, 1, 8)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_every_global_random_state_is_seeded_and_put_back(own: Path) -> None:
    own_model("make")  # what is imported for the first time may draw what it likes
    before = random.getstate(), np.random.get_state()[1].tolist()  # pyright: ignore[reportCallIssue, reportArgumentType]
    biases = [own_model("drawn", seed).get_parameter("body.1.bias") for seed in (0, 0, 1)]
    assert torch.equal(biases[0], biases[1])
    assert not bool((biases[0] == biases[2]).any())
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_module_that_is_handed_out_twice_is_not_poisoned(own: Path) -> None:
    assert finite(own_model("one"))
    assert finite(own_model("one"))


@pytest.mark.parametrize(
    ("function", "error", "told"),
    [
        ("broken", CodeError, r"model\.name ownnets\.models:broken failed.*ZeroDivisionError: their own mistake\n"),
        ("absent", CodeError, r"ownnets\.models has no function absent$"),
        ("nothing", InfeasibleError, r"ownnets\.models:nothing returned a str; a torch\.nn\.Module is needed"),
        ("lazy", InfeasibleError, r"1\.weight has no shape yet; lazy layers need their sizes written out"),
        ("narrow", InfeasibleError, r"gives shape \(2, 3\) in training mode; logits of shape \(2, 10\) are needed"),
        ("pair", InfeasibleError, r"ownnets\.models:pair gives a tuple in training mode"),
    ],
)
def test_what_is_wrong_with_own_code_is_told(own: Path, function: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told) as caught:
        refuse_images(own_config(function), 1, 10, 8)
    if function == "broken":
        text = str(caught.value)
        assert 'models.py", line' in text
        assert "foreign.py" not in text


def test_a_failing_forward_pass_keeps_its_traceback(own: Path) -> None:
    with pytest.raises(
        InfeasibleError, match=r"does not take images of 9x9 pixels .*RuntimeError: .*mat1 and mat2"
    ) as caught:
        refuse_images(own_config("make"), 1, 10, 9)
    assert 'models.py", line' in str(caught.value)


def test_the_hash_is_of_all_sources_of_the_package_and_their_places(own: Path) -> None:
    name = "ownnets.models:make"
    package = own / "ownnets"
    hashes = [sources_sha256(name)]
    (package / "notes.txt").write_text("not code")
    assert sources_sha256(name) == hashes[0] == sources_sha256("ownnets.models:drawn")
    (package / "helper.py").write_text("A = 1\n")
    hashes.append(sources_sha256(name))
    (package / "helper.py").write_text("A = 2\n")
    hashes.append(sources_sha256(name))
    (package / "helper.py").rename(package / "other.py")
    hashes.append(sources_sha256(name))
    assert len(set(hashes)) == 4
    (own / "loose_nets.py").write_text(OWN)
    assert sources_sha256("loose_nets:make") not in hashes


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_package.models:make", "there is no module no_such_package, neither in the working folder nor"),
        ("ownnets.model:make", r"there are no Python sources of ownnets\.model in "),
        ("math:sqrt", "there are no Python sources of math in "),
    ],
)
def test_sources_that_are_not_there_are_told(own: Path, name: str, told: str) -> None:
    with pytest.raises(CodeError, match=told):
        sources_sha256(name)


def test_code_that_changed_after_the_plan_is_refused(own: Path) -> None:
    config = own_config("make")
    build(config, 1, 10, allow_code=True)
    (own / "ownnets" / "models.py").write_text(OWN + "\n")
    with pytest.raises(CodeError, match="the code changed after the plan"):
        build(config, 1, 10, allow_code=True)
    # planned anew, but this process holds the old code
    with pytest.raises(CodeError, match="the code changed after the plan"):
        build(own_config("make"), 1, 10, allow_code=True)


def test_dropout_draws_from_the_seed_of_the_stage_alone(own: Path) -> None:
    tree = {
        "data": {"name": "digits", "train_size": 200},
        "model": own_config("dropping").model_dump(),
        "train": {"epochs": 1, "batch_size": 64},
    }
    config = resolve(TrialConfig.model_validate(tree), "fp32")
    found: list[bytes] = []
    for noise, seed in ((1, 0), (2, 0), (1, 1)):
        torch.default_generator.manual_seed(noise)
        stage = PathFinder().path(config, seed)[0]
        found.append(run_stage(stage, load_data(config.data, 0, own), None).artifact)
    assert found[0] == found[1] != found[2]


# ---- plan

STUDY = """\
study: own
base:
  data: {name: digits, train_size: 300}
  train: {epochs: 1, batch_size: 64}
axes: {model.name: [resnet8, "ownnets.models:small"]}
"""


def planned(folder: Path, sources: Callable[[str], str] | None) -> Plan:
    (folder / "own.yaml").write_text(STUDY)
    return plan(load_spec(str(folder / "own.yaml")), lambda _: "fp32", sources)


def test_a_study_with_own_code_is_refused_without_leave(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"model\.name ownnets\.models:small is code of your own\. With --allow"):
        planned(tmp_path, None)
    with pytest.raises(PlanError, match=r"own\.yaml: .* there is no module ownnets, .*; the working folder is"):
        planned(tmp_path, Sources("own.yaml", tmp_path))


def test_the_hash_of_the_sources_is_in_the_key_of_its_trials_alone(own: Path) -> None:
    before = planned(own, Sources("own.yaml", own))
    assert "ownnets" not in sys.modules
    (own / "ownnets" / "other.py").write_text("")
    after = planned(own, Sources("own.yaml", own))
    ours, theirs = ([trial.path for trial in found.trials if trial.config.model.ours] for found in (before, after))
    assert ours == theirs
    assert not {key for trial in before.trials for key in trial.path if not trial.config.model.ours} & set(after.stages)


# ---- the whole path

SWEEP = """\
# Does a model of one's own go the whole path?
study: own
base:
  data: {name: digits, train_size: 200}
  train: {epochs: 1, batch_size: 64}
axes:
  model.name: ["ownnets.models:small", "ownnets.models:dropping", "ownnets.models:broken", "ownnets.models:large"]
"""


def test_own_code_is_swept_from_the_working_folder(command: Command, own: Path) -> None:
    command.study(SWEEP, "own.yaml")
    assert "With --allow-code it is imported and run" in command("check", "own.yaml", expect=2)
    command("sweep", "own.yaml", "--allow-code", "--runner", "serial", expect=1)
    rows = command.trials("own").query("role == 'cell'").set_index("model.name")
    assert rows["status"].to_dict() == {
        "ownnets.models:small": "complete", "ownnets.models:dropping": "complete",
        "ownnets.models:broken": "failed", "ownnets.models:large": "infeasible",
    }  # fmt: skip
    assert rows["model.code_sha256"].unique().tolist() == [sources_sha256("ownnets.models:small")]
    assert "ZeroDivisionError: their own mistake" in str(rows.loc["ownnets.models:broken", "error"])
    assert 'models.py", line' in str(rows.loc["ownnets.models:broken", "error"])
    assert "does not take images of 8x8 pixels" in str(rows.loc["ownnets.models:large", "error"])
