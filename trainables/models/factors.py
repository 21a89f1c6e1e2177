"""One convolution or linear layer as two smaller ones: the best ones of a rank, by singular values."""

import torch
from torch import Tensor


@torch.no_grad()
def separable_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A k x 1 and a 1 x k kernel whose composition is nearest to `weight`, (O, I, kh, kw), in the sum of squares.

    With M[(i, y), (o, x)] = W[o, i, y, x] = U S V^T the vertical kernel is U sqrt(S), the horizontal one sqrt(S) V^T,
    of the `rank` largest singular values. Reference: Jaderberg et al., "Speeding up Convolutional Neural Networks with
    Low Rank Expansions", BMVC 2014, scheme 2, whose factors are found otherwise.

    Returns:
        Vertical, (rank, I, kh, 1), and horizontal, (O, rank, 1, kw); filters beyond the rank of M are 0.

    """
    outputs, inputs, height, width = weight.shape
    matrix = weight.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)
    left, right = factors(matrix, rank)
    vertical = left.t().reshape(rank, inputs, height, 1)
    return vertical, right.reshape(rank, outputs, 1, width).transpose(0, 1).contiguous()


@torch.no_grad()
def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (m, rank) and B (rank, n) with A B nearest to `matrix` (m, n): U sqrt(S) and sqrt(S) V^T, in fp32.

    Where `rank` is above min(m, n) the columns and rows beyond are 0. Reference: Eckart and Young, 1936.
    """
    left, values, right = torch.linalg.svd(matrix.double().cpu(), full_matrices=False)
    held = min(rank, len(values))
    root = values[:held].sqrt()
    first, second = matrix.new_zeros(matrix.shape[0], rank), matrix.new_zeros(rank, matrix.shape[1])
    first[:, :held] = (left[:, :held] * root).to(matrix)
    second[:held] = (root[:, None] * right[:held]).to(matrix)
    return first, second
