"""Documents: 2 to 144 characters scattered over the grid, from nearly empty to full pages."""

import numpy as np

from vtc.lab import words
from vtc.lab.pages import Pages, keep_first, place


def sample(
    rng: np.random.Generator, n_images: int, fewest: int = 2, most: int = words.SIDE**2
) -> Pages:
    """Random documents; the number of characters is log-uniform from `fewest` to `most`.

    Log-uniform, so that every number of visual tokens is the limit for some of the documents.
    """
    counts = np.exp(rng.uniform(np.log(fewest), np.log(most + 0.99), n_images)).astype(int)
    characters = words.span("character")
    content = characters.start + rng.integers(0, characters.size, (n_images, most))
    return Pages(place(rng, n_images, most), keep_first(content, counts), counts)
