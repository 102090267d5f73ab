"""What the model reads of an image: pixels, or features of the frozen encoder kept at hand."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.data.features import LevelReader
from vtc.data.pixels import load_pixels
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.tower import patch_states


class Pixels:
    """Opens and preprocesses images for every batch; the encoder runs in the model's forward."""

    def __init__(self, root: Path, image_processor: Any):
        self.root = root
        self.image_processor = image_processor

    def __call__(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """`pixel_values` [n_images, 3, H, W]; raises ImageFault for one that does not open."""
        return {"pixel_values": load_pixels(self.root, paths, self.image_processor)}


class CachedLevels:
    """Reads the levels a compressor asks for from a feature cache (`vtc encode`)."""

    def __init__(self, reader: LevelReader):
        self.reader = reader

    def __call__(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """`vision_levels` [n_images, n_levels, N, D]."""
        return {"vision_levels": self.reader(paths)}


class SharedEncoder:
    """The frozen encoder's pass over a batch's images, made once for several trainings.

    They ask for the same images one after the other (`take_turns` lets the next one come), so only
    the last few batches are kept. One that is elsewhere in the data is served all the same.
    """

    KEPT = 4

    def __init__(
        self,
        model: VtcForConditionalGeneration,
        pixels: Pixels,
        levels: Sequence[int],
        take_turns: Callable[[], object] = lambda: None,
    ):
        self.model = model
        self.pixels = pixels
        self.levels = tuple(levels)
        self.take_turns = take_turns
        self._batches: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()

    def reader(self, levels: Sequence[int]) -> Callable[[Sequence[str]], dict[str, Tensor]]:
        """What gives these levels of images: `vision_levels` [n_images, n_levels, N, D]."""
        picked = [self.levels.index(level) for level in levels]
        whole = picked == list(range(len(self.levels)))

        def read(paths: Sequence[str]) -> dict[str, Tensor]:
            self.take_turns()
            features = self._features(tuple(paths))
            return {"vision_levels": features if whole else features[:, picked]}

        return read

    @torch.no_grad()
    def _features(self, paths: tuple[str, ...]) -> Tensor:
        if paths not in self._batches:
            tower: Any = self.model.model.vision_tower
            weight = next(tower.parameters())
            values = self.pixels(paths)["pixel_values"].to(weight.device, weight.dtype)
            states = patch_states(tower, values, self.levels, self.model.model.grid)  # type: ignore[arg-type]
            stacked = torch.stack([states[level] for level in self.levels], dim=1)
            self._batches[paths] = stacked.cpu()
            while len(self._batches) > self.KEPT:
                self._batches.popitem(last=False)
        return self._batches[paths]


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
