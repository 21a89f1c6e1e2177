"""Whether an exported network predicts what the network predicts that it was made from."""

from dataclasses import dataclass

import numpy as np

from trainables.errors import ExportError
from trainables.runtimes.base import Logits

ROUNDING = 1e-3
"""Largest difference of logits, as a share of the largest logit, that another order of fp32 sums may make."""

INT8_AGREEMENT = 0.98
"""Share of images whose class must stay where activations are rounded to 8 bits by the export."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of images that get the same class, and the largest difference of any logit."""

    agreement: float
    max_difference: float


def check_agreement(
    expected: Logits, found: Logits, least: float | None = None, rounding: float = ROUNDING
) -> Agreement:
    """How far two predictions for the same images agree; shapes (N, classes), N >= 1.

    Args:
        expected: of the network itself.
        found: of its export.
        least: share of images whose class must be equal (`INT8_AGREEMENT` for int8 exports); None: the export is
            exact, so that no logit may differ by more than rounding and only ties within it may change the class.
        rounding: as a share of the largest expected logit.

    Raises:
        ExportError: they differ by more, or a found logit is no number.

    """
    if expected.shape != found.shape:
        msg = f"the export gives logits of shape {list(found.shape)}; the network gives {list(expected.shape)}"
        raise ExportError(msg)
    difference = np.abs(found.astype(np.float64) - expected).max(axis=1)
    other = expected.argmax(1) != found.argmax(1)
    measured = Agreement(1 - float(other.mean()), float(difference.max()))
    tolerance = rounding * max(1.0, float(np.abs(expected).max()))
    if least is None:
        fails = bool((~(difference <= tolerance) | (other & (_margin(expected) > 2 * tolerance))).any())
        wanted = f"logits within {tolerance:.3g}"
    else:
        fails = not (measured.agreement >= least and np.isfinite(measured.max_difference))
        wanted = f"the same class on {least:.1%} of the images"
    if fails:
        msg = (
            f"the export predicts another class for {int(other.sum())} of {len(expected)} images, and its logits "
            f"differ by up to {measured.max_difference:.3g} (largest logit {float(np.abs(expected).max()):.3g}); "
            f"needed are {wanted}"
        )
        raise ExportError(msg)
    return measured


def _margin(logits: Logits) -> Logits:
    """Largest minus second largest logit of each image, shape (N,)."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf, dtype=np.float32)
    top = np.partition(logits, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]
