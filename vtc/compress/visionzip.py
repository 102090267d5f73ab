"""VisionZip: the patches that the class token looks at, and merged ones for the rest."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vtc.compress.choices import Grid, two_or_more
from vtc.compress.interface import FeatureRequest, Tokens, VisionFeatures
from vtc.compress.selection import HEAD_WIDTH, TrainingFree, others, take
from vtc.errors import InputError


class VisionZip(TrainingFree):
    """Yang et al., VisionZip (2412.04467): dominant and contextual tokens, no weights.

    Of V tokens, `contextual` C are merged ones (default: 5 of 32, the published share, 1 at
    least); the others are the class token and the patches that it attends to most in the layer
    that made `level`, summed over heads, in raster order. Of the patches that are left, every
    (number / C)-th is a target; each other one joins the target whose key, the mean over heads,
    is most like its own (cosine). A contextual token is the mean of a target and what joined it.

    Settings: `contextual`, `level`, and `reference_behaviour`: a contextual token is the target
    plus the mean of what joined it, as released, which is about twice as long as a token; scores
    are computed in the type of the encoder's weights, and not in fp32 at least.
    """

    needs_cls = True
    source = "VisionZip (arXiv 2412.04467)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        contextual: int | None = None,
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
        # The layer that made the level; the embeddings were made by none, and the first reads them.
        layer = max(self.level - 1, 0)
        levels = tuple(sorted({layer, self.level}))
        self.request = FeatureRequest(levels, Tokens(class_token=True), layer)
        self.contextual = max(1, 5 * visual_tokens // 32) if contextual is None else contextual
        self.reference_behaviour = reference_behaviour
        if type(self.contextual) is not int or not 1 <= self.contextual < visual_tokens:
            raise InputError(
                f"visionzip of {visual_tokens} visual tokens cannot have contextual = "
                f"{contextual!r}; it takes a whole number from 1 to {visual_tokens - 1}"
            )

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """The class token and a merged one at least: 2 to one a patch."""
        return two_or_more(grid)

    def reduce(self, features: VisionFeatures) -> Float[Tensor, "B V D"]:
        """The class token, the patches most attended to, and the contextual tokens."""
        layer, patches = features.attention, features.levels[self.level]
        assert layer is not None
        class_token = features.before[self.level][:, :1]
        query, keys = layer.project(features.all_tokens(self.request.attention))  # type: ignore[arg-type]
        if not self.reference_behaviour:
            query, keys = (part.to(_wide(part)) for part in (query, keys))
        n_patches = patches.shape[1]
        attention = class_attention(query, keys, layer.heads)[:, :, -n_patches:].sum(1)
        n_chosen = self.visual_tokens - self.contextual - 1
        dominant = attention.topk(n_chosen, dim=1).indices.sort(dim=1).values
        rest = others(dominant, n_patches)
        keys = keys[:, -n_patches:].unflatten(2, (layer.heads, -1)).mean(2)
        contextual = self._merged(take(patches, rest), take(keys, rest))
        return torch.cat([class_token, take(patches, dominant), contextual], dim=1)

    def _merged(
        self, patches: Float[Tensor, "B R D"], keys: Float[Tensor, "B R E"]
    ) -> Float[Tensor, "B C D"]:
        """The patches that are left, as C tokens."""
        batch, count, _ = patches.shape
        stride = count // self.contextual
        targets = torch.arange(self.contextual, device=keys.device) * stride
        targets = targets.expand(batch, -1)
        joining = others(targets, count)
        keys = keys / keys.norm(dim=-1, keepdim=True)
        likeness = take(keys, joining) @ take(keys, targets).transpose(1, 2)
        joins = F.one_hot(likeness.argmax(-1), self.contextual).to(patches.dtype)
        counts = joins.sum(1).unsqueeze(-1)
        added = joins.transpose(1, 2) @ take(patches, joining)
        if self.reference_behaviour:
            return take(patches, targets) + added / counts.clamp(min=1)
        return (take(patches, targets) + added) / (1 + counts)

    def reducing_flops(self) -> int:
        """Keys and class attention; likenesses and sums of the patches that join a target."""
        width = self.linear_1.in_features
        n_chosen = self.visual_tokens - self.contextual - 1
        joining = self.grid[0] * self.grid[1] - n_chosen - self.contextual
        a_pair = 2 * (min(HEAD_WIDTH, width) + width)
        return self.projecting_keys_flops() + joining * self.contextual * a_pair


def class_attention(
    query: Float[Tensor, "B D"], keys: Float[Tensor, "B T D"], heads: int
) -> Float[Tensor, "B H T"]:
    """How much the class token attends to each token, by head: softmax(q k / sqrt(D / H))."""
    query = query.unflatten(1, (heads, -1))
    keys = keys.unflatten(2, (heads, -1))
    scores = torch.matmul(query.unsqueeze(2), keys.permute(0, 2, 3, 1)).squeeze(2)
    return (scores * query.shape[-1] ** -0.5).softmax(-1)


def _wide(tensor: Tensor) -> torch.dtype:
    """fp32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)
