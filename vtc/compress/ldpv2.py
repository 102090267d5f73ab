"""MobileVLM V2's lightweight downsample projector: MLP, pooling, a convolution for positions."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.choices import Grid, any_square
from vtc.compress.elastic_mlp import ElasticMlp
from vtc.compress.interface import VisionFeatures
from vtc.compress.layers import adaptive_pool, linear_flops, reset


class LdpV2(ElasticMlp):
    """Chu et al., MobileVLM V2 (2402.03766), section 3.3: LDPv2, for any square V.

    LLaVA's MLP, adaptive average pooling to sqrt(V) x sqrt(V) (the release: 12 x 12 alone), and a
    3 x 3 depth-wise convolution added to the tokens. The mean of an affine map is the map of the
    mean, so the pooling stands before the MLP's second layer; the result is the same.

    Settings: `trained` (the V of an elastic training; default: its own alone, as published),
    `level`.
    """

    source = "MobileVLM V2 (arXiv 2402.03766)"
    published = None

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        trained: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            vision_width=vision_width,
            text_width=text_width,
            depth=depth,
            grid=grid,
            visual_tokens=visual_tokens,
            level=level,
            trained=trained,
        )
        self.conv = nn.Conv2d(text_width, text_width, 3, padding=1, groups=text_width)

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any square number up to the patches of a square grid."""
        return any_square(grid)

    def forward(
        self, features: VisionFeatures, visual_tokens: int | None = None
    ) -> Float[Tensor, "B V text_width"]:
        """Project, pool, and add what the neighbours say."""
        count = self.turn(visual_tokens)
        hidden = self.act(self.linear_1(features.levels[self.level]))
        tokens = self.linear_2(adaptive_pool(hidden, self.grid[0], count))
        side = math.isqrt(count)
        image = tokens.transpose(1, 2).unflatten(2, (side, side))
        return tokens + self.conv(image).flatten(2).transpose(1, 2)

    def flops(self) -> int:
        """The first product for every patch, the second and the convolution for V tokens."""
        patches = self.grid[0] * self.grid[1]
        a_token = linear_flops(self.linear_2) + 2 * self.conv.weight.numel()
        return patches * linear_flops(self.linear_1) + self.visual_tokens * a_token

    def reset_parameters(self) -> None:
        """torch's defaults."""
        reset(self)
