"""Pipelines: each step is a stage, their order is checked, and what comes out is stored like any other network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from tiny_methods import assert_same, trained

from orchestrator.errors import SpecError
from orchestrator.spec.load import load_spec
from trainables.config import BinaryConfig, DataConfig, TrialConfig, resolve
from trainables.data.load import Dataset, load
from trainables.export.packed import pack, unpack
from trainables.keys import PathFinder, Stage
from trainables.method_config import CombineConfig, DecomposeConfig, DistillFields, ExpandConfig, StqConfig
from trainables.models.edits import GatherPart
from trainables.models.gated import gated
from trainables.stages import Outcome, Paused, run_stage
from trainables.stages.base import header, restore
from trainables.training.loop import predict

torch.set_num_threads(1)

EXPAND = {"method": "expand", "factor": 2, "epochs": 2}
STQ = {"method": "stq", "pfr": 0.4, "scope": "all", "epochs": 2}


def combined(**steps: Mapping[str, Any]) -> CombineConfig:
    return CombineConfig.model_validate(
        {"method": "combine", "steps": {name[1:]: step for name, step in steps.items()}}
    )


def trial(config: CombineConfig | StqConfig, block: str = "standard") -> TrialConfig:
    tree = {
        "data": DataConfig(name="digits", train_size=300),
        "model": {"name": "resnet8", "width": 4, "block": block},
        "train": {"epochs": 2, "batch_size": 32},
        "compress": config,
    }
    return resolve(TrialConfig.model_validate(tree), "fp32")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(trial(StqConfig()).data, 0, Path())


def run(path: tuple[Stage, ...], data: Dataset) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for stage in path:
        outcomes.append(run_stage(stage, data, outcomes[-1].artifact if outcomes else None))
    return outcomes


def test_a_pipeline_is_a_chain_of_stages_and_the_same_beginning_is_shared() -> None:
    finder = PathFinder()
    first = finder.path(trial(combined(_1_expand=EXPAND, _2_stq=STQ)), 0)
    other = finder.path(trial(combined(_1_anything=EXPAND, _2_stq={**STQ, "pfr": 0.2})), 0)
    plain = finder.path(trial(StqConfig.model_validate({**STQ, "method": "stq"})), 0)
    assert [stage.kind for stage in first] == ["train", "compress", "compress", "evaluate"]
    assert first[1].key == other[1].key  # a step's name is no part of what it does
    assert first[2].key != other[2].key
    assert plain[1].key not in {stage.key for stage in first}
    assert first[2].parent == first[1].key


def test_a_key_holds_every_leaf_of_a_step_that_has_an_effect() -> None:
    def key(**leaves: object) -> str:
        return PathFinder().path(trial(combined(_1_expand={**EXPAND, **leaves}, _2_stq=STQ)), 0)[1].key

    assert len({key(), key(factor=3), key(epochs=3), key(lr=0.01), key(layers=["conv"])}) == 5
    low = {"method": "xnet", "graph": "groups", "reduction": 2}
    ways = [
        PathFinder().path(trial(combined(_1_x={**low, "block": n}, _2_b={"method": "binary"})), 0)[1] for n in (1, 2)
    ]
    assert ways[0].key == ways[1].key  # groups have no blocks


STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "expand, then stq": {"_1_expand": EXPAND, "_2_stq": STQ},
    "three": {
        "_1_expand": EXPAND,
        "_2_group_sparsity": {"method": "group_sparsity", "penalty": 0.4, "epochs": 2},
        "_3_binary": {"method": "binary", "epochs": 1},
    },
    "chains of low bits": {
        "_1_decompose": {"method": "decompose", "epochs": 1},
        "_2_low_rank": {"method": "low_rank", "energy": 0.6, "epochs": 2, "split_at": 0.5},
        "_3_stq": STQ,
    },
    "gathered, then binary": {
        "_1_xnet": {"method": "xnet", "reduction": 2, "epochs": 1}, "_2_binary": {"method": "binary", "epochs": 1},
    },
    "chains, then gates": {
        "_1_decompose": {"method": "decompose", "epochs": 1},
        "_2_lkam": {"method": "lkam", "active_share": 0.2, "epochs": 2, "removal_share": 0.4},
    },
    "pruned, then expander": {
        "_1_l1_prune": {"method": "l1_prune", "pfr": 0.5, "epochs": 2},
        "_2_xnet": {"method": "xnet", "reduction": 2, "epochs": 1},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_pipeline_runs_and_each_step_tells_its_bytes(name: str, data: Dataset) -> None:
    config = combined(**STEPS[name])
    outcomes = run(PathFinder().path(trial(config), 0), data)
    last = outcomes[-1]
    steps = outcomes[1:-1]
    assert len(steps) == len(config.steps)
    for number, step in enumerate(steps, 1):
        assert step.metrics[f"step_{number}_bytes"] > 0  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
        assert step.metrics[f"step_{number}_val_accuracy"] == step.history[-1]["val_accuracy"]
    assert steps[-1].metrics[f"step_{len(steps)}_bytes"] == len(last.artifact) == last.metrics["packed_bytes"]
    network, _ = unpack(last.artifact)
    places = [edit.place for edit in network.edits]
    if name == "chains of low bits":
        assert any(place.endswith((".0", ".3")) for place in places)  # a part of a pair was split once more
    if name == "chains, then gates":
        assert gated(network.model)
        assert len({place.count(".") for place in places}) > 1  # gates inside of the chains
    if name.startswith(("chains of", "gathered")):
        assert network.bits
        assert any(layer.rpartition(".")[0] in places for layer in network.bits)


LAST: dict[str, dict[str, Any]] = {
    "ptq_group": {"images": 100, "block_steps": 20, "epochs": 2, "activation_bits": 4},
    "dabn": {"epochs": 3},
    "hybrid": {"epochs": 3, "ratio": 0},
    "stq": {"pfr": 0, "activations": "int8", "epochs": 2},
}


@pytest.mark.parametrize("method", LAST)
def test_inputs_of_gathering_layers_are_quantized_and_stored_as_trained(method: str, data: Dataset) -> None:
    """What is gathered are values of an activation; what reads them are convolutions of groups."""
    sparse = {"method": "xnet", "reduction": 2, "epochs": 2}
    steps = combined(_1_xnet=sparse, _2_last={"method": method, **LAST[method]})
    config = trial(steps, "bn_first")
    outcomes = run(PathFinder().path(config, 0), data)
    found, _ = unpack(outcomes[-1].artifact)
    quantized = [name for name in found.bits if name in found.input_bits]
    gathering = [edit.place for edit in found.edits if isinstance(edit.parts[0], GatherPart)]
    assert len(gathering) == 6
    assert all(any(name.startswith(f"{place}.1") for name in quantized) for place in gathering)
    assert set(found.activations) == {f"stages.{stage}.0.act{n}" for stage in range(3) for n in (1, 2)}

    before = restore(config, data, outcomes[1].artifact)
    model, learned = trained(before.model, data, steps.steps[1].config)  # pyright: ignore[reportArgumentType]
    expected = predict(model, data.test, data)
    finished = learned.finalize(model)
    stored = pack(replace(finished, edits=before.edits + finished.edits), header(config, data))
    again = predict(unpack(stored)[0].model, data.test, data)
    assert_same(again, expected, share=0.98)  # rounding turns a sign, or takes another level, of few images


def test_a_step_goes_on_where_it_was_stopped(data: Dataset) -> None:
    path = PathFinder().path(trial(combined(**STEPS["chains of low bits"])), 0)
    whole = run(path, data)
    for number in (2, 3):
        parent, checkpoint = whole[number - 1].artifact, None
        stage = path[number]
        assert stage.config.compress is not None
        for _ in range(stage.config.compress.epochs):
            paused = run_stage(stage, data, parent, resume=checkpoint, after_epoch=lambda told: not told.may_stop)
            assert isinstance(paused, Paused)
            checkpoint = paused.checkpoint
        again = run_stage(stage, data, parent, resume=checkpoint)
        assert hashlib.sha256(again.artifact).digest() == hashlib.sha256(whole[number].artifact).digest()
        assert again.metrics == whole[number].metrics


def test_a_config_is_read_back_from_what_it_is_written_as() -> None:
    config = combined(_1_decompose={"method": "decompose", "keep": []}, _2_stq=STQ)
    assert config.steps[0].config == DecomposeConfig(keep=())
    again = CombineConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert hash(again) == hash(config)
    assert (config.epochs, config.lr) == (22, 0.05)


def test_its_baselines_train_as_long_as_all_steps() -> None:
    config = combined(_1_expand=EXPAND, _2_stq=STQ)
    assert config.same_bits() == BinaryConfig(epochs=4)
    assert combined(_1_expand=EXPAND, _2_decompose={"method": "decompose"}).same_bits() is None
    assert isinstance(config.steps[0].config, ExpandConfig)


WRONG: dict[str, tuple[object, str]] = {
    "few bits first": (
        {"1_stq": STQ, "2_expand": EXPAND},
        "steps.2_expand cannot come after 1_stq: stq leaves weights of few bits, which training on would lose",
    ),
    "two quantizers": ({"1_binary": {"method": "binary"}, "2_stq": STQ}, "steps.2_stq cannot come after 1_binary"),
    "pruned after xnet": (
        {"1_xnet": {"method": "xnet"}, "2_stq": STQ}, "steps.2_stq cannot come after 1_xnet: the channels that xnet",
    ),
    "split after xnet, not next to it": (
        {"1_xnet": {"method": "xnet"}, "2_fine": {"method": "finetune"}, "3_low": {"method": "low_rank"}},
        "steps.3_low cannot come after 1_xnet: xnet leaves convolutions of groups, which low_rank cannot work on",
    ),
    "gates first": (
        {"1_lkam": {"method": "lkam"}, "2_stq": STQ}, "steps.2_stq cannot come after 1_lkam: lkam leaves kernels with",
    ),
    "gates after xnet": (
        {"1_xnet": {"method": "xnet"}, "2_lkam": {"method": "lkam"}}, "steps.2_lkam cannot come after 1_xnet: the chan",
    ),
    "one step": ({"1_stq": STQ}, "steps holds 1 methods; 2 to 4 make a pipeline"),
    "no steps": ({}, "steps holds 0 methods"),
    "a list": ([], "steps holds 0 methods|steps"),
    "text": ("stq", "steps holds 0 methods"),
    "no number": ({"expand": EXPAND, "2_stq": STQ}, r"steps.expand: the 1. step is named 1_something"),
    "wrong order": ({"2_stq": STQ, "1_expand": EXPAND}, r"steps.2_stq: the 1. step is named 1_something"),
    "no such method": ({"1_expand": {"method": "expanded"}, "2_stq": STQ}, "steps.1_expand: Input tag 'expanded'"),
    "a wrong leaf": ({"1_expand": {"method": "expand", "factor": 99}, "2_stq": STQ}, "steps.1_expand.factor: Inp"),
    "a pipeline in it": ({"1_a": {"method": "combine", "steps": {}}, "2_stq": STQ}, "steps.1_a: Input tag 'combine'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_impossible_pipeline_is_refused_by_the_name_of_its_step(name: str) -> None:
    steps, told = WRONG[name]
    with pytest.raises(ValidationError, match=told):
        CombineConfig.model_validate({"steps": steps})


def test_a_method_that_does_not_say_what_it_is_to_a_pipeline_cannot_be_made() -> None:
    class Silent(DistillFields):
        method: Literal["silent"] = "silent"

    with pytest.raises(TypeError, match=r"abstract methods.*remains.*works_on"):
        Silent()  # pyright: ignore[reportAbstractUsage]


def test_stq_that_prunes_nothing_can_follow_what_cannot_be_cut() -> None:
    assert len(combined(_1_xnet={"method": "xnet"}, _2_stq={**STQ, "pfr": 0}).steps) == 2


def test_a_study_file_with_an_impossible_order_is_refused_before_anything_runs(tmp_path: Path) -> None:
    head = "study: order\nbase:\n  data: {name: digits}\n  model: {name: resnet8}\naxes:\n  compress:\n    - "
    tail = "{method: combine, steps: {1_stq: {method: stq}, 2_expand: {method: expand}}}\n"
    path = tmp_path / "order.yaml"
    path.write_text(head + tail)
    with pytest.raises(SpecError, match=r"steps\.2_expand cannot come after 1_stq"):
        load_spec(str(path))
    path.write_text(
        head
        + tail.replace("1_stq: {method: stq}, 2_expand: {method: expand}", "1_e: {method: expand}, 2_s: {method: stq}")
    )
    assert json.dumps(load_spec(str(path)).study) == '"order"'
