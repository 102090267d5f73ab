"""M3: one projector for nested numbers of tokens, means of ever larger windows."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from vtc.compress.choices import Grid, square_choices
from vtc.compress.elastic_mlp import ElasticMlp
from vtc.compress.interface import VisionFeatures
from vtc.compress.layers import linear_flops, windows


class M3(ElasticMlp):
    """Cai et al., Matryoshka Multimodal Models (2405.17430), section 3: LLaVA's MLP, then means.

    The mean of an affine map is the map of the mean, so the windows are pooled before the second
    layer, which then runs on V tokens in place of all patches; the result is the same.

    Settings: `trained` are the V of an elastic training (default: the sides that remain as the
    grid is divided by its prime factors, 1, 9, 36, 144 and 576 of 24 x 24, and of those the ones
    up to V, and V). As published, a step trains all of them: its loss is the mean of theirs. The
    published model trains its encoder along; here that is frozen.
    """

    together = True
    source = "M3 (arXiv 2405.17430)"

    def published_turns(self) -> Sequence[int]:
        """Those of `halved`."""
        return self.halved(self.grid)

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """k * k for every k that divides the side of the grid."""
        return square_choices(grid)

    @staticmethod
    def halved(grid: Grid) -> list[int]:
        """The squares of the side as it is divided by its smallest factor, down to 1."""
        sides = [grid[0]]
        while sides[-1] > 1:
            factor = next(k for k in range(2, sides[-1] + 1) if sides[-1] % k == 0)
            sides.append(sides[-1] // factor)
        return [side * side for side in sides]

    def forward(
        self, features: VisionFeatures, visual_tokens: int | None = None
    ) -> Float[Tensor, "B V text_width"]:
        """The first layer on all patches, means of V windows, the second layer."""
        hidden = self.act(self.linear_1(features.levels[self.level]))
        pooled = windows(hidden, self.grid[0], self.turn(visual_tokens)).mean(2)
        return self.linear_2(pooled)

    def flops(self) -> int:
        """The first product for every patch, the second for V tokens."""
        patches = self.grid[0] * self.grid[1]
        first, second = linear_flops(self.linear_1), linear_flops(self.linear_2)
        return patches * first + self.visual_tokens * second
