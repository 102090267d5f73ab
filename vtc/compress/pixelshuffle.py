"""Pixel shuffle: the patches of a window side by side in one wide token."""

from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.choices import Grid, square_choices
from vtc.compress.interface import Compressor, FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import linear_flops, reset, two_layers, windows


class PixelShuffle(Compressor):
    """Chen et al., InternVL 1.5 (2404.16821), section 3.1, for any window.

    The S patches of each of the sqrt(V) x sqrt(V) windows are one token of S * D numbers:
    LayerNorm, then LLaVA's MLP. Nothing is lost before the first layer, whose weights grow with
    S: at V = 1 on 576 patches of 1024 they are 590k numbers wide.
    """

    source = "InternVL 1.5 (arXiv 2404.16821)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        self.level = resolve_level(level, depth)
        self.request = FeatureRequest((self.level,))
        width = vision_width * (grid[0] * grid[1] // visual_tokens)
        self.norm = nn.LayerNorm(width)
        self.proj = two_layers(width, text_width)

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """k * k for every k that divides the side of the grid."""
        return square_choices(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Lay the patches of each window side by side, then project."""
        patches = windows(features.levels[self.level], self.grid[0], self.visual_tokens)
        return self.proj(self.norm(patches.flatten(-2)))

    def flops(self) -> int:
        """Two products a token."""
        return self.visual_tokens * linear_flops(*self.proj)

    def reset_parameters(self) -> None:
        """torch's defaults, as LLaVA's MLP."""
        reset(self)
