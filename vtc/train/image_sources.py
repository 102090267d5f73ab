"""What the model reads of an image: pixels, or features of the frozen encoder kept at hand."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.data.features import LevelReader
from vtc.data.images import open_image
from vtc.model.modeling import VtcForConditionalGeneration


class Pixels:
    """Opens and preprocesses images for every batch; the encoder runs in the model's forward."""

    def __init__(self, root: Path, image_processor: Any):
        self.root = root
        self.image_processor = image_processor

    def __call__(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """`pixel_values` [n_images, 3, H, W]; raises ImageFault for one that does not open."""
        images = [open_image(self.root, path) for path in paths]
        return dict(self.image_processor(images, return_tensors="pt"))


class CachedLevels:
    """Reads the levels a compressor asks for from a feature cache (`vtc encode`)."""

    def __init__(self, reader: LevelReader):
        self.reader = reader

    def __call__(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """`vision_levels` [n_images, n_levels, N, D]."""
        return {"vision_levels": self.reader(paths)}


class MemoryLevels:
    """Features of all images of a training in memory [n_images, n_levels, N, D]."""

    def __init__(self, rows: dict[str, int], levels: Tensor):
        self.rows = rows
        self.levels = levels

    def __call__(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """`vision_levels` of the given images."""
        return {"vision_levels": self.levels[[self.rows[path] for path in paths]]}


@torch.no_grad()
def encode_in_memory(
    model: VtcForConditionalGeneration,
    pixels: Pixels,
    paths: Iterable[str],
    *,
    batch_size: int = 32,
    advance: Callable[[int], object] = lambda n: None,
) -> MemoryLevels:
    """Run the frozen encoder once over every distinct image, at the levels the compressor asks for.

    Raises ImageFault naming an image that does not open.
    """
    distinct = list(dict.fromkeys(paths))
    weight = next(model.model.vision_tower.parameters())
    parts = []
    for start in range(0, len(distinct), batch_size):
        chosen = distinct[start : start + batch_size]
        values = pixels(chosen)["pixel_values"].to(weight.device, weight.dtype)
        parts.append(model.model.encode(values).cpu())  # type: ignore[operator]
        advance(len(chosen))
    return MemoryLevels({path: row for row, path in enumerate(distinct)}, torch.cat(parts))
