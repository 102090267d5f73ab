"""Images as an encoder takes them, decoded and resized several at a time."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.data.images import open_image


def load_pixels(root: str | Path, paths: Sequence[str], image_processor: Any) -> Tensor:
    """`pixel_values` of images in their order, [n_images, 3, H, W].

    Pillow lets go of Python's lock while it decodes and resizes, so threads use the cores that a
    GPU's training leaves idle. Raises ImageFault naming the first that does not open.
    """

    def one(path: str) -> Tensor:
        image = open_image(root, path)
        return image_processor([image], return_tensors="pt")["pixel_values"]

    return torch.cat(list(_pool(os.getpid()).map(one, paths)))


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this very process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")
