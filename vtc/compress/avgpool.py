"""Average pooling of the patch grid before the MLP: the cheapest useful compressor."""

import math

from jaxtyping import Float
from torch import Tensor

from vtc.compress.choices import Grid, square_choices
from vtc.compress.elastic_mlp import ElasticMlp
from vtc.compress.interface import VisionFeatures
from vtc.compress.layers import windows
from vtc.errors import InputError


class AvgPool(ElasticMlp):
    """The mean of each of the sqrt(V) x sqrt(V) equal windows, then LLaVA's MLP.

    DeCo (2405.20985), section 3: AdaptiveAvgPool2d on the patch grid before the projector. Where
    sqrt(V) divides the side of the grid, as is asked here, the adaptive windows are these.

    Settings: `trained` (the V of an elastic training; default: its own alone, as published),
    `level`.
    """

    pools = True
    source = "DeCo (arXiv 2405.20985)"
    published = None

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """k * k for every k that divides the side of the grid."""
        return square_choices(grid)

    def forward(
        self, features: VisionFeatures, visual_tokens: int | None = None
    ) -> Float[Tensor, "B V text_width"]:
        """Average each window, then project the V means.

        Raises InputError for features that are means of windows which V does not divide.
        """
        side, count = features.grid[0], self.turn(visual_tokens)
        if side % math.isqrt(count):
            raise InputError(
                f"avgpool: these features are means of {side * side} windows, of which no "
                f"{count} visual tokens can be made; encode without --pool, or with one that "
                "every V divides"
            )
        return self.project(windows(features.levels[self.level], side, count).mean(dim=2))
