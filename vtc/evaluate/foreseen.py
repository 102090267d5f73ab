"""How often an evaluation will encode its images: what `vision.Look` keeps, foreseen."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vtc.evaluate import vision
from vtc.evaluate.decoding import Image


class Seer(NamedTuple):
    """A run at one V: whose weights it has, and what it shares a pass of the encoder by.

    `image_bytes` are those of an image's features, at all the levels of that pass.
    """

    weights: Hashable
    passes: tuple
    image_bytes: int


@dataclass
class _Kept:
    """The block that a look keeps, and what of the encoder's work it has made so far."""

    block: list[Image] | None = None
    n_bytes: int = 0
    encoded: int = 0


def encoded_images(
    seers: Sequence[Seer],
    shown: Sequence[tuple[Image, ...]],
    cached: frozenset[Image],
    absent: frozenset[Image],
) -> dict[tuple, int]:
    """Images that each of the encoder's passes will encode, those of `cached` left out.

    `absent` ones, which do not open, count as encoded, and no features of theirs are kept.
    Runs sit down by their weights, one after the other. Features that fit in memory are kept for
    the next; where images are more than one block, every run has them encoded anew.
    """
    counts: dict[tuple, int] = {}
    for encoder in dict.fromkeys(seer.passes[0] for seer in seers):
        group = [seer for seer in seers if seer.passes[0] == encoder]
        looks = {seer.passes: _Kept() for seer in group}
        sizes = {seer.passes: seer.image_bytes for seer in group}
        for weights in dict.fromkeys(seer.weights for seer in group):
            for passes in dict.fromkeys(s.passes for s in group if s.weights == weights):
                for block in vision.blocks_of(shown, sizes[passes]):
                    look, size = looks[passes], sizes[passes]
                    if look.block != block:
                        look.block = None
                        _make_room(list(looks.values()), len(block) * size)
                        look.block = block
                        look.n_bytes = len(set(block) - absent) * size
                        look.encoded += len(set(block) - cached)
        counts |= {passes: kept.encoded for passes, kept in looks.items()}
    return counts


def _make_room(looks: Sequence[_Kept], n_bytes: int) -> None:
    """Have all of them forget what they keep where that and what comes do not fit together."""
    if sum(look.n_bytes for look in looks if look.block) + n_bytes > vision.MEMORY_LIMIT:
        for look in looks:
            look.block = None
