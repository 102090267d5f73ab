"""MQT: the first V of a row of learned queries, each V trained in its turn."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.attention import CrossAttention, resolve_heads
from vtc.compress.choices import Grid, n_queries, nested_queries
from vtc.compress.elastic import Elastic
from vtc.compress.interface import FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import draw_normal, draw_truncated, fill, linear_flops, resized, sincos
from vtc.compress.published import Published, Source, attention, both
from vtc.compress.written import checksum, identity
from vtc.errors import InputError

MAX_HEADS = 16
LN_EPS = 1e-6


class _Folded(NamedTuple):
    """Attention of static keys, and what it was computed of."""

    state: tuple
    numbers: Tensor
    weights: Float[Tensor, "H Q N"]


def _own_queries(tensors: Mapping[str, Tensor], grid: Grid) -> dict[str, int]:
    """A checkpoint's number of queries, where it is not that of its grid."""
    count = len(tensors["query"]) if "query" in tensors else n_queries(grid)
    return {} if count == n_queries(grid) else {"queries": count}


class Mqt(Elastic):
    """Hu et al., Matryoshka Query Transformer (2405.19315), section 3: cross-attention, no MLP.

    256 learned queries with fixed positions (on a grid with fewer patches, the largest square);
    one layer of attention over the patches; one matrix to the LLM. Queries are LayerNorm(query +
    position), values LayerNorm(patch). The tokens of V are the first of those of any larger V.

    Settings: `static_keys` (the released code: keys are LayerNorm(position), so that every image
    is read with the same weights; here LayerNorm(patch) + position), `trained` (the V that the
    steps of an elastic training draw from, each as likely as another; default: 1 and the even
    numbers, of which the release has the even alone),
    `heads` (default: 16, or the largest number below that divides the width), `queries` (another
    square number of them, which a published checkpoint may have; V is at most that), `level`.
    """

    source = "MQT (arXiv 2405.19315)"
    published = Published(
        {
            "query": Source("query"),
            "pos_embed": Source("pos_embed"),
            "proj.weight": Source("proj", transposed=True),
            **both({"query_norm": "ln_q", "key_norm": "ln_k", "value_norm": "ln_v"}),
            **attention("attn.query", "attn.key", "attn.value", "attn.out", "attn"),
        },
        lambda tensors, grid: {
            "vision_width": tensors["proj"].shape[0],
            "text_width": tensors["proj"].shape[1],
            "visual_tokens": min(len(tensors["query"]), n_queries(grid)),
        },
        place="query_abstractor",
        settings={"static_keys": True},
        shaped=_own_queries,
    )

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        static_keys: bool = False,
        trained: Sequence[int] | None = None,
        heads: int | None = None,
        queries: int | None = None,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        count = n_queries(grid) if queries is None else queries
        if count < 1 or math.isqrt(count) ** 2 != count:
            raise InputError(f"mqt: queries = {count}; it takes a square number, such as 256")
        if visual_tokens > count:
            raise InputError(f"mqt: {count} queries make no {visual_tokens} visual tokens")
        self.n_queries = count
        self.level = resolve_level(level, depth)
        self.request = FeatureRequest((self.level,))
        self.static_keys = static_keys
        self.take_turns(trained)
        self.query = nn.Parameter(torch.empty(count, vision_width))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", torch.empty(count, vision_width))
        self.query_norm = nn.LayerNorm(vision_width, eps=LN_EPS)
        self.key_norm = nn.LayerNorm(vision_width, eps=LN_EPS)
        self.value_norm = nn.LayerNorm(vision_width, eps=LN_EPS)
        heads = resolve_heads("mqt", heads, vision_width, MAX_HEADS)
        self.attn = CrossAttention(vision_width, heads)
        self.proj = nn.Linear(vision_width, text_width, bias=False)
        self._folded: _Folded | None = None
        self.reset_parameters()

    def published_turns(self) -> Sequence[int]:
        """1, which the release leaves out, and the even numbers."""
        return [1, *range(2, min(self.n_queries, n_queries(self.grid)) + 1, 2)]

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any number up to that of the queries."""
        return nested_queries(grid)

    def forward(
        self, features: VisionFeatures, visual_tokens: int | None = None
    ) -> Float[Tensor, "B V text_width"]:
        """Attend from the first V queries to all patches."""
        count, patches = self.turn(visual_tokens), features.levels[self.level]
        if self.static_keys:
            weights = self._static_weights(count)
        else:
            keys = self.key_norm(patches) + self._key_positions()
            weights = self.attn.weights(self._queries(count), keys)
        return self.proj(self.attn.gather(weights, self.value_norm(patches)))

    def _queries(self, count: int) -> Float[Tensor, "V D"]:
        return self.query_norm(self.query[:count] + self.pos_embed[:count])

    def _key_positions(self) -> Float[Tensor, "N D"]:
        return resized(self.pos_embed, self.grid)

    def _static_weights(self, count: int) -> Float[Tensor, "H V N"]:
        """Attention that no image changes: computed anew in training, else once for its weights."""
        if torch.is_grad_enabled():
            return self.attn.weights(self._queries(count), self.key_norm(self._key_positions()))
        parts = (self.query, self.pos_embed, *self.query_norm.parameters())
        parts += (*self.key_norm.parameters(), *self.attn.query.parameters())
        parts += tuple(self.attn.key.parameters())
        state, numbers = identity(parts, self.query.device.type), checksum(parts)
        kept = self._folded
        if kept is None or kept.state != state or not torch.equal(kept.numbers, numbers):
            every = self._queries(len(self.query))
            weights = self.attn.weights(every, self.key_norm(self._key_positions()))
            self._folded = kept = _Folded(state, numbers, weights)
        return kept.weights[:, :count]

    def flops(self) -> int:
        """Attention and the matrix to the LLM; with static keys, whose weights are kept, as in
        inference: the weighted sums and that matrix."""
        patches, count = self.grid[0] * self.grid[1], self.visual_tokens
        read = self.attn.gather_flops(count, patches) + count * linear_flops(self.proj)
        return read if self.static_keys else read + self.attn.weights_flops(count, patches)

    def reset_parameters(self) -> None:
        """The matrix to the LLM of deviation 1 / sqrt(the LLM's width), queries of a truncated
        normal of 0.02, the attention's output by `draw_truncated`, its inputs as
        nn.MultiheadAttention's: as the reference, 1024 wide.
        """
        nn.init.trunc_normal_(self.query, std=0.02)
        side = math.isqrt(len(self.query))
        fill(self.pos_embed, sincos(side, side, self.query.shape[1]))
        for norm in (self.query_norm, self.key_norm, self.value_norm):
            norm.reset_parameters()
        self.attn.reset_parameters()
        draw_truncated(self.attn.out)
        draw_normal(self.proj.weight, std=self.proj.out_features**-0.5)
