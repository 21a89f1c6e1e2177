"""What makes a labelled training pool harder: classes of unequal size, and wrong labels."""

import torch
from torch import Tensor

from trainables.data.splits import first_of_each


def long_tail(labels: Tensor, classes: int, imbalance: float, source: torch.Generator) -> Tensor:
    """The images that are left when class k of K keeps its share imbalance^(-k / (K - 1)); sorted indices, int64.

    A class of n images keeps round(n x share), and at least one. The first class keeps all; of equally large classes
    the last keeps 1 / imbalance. With one state of `source`, a larger imbalance leaves a subset of a smaller one's.

    Args:
        labels: int64 (N,).
        classes: K.
        imbalance: at least 1, which leaves all.
        source: draws which images go.

    Reference: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, section 5.1 (n mu^k).

    """
    if imbalance == 1:
        return torch.arange(len(labels))
    counts = torch.bincount(labels, minlength=classes).tolist()
    shares = (imbalance ** (-k / (classes - 1)) for k in range(classes))
    kept = [min(count, max(1, round(count * share))) for count, share in zip(counts, shares, strict=True)]
    return first_of_each(labels, torch.tensor(kept), source)[0]


def with_noise(labels: Tensor, classes: int, share: float, source: torch.Generator) -> Tensor:
    """The labels with round(share x N) of them replaced, each by another class, all equally likely; int64 (N,).

    With one state of `source`, the wrong labels of a smaller share are among those of a larger one.

    Reference: symmetric label noise, van Rooyen et al., "Learning with Symmetric Label Noise", NeurIPS 2015; given
    there as the probability of a flip. That the number of flips is exact, not drawn, is ours.
    """
    if share == 0:
        return labels
    places = torch.randperm(len(labels), generator=source)[: round(share * len(labels))]
    steps = torch.randint(1, classes, (len(labels),), generator=source)
    noisy = labels.clone()
    noisy[places] = (labels[places] + steps[places]) % classes
    return noisy
