"""Whether an exported network predicts what the network predicts that it was made from."""

from dataclasses import dataclass

import numpy as np

from trainables.errors import ExportError
from trainables.models.compact import Compact
from trainables.models.gated import gated
from trainables.runtimes.base import Logits

ROUNDING = 1e-3
"""Largest difference of logits, as a share of the largest logit, that another order of fp32 sums may make."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a correct export may change.

    Attributes:
        near: share of the images whose logits must be near.
        difference: of logits that are near, as a share of the largest logit.
        other: share of the images that may get another class, ties within `ROUNDING` not counted.

    """

    near: float
    difference: float
    other: float


EXACT = Rule(near=1.0, difference=ROUNDING, other=0.0)
"""The same arithmetic in fp32; a class can change in a tie alone."""

STEPPED = Rule(near=0.75, difference=ROUNDING, other=0.05)
"""The same arithmetic, with activations of one or two bits, or with gates.

A value within rounding of a threshold may fall on the other side, and what follows differs by bits; the more values an
image has, the more images there are with such a one. torch, NCHW beside channels_last, random weights, images of 32 x
32 pixels: 1 % of the images and no class in ResNet-20, 14 % and 2.7 % in ResNet-18 (ternary activations); half of the
images differ by less than 3e-7.
"""

ROUNDED = Rule(near=0.5, difference=0.05, other=0.02)
"""Activations rounded to 8 bits, by the export or by training: in most images some value falls on another step.

ResNet-8 and ResNet-20 trained on digits measured medians of 0.004 to 0.007 in both runtimes; with the steps of
activations 8 times too coarse 0.11 to 0.31.
"""


def rule_for(network: Compact, *, rounded: bool) -> Rule:
    """How far an export of `network` must agree with it; `rounded`: it rounds activations to 8 bits."""
    if rounded:
        return ROUNDED
    if not network.activations:
        return STEPPED if gated(network.model) else EXACT
    return STEPPED if network.has_few_bit_activations else ROUNDED


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of images that get the same class, and the largest difference of any logit."""

    agreement: float
    max_difference: float


def check_agreement(expected: Logits, found: Logits, rule: Rule) -> Agreement:
    """How far two predictions for the same images agree; shapes (N, classes), N >= 1.

    Args:
        expected: of the network itself.
        found: of its export.
        rule: how far they must agree.

    Raises:
        ExportError: they differ by more, or a found logit is no number.

    """
    if expected.shape != found.shape:
        msg = f"the export gives logits of shape {list(found.shape)}; the network gives {list(expected.shape)}"
        raise ExportError(msg)
    difference = np.abs(found.astype(np.float64) - expected).max(axis=1)
    other = expected.argmax(1) != found.argmax(1)
    largest = float(np.abs(expected).max())
    near = difference <= rule.difference * max(1.0, largest)
    decided = other & (_margin(expected) > 2 * ROUNDING * max(1.0, largest))
    agrees = np.isfinite(difference).all() and near.mean() >= rule.near and decided.mean() <= rule.other
    measured = Agreement(1 - float(other.mean()), float(difference.max()))
    if not agrees:
        msg = (
            f"the export predicts another class for {int(other.sum())} of {len(expected)} images, and its logits "
            f"differ by up to {measured.max_difference:.3g}, in the median image by {np.median(difference):.3g} "
            f"(largest logit {largest:.3g}); needed are {_wanted(rule, largest)}"
        )
        raise ExportError(msg)
    return measured


def _wanted(rule: Rule, largest: float) -> str:
    images = "all" if rule.near == 1 else f"{rule.near:.0%} of the"
    logits = f"logits within {rule.difference * max(1.0, largest):.3g} for {images} images"
    return f"{logits} and the same class for {1 - rule.other:.0%}, ties aside"


def _margin(logits: Logits) -> Logits:
    """Largest minus second largest logit of each image, shape (N,)."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf, dtype=np.float32)
    top = np.partition(logits, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]
