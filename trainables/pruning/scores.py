"""How well a filter can be spared: one number per filter of a weight tensor of shape (O, ...)."""

import torch
from torch import Tensor

from trainables.quantize import ThresholdOf, binarize, near_zero


def zero_share(w: Tensor, threshold: float, of: ThresholdOf) -> Tensor:
    """s_o = #(|W_o| < D) / n, D = `near_zero(w, threshold, of)`, n weights per filter; shape (O,), in [0, 1].

    The filters with the largest share are spared first. STQ-Nets (BMVC 2020) ranks by near-zero weights; the formula
    is inferred.
    """
    return (w.abs() < near_zero(w, threshold, of)).flatten(1).to(w.dtype).mean(1)


def mean_abs(w: Tensor) -> Tensor:
    """s_o = mean|W_o|, shape (O,). The filters with the smallest are spared first (Li et al., ICLR 2017)."""
    return w.abs().flatten(1).mean(1)


def binarization_error(w: Tensor) -> Tensor:
    """s_o = ||W_o - a_o sign(W_o)||^2 / n with a_o = mean|W_o|, n weights per filter; shape (O,).

    The filters with the largest error are spared first. It is the variance of |W_o|, so that it grows with the
    square of the weights' scale. Formula inferred from STQ-Nets (BMVC 2020).
    """
    return (w - binarize(w, "filter")).square().flatten(1).mean(1)


def relative(score: Tensor) -> Tensor:
    """A score over its mean in the layer, so that coupled layers of unlike scale have an equal say; shape (O,)."""
    mean = score.mean()
    return score / mean if mean > 0 else torch.zeros_like(score)
