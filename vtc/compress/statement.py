"""What a compressor costs, asked of itself: built without memory, run on no image."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from vtc.compress.interface import AttentionLayer, Compressor, Grid, VisionFeatures
from vtc.compress.registry import build


class Statement(NamedTuple):
    """Of one image: parameters, FLOPs, bytes kept for the backward pass (fp32), levels read.

    And whether it needs the question, which the LLM reads for it besides; and, of one that merges
    patches inside the encoder, how many are left behind each of its layers. `text_flops` are a and
    b of the a Q + b Q^2 FLOPs of one that fuses Q tokens of text with the image, which are beside
    `flops`.
    """

    n_params: int
    flops: int
    saved_bytes: int
    levels: tuple[int, ...]
    needs_query: bool
    patches_left: tuple[int, ...] = ()
    text_flops: tuple[int, int] = (0, 0)


def statement(
    name: str,
    *,
    vision_width: int,
    text_width: int,
    depth: int,
    grid: Grid,
    visual_tokens: int,
    settings: Mapping[str, Any] | None = None,
) -> Statement:
    """The costs of a compressor of the registry; arguments as `registry.build`.

    It is built and run on PyTorch's meta device, which has shapes and no numbers. Raises
    InputError as `build` does.
    """
    with torch.device("meta"):
        compressor = build(
            name,
            vision_width=vision_width,
            text_width=text_width,
            depth=depth,
            grid=grid,
            visual_tokens=visual_tokens,
            settings=settings,
        )
        features = blank(compressor, vision_width, text_width)
    return Statement(
        n_params=sum(weight.numel() for weight in compressor.parameters()),
        flops=compressor.flops(),
        saved_bytes=_saved_bytes(compressor, features),
        levels=compressor.request.levels,
        needs_query=compressor.needs_query,
        patches_left=compressor.patches_left,
        text_flops=compressor.text_flops(),
    )


def blank(compressor: Compressor, vision_width: int, text_width: int) -> VisionFeatures:
    """Features of one image of just the kind that a compressor asks for, of undefined numbers."""
    request = compressor.request
    n_patches = compressor.grid[0] * compressor.grid[1]
    if request.tokens.merged is not None:
        n_patches = request.tokens.merged
    states = {level: torch.empty(1, n_patches, vision_width) for level in request.levels}
    features = VisionFeatures(states, compressor.grid)
    if compressor.needs_query:
        features.query = torch.empty(1, text_width)
    if request.tokens.class_token:
        features.before = {level: torch.empty(1, 1, vision_width) for level in request.levels}
    if request.attention is not None:
        parts = (nn.Linear(vision_width, vision_width).requires_grad_(False) for _ in range(2))
        features.attention = AttentionLayer(nn.Identity(), *parts, heads=1)
    return features


def _saved_bytes(compressor: torch.nn.Module, features: VisionFeatures) -> int:
    """Bytes of the distinct tensors, weights aside, that autograd keeps of a forward pass."""
    weights = {weight.untyped_storage()._cdata for weight in compressor.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compressor(features)
    return sum(storage.nbytes() for storage in kept.values())
