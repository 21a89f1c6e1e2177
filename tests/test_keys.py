"""Keys name content: equal computations have equal keys, different ones do not."""

import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import DataConfig, ModelConfig, TrainConfig, TrialConfig, resolve
from trainables.data_config import FOLDER_LEAVES
from trainables.keys import STAGE_VERSIONS, PathFinder, Stage


def config(**sections: object) -> TrialConfig:
    tree = {"data": {"name": "digits"}, "model": {"name": "resnet8"}, **sections}
    return resolve(TrialConfig.model_validate_json(json.dumps(tree)), "fp32")


def keys(seed: int = 0, **sections: object) -> list[str]:
    return [stage.key for stage in PathFinder().path(config(**sections), seed)]


def test_open_leaves_and_their_resolved_values_have_one_key() -> None:
    explicit = config(
        data={"name": "digits", "image_size": 8, "train_size": 1437, "augment": "none"},
        model={"name": "resnet8", "width": 16},
        train={"epochs": 30, "precision": "fp32"},
    )
    assert [stage.key for stage in PathFinder().path(explicit, 0)] == keys()


def test_trials_share_the_dense_parent_and_nothing_after_the_first_difference() -> None:
    one = keys(compress={"method": "stq", "pfr": 0.4})
    other = keys(compress={"method": "stq", "pfr": 0.5})
    dense = keys()
    assert one[0] == other[0] == dense[0]
    assert len({*one[1:], *other[1:], *dense[1:]}) == 5


SECTIONS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
OTHER: dict[str, dict[str, object]] = {
    "data": {
        "name": "mnist", "image_size": 16, "train_size": 1000, "val_share": 0.2, "augment": "shift", "imbalance": 10.0,
        "label_noise": 0.2,
    },
    "model": {"name": "resnet14", "width": 8, "stem": "imagenet", "block": "bn_first"},
    "train": {
        "epochs": 31, "lr": 0.2, "momentum": 0.8, "weight_decay": 0.0, "batch_size": 64, "schedule": "cosine",
        "label_smoothing": 0.1, "precision": "bf16",
    },
}  # fmt: skip
"""Another value for each leaf that has one."""


@pytest.mark.parametrize(("section", "leaf"), [(section, leaf) for section in OTHER for leaf in OTHER[section]])
def test_every_leaf_of_the_root_changes_the_root_key(section: str, leaf: str) -> None:
    base: dict[str, dict[str, object]] = {"data": {"name": "digits"}, "model": {"name": "resnet8"}, "train": {}}
    if leaf == "stem":
        base = {"data": {"name": "cifar10"}, "model": {"name": "resnet18"}, "train": {}}
    plain = PathFinder().path(config(**base), 0)[0].key
    base[section][leaf] = OTHER[section][leaf]
    assert PathFinder().path(config(**base), 0)[0].key != plain


def test_no_leaf_is_forgotten() -> None:
    fields = {name: set(section.model_fields) for name, section in SECTIONS.items()}
    fields["train"] -= {"optimizer"}
    fields["model"] -= {"code_sha256"}
    fields["data"] -= set(FOLDER_LEAVES)  # see test_imagefolder
    assert {name: set(leaves) for name, leaves in OTHER.items()} == fields


def test_the_sources_of_a_users_own_model_are_part_of_the_key() -> None:
    own = config().model_copy(update={"model": ModelConfig(name="own.models:make", code_sha256="0" * 64)})
    changed = own.model_copy(update={"model": own.model.model_copy(update={"code_sha256": "1" * 64})})
    assert PathFinder().path(own, 0)[0].key != PathFinder().path(changed, 0)[0].key


def test_seed_and_device_class_are_part_of_the_key() -> None:
    assert keys(seed=1)[0] != keys(seed=0)[0]
    assert PathFinder("cuda").path(config(), 0)[0].key != keys()[0]


def test_binary_is_stq_at_pfr_0_whatever_its_inert_leaves_say() -> None:
    binary = keys(compress={"method": "binary"})
    assert keys(compress={"method": "stq", "pfr": 0, "threshold": 0.3, "score": "mean_abs", "scope": "all"}) == binary
    assert keys(compress={"method": "stq", "pfr": 0, "scale": "layer"}) != binary


def test_equal_computations_written_otherwise_have_one_key() -> None:
    plain = keys(compress={"method": "stq", "full_precision": ["first", "last"], "pfr": 0})
    assert keys(compress={"method": "stq", "full_precision": ["last", "first"], "pfr": -0.0}) == plain


def test_l1_prune_at_pfr_0_is_finetuning() -> None:
    assert keys(compress={"method": "l1_prune", "pfr": 0}) == keys(compress={"method": "finetune"})


@given(st.floats(0.01, 9, allow_nan=False), st.floats(0.01, 0.99))
def test_the_threshold_is_inert_without_the_zero_share(threshold: float, pfr: float) -> None:
    by_magnitude = {"method": "stq", "pfr": pfr, "score": "mean_abs"}
    assert keys(compress={**by_magnitude, "threshold": threshold}) == keys(compress=by_magnitude)
    by_zeros = {"method": "stq", "pfr": pfr}
    assert (keys(compress={**by_zeros, "threshold": threshold}) == keys(compress=by_zeros)) == (threshold == 0.7)


def test_a_stage_holds_nothing_that_later_stages_own() -> None:
    path = PathFinder().path(config(compress={"method": "stq", "pfr": 0.4}), 0)
    assert [stage.kind for stage in path] == ["train", "compress", "evaluate"]
    assert path[0].config.compress is None
    assert [stage.parent for stage in path] == [None, path[0].key, path[1].key]


def test_weights_of_macs_belong_to_the_evaluation_alone() -> None:
    finder = PathFinder()
    compress = {"method": "stq", "pfr": 0.4}
    plain = finder.path(config(compress=compress), 0)
    spelled = finder.path(config(compress=compress, cost={"low_bit": 1 / 64, "int8": 0.25}), 0)
    other = finder.path(config(compress=compress, cost={"low_bit": 1 / 58}), 0)
    assert spelled == plain
    assert other[:2] == plain[:2]
    assert other[2].key != plain[2].key
    assert [stage.config.cost.low_bit for stage in other] == [1 / 64, 1 / 64, 1 / 58]
    assert other[2].own_config() == {"cost": {"low_bit": 1 / 58}}


def test_without_weights_of_macs_an_evaluation_owns_nothing() -> None:
    """Its key is that of the releases that had no such weights."""
    path = PathFinder().path(config(), 0)
    content = {"schema": 1, "stage": "evaluate", "version": STAGE_VERSIONS["evaluate"], "seed": 0}
    content |= {"config": {}, "parent": path[0].key}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert path[1].key == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_keys_are_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.argv=['x']\n"
        "from trainables.config import TrialConfig, resolve\n"
        "from trainables.keys import PathFinder\n"
        'c = TrialConfig.model_validate_json(\'{"data":{"name":"digits"},"model":{"name":"resnet8"}}\')\n'
        "print(*[s.key for s in PathFinder().path(resolve(c, 'fp32'), 0)])"
    )
    environment = {"PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert printed.stdout.split() == keys()


def test_these_keys_stand_until_the_schema_or_a_stage_version_is_raised() -> None:
    """A store of yesterday is only found again while these do not change."""
    found = keys(compress={"method": "stq", "pfr": 0.4, "threshold": 0.5})
    assert found == GOLDEN, "raise SCHEMA_VERSION or a STAGE_VERSION, then replace the golden keys"


def test_a_method_that_gives_other_results_than_before_has_other_keys_alone_and_in_a_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dabn_config: dict[str, object] = {"method": "dabn", "activations": "float"}
    steps = {"1_expand": {"method": "expand"}, "2_dabn": dabn_config}
    configs: list[dict[str, object]] = [dabn_config, {"method": "stq"}, {"method": "combine", "steps": steps}]
    before = [keys(compress=compress) for compress in configs]
    monkeypatch.setattr("trainables.keys.METHOD_VERSIONS", {"dabn": 3})
    dabn, stq, pipeline = (keys(compress=compress) for compress in configs)
    assert stq == before[1]
    assert [a == b for a, b in zip(dabn, before[0], strict=True)] == [True, False, False]
    assert [a == b for a, b in zip(pipeline, before[2], strict=True)] == [True, True, False, False]


GOLDEN = [
    "ff243d61cb4bc99a085e3d2de5e820f6",
    "7d5a3ad991038fa00b09508d58901720",
    "2bc9bbb372622da79c34c29c714d5f0d",
]


def test_own_config_is_what_the_key_was_made_of() -> None:
    stage: Stage = PathFinder().path(config(compress={"method": "stq", "pfr": 0.4}), 0)[1]
    assert stage.own_config() == {"compress": {"method": "stq"}}
