"""A control that sees nothing: what the questions alone, and V more tokens, can answer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.choices import Grid, up_to_every_patch
from vtc.compress.interface import Compressor, FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import draw_normal


class Blind(Compressor):
    """V learned tokens, the same for every image.

    What a compressor scores above this one is what it took from the image. It asks for LLaVA's
    level of the encoder, so that it shares the others' features, and reads their number alone.
    """

    source = "a control"

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
        self.tokens = nn.Parameter(torch.empty(visual_tokens, text_width))
        self.reset_parameters()

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any number up to one a patch."""
        return up_to_every_patch(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """The learned tokens, once for each image."""
        return self.tokens.expand(len(features.levels[self.level]), -1, -1)

    def flops(self) -> int:
        """None."""
        return 0

    def reset_parameters(self) -> None:
        """Normal of deviation 0.02, that of an LLM's fresh embeddings."""
        draw_normal(self.tokens, std=0.02)
