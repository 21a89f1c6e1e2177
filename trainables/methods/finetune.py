"""Nothing compressed: the dense parent trained on with a compression schedule (baseline `dense_finetuned`)."""

from trainables.config import FinetuneConfig
from trainables.methods.base import Method


class Finetune(Method):
    """Every hook does nothing; the network stays dense and fp32."""

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config
