"""Pieces that several compressors are built of."""

import math

from jaxtyping import Float
from torch import Tensor, nn


def windows(
    patches: Float[Tensor, "B N D"], side: int, visual_tokens: int
) -> Float[Tensor, "B V S D"]:
    """Cut a side x side grid in raster order into V equal square windows of S patches each.

    Windows come in raster order, and so do the patches within each.
    """
    count = math.isqrt(visual_tokens)
    size = side // count
    batch, _, width = patches.shape
    grid = patches.view(batch, count, size, count, size, width)
    return grid.transpose(2, 3).reshape(batch, count * count, size * size, width)


def linear_flops(linear: nn.Linear) -> int:
    """FLOPs of a linear layer for one token, a multiply-add counted as two; biases not counted."""
    return 2 * linear.in_features * linear.out_features
