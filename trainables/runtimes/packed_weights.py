"""Weights of one or two bits, taken apart into signs and the few numbers that scale them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.errors import InfeasibleError
from trainables.kernels.layout import Doubles


@dataclass(frozen=True, slots=True)
class FewValues:
    """W = magnitude_o sign + offset_o, sign in {-1, 0, +1} of shape (O, I, k, k); the others have shape (O,).

    Offsets other than 0 are those of filters with two free values, whose signs are never 0.
    """

    signs: NDArray[np.int8]
    magnitude: Doubles
    offset: Doubles


def few_values(name: str, weights: NDArray[np.float32]) -> FewValues:
    """The weights (O, I, k, k) of the layer `name` as signs and scales.

    Raises:
        InfeasibleError: a filter holds other values than {-a, 0, +a} or two.

    """
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    largest, low, high = np.abs(flat).max(1), flat.min(1), flat.max(1)
    symmetric = ((np.abs(flat) == largest[:, None]) | (flat == 0)).all(1)
    two = ((flat == low[:, None]) | (flat == high[:, None])).all(1)
    # {0, a} is ternary and has two values; as ternary it needs no sum over the window
    free = two & ~symmetric
    if not (symmetric | two).all():
        worst = int(np.argmin(symmetric | two))
        msg = (
            f"{name}: filter {worst} has {len(np.unique(flat[worst]))} values; the packed runtime takes filters of two "
            "values, or of {-a, 0, +a}: set compress.weights to binary or ternary"
        )
        raise InfeasibleError(msg)
    signs = np.where(free[:, None], np.where(flat == high[:, None], 1, -1), np.sign(flat))
    # a filter of zeros is binary with magnitude 0
    signs[largest == 0] = 1
    return FewValues(
        signs.astype(np.int8).reshape(weights.shape),
        np.where(free, (high - low) / 2, largest),
        np.where(free, (high + low) / 2, 0.0),
    )
