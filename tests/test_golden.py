"""The results of each stage on a fixed input stand until its version is raised.

Bits are compared on the kind of machine and with the torch that the digests were taken on. Elsewhere rounding differs
and training amplifies it: sizes and counts must be equal still, losses and accuracies nearly so.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.config import TrialConfig, resolve
from trainables.keys import STAGE_VERSIONS, PathFinder
from trainables.stages import Outcome, run_stage
from trainables.stages.datasets import Datasets
from trainables.training.state import machine

TOLERANCES = {"loss": 0.01, "accuracy": 0.03, "val": 0.03}
GOLDEN = Path(__file__).with_name("golden.json")
CONFIGS: dict[str, dict[str, object]] = {
    "stq": {"method": "stq", "pfr": 0.5, "epochs": 3, "scope": "all"},
    "ternary": {"method": "stq", "pfr": 0.5, "epochs": 2, "weights": "ternary", "activations": "int8", "distill": 0.5},
    "two_valued": {"method": "stq", "mode": "threshold", "max_zero_share": 0.5, "min_filters": 1, "epochs": 2,
                   "scale": "two_valued"},
    "binary": {"method": "binary", "epochs": 2},
    "l1_prune": {"method": "l1_prune", "pfr": 0.5, "epochs": 2},
    "finetune": {"method": "finetune", "epochs": 2},
    "dabn": {"method": "dabn", "epochs": 2},
    "hybrid": {"method": "hybrid", "ratio": 0.5, "epochs": 3},
    "decompose": {"method": "decompose", "epochs": 2},
    "expand": {"method": "expand", "factor": 2, "epochs": 2},
    "group_sparsity": {"method": "group_sparsity", "penalty": 0.1, "scope": "all", "epochs": 3},
    "low_rank": {"method": "low_rank", "penalty": 0.3, "energy": 0.7, "epochs": 3},
    "xnet": {"method": "xnet", "reduction": 2, "keep": ["first"], "epochs": 2},
    "lkam": {"method": "lkam", "gain": 60, "active_share": 0.1, "removal_share": 0.3, "epochs": 3},
    "ptq_group": {"method": "ptq_group", "images": 64, "weight_bits": 3, "groups": 2, "block_steps": 20, "epochs": 2,
                  "lr": 0.001},
    "combine": {"method": "combine", "steps": {"1_expand": {"method": "expand", "factor": 2, "epochs": 1},
                                               "2_stq": {"method": "stq", "pfr": 0.4, "epochs": 2}}},
}  # fmt: skip
BN_FIRST = ("dabn", "hybrid")
SIZES_ARE_OUTCOMES = ("group_sparsity", "low_rank", "lkam")
"""How many channels, ranks and MACs are left follows from trained weights, whose rounding is a machine's own."""
LABELS = {"strategy": "badge", "budget": 120, "initial": 60, "query_sizes": [40], "epochs": 2, "replay_ratio": 1,
          "schedule": "fast", "proxy": "resnet8", "proxy_width": 3, "proxy_image_size": 12}  # fmt: skip
CASES: dict[str, dict[str, object]] = {
    **{name: {"compress": compress} for name, compress in CONFIGS.items()},
    "labels": {"select": LABELS, "compress": CONFIGS["finetune"]},
}


def kind_of_machine() -> str:
    return f"torch {torch.__version__} {machine()}"


def numbers(outcome: Outcome) -> dict[str, Any]:
    """The loss, and the metrics that are no times."""
    loss = outcome.history[-1].get("loss", 0.0) if outcome.history else 0.0
    return {"loss": loss, **{name: value for name, value in outcome.metrics.items() if not name.endswith("_s")}}


def run(method: str) -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    tree = {
        "data": {"name": "digits", "train_size": 400, "augment": "shift"},
        "model": {"name": "resnet8", "width": 4} | ({"block": "bn_first"} if method in BN_FIRST else {}),
        "train": {"epochs": 3, "batch_size": 32},
        **CASES[method],
    }
    config = resolve(TrialConfig.model_validate_json(json.dumps(tree)), "fp32")
    datasets, artifact = Datasets(Path("data")), None
    found: dict[str, dict[str, Any]] = {}
    for stage in PathFinder().path(config, 0):
        outcome = run_stage(stage, datasets.of(stage.config.data, 0), artifact)
        artifact = outcome.artifact
        found[stage.kind] = {
            "version": STAGE_VERSIONS[stage.kind],
            "sha256": hashlib.sha256(artifact).hexdigest(),
            "numbers": numbers(outcome),
        }
    return found


@pytest.mark.parametrize("method", CASES)
def test_a_stage_gives_what_its_version_gave(method: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    advice = (
        "a stage gives other results: raise its version, or the method's, in trainables/keys.py, then: "
        "python tests/test_golden.py"
    )
    for kind, found in run(method).items():
        expected = golden["methods"][method][kind]
        assert found["version"] == expected["version"], advice
        assert found["numbers"].keys() == expected["numbers"].keys(), advice
        for name, number in found["numbers"].items():
            if method in SIZES_ARE_OUTCOMES and golden["machine"] != kind_of_machine():
                continue
            tolerance = TOLERANCES.get(name.partition("_")[0], 0.0)
            wanted = expected["numbers"][name]
            near = number is None if wanted is None else number == pytest.approx(wanted, rel=0, abs=tolerance)
            assert near, f"{name}: {number}, not {wanted}: {advice}"
        if golden["machine"] == kind_of_machine():
            assert found["sha256"] == expected["sha256"], advice


if __name__ == "__main__":
    digests = {"machine": kind_of_machine(), "methods": {method: run(method) for method in CASES}}
    GOLDEN.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
