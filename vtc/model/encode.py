"""One pass of a frozen encoder over many images, into a feature folder."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.compress.choices import KNOWN, check_cacheable, check_pooling
from vtc.compress.interface import PATCHES, Tokens, resolve_level
from vtc.compress.layers import windows
from vtc.compress.registry import COMPRESSORS, build, find
from vtc.data.feature_shards import Plan, finished_images, write_features
from vtc.data.features import Layout, preprocessing_hash
from vtc.data.pixels import load_pixels
from vtc.model.backbones import Encoder, module_dtype
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.tower import encode_states, grid_of

MEMORY_LIMIT = 1 << 30
"""Features that a training or an evaluation holds in memory at a time, in bytes."""


def requested_levels(
    vision_config: Any,
    compressors: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    """The levels that any of several compressors asks of an encoder, ascending.

    Without names: all that are shipped, can work on this encoder's grid, and read its patches
    alone. Raises InputError for an unknown name, or one that cannot, or reads more.
    """
    grid = grid_of(vision_config)
    chosen = compressors or [
        name
        for name, kind in COMPRESSORS.items()
        if kind.supported(grid) and not KNOWN[name].reads_more
    ]
    levels: set[int] = set()
    for name in chosen:
        check_cacheable(name)
        with torch.device("meta"):
            compressor = build(
                name,
                vision_width=vision_config.hidden_size,
                text_width=vision_config.hidden_size,
                depth=vision_config.num_hidden_layers,
                grid=grid,
                # Levels do not depend on V; a grid without any choice is named by the compressor.
                visual_tokens=next(iter(find(name).supported(grid)), 1),
                settings=settings,
            )
        levels.update(compressor.request.levels)
    return tuple(sorted(levels))


def layout_of(encoder: Encoder, levels: Sequence[int], dtype: str) -> Layout:
    """The layout of a cache of an encoder's levels; raises InputError for one it has not."""
    config = encoder.tower.config
    indices = {resolve_level(level, config.num_hidden_layers) for level in levels}
    grid = grid_of(config)
    return Layout(tuple(sorted(indices)), grid, config.hidden_size, dtype, grid)


def pool_layout(layout: Layout, visual_tokens: int, compressors: Sequence[str]) -> Layout:
    """The layout of a cache of means of windows, `visual_tokens` of them, the largest V wanted.

    Raises InputError for a number of windows that the grid does not have, and for compressors
    that need the patches themselves.
    """
    check_pooling(layout.grid, visual_tokens, compressors)
    side = math.isqrt(visual_tokens)
    return replace(layout, grid=(side, side))


def encoder_speed(
    encoder: Encoder, root: str | Path, images: Sequence[str], levels: Sequence[int], n: int
) -> float:
    """Images a second of the encoder, decoding and preprocessing included, timed on `n` of them."""
    chosen = list(images[:n])
    list(encode_images(encoder, root, chosen[:1], levels))
    start = time.perf_counter()
    list(encode_images(encoder, root, chosen, levels, batch_size=n))
    return len(chosen) / (time.perf_counter() - start)


def image_bytes(model: VtcForConditionalGeneration, n_levels: int, tokens: Tokens = PATCHES) -> int:
    """Bytes of one image's features at `n_levels` levels, in the type of the encoder's weights.

    Of its patches, or of those that are left where `tokens` says that they merge.
    """
    rows, columns = model.model.grid  # type: ignore[misc]
    vision: Any = model.config.vision_config
    element = next(model.model.vision_tower.parameters()).element_size()
    return n_levels * (tokens.merged or rows * columns) * vision.hidden_size * element


@torch.inference_mode()
def encode_images(
    encoder: Encoder,
    root: str | Path,
    images: Sequence[str],
    levels: Sequence[int],
    *,
    batch_size: int = 64,
    pool: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> Iterator[Tensor]:
    """Features of images in order, a batch [b, n_levels, N, D] at a time.

    Means over `pool` equal windows in place of the N patches, where that is asked. Raises
    ImageFault (an InputError) naming an image that is missing or does not decode.
    """
    grid, weight = grid_of(encoder.tower.config), next(encoder.tower.parameters())
    for start in range(0, len(images), batch_size):
        chosen = images[start : start + batch_size]
        pixels = load_pixels(root, chosen, encoder.image_processor)
        pixels = pixels.to(weight.device, module_dtype(encoder.tower))
        stacked = encode_states(encoder.tower, pixels, levels, grid)
        yield stacked if pool is None else _pooled(stacked, grid[0], pool)
        if advance is not None:
            advance(len(chosen))


def write_encoded(
    folder: str | Path,
    encoder: Encoder,
    root: str | Path,
    images: Sequence[str],
    layout: Layout,
    *,
    batch_size: int = 64,
    images_per_shard: int | None = None,
    footer: Mapping[str, Any] | None = None,
    force: bool = False,
    resume: bool = False,
    advance: Callable[[int], object] | None = None,
) -> None:
    """Encode images into a feature folder, which appears whole or not at all.

    Raises InputError for an image that does not open, a folder that exists without `force`, and
    an unfinished encoding beside it without `resume`.
    """
    plan = Plan(
        Path(root).resolve(),
        list(images),
        layout,
        asdict(encoder.source),
        preprocessing_hash(encoder.image_processor),
        dict(footer or {}),
        images_per_shard,
    )
    if resume and advance is not None:
        advance(finished_images(folder, plan))
    pool = layout.grid[0] * layout.grid[1] if layout.pooled else None

    def encode(chosen: Sequence[str]) -> Iterator[Tensor]:
        return encode_images(
            encoder, root, chosen, layout.levels,
            batch_size=batch_size, pool=pool, advance=advance,
        )  # fmt: skip

    write_features(folder, plan, encode, force=force, resume=resume)


def _pooled(features: Tensor, side: int, n_windows: int) -> Tensor:
    """Means of the windows of features [b, n_levels, N, D], in fp32: [b, n_levels, windows, D]."""
    flat = windows(features.flatten(0, 1).float(), side, n_windows).mean(dim=2)
    return flat.unflatten(0, features.shape[:2])
