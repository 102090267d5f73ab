"""The Q-Former: a small BERT whose inputs are learned queries, with the patches beside it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.attention import CrossAttention, resolve_heads
from vtc.compress.choices import Grid, up_to_every_patch
from vtc.compress.interface import Compressor, FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import draw_normal, linear_flops
from vtc.errors import InputError

BERT_WIDTH = 768
MAX_HEADS = 12
LN_EPS = 1e-12


class Layer(nn.Module):
    """Self-attention, cross-attention in every second layer, feed-forward; each summed, normed."""

    def __init__(self, width: int, heads: int, vision_width: int | None) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads)
        self.attn_norm = nn.LayerNorm(width, eps=LN_EPS)
        if vision_width is not None:
            self.cross = CrossAttention(width, heads, vision_width)
            self.cross_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.reads_patches = vision_width is not None
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.ffn_norm = nn.LayerNorm(width, eps=LN_EPS)

    def forward(
        self, states: Float[Tensor, "A V D"], patches: Float[Tensor, "B N K"]
    ) -> Float[Tensor, "C V D"]:
        """One layer; states of batch size 1 that no image has touched serve all images."""
        states = self.attn_norm(states + self.attn(states, states, states))
        if self.reads_patches:
            queries = states[0] if len(states) == 1 else states
            states = self.cross_norm(states + self.cross(queries, patches, patches))
        return self.ffn_norm(states + self.ffn(states))

    def flops(self, n_queries: int, n_patches: int) -> int:
        """FLOPs of one image."""
        own = self.attn.flops(n_queries, n_queries) + n_queries * linear_flops(*self.ffn)
        return own + (self.cross.flops(n_queries, n_patches) if self.reads_patches else 0)


class QFormer(Compressor):
    """Li et al., BLIP-2 (2301.12597), section 3.1: the half that reads images.

    V learned queries through `layers` post-norm layers of BERT, every second of which, the first
    among them, attends to the patches; then one linear layer to the LLM. Text layers and word
    embeddings, which BLIP-2 counts among its 188 million parameters, are not built; weights are
    drawn, not BERT's; there is no dropout.

    Settings: `layers` (12), `width` (768, or that of a narrower encoder), `heads` (default: 12, or
    the largest number below that divides the width), `cross_every` (2), `level`.
    """

    source = "BLIP-2 (arXiv 2301.12597)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        layers: int = 12,
        width: int | None = None,
        heads: int | None = None,
        cross_every: int = 2,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        if layers < 1 or cross_every < 1:
            raise InputError(f"qformer: layers = {layers}, cross_every = {cross_every}; 1 at least")
        self.level = resolve_level(level, depth)
        self.request = FeatureRequest((self.level,))
        width = min(BERT_WIDTH, vision_width) if width is None else width
        if width < 1:
            raise InputError(f"qformer: width = {width}; take at least 1")
        heads = resolve_heads("qformer", heads, width, MAX_HEADS)
        self.queries = nn.Parameter(torch.empty(visual_tokens, width))
        self.norm = nn.LayerNorm(width, eps=LN_EPS)
        self.layers = nn.ModuleList(
            Layer(width, heads, None if number % cross_every else vision_width)
            for number in range(layers)
        )
        self.proj = nn.Linear(width, text_width)
        self.reset_parameters()

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any number up to one a patch."""
        return up_to_every_patch(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Read the patches into the queries, then widen these."""
        patches = features.levels[self.level]
        states = self.norm(self.queries).unsqueeze(0)
        for layer in self.layers:
            states = layer(states, patches)
        return self.proj(states)

    def flops(self) -> int:
        """All layers on V queries, and the patches where they are read."""
        patches, count = self.grid[0] * self.grid[1], self.visual_tokens
        layers = sum(layer.flops(count, patches) for layer in self.layers)  # type: ignore[operator, misc]
        return layers + count * linear_flops(self.proj)

    def reset_parameters(self) -> None:
        """BERT's: normal of deviation 0.02, zero biases.

        Layers narrower than BERT's get 0.55 / sqrt(width), the same at 768, so that what the
        patches say does not vanish.
        """
        draw_normal(self.queries, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.LayerNorm):
                part.reset_parameters()
            elif isinstance(part, nn.Linear):
                std = max(0.02, 0.55 / math.sqrt(part.in_features))
                draw_normal(part.weight, std=std)
                nn.init.zeros_(part.bias)
