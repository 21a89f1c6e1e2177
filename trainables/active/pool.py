"""What a query strategy sees of a round, and what a strategy is."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Network(Protocol):
    """What the selection network says of images, in eval mode and without augmentation.

    Images are named by their indices into the training images, int64 (n,), in any order. What is asked for again is
    not computed again. All tensors are on the CPU.
    """

    def logits(self, indices: Tensor) -> Tensor:
        """fp32 (n, classes), finite."""
        ...

    def features(self, indices: Tensor) -> Tensor:
        """Inputs of the last linear layer, fp32 (n, D), finite.

        Raises:
            InfeasibleError: the network has no linear layer at its end.

        """
        ...

    def dropout_logits(self, indices: Tensor, passes: int, source: torch.Generator) -> Tensor:
        """Logits under `passes` independent draws of dropout before the last layer, fp32 (passes, n, classes)."""
        ...

    def flips(self, indices: Tensor) -> Tensor:
        """How often the predicted class changed from epoch to epoch of this round's training, int64 (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Pool:
    """A round as a strategy sees it; labels of candidates are out of its reach.

    Args:
        candidates: indices that may be chosen, ascending int64 (C,); none of them is labelled.
        labelled: indices in the order in which they were labelled, int64 (L,).
        labels: of `labelled`, int64 (L,).
        classes: how many there are.
        network: what was trained on the labelled images.

    """

    candidates: Tensor
    labelled: Tensor
    labels: Tensor
    classes: int
    network: Network


class Strategy(Protocol):
    """Chooses the images to be labelled next."""

    def __call__(self, pool: Pool, count: int, source: torch.Generator) -> Tensor:
        """`count` different members of `pool.candidates`, the most wanted first, int64 (count,).

        `1 <= count <= len(pool.candidates)`. All chance comes from `source`; ties fall to the earlier candidate.
        """
        ...
