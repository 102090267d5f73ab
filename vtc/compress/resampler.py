"""The Perceiver resampler: learned latents that read the patches, layer by layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.attention import CrossAttention, resolve_heads
from vtc.compress.choices import Grid, up_to_every_patch
from vtc.compress.interface import Compressor, FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import draw_normal, fill, linear_flops, reset, sincos, two_layers
from vtc.errors import InputError

MAX_HEADS = 16


class Block(nn.Module):
    """Latents read the patches, then pass a feed-forward layer; both are added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = CrossAttention(width, heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self,
        latents: Float[Tensor, "*A V D"],
        keys: Float[Tensor, "B N D"],
        values: Float[Tensor, "B N D"],
    ) -> Float[Tensor, "B V D"]:
        """One layer; latents without a batch dimension are those of every image."""
        latents = latents + self.attn(self.norm(latents), keys, values)
        return latents + self.ffn(self.ffn_norm(latents))


class Resampler(Compressor):
    """The Perceiver Resampler of Flamingo (2204.14198), figure 5, on a fixed grid.

    V learned latents read LayerNorm(patches), in the keys with fixed 2-D positions, through
    `layers` layers of cross-attention and feed-forward; then LayerNorm and LLaVA's MLP. The
    latents are not among the keys, as they are in Flamingo.

    Settings: `layers` (1; Flamingo has 6), `heads` (default: 16, or the largest number below that
    divides the width), `level`.
    """

    source = "Flamingo (arXiv 2204.14198)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        layers: int = 1,
        heads: int | None = None,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        if layers < 1:
            raise InputError(f"resampler: layers = {layers}; take at least 1")
        self.level = resolve_level(level, depth)
        self.request = FeatureRequest((self.level,))
        heads = resolve_heads("resampler", heads, vision_width, MAX_HEADS)
        self.latents = nn.Parameter(torch.empty(visual_tokens, vision_width))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", torch.empty(grid[0] * grid[1], vision_width))
        self.patch_norm = nn.LayerNorm(vision_width)
        self.layers = nn.ModuleList(Block(vision_width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(vision_width)
        self.proj = two_layers(vision_width, text_width)
        self.reset_parameters()

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """Any number up to one a patch."""
        return up_to_every_patch(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Read the patches into the latents, then project these."""
        values = self.patch_norm(features.levels[self.level])
        keys = values + self.pos_embed
        latents: Tensor = self.latents
        for layer in self.layers:
            latents = layer(latents, keys, values)
        return self.proj(self.norm(latents))

    def flops(self) -> int:
        """Attention over all patches in each layer; the rest for V tokens."""
        patches, count = self.grid[0] * self.grid[1], self.visual_tokens
        layers = sum(
            layer.attn.flops(count, patches) + count * linear_flops(*layer.ffn)  # type: ignore[operator, union-attr, misc]
            for layer in self.layers
        )
        return layers + count * linear_flops(*self.proj)

    def reset_parameters(self) -> None:
        """Latents of deviation 0.02, Xavier in the attention, the rest as torch does."""
        reset(self)
        draw_normal(self.latents, std=0.02)
        fill(self.pos_embed, sincos(*self.grid, self.latents.shape[1]))
        for layer in self.layers:
            layer.attn.reset_parameters()  # type: ignore[operator, union-attr]
