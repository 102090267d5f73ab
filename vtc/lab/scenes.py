"""Scenes: a few coloured objects, all of different shapes."""

import numpy as np

from vtc.lab import words
from vtc.lab.facts import Facts
from vtc.lab.pages import Pages, keep_first, place


def sample(
    rng: np.random.Generator, n_images: int, facts: Facts | None, fewest: int = 1, most: int = 2
) -> Pages:
    """Random scenes of `fewest` to `most` objects each (most <= 12).

    Colours come at their frequency in `facts`, or all alike without it.
    """
    shapes = np.argsort(rng.random((n_images, len(words.SHAPES))), axis=1)[:, :most]
    colours = rng.choice(
        len(words.COLOURS), shapes.shape, p=facts.colour_weights if facts else None
    )
    content = words.span("kind").start + shapes * len(words.COLOURS) + colours
    counts = rng.integers(fewest, most + 1, n_images)
    return Pages(place(rng, n_images, most), keep_first(content, counts), counts)
