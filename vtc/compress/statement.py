"""What a compressor costs, asked of itself: built without memory, run on no image."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from vtc.compress.interface import Grid, VisionFeatures
from vtc.compress.registry import build


class Statement(NamedTuple):
    """Of one image: parameters, FLOPs, bytes kept for the backward pass (fp32), levels read.

    And whether it needs the question, which the LLM reads for it besides.
    """

    n_params: int
    flops: int
    saved_bytes: int
    levels: tuple[int, ...]
    needs_query: bool


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
        patches = (1, grid[0] * grid[1], vision_width)
        features = {level: torch.empty(patches) for level in compressor.request.levels}
        question = torch.empty(1, text_width) if compressor.needs_query else None
    return Statement(
        n_params=sum(weight.numel() for weight in compressor.parameters()),
        flops=compressor.flops(),
        saved_bytes=_saved_bytes(compressor, VisionFeatures(features, grid, question)),
        levels=compressor.request.levels,
        needs_query=compressor.needs_query,
    )


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
