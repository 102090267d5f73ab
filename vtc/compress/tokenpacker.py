"""TokenPacker: coarse queries, each attending to the fine features of its own window."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vtc.compress.attention import resolve_heads
from vtc.compress.choices import Grid, square_choices
from vtc.compress.elastic import Elastic
from vtc.compress.interface import FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import adaptive_pool, draw_truncated, linear_flops, two_layers, windows
from vtc.compress.published import LEVELS_OF_24, Published, Source, attention, both
from vtc.compress.window_attention import WIDE, attend_unprojected
from vtc.errors import InputError

# Hidden states 12, 16, 22 and 23 of a 24-layer encoder, as shares of the way to the penultimate.
KEY_LEVELS = (12 / 23, 16 / 23, 22 / 23, 1.0)
MAX_HEADS = 8
LN_EPS = 1e-6
QUERIES = ("bilinear", "antialias", "area")


class TokenPacker(Elastic):
    """Li et al., TokenPacker (2407.02392), section 3.2, for any width, depth and square grid.

    Queries are a sqrt(V) x sqrt(V) reduction of the last level asked for. Keys and values are MLPs
    of the concatenation of all levels. Each query attends, with several heads and no residual, to
    the window of the grid that it stands for; an MLP widens the result to the LLM.

    Settings: `query`, how patches become queries (bilinear, the published way, which reads at most
    4 patches of a window; antialias, bilinear over all of them and a little around; area, their
    mean), `query_level` and `key_levels` (indices into the hidden states, or fractions: see
    `resolve_level`; those that fall on one state count once), `heads` (default: 8, or the largest
    number below that divides the width), `trained` (the V of an elastic training; default: its own
    alone, as published).
    """

    source = "TokenPacker (arXiv 2407.02392)"
    published = Published(
        {
            "query_proj.weight": Source("q_proj_1.weight"),
            **both({f"key_proj.{n}": f"k_proj_1.{n}" for n in (0, 2)}),
            **both({f"value_proj.{n}": f"v_proj_1.{n}" for n in (0, 2)}),
            **both({f"out_proj.{n}": f"mlp.{n}" for n in (0, 2)}),
            **both({"query_norm": "ln_q_1", "key_norm": "ln_k_1", "value_norm": "ln_v_1"}),
            **attention("attn_query", "attn_key", "attn_value", "attn_out", "clip_attn"),
        },
        lambda tensors, grid: {
            "vision_width": tensors["q_proj_1.weight"].shape[0],
            "text_width": tensors["mlp.2.weight"].shape[0],
            "visual_tokens": (grid[0] // 2) ** 2,
        },
        levels=LEVELS_OF_24,
    )

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        query: str = "bilinear",
        query_level: int | float = -2,
        key_levels: Sequence[int | float] = KEY_LEVELS,
        heads: int | None = None,
        trained: Sequence[int] | None = None,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        self.take_turns(trained)
        if not key_levels:
            raise InputError("tokenpacker: key_levels is empty; name at least one level")
        if query not in QUERIES:
            raise InputError(f"tokenpacker: query '{query}'; choose from {', '.join(QUERIES)}")
        self.query = query
        self.query_level = resolve_level(query_level, depth)
        self.key_levels = tuple(sorted({resolve_level(level, depth) for level in key_levels}))
        self.request = FeatureRequest(tuple(sorted({self.query_level, *self.key_levels})))
        self.heads = resolve_heads("tokenpacker", heads, vision_width, MAX_HEADS)
        width, key_width = vision_width, vision_width * len(self.key_levels)
        self.query_proj = nn.Linear(width, width, bias=False)
        self.query_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.key_proj = two_layers(key_width, width)
        self.key_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.value_proj = two_layers(key_width, width)
        self.value_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.attn_query = nn.Linear(width, width)
        self.attn_key = nn.Linear(width, width)
        self.attn_value = nn.Linear(width, width)
        self.attn_out = nn.Linear(width, width)
        self.out_proj = two_layers(width, text_width)
        self.reset_parameters()

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """k * k for every k that divides the side of the grid."""
        return square_choices(grid)

    def forward(
        self, features: VisionFeatures, visual_tokens: int | None = None
    ) -> Float[Tensor, "B V text_width"]:
        """Attend from each of the V coarse queries to its own window, then widen."""
        count = self.turn(visual_tokens)
        fine = torch.cat([features.levels[level] for level in self.key_levels], dim=-1)
        coarse = self._reduce(features.levels[self.query_level], count)
        queries = self.attn_query(self.query_norm(self.query_proj(coarse)))
        keys = self.key_norm(self.key_proj(fine))
        values = self.value_norm(self.value_proj(fine))
        attend = self._attend_unprojected if self._absorbs(count) else self._attend
        return self.out_proj(self.attn_out(attend(queries, keys, values)))

    def _reduce(self, patches: Float[Tensor, "B N D"], count: int) -> Float[Tensor, "B V D"]:
        """The grid as sqrt(V) x sqrt(V) queries, in float32 as the reference does."""
        side, across = self.grid[0], math.isqrt(count)
        if self.query == "area":
            return adaptive_pool(patches.float(), side, count).to(patches.dtype)
        image = patches.float().transpose(1, 2).unflatten(2, (side, side))
        small = F.interpolate(
            image,
            size=(across, across),
            mode="bilinear",
            align_corners=False,
            antialias=self.query == "antialias",
        )
        return small.flatten(2).transpose(1, 2).to(patches.dtype)

    def _attend(
        self,
        queries: Float[Tensor, "B V D"],
        keys: Float[Tensor, "B N D"],
        values: Float[Tensor, "B N D"],
    ) -> Float[Tensor, "B V D"]:
        """Multi-head attention of each query over its window of N / V patches."""
        side, count, heads = self.grid[0], queries.shape[1], self.heads
        query = queries.unflatten(-1, (heads, -1)) * (queries.shape[-1] // heads) ** -0.5
        keys, values = self.attn_key(keys), self.attn_value(values)
        key = windows(keys, side, count).unflatten(-1, (heads, -1))
        value = windows(values, side, count).unflatten(-1, (heads, -1))
        # Elementwise product and sum: on a CPU much faster than V * heads tiny matrix products.
        weights = (query.unsqueeze(2) * key).sum(-1).softmax(dim=2)
        return (weights.unsqueeze(-1) * value).sum(2).flatten(-2)

    def _attend_unprojected(
        self,
        queries: Float[Tensor, "B V D"],
        keys: Float[Tensor, "B N D"],
        values: Float[Tensor, "B N D"],
    ) -> Float[Tensor, "B V D"]:
        """The same with the matrices of keys and values on the side of queries and result."""
        query = queries.unflatten(-1, (self.heads, -1))
        query = query * query.shape[-1] ** -0.5
        side, count = self.grid[0], queries.shape[1]
        found = attend_unprojected(
            query,
            windows(keys, side, count),
            windows(values, side, count),
            self.attn_key.weight,
            self.attn_value.weight,
        )
        # The key's bias shifts all scores of a query alike, so that softmax takes it away; it has
        # a gradient, of zeros, for the sake of DDP.
        return found + self.attn_value.bias + 0 * self.attn_key.bias

    def _absorbs(self, count: int) -> bool:
        """Whether no patch is projected into the attention of `count` queries: if that is less.

        Narrow encoders keep the plain order, so that trainings of them end as they always did.
        """
        projected, absorbed = self._orders(count)
        return self.attn_query.in_features >= WIDE and absorbed < projected

    def _orders(self, count: int) -> tuple[int, int]:
        """FLOPs of the attention with every patch projected, and with none."""
        patches, width = self.grid[0] * self.grid[1], self.attn_query.in_features
        matrices = linear_flops(self.attn_key, self.attn_value)
        # Each patch meets one query once in the scores and once in the weighted sum.
        met = patches * 2 * 2 * width
        return patches * matrices + met, count * matrices + self.heads * met

    def flops(self) -> int:
        """Keys and values over all patches, queries and the output over V tokens."""
        patches = self.grid[0] * self.grid[1]
        a_patch = linear_flops(*self.key_proj, *self.value_proj)
        a_token = linear_flops(self.query_proj, self.attn_query, self.attn_out, *self.out_proj)
        count = self.visual_tokens
        attention = self._orders(count)[self._absorbs(count)]
        return patches * a_patch + attention + count * a_token

    def reset_parameters(self) -> None:
        """Weights by `draw_truncated`, zero biases, Xavier for the attention's inputs."""
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                draw_truncated(module)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.attn_query, self.attn_key, self.attn_value):
            # The three are one [3 D, D] matrix in the reference: its Xavier bound, not a square's.
            bound = math.sqrt(6 / (4 * layer.in_features))
            nn.init.uniform_(layer.weight, -bound, bound)
