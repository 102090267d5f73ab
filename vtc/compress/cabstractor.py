"""Honeybee's C-Abstractor: convolutions around an average pooling."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vtc.compress.choices import Grid, any_square
from vtc.compress.elastic import Elastic
from vtc.compress.interface import FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import adaptive_pool, linear_flops, reset
from vtc.errors import InputError

# timm's LayerNormAct2d, which the release's blocks are made with; its other norms take 1e-6.
LN_EPS = 1e-5


class RegNetBlock(nn.Module):
    """A residual block of RegNetY (2003.13678) of one width, with group width 1, LayerNorm, SiLU.

    Linear, 3 x 3 depth-wise convolution, squeeze and excitation of a quarter of the width, linear.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = max(1, round(width / 4))
        self.linear_1 = nn.Linear(width, width, bias=False)
        self.norm_1 = nn.LayerNorm(width, eps=LN_EPS)
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm_2 = nn.LayerNorm(width, eps=LN_EPS)
        self.squeeze = nn.Linear(width, squeezed)
        self.excite = nn.Linear(squeezed, width)
        self.linear_2 = nn.Linear(width, width, bias=False)
        self.norm_3 = nn.LayerNorm(width, eps=LN_EPS)

    def forward(self, patches: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """One block on a square grid in raster order."""
        side = math.isqrt(patches.shape[1])
        inner = F.silu(self.norm_1(self.linear_1(patches)))
        image = self.conv(inner.transpose(1, 2).unflatten(2, (side, side)))
        inner = F.silu(self.norm_2(image.flatten(2).transpose(1, 2)))
        share = self.excite(F.silu(self.squeeze(inner.mean(1, keepdim=True)))).sigmoid()
        return F.silu(self.norm_3(self.linear_2(inner * share)) + patches)

    def flops(self, n_patches: int) -> int:
        """FLOPs of one image."""
        a_patch = linear_flops(self.linear_1, self.linear_2) + 2 * self.conv.weight.numel()
        return n_patches * a_patch + linear_flops(self.squeeze, self.excite)


class CAbstractor(Elastic):
    """Cha et al., Honeybee (2312.06742), section 3.3: the C-Abstractor.

    Learned positions, `blocks` residual blocks on all patches, adaptive average pooling to
    sqrt(V) x sqrt(V), as many blocks on the V means, and a two-layer MLP with SiLU.

    Settings: `blocks` (3, before and behind), `trained` (the V of an elastic training; default: its
    own alone, as published), `level`.
    """

    source = "Honeybee (arXiv 2312.06742)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        blocks: int = 3,
        trained: Sequence[int] | None = None,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        if blocks < 0:
            raise InputError(f"c-abstractor: blocks = {blocks}; take 0 or more")
        self.level = resolve_level(level, depth)
        self.request = FeatureRequest((self.level,))
        self.pos_embed = nn.Parameter(torch.empty(grid[0] * grid[1], vision_width))
        self.before = nn.Sequential(*(RegNetBlock(vision_width) for _ in range(blocks)))
        self.behind = nn.Sequential(*(RegNetBlock(vision_width) for _ in range(blocks)))
        self.proj = nn.Sequential(
            nn.Linear(vision_width, text_width), nn.SiLU(), nn.Linear(text_width, text_width)
        )
        self.take_turns(trained)
        self.reset_parameters()

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any square number up to the patches of a square grid."""
        return any_square(grid)

    def forward(
        self, features: VisionFeatures, visual_tokens: int | None = None
    ) -> Float[Tensor, "B V text_width"]:
        """Convolve, pool, convolve, project."""
        patches = self.before(features.levels[self.level] + self.pos_embed)
        pooled = adaptive_pool(patches, self.grid[0], self.turn(visual_tokens))
        return self.proj(self.behind(pooled))

    def flops(self) -> int:
        """The first blocks on all patches, the rest on V tokens."""
        patches, count = self.grid[0] * self.grid[1], self.visual_tokens
        blocks: Any = [(self.before, patches), (self.behind, count)]
        inner = sum(block.flops(number) for part, number in blocks for block in part)
        return inner + count * linear_flops(*self.proj)

    def reset_parameters(self) -> None:
        """Positions of deviation 0.02, the rest as torch does."""
        reset(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
