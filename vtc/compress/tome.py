"""ToMe: like tokens become one, a few in every layer of the encoder."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vtc.compress.choices import Grid, up_to_every_patch
from vtc.compress.interface import FeatureRequest, Tokens, VisionFeatures
from vtc.compress.schedule import patches_left
from vtc.compress.selection import TrainingFree


class ToMe(TrainingFree):
    """Bolya et al., Token Merging (2210.09461): merged inside the encoder until V are left.

    Every layer below `level` merges some tokens between its attention and its MLP, by bipartite
    soft matching of its keys (the mean over heads), the same number in each (`schedule.merges`);
    tokens that stand for several weigh as much in attention. The encoder itself becomes cheaper.

    Settings: `level`, and `reference_behaviour`: tokens come as the merges leave them, first the
    unmerged and then the targets of the last merge; here they come by where their patches are in
    the middle, in raster order.
    """

    source = "ToMe (arXiv 2210.09461)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        reference_behaviour: bool = False,
    ) -> None:
        super().__init__(
            vision_width=vision_width,
            text_width=text_width,
            depth=depth,
            grid=grid,
            visual_tokens=visual_tokens,
            level=level,
        )
        n_patches = grid[0] * grid[1]
        self.patches_left = patches_left(n_patches, visual_tokens, self.level)
        self.request = FeatureRequest(
            (self.level,), Tokens(merged=visual_tokens, in_order=not reference_behaviour)
        )

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any number up to one a patch."""
        return up_to_every_patch(grid)

    def feature_grid(self, n_patches: int) -> Grid:
        """The encoder's grid, of which V merged patches are left; ValueError for another number."""
        if n_patches != self.visual_tokens:
            raise ValueError(
                f"{n_patches} patches are not merged to {self.visual_tokens}; ToMe merges inside "
                "the encoder, which features of its patches are behind"
            )
        return self.grid

    def reduce(self, features: VisionFeatures) -> Float[Tensor, "B V D"]:
        """The encoder has merged them."""
        return features.levels[self.level]

    def reducing_flops(self) -> int:
        """None here: what the matching costs, the encoder spares many times over."""
        return 0


@dataclass(frozen=True)
class Matching:
    """Which tokens merge: of the even places (sources), r go into odd ones (targets).

    `unmerged` and `merged` are numbers among the even places, `into` of the odd ones.
    """

    unmerged: Int[Tensor, "B A_r"]
    merged: Int[Tensor, "B r"]
    into: Int[Tensor, "B r"]

    def summed(self, tokens: Float[Tensor, "B T E"]) -> Float[Tensor, "B T_r E"]:
        """The tokens behind the merge, sums of those that became one: the unmerged, the targets."""
        sources, targets = tokens[:, ::2], tokens[:, 1::2]

        def wide(places: Tensor) -> Tensor:
            return places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])

        merged = sources.gather(1, wide(self.merged))
        targets = targets.scatter_add(1, wide(self.into), merged)
        return torch.cat([sources.gather(1, wide(self.unmerged)), targets], dim=1)


@torch.no_grad()
def match(metric: Float[Tensor, "B T E"], r: int, class_token: bool) -> Matching:
    """Bipartite soft matching (2210.09461, section 3): the r most alike pairs, source by source.

    Tokens at even places are sources, those at odd places targets. Each source has its most
    similar target (cosine); the r sources most like theirs merge. The class token, at place 0,
    never does, and then the unmerged keep their order; else they come by likeness, as published.
    """
    metric = metric.to(torch.promote_types(metric.dtype, torch.float32))
    metric = metric / metric.norm(dim=-1, keepdim=True)
    likeness = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)
    if class_token:
        likeness[:, 0] = -torch.inf
    best, target = likeness.max(dim=-1)
    ranked = best.argsort(dim=-1, descending=True, stable=True)
    unmerged, merged = ranked[:, r:], ranked[:, :r]
    if class_token:
        unmerged = unmerged.sort(dim=1).values
    return Matching(unmerged, merged, target.gather(1, merged))
