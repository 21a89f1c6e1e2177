"""Which config selects which method."""

from collections.abc import Callable
from typing import Any

from trainables.config import CompressBase, CompressConfig, FinetuneConfig, L1PruneConfig, StqConfig
from trainables.method_config import DecomposeConfig
from trainables.methods.base import Method
from trainables.methods.decompose import Decompose
from trainables.methods.finetune import Finetune
from trainables.methods.l1_prune import L1Prune
from trainables.methods.stq import Stq

METHODS: dict[type[CompressBase], Callable[[Any], Method]] = {
    StqConfig: Stq,
    L1PruneConfig: L1Prune,
    FinetuneConfig: Finetune,
    DecomposeConfig: Decompose,
}


def create(config: CompressConfig, seed: int = 0) -> Method:
    """A fresh method for `config`, by the type of its canonical form (`binary` is STQ at PFR 0)."""
    canonical = config.canonical()
    method = METHODS[type(canonical)](canonical)
    method.seed = seed
    return method
