"""Images opened and made into an encoder's input, by worker processes ahead of it if wanted."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vtc.data.images import ImageFault, open_image

Image = tuple[Path, str]
"""An image: its root, and its path relative to it."""


class Decoded(NamedTuple):
    """A batch: the images that open, their `pixel_values` [n, 3, H, W], and why others do not."""

    images: list[Image]
    pixels: Tensor | None
    faults: dict[Image, str]


def decoded(
    images: Sequence[Image], batch_size: int, image_processor: Any, workers: int
) -> Iterator[Decoded]:
    """Images in their order, `batch_size` at a time; the same whatever the number of `workers`.

    Without workers each batch is made when it is asked for.
    """
    batches = _Batches(images, batch_size, image_processor)
    workers = min(workers, len(batches))
    if workers:
        yield from DataLoader(batches, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    else:
        yield from (batches[number] for number in range(len(batches)))


class _Batches(Dataset):
    def __init__(self, images: Sequence[Image], batch_size: int, image_processor: Any):
        self.images = images
        self.batch_size = batch_size
        self.image_processor = image_processor

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, number: int) -> Decoded:
        start = number * self.batch_size
        opened, faults = {}, {}
        for image in self.images[start : start + self.batch_size]:
            try:
                opened[image] = open_image(*image)
            except ImageFault as fault:
                faults[image] = f"image {image[1]}: {fault.reason}"
        pixels = None
        if opened:
            made = self.image_processor(list(opened.values()), return_tensors="pt")
            pixels = made["pixel_values"]
        return Decoded(list(opened), pixels, faults)


def _as_it_is(batch: Any) -> Any:
    """What DataLoader is told to do with a batch: nothing."""
    return batch
