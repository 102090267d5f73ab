"""What stands where on a batch of images: the one description of scenes and of documents."""

from dataclasses import dataclass

import numpy as np

from vtc.lab import words


@dataclass(frozen=True)
class Pages:
    """A batch of B images with at most M things each, one a cell.

    cells [B, M]: cell of each thing, row * 12 + column; content [B, M]: its word id (a kind or a
    character), 0 where there is nothing; counts [B]: things on each image. Things 0..count-1 are
    there.
    """

    cells: np.ndarray
    content: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def places(self) -> np.ndarray:
        """Word ids [B, M] of the cells the things stand in."""
        return words.span("cell").start + self.cells

    def reading_order(self, image: int) -> np.ndarray:
        """Indices of the things on one image, top left to bottom right."""
        return np.argsort(self.cells[image, : self.counts[image]])

    def region_text(self, image: int, thing: int) -> str:
        """What a region says: its cell and its content, in words."""
        ids = (self.places()[image, thing], self.content[image, thing])
        return " ".join(words.WORDS[i] for i in ids)


def place(rng: np.random.Generator, n_images: int, most: int) -> np.ndarray:
    """Distinct random cells [n_images, most]."""
    return np.argsort(rng.random((n_images, words.SIDE**2)), axis=1)[:, :most]


def keep_first(content: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Blank (id 0) all but the first counts[i] things of image i."""
    return np.where(np.arange(content.shape[1])[None] < counts[:, None], content, 0)
