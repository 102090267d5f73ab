"""PruMerge and PruMerge+: the patches that the class token looks at, each with its likes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vtc.compress.choices import Grid, up_to_every_patch
from vtc.compress.interface import FeatureRequest, Tokens, VisionFeatures
from vtc.compress.selection import TrainingFree, others, take
from vtc.compress.visionzip import class_attention

NEIGHBOURS = 32
"""The most similar tokens that each kept one takes in."""


class PruMerge(TrainingFree):
    """Shang et al., LLaVA-PruMerge (2403.15388), section 3, with the number kept given: V - 1.

    The class token's attention in the layer that reads `level`, of one head as wide as the
    encoder, chooses the patches to keep. A kept one is itself and the sum of its 32 most similar
    patches (cosine of keys), each weighted by that attention; one more token is the sum of all
    patches that are not kept, weighted alike.

    Settings: `normalise` (default no, as published: weighted means in place of those sums),
    `level`, and `reference_behaviour`: tokens come in order of attention, not in raster order,
    and scores are computed in the type of the encoder's weights, not in fp32 at least.
    """

    needs_cls = True
    source = "LLaVA-PruMerge (arXiv 2403.15388)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        normalise: bool = False,
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
        # The layer that reads the level; no layer reads the last state, which the last one made.
        layer = min(self.level, depth - 1)
        levels = tuple(sorted({layer, self.level}))
        self.request = FeatureRequest(levels, Tokens(class_token=True), layer)
        self.normalise = normalise
        self.reference_behaviour = reference_behaviour

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any number up to one a patch."""
        return up_to_every_patch(grid)

    def reduce(self, features: VisionFeatures) -> Float[Tensor, "B V D"]:
        """The kept patches with what they took in, and one token of all others."""
        layer, patches = features.attention, features.levels[self.level]
        assert layer is not None
        query, keys = layer.project(features.all_tokens(self.request.attention))  # type: ignore[arg-type]
        if not self.reference_behaviour:
            wide = torch.promote_types(keys.dtype, torch.float32)
            query, keys = query.to(wide), keys.to(wide)
        n_patches = patches.shape[1]
        attention = class_attention(query, keys, 1)[:, 0, -n_patches:]
        kept, rest = self.split(attention)
        # Every patch once, or as the release has it; those that are kept first.
        pool = torch.cat([kept, rest], dim=1)
        keys = F.normalize(take(keys[:, -n_patches:], pool), dim=-1)
        weights = attention.gather(1, pool).to(patches.dtype)
        mixing = self._mixing(keys, weights, kept.shape[1])
        return mixing @ take(patches, pool)

    def split(
        self, attention: Float[Tensor, "B N"]
    ) -> tuple[Int[Tensor, "B V_1"], Int[Tensor, "B R"]]:
        """The places of the V - 1 patches that are kept, and of all others."""
        kept = attention.topk(self.visual_tokens - 1, dim=1).indices
        if not self.reference_behaviour:
            kept = kept.sort(dim=1).values
        return kept, others(kept, attention.shape[1])

    def _mixing(
        self, keys: Float[Tensor, "B N D"], weights: Float[Tensor, "B N"], n_kept: int
    ) -> Float[Tensor, "B V N"]:
        """The share of each patch in each token; the first `n_kept` patches are kept."""
        own = torch.eye(n_kept, keys.shape[1], device=keys.device, dtype=torch.bool)
        likeness = keys[:, :n_kept] @ keys.transpose(1, 2)
        likeness = likeness.masked_fill(own, -torch.inf)
        nearest = likeness.topk(min(NEIGHBOURS, keys.shape[1] - 1), dim=2).indices
        given = weights.unsqueeze(1).expand(-1, n_kept, -1)
        mixing = torch.zeros_like(given).scatter(2, nearest, given.gather(2, nearest))
        mixing = mixing + own.to(weights.dtype)
        left = torch.cat([torch.zeros_like(weights[:, :n_kept]), weights[:, n_kept:]], dim=1)
        mixing = torch.cat([mixing, left.unsqueeze(1)], dim=1)
        return mixing / mixing.sum(-1, keepdim=True) if self.normalise else mixing

    def reducing_flops(self) -> int:
        """Keys and class attention; likenesses of the kept patches to all; V sums over all."""
        n_patches, width = self.grid[0] * self.grid[1], self.linear_1.in_features
        pairs = (self.visual_tokens - 1) * n_patches + self.visual_tokens * n_patches
        return self.projecting_keys_flops() + 2 * pairs * width


class PruMergePlus(PruMerge):
    """PruMerge+: half of the kept patches by attention, half evenly over the image.

    Of V - 1 patches the larger half are the most attended to; the others stand at the middle of
    as many equal stretches of the patches that are left, in raster order, so that none is there
    twice. `reference_behaviour`: evenly over all patches, wherever the first half stands; one that
    is in both is there twice, and as many patches from the upper left are in no token.
    """

    source = "LLaVA-PruMerge+ (arXiv 2403.15388)"

    def split(
        self, attention: Float[Tensor, "B N"]
    ) -> tuple[Int[Tensor, "B V_1"], Int[Tensor, "B R"]]:
        """The places of the V - 1 patches that are kept, and of all others."""
        batch, n_patches = attention.shape
        n_even = (self.visual_tokens - 1) // 2
        first = attention.topk(self.visual_tokens - 1 - n_even, dim=1).indices
        if self.reference_behaviour:
            even = _release_even(n_even, n_patches, attention.device).expand(batch, -1)
            kept = torch.cat([first, even], dim=1)
            return kept, _release_others(kept, n_patches)
        left = others(first, n_patches)
        even = left[:, middles(n_even, left.shape[1], left.device)]
        kept = torch.cat([first, even], dim=1).sort(dim=1).values
        return kept, others(kept, n_patches)


def middles(count: int, length: int, device: torch.device | None = None) -> Int[Tensor, " count"]:
    """The middle of each of `count` equal stretches of 0 ... length - 1, rounded down."""
    return (2 * torch.arange(count, device=device) + 1) * length // (2 * max(count, 1))


def _release_even(count: int, length: int, device: torch.device) -> Int[Tensor, " count"]:
    """The released steps of length / count, rounded down, from the middle of the first.

    Where these are not as many, the release fails, and the middles of stretches stand for them.
    """
    step = length // max(count, 1)
    steps = torch.arange(step // 2, length - 1, step, device=device)
    return steps if len(steps) == count else middles(count, length, device)


def _release_others(kept: Int[Tensor, "B K"], n_tokens: int) -> Int[Tensor, "B R"]:
    """The released complement: the places not kept, without the first few where any is kept twice.

    There places are set to 0 and sorted, and as many as were kept are cut off in front.
    """
    places = torch.arange(n_tokens, device=kept.device).expand(len(kept), -1)
    return places.scatter(1, kept, 0).sort(dim=1).values[:, kept.shape[1] :]
