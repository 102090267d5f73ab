"""Pieces that several compressors are built of."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vtc.compress.choices import Grid


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


def adaptive_pool(
    patches: Float[Tensor, "B N D"], side: int, visual_tokens: int
) -> Float[Tensor, "B V D"]:
    """Means of sqrt(V) x sqrt(V) windows of a side x side grid, which overlap where they must.

    As AdaptiveAvgPool2d: where sqrt(V) divides the side, the windows of `windows`.
    """
    count = math.isqrt(visual_tokens)
    if side % count == 0:
        return windows(patches, side, visual_tokens).mean(2)
    image = patches.transpose(1, 2).unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(image, count).flatten(2).transpose(1, 2)


def sincos(rows: int, columns: int, width: int) -> Float[Tensor, "N D"]:
    """Fixed positions of a grid in raster order: sines and cosines of the column, then the row.

    The 2-D table of MAE (2111.06377), of any width: what a width that 4 does not divide lacks is
    cut off.
    """
    quarter = -(-width // 4)
    with torch.device("cpu"):  # Numbers, also where a compressor is built for its shapes alone.
        rates = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
        row, column = torch.meshgrid(
            torch.arange(rows, dtype=torch.float64),
            torch.arange(columns, dtype=torch.float64),
            indexing="ij",
        )
    parts = [place.reshape(-1, 1) * rates for place in (column, row)]
    table = torch.cat([wave(part) for part in parts for wave in (torch.sin, torch.cos)], dim=1)
    return table[:, :width].float()


def resized(table: Float[Tensor, "M D"], grid: Grid) -> Float[Tensor, "N D"]:
    """Positions of a square grid stretched to another: bicubic in float32, in the table's type.

    From one position alone all get the same.
    """
    side = math.isqrt(len(table))
    if grid == (side, side):
        return table
    image = table.float().T.unflatten(1, (side, side)).unsqueeze(0)
    large = F.interpolate(image, size=grid, mode="bicubic", align_corners=False)
    return large[0].flatten(1).T.to(table.dtype)


def fill(buffer: Tensor, values: Tensor) -> None:
    """Write fixed values into a buffer, unless transformers has loaded it from a checkpoint."""
    if not (buffer.is_meta or getattr(buffer, "_is_hf_initialized", False)):
        with torch.no_grad():
            buffer.copy_(values)


def draw_normal(weight: Tensor, std: float) -> None:
    """nn.init.normal_, but for a weight that has a shape and no numbers nothing.

    There torch would load its compiler, which takes seconds.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, std=std)


def draw_truncated(layer: nn.Linear) -> None:
    """A truncated normal of deviation 0.02, which releases of 1024 wide encoders draw.

    Narrower layers get 0.64 / sqrt(width), the same at 1024, so that their outputs do not vanish.
    """
    nn.init.trunc_normal_(layer.weight, std=max(0.02, 0.64 / math.sqrt(layer.in_features)))


def reset(module: nn.Module) -> None:
    """Draw linear layers, convolutions and norms anew from torch's own distributions."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.LayerNorm | nn.Conv2d):
            part.reset_parameters()


def two_layers(width_in: int, width_out: int) -> nn.Sequential:
    """Linear, GELU, Linear: LLaVA's projector."""
    return nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))


def linear_flops(*linears: nn.Module) -> int:
    """FLOPs of linear layers for one token, a multiply-add counted as two; biases not counted.

    Modules of another kind count as nothing, so that the layers of an nn.Sequential may be given.
    """
    return sum(
        2 * part.in_features * part.out_features for part in linears if isinstance(part, nn.Linear)
    )
