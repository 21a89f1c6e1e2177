"""Squared distances among points, one point or one block at a time: never a matrix of all pairs."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ROWS = 2048
CENTRES = 256
"""Points and centres of one block of distances: it stays in a core's cache."""


class Points(Protocol):
    """Vectors that may be known by their products alone."""

    def norms(self) -> Tensor:
        """Squared lengths, fp32 (n,)."""
        ...

    def products(self, index: int) -> Tensor:
        """Inner products of all points with point `index`, fp32 (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of D numbers.

    Args:
        columns: fp32 (D, n), one vector a column: a product with all of them then runs along memory.

    """

    columns: Tensor

    def norms(self) -> Tensor:
        """|x_i|^2, (n,)."""
        return self.columns.square().sum(0)

    def products(self, index: int) -> Tensor:
        """x_i . x_index, (n,)."""
        return self.columns[:, index] @ self.columns


@dataclass(frozen=True, slots=True)
class OuterProducts:
    """The flattened outer products of n pairs of vectors, (n, A * D), which are never formed.

    (a_i outer h_i) . (a_j outer h_j) = (a_i . a_j)(h_i . h_j).

    Args:
        left: of A numbers each.
        right: of D numbers each.

    """

    left: Vectors
    right: Vectors

    def norms(self) -> Tensor:
        """|a_i|^2 |h_i|^2, (n,)."""
        return self.left.norms() * self.right.norms()

    def products(self, index: int) -> Tensor:
        """(a_i . a_index)(h_i . h_index), (n,)."""
        return self.left.products(index).mul_(self.right.products(index))


def scaled(rows: Tensor) -> Tensor:
    """`rows` (n, D) times the power of two that puts the largest entry below 1: squares neither overflow nor vanish.

    Which points are far from which does not depend on the unit, and a power of two rounds nothing.
    """
    largest = rows.abs().amax() if rows.numel() else torch.zeros(())
    exponent = torch.frexp(largest).exponent.clamp(-126, 126)  # beyond, 2 ** -exponent is not a normal number
    return torch.ldexp(rows, -exponent)


def slack(norms: Tensor, width: int) -> Tensor:
    """Squared distances that are rounding where they come from products, (n,): nearer points count as one.

    A product of `width` terms is off by about width * eps * |x||y|, and near points have about the same length.
    """
    return norms * (width * torch.finfo(norms.dtype).eps)


def squared(norms: Tensor, products: Tensor, index: int, noise: Tensor) -> Tensor:
    """Squared distances of all points to point `index`, (n,): 0 where within the noise."""
    return beyond(torch.add(norms, products, alpha=-2).add_(norms[index]), noise)


def beyond(distances: Tensor, noise: Tensor) -> Tensor:
    """`distances` where above the noise, else 0; in place."""
    # Several times as fast as torch.where on the CPU, which does not vectorise over a mask.
    return distances.mul_((distances - noise).relu_().sign_())
