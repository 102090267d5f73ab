"""Average pooling of the patch grid before the MLP: the cheapest useful compressor."""

from jaxtyping import Float
from torch import Tensor

from vtc.compress.choices import Grid, square_choices
from vtc.compress.interface import VisionFeatures
from vtc.compress.layers import windows
from vtc.compress.mlp import Mlp


class AvgPool(Mlp):
    """The mean of each of the sqrt(V) x sqrt(V) equal windows, then LLaVA's MLP.

    DeCo (2405.20985), section 3: AdaptiveAvgPool2d on the patch grid before the projector. Where
    sqrt(V) divides the side of the grid, as is asked here, the adaptive windows are these.
    """

    pools = True
    source = "DeCo (arXiv 2405.20985)"
    published = None

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """k * k for every k that divides the side of the grid."""
        return square_choices(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Average each window, then project the V means."""
        patches = windows(features.levels[self.level], features.grid[0], self.visual_tokens)
        return self.project(patches.mean(dim=2))
