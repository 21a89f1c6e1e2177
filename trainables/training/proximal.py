"""Proximal operators: what a step of gradient descent on a penalty without a gradient does instead.

prox_t(x) = argmin_y  ||y - x||^2 / 2 + t * penalty(y). Each gives exact zeros, as no subgradient does. After a step of
rate lr on the loss, t is lr times the penalty's strength; with momentum m that acts as (1 - m) times the strength.
"""

import torch
from torch import Tensor


def soft_threshold(x: Tensor, t: float) -> Tensor:
    """Of t ||x||_1: sign(x) (|x| - t)_+; any shape."""
    return torch.sign(x) * (x.abs() - t).clamp(min=0)


def group_shrinkage(norms: Tensor, t: Tensor | float) -> Tensor:
    """The factor (1 - t / ||x||)_+ that the prox of t ||x||_2 multiplies a group x by, given ||x||; 0 where that is 0.

    Reference: Yuan and Lin, "Model selection and estimation in regression with grouped variables", 2006.
    """
    kept = (norms - t).clamp(min=0)
    return torch.where(kept > 0, kept / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)


def singular_value_threshold(matrix: Tensor, t: float) -> Tensor:
    """Of t times the nuclear norm: U (S - t)_+ V^T, shape (m, n); computed in fp64 on the CPU.

    Reference: Cai, Candes and Shen, "A singular value thresholding algorithm", 2010.
    """
    left, values, right = torch.linalg.svd(matrix.double().cpu(), full_matrices=False)
    return ((left * (values - t).clamp(min=0)) @ right).to(matrix)
