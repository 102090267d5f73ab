"""LLaVA-Mini: few visual tokens, and text that has read every patch before the LLM."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vtc.compress.attention import CrossAttention, resolve_heads
from vtc.compress.choices import Grid, any_square
from vtc.compress.decoder_layer import DecoderLayer, KeysValues
from vtc.compress.fusing import Fusing, Memory
from vtc.compress.interface import FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import (
    draw_normal,
    fill,
    linear_flops,
    reset,
    resized,
    sincos,
    two_layers,
)
from vtc.errors import InputError

MAX_HEADS = 8
HEAD_WIDTH = 128
_MULTIPLE = 256


class LlavaMini(Fusing):
    """Zhang et al., LLaVA-Mini (2501.03895): query compression, and modality pre-fusion.

    sqrt(V) x sqrt(V) learned queries with fixed 2-D positions read LayerNorm(patches) in one
    cross-attention; the keys have the queries' positions, stretched to the patches' grid. LLaVA's
    MLP widens them, and every patch. `layers` decoder layers as Llama's then run over [patches;
    visual tokens; text], causally: the LLM is fed what becomes of visual tokens and text. So visual
    tokens do not depend on the text, and are made, with the patches' keys and values, once for all
    texts about an image. Of several images a text reads all, each at the same positions.

    Settings: `layers` (4), `heads` of these (default: of width 128, as Llama's, at least one),
    `hidden`, the width inside their feed-forward (default: Llama's rule, 11,008 for 4,096), and
    `level`.
    """

    source = "LLaVA-Mini (arXiv 2501.03895)"

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        level: int | float = -2,
        layers: int = 4,
        heads: int | None = None,
        hidden: int | None = None,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        if layers < 1:
            raise InputError(f"llava-mini: layers = {layers}; take at least 1")
        if hidden is not None and (type(hidden) is not int or hidden < 1):
            raise InputError(f"llava-mini: hidden = {hidden!r}; take a whole number of at least 1")
        self.level = resolve_level(level, depth)
        self.request = FeatureRequest((self.level,))
        self.queries = nn.Parameter(torch.empty(visual_tokens, vision_width))
        self.pos_embed: Tensor
        self.query_pos: Tensor
        self.register_buffer("pos_embed", torch.empty(grid[0] * grid[1], vision_width))
        self.register_buffer("query_pos", torch.empty(visual_tokens, vision_width))
        self.patch_norm = nn.LayerNorm(vision_width)
        self.query_norm = nn.LayerNorm(vision_width)
        few = resolve_heads("llava-mini", None, vision_width, MAX_HEADS)
        self.attn = CrossAttention(vision_width, few)
        self.proj = two_layers(vision_width, text_width)
        own = resolve_heads("llava-mini", heads, text_width, max(1, text_width // HEAD_WIDTH))
        if text_width // own % 2:
            raise InputError(
                f"llava-mini: {own} heads of width {text_width // own}; positions turn halves of a "
                "head, so give heads that leave an even width"
            )
        inner = hidden or -(-(8 * text_width // 3) // _MULTIPLE) * _MULTIPLE
        self.layers = nn.ModuleList(DecoderLayer(text_width, own, inner) for _ in range(layers))
        self.reset_parameters()

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """k * k for every k up to the side of the grid."""
        return any_square(grid)

    def read(self, features: VisionFeatures) -> tuple[Float[Tensor, "B V text_width"], Memory]:
        """Compress, project, and run the image's part of the pre-fusion layers."""
        patches = features.levels[self.level]
        values = self.patch_norm(patches)
        queries = self.query_norm(self.queries) + self.query_pos
        few = self.attn(queries, values + self.pos_embed, values)
        states = self.proj(torch.cat([patches, few], dim=1))
        positions = torch.arange(states.shape[1], device=states.device)
        kept: list[KeysValues] = []
        for layer in self.layers[:-1]:
            states, own = layer(states, positions)
            kept.append(own)
        # Of the last layer the LLM is fed the visual tokens alone.
        n_patches, count = patches.shape[1], self.visual_tokens
        seen = torch.ones(count, n_patches + count, dtype=torch.bool, device=states.device)
        tokens, own = self.layers[-1](states, positions, seen=seen.tril(n_patches), last=count)
        kept.append(own)
        keys, values = (torch.stack(part) for part in zip(*kept, strict=True))
        return tokens, Memory(keys, values)

    def fuse(
        self,
        text: Float[Tensor, "R Q text_width"],
        memory: Memory,
        images: Int[Tensor, "R M"],
        seen: Bool[Tensor, "R Q Q"],
    ) -> Float[Tensor, "R Q text_width"]:
        """Run the text's part of the pre-fusion layers, behind its images."""
        n_image = memory.keys.shape[3]
        shown = (images >= 0).repeat_interleave(n_image, dim=1)
        whole = torch.cat([shown[:, None, :].expand(-1, text.shape[1], -1), seen], dim=2)
        positions = n_image - 1 + seen.sum(2)
        for number, layer in enumerate(self.layers):
            past = (part[number][images.clamp(min=0)] for part in memory)
            joined = (part.transpose(1, 2).flatten(2, 3) for part in past)
            text, _ = layer(text, positions, KeysValues(*joined), whole[:, None])
        return text

    def flops(self) -> int:
        """Compression, the MLP and the layers over patches and visual tokens; no text."""
        patches, count = self.grid[0] * self.grid[1], self.visual_tokens
        each = patches + count
        whole = sum(layer.flops(each, each) for layer in self.layers[:-1])  # type: ignore[operator]
        last: DecoderLayer = self.layers[-1]  # type: ignore[assignment]
        return (
            self.attn.flops(count, patches)
            + each * linear_flops(*self.proj)
            + whole
            + last.flops(each, each, count)
        )

    def text_flops(self) -> tuple[int, int]:
        """What the layers cost a token behind one image, and each pair of tokens."""
        n_image = self.grid[0] * self.grid[1] + self.visual_tokens
        one, two = (
            sum(layer.flops(n, n_image + n) for layer in self.layers)  # type: ignore[operator]
            for n in (1, 2)
        )
        pair = (two - 2 * one) // 2
        return one - pair, pair

    def reset_parameters(self) -> None:
        """Queries and decoder layers of deviation 0.02, Xavier in the attention, else torch's."""
        reset(self)
        draw_normal(self.queries, std=0.02)
        side = math.isqrt(self.visual_tokens)
        table = sincos(side, side, self.queries.shape[1])
        fill(self.query_pos, table)
        fill(self.pos_embed, resized(table, self.grid))
        self.attn.reset_parameters()
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]
