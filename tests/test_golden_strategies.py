"""The picks of each query strategy from a fixed pool stand until the version of `select` is raised.

Nothing is trained. The network answers with whole numbers and eighths, which every machine holds exactly, and no two
images are as wanted as each other up to rounding: the picks are the same wherever the tests run.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.registry import STRATEGIES, strategy_of
from trainables.keys import STAGE_VERSIONS
from trainables.select_config import SelectConfig

GOLDEN = Path(__file__).with_name("golden_strategies.json")
IMAGES, CLASSES, WIDTH, COUNT = 240, 5, 7, 24
CASES: Mapping[str, Mapping[str, object]] = {
    **{name: {"strategy": name} for name in STRATEGIES},
    "margin of a part": {"strategy": "margin", "pool_cap": 90},
    "chance among the best by margin": {"strategy": "margin", "oversample": 2.5},
    "chance among the best of a part by badge": {"strategy": "badge", "pool_cap": 90, "oversample": 2.5},
}


class RoundNumbers:
    """A network whose answers are whole numbers or eighths, one table each."""

    def __init__(self) -> None:
        source = torch.Generator().manual_seed(0)
        order = torch.rand(IMAGES, CLASSES, generator=source).argsort(1)
        # Four gaps of 1/8 to 27/8 between the classes, another four for each image, so that no two scores are equal.
        gaps = torch.randperm(4 ** (CLASSES - 1), generator=source)[:IMAGES, None] // 4 ** torch.arange(CLASSES - 1) % 4
        levels = torch.cat([torch.zeros(IMAGES, 1, dtype=torch.int64), (3**gaps).cumsum(1)], 1)
        self._logits = levels.gather(1, order).float() / 8
        self._features = torch.randint(-500, 500, (IMAGES, WIDTH), generator=source).float()
        self._flips = torch.randint(4, (IMAGES,), generator=source)

    def logits(self, indices: Tensor) -> Tensor:
        return self._logits[indices]

    def features(self, indices: Tensor) -> Tensor:
        return self._features[indices]

    def dropout_logits(self, indices: Tensor, passes: int, source: torch.Generator) -> Tensor:
        lost = torch.randint(-3, 4, (passes, len(indices), CLASSES), generator=source)
        return self._logits[indices] + lost

    def flips(self, indices: Tensor) -> Tensor:
        return self._flips[indices]


def picks(case: str) -> list[int]:
    known = torch.arange(0, IMAGES, 12)
    candidates = torch.tensor([index for index in range(IMAGES) if index % 12])
    pool = Pool(candidates, known, known % CLASSES, CLASSES, RoundNumbers())
    config = SelectConfig.model_validate({"budget": IMAGES, "passes": 6, **CASES[case]})
    return strategy_of(config)(pool, COUNT, torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize("case", CASES)
def test_a_strategy_picks_what_its_version_picked(case: str) -> None:
    advice = f"other picks: raise the version of select in trainables/keys.py, then: python tests/{Path(__file__).name}"
    golden = json.loads(GOLDEN.read_text())
    assert golden["version"] == STAGE_VERSIONS["select"], advice
    assert golden["picks"][case] == picks(case), advice


if __name__ == "__main__":
    taken = {"version": STAGE_VERSIONS["select"], "picks": {case: picks(case) for case in CASES}}
    GOLDEN.write_text(json.dumps(taken, sort_keys=True).replace("], ", "],\n") + "\n")
