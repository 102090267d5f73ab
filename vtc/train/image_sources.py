"""What the model reads of an image: pixels, or features of the frozen encoder kept at hand."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.compress.interface import PATCHES, Tokens
from vtc.data.features import LevelReader
from vtc.data.image_faults import naming_samples
from vtc.data.pixels import load_pixels
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.tower import encode_states


class Pixels:
    """Opens and preprocesses images for every batch; the encoder runs in the model's forward."""

    def __init__(self, root: Path, image_processor: Any, rows: Sequence[Mapping[str, Any]] = ()):
        self.root = root
        self.image_processor = image_processor
        self.rows = rows

    def __call__(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """`pixel_values` [n_images, 3, H, W].

        Raises InputError for one that does not open, naming its sample among `rows`.
        """
        with naming_samples(self.root, self.rows):
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
        tokens: Tokens = PATCHES,
    ):
        self.tokens = tokens
        self.model = model
        self.pixels = pixels
        self.levels = tuple(levels)
        self.take_turns = take_turns
        self._batches: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()

    def reader(self, levels: Sequence[int]) -> Callable[[Sequence[str]], dict[str, Tensor]]:
        """What gives these levels of images: `vision_levels` [n_images, n_levels, N, D]."""
        picked = _places_of(levels, self.levels)

        def read(paths: Sequence[str]) -> dict[str, Tensor]:
            self.take_turns()
            return {"vision_levels": _pick(self._features(tuple(paths)), picked)}

        return read

    def _features(self, paths: tuple[str, ...]) -> Tensor:
        if paths not in self._batches:
            self._batches[paths] = _encode(self.model, self.pixels, paths, self.levels, self.tokens)
            while len(self._batches) > self.KEPT:
                self._batches.popitem(last=False)
        return self._batches[paths]


class MemoryLevels:
    """Features of all images of a training in memory: `features` [n_images, n_levels, N, D]."""

    def __init__(
        self,
        rows: dict[str, int],
        features: Tensor,
        levels: Sequence[int],
        picked: Tensor | None = None,
    ):
        self.rows = rows
        self.features = features
        self.levels = tuple(levels)
        self._picked = picked

    def __call__(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """`vision_levels` of the given images."""
        features = self.features[[self.rows[path] for path in paths]]
        return {"vision_levels": _pick(features, self._picked)}

    def of(self, levels: Sequence[int]) -> "MemoryLevels":
        """The same features, of which only these levels are given."""
        return MemoryLevels(self.rows, self.features, self.levels, _places_of(levels, self.levels))


def encode_in_memory(
    model: VtcForConditionalGeneration,
    pixels: Pixels,
    paths: Iterable[str],
    levels: Sequence[int],
    tokens: Tokens = PATCHES,
    *,
    batch_size: int = 32,
    advance: Callable[[int], object] = lambda n: None,
) -> MemoryLevels:
    """Run the frozen encoder of `model` once over every distinct image, at levels and tokens.

    Raises InputError naming an image that does not open, and its sample.
    """
    distinct = list(dict.fromkeys(paths))
    parts = []
    for start in range(0, len(distinct), batch_size):
        chosen = distinct[start : start + batch_size]
        parts.append(_encode(model, pixels, chosen, levels, tokens))
        advance(len(chosen))
    rows = {path: row for row, path in enumerate(distinct)}
    return MemoryLevels(rows, torch.cat(parts), levels)


@torch.no_grad()
def _encode(
    model: VtcForConditionalGeneration,
    pixels: Pixels,
    paths: Sequence[str],
    levels: Sequence[int],
    tokens: Tokens,
) -> Tensor:
    """Features [n_images, n_levels, T, D] of images, on the CPU."""
    tower: Any = model.model.vision_tower
    weight = next(tower.parameters())
    values = pixels(paths)["pixel_values"].to(weight.device, weight.dtype)
    grid: Any = model.model.grid
    return encode_states(tower, values, levels, grid, tokens).cpu()


def _places_of(levels: Sequence[int], among: Sequence[int]) -> Tensor | None:
    """Where the levels stand among others; None if they are all of them."""
    return None if tuple(levels) == tuple(among) else torch.tensor([*map(among.index, levels)])


def _pick(features: Tensor, places: Tensor | None) -> Tensor:
    """Some levels of features, laid out in memory as if there were no others."""
    return features if places is None else features.index_select(1, places)
