"""DivPrune: the patches that are least like one another."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vtc.compress.choices import Grid, up_to_every_patch
from vtc.compress.interface import VisionFeatures
from vtc.compress.selection import TrainingFree, take


class DivPrune(TrainingFree):
    """Alvar et al., DivPrune (2503.02175): a greedy answer to max-min diversity.

    Every patch is projected. The first one chosen is the farthest from its nearest neighbour
    (1 - cosine); each further one is the farthest from the nearest of those chosen. They come in
    raster order. Neither class token nor attention is needed. Setting: `level`.
    """

    source = "DivPrune (arXiv 2503.02175)"

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any number up to one a patch."""
        return up_to_every_patch(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Project every patch, then choose."""
        projected = self.project(features.levels[self.level])
        return take(projected, diverse(projected.detach(), self.visual_tokens))

    def reduce(self, features: VisionFeatures) -> Float[Tensor, "B V D"]:
        """The patches behind the tokens that are chosen."""
        patches = features.levels[self.level]
        return take(patches, diverse(self.project(patches).detach(), self.visual_tokens))

    def flops(self) -> int:
        """The projector on every patch, and the likeness of every pair of projected patches."""
        return self.grid[0] * self.grid[1] * self.projector_flops() + self.reducing_flops()

    def reducing_flops(self) -> int:
        """The likeness of every pair."""
        return 2 * (self.grid[0] * self.grid[1]) ** 2 * self.linear_2.out_features


@torch.no_grad()
def diverse(tokens: Float[Tensor, "B N D"], count: int) -> Int[Tensor, "B count"]:
    """The places of `count` tokens far from one another, ascending; of equal ones the first."""
    unit = F.normalize(tokens.to(torch.promote_types(tokens.dtype, torch.float32)), dim=-1)
    distance = 1 - unit @ unit.transpose(1, 2)
    itself = torch.eye(distance.shape[1], device=distance.device, dtype=torch.bool)
    # How far each token is from the nearest of those chosen; at first, from any other.
    apart = distance.masked_fill(itself, torch.inf).amin(1)
    nearest = torch.full_like(apart, torch.inf)
    chosen = []
    for number in range(count):
        place = (nearest if number else apart).argmax(1, keepdim=True)
        chosen.append(place)
        row = distance.gather(1, place.unsqueeze(-1).expand(-1, -1, distance.shape[2]))
        # A chosen one is never chosen again, not even among equal tokens.
        nearest = torch.minimum(nearest, row[:, 0]).scatter(1, place, -torch.inf)
    return torch.cat(chosen, dim=1).sort(dim=1).values
