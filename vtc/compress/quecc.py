"""QueCC: TokenPacker's windows, asked by patches that know the question."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vtc.compress.attention import resolve_heads
from vtc.compress.choices import Grid, square_choices
from vtc.compress.interface import Compressor, FeatureRequest, VisionFeatures, resolve_level
from vtc.compress.layers import linear_flops, two_layers, windows
from vtc.compress.published import LEVELS_OF_24, Published, Source, both
from vtc.compress.tokenpacker import KEY_LEVELS, LN_EPS, MAX_HEADS
from vtc.compress.window_attention import WindowAttention
from vtc.errors import InputError


def _facts(tensors: Mapping[str, Tensor], grid: Grid) -> dict[str, int]:
    """Sizes as the published weights' shapes tell them; the kernel is a window's side."""
    width, _, size, _ = tensors["0.q_downsample.weight"].shape
    return {
        "vision_width": width,
        "text_width": tensors["3.weight"].shape[0],
        "visual_tokens": (grid[0] // size) ** 2,
    }


# The compressor is the first of an nn.Sequential, behind it LLaVA's MLP.
PUBLISHED = Published(
    weights={
        **both(
            {
                "text_proj": "0.text_projection.0",
                "text_norm": "0.text_projection.1",
                **{
                    f"{own}_{part}": f"0.{theirs}_proj.{place}"
                    for own, theirs in (("query", "q"), ("key", "k"), ("value", "v"))
                    for part, place in (("proj.0", 0), ("proj.2", 2), ("norm", 3))
                },
                "downsample": "0.q_downsample",
                "attention.out_proj": "0.clip_attn.out_proj",
                "out_proj.0": "1",
                "out_proj.2": "3",
            }
        ),
        "attention.in_proj_weight": Source("0.clip_attn.in_proj_weight"),
        "attention.in_proj_bias": Source("0.clip_attn.in_proj_bias"),
    },
    facts=_facts,
    levels=LEVELS_OF_24,
)


class QueCC(Compressor):
    """Li et al., Inference Optimal VLMs Need Fewer Visual Tokens (2411.03312), section 4.

    The question's vector, made as wide as the patches, is added to each patch of the last level
    asked for. An MLP and a depthwise convolution over each of the sqrt(V) x sqrt(V) windows make
    the queries. Keys and values are MLPs of the concatenation of all levels; each query attends,
    with several heads and no residual, to its own window; an MLP widens the result to the LLM.

    With V = N a window is one patch, which a query takes whatever it asks: the question then
    changes nothing. Settings: `query_level`, `key_levels` and `heads`, as TokenPacker's.
    """

    source = "QueCC (arXiv 2411.03312)"
    needs_query = True
    published = PUBLISHED

    def __init__(
        self,
        *,
        vision_width: int,
        text_width: int,
        depth: int,
        grid: Grid,
        visual_tokens: int,
        query_level: int | float = -2,
        key_levels: Sequence[int | float] = KEY_LEVELS,
        heads: int | None = None,
    ) -> None:
        super().__init__(grid=grid, visual_tokens=visual_tokens)
        if not key_levels:
            raise InputError("quecc: key_levels is empty; name at least one level")
        self.query_level = resolve_level(query_level, depth)
        self.key_levels = tuple(sorted({resolve_level(level, depth) for level in key_levels}))
        self.request = FeatureRequest(tuple(sorted({self.query_level, *self.key_levels})))
        width, size = vision_width, grid[0] // math.isqrt(visual_tokens)
        self.text_proj = nn.Linear(text_width, width)
        self.text_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.query_proj = two_layers(width, width)
        self.query_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.downsample = nn.Conv2d(width, width, size, stride=size, groups=width)
        self.key_proj = two_layers(width * len(self.key_levels), width)
        self.key_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.value_proj = two_layers(width * len(self.key_levels), width)
        self.value_norm = nn.LayerNorm(width, eps=LN_EPS)
        self.attention = WindowAttention(width, resolve_heads("quecc", heads, width, MAX_HEADS))
        self.out_proj = two_layers(width, text_width)
        self.reset_parameters()

    @classmethod
    def supported(cls, grid: Grid) -> list[int]:
        """k * k for every k that divides the side of the grid."""
        return square_choices(grid)

    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Compress each image for its question.

        `features.query` [B, text_width] are the questions' vectors. Several may be about one image:
        `features.asked` [B] then says which, and its keys and values are made once. Raises
        ValueError without a query.
        """
        if features.query is None:
            raise ValueError("quecc compresses an image for a question, and has been given none")
        fine = torch.cat([features.levels[level] for level in self.key_levels], dim=-1)
        keys = self._windows(self.key_norm(self.key_proj(fine)), features)
        values = self._windows(self.value_norm(self.value_proj(fine)), features)
        return self.out_proj(self.attention(self._queries(features), keys, values))

    def _windows(
        self, patches: Float[Tensor, "U N D"], features: VisionFeatures
    ) -> Float[Tensor, "B V S D"]:
        cut = windows(patches, self.grid[0], self.visual_tokens)
        return cut if features.asked is None else cut[features.asked]

    def _queries(self, features: VisionFeatures) -> Float[Tensor, "B V D"]:
        """One query a window: what its patches, each knowing the question, say together."""
        patches, side = features.levels[self.query_level], self.grid[0]
        if features.asked is not None:
            patches = patches[features.asked]
        text = self.text_norm(self.text_proj(features.query)).unsqueeze(1)
        told = self.query_norm(self.query_proj(patches + text))
        # A view of channels last, and weights laid out alike: the fastest kernel on the CPU.
        image = told.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        weight = self.downsample.weight.contiguous(memory_format=torch.channels_last)
        coarse = F.conv2d(
            image,
            weight,
            self.downsample.bias,
            stride=self.downsample.stride,
            groups=self.downsample.groups,
        )
        return coarse.flatten(2).transpose(1, 2)

    def flops(self) -> int:
        """Three MLPs over all patches, attention and the output over V tokens; of one question.

        Without the question's own pass through the LLM: see `cost.query`.
        """
        patches = self.grid[0] * self.grid[1]
        a_patch = linear_flops(*self.query_proj, *self.key_proj, *self.value_proj)
        # The convolution: each patch once, channel by channel.
        a_patch += 2 * self.downsample.in_channels
        return (
            linear_flops(self.text_proj)
            + patches * a_patch
            + self.attention.flops(self.visual_tokens, patches // self.visual_tokens)
            + self.visual_tokens * linear_flops(*self.out_proj)
        )

    def reset_parameters(self) -> None:
        """torch's defaults, as the reference: its linear layers, convolution and attention."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv2d | WindowAttention):
                module.reset_parameters()
