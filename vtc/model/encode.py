"""One pass of a frozen encoder over many images, into a feature folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.compress.interface import resolve_level
from vtc.compress.registry import COMPRESSORS, build, find
from vtc.data.features import Layout, preprocessing_hash, write_features
from vtc.data.images import open_image
from vtc.model.backbones import Encoder, module_dtype
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.tower import grid_of, patch_states

MEMORY_LIMIT = 1 << 30
"""Features that a training or an evaluation holds in memory at a time, in bytes."""


def requested_levels(
    vision_config: Any,
    compressors: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    """The levels that any of several compressors asks of an encoder, ascending.

    Without names: all that are shipped and can work on this encoder's grid. Raises InputError for
    an unknown name, or one that cannot.
    """
    grid = grid_of(vision_config)
    chosen = compressors or [name for name, kind in COMPRESSORS.items() if kind.supported(grid)]
    levels: set[int] = set()
    for name in chosen:
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
    return Layout(tuple(sorted(indices)), grid_of(config), config.hidden_size, dtype)


def image_bytes(model: VtcForConditionalGeneration, n_levels: int) -> int:
    """Bytes of one image's features at `n_levels` levels, in the type of the encoder's weights."""
    rows, columns = model.model.grid  # type: ignore[misc]
    vision: Any = model.config.vision_config
    element = next(model.model.vision_tower.parameters()).element_size()
    return n_levels * rows * columns * vision.hidden_size * element


@torch.inference_mode()
def encode_images(
    encoder: Encoder,
    root: str | Path,
    images: Sequence[str],
    levels: Sequence[int],
    *,
    batch_size: int = 64,
    advance: Callable[[int], object] | None = None,
) -> Iterator[Tensor]:
    """Features of images in order, a batch [b, n_levels, N, D] at a time.

    Raises ImageFault (an InputError) naming an image that is missing or does not decode.
    """
    grid, weight = grid_of(encoder.tower.config), next(encoder.tower.parameters())
    for start in range(0, len(images), batch_size):
        opened = [open_image(root, image) for image in images[start : start + batch_size]]
        pixels = encoder.image_processor(opened, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(weight.device, module_dtype(encoder.tower))
        states = patch_states(encoder.tower, pixels, levels, grid)
        yield torch.stack([states[level] for level in levels], dim=1)
        if advance is not None:
            advance(len(opened))


def write_encoded(
    folder: str | Path,
    encoder: Encoder,
    root: str | Path,
    images: Sequence[str],
    layout: Layout,
    *,
    batch_size: int = 64,
    footer: Mapping[str, Any] | None = None,
    force: bool = False,
    advance: Callable[[int], object] | None = None,
) -> None:
    """Encode images into a feature folder, whole or not at all.

    Raises InputError for an image that does not open, or a folder that exists without `force`.
    """
    batches = encode_images(
        encoder, root, images, layout.levels, batch_size=batch_size, advance=advance
    )
    manifest = {
        "encoder": asdict(encoder.source),
        "preprocessing": preprocessing_hash(encoder.image_processor),
        "image_root": str(Path(root).resolve()),
        "footer": dict(footer or {}),
    }
    write_features(folder, images, batches, layout, manifest, force=force)
