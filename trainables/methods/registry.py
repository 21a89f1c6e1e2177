"""Which config selects which method."""

from collections.abc import Callable
from typing import Any

from trainables.config import CompressBase, CompressConfig, FinetuneConfig, L1PruneConfig, StqConfig
from trainables.methods.base import Method
from trainables.methods.finetune import Finetune
from trainables.methods.l1_prune import L1Prune
from trainables.methods.stq import Stq

METHODS: dict[type[CompressBase], Callable[[Any], Method]] = {
    StqConfig: Stq,
    L1PruneConfig: L1Prune,
    FinetuneConfig: Finetune,
}


def create(config: CompressConfig) -> Method:
    """A fresh method for `config`, by the type of its canonical form (`binary` is STQ at PFR 0)."""
    canonical = config.canonical()
    return METHODS[type(canonical)](canonical)
