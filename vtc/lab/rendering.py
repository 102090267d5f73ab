"""Drawing pages as 96x96 pictures, a whole batch at once."""

from dataclasses import dataclass

import numpy as np

from vtc.lab import glyphs, words
from vtc.lab.pages import Pages

IMAGE_PIXELS = words.SIDE * glyphs.PIXELS


@dataclass(frozen=True)
class Camera:
    """How good the pictures are.

    The ink of each character is log-uniform in [faintest, 1], so that some are beyond reading at
    any number of visual tokens; objects are painted solidly, for a faded colour would be another
    colour. noise: standard deviation of every pixel in grey levels.
    """

    faintest: float = 0.05
    noise: float = 24.0


def draw(pages: Pages, rng: np.random.Generator, camera: Camera) -> np.ndarray:
    """Pictures [B, 96, 96, 3] (uint8) of pages: coloured shapes, dark characters, light paper."""
    cells = np.zeros((len(pages), words.SIDE**2, *_TILES.shape[1:3]), dtype=np.float32)
    colours = np.zeros((len(pages), words.SIDE**2, 3), dtype=np.float32)
    image, thing = np.nonzero(pages.content)
    content = pages.content[image, thing]
    place = pages.cells[image, thing]
    fades = content >= words.span("character").start
    fading = np.exp(rng.uniform(np.log(camera.faintest), 0.0, len(content)))
    ink = np.where(fades, fading, 1.0).astype(np.float32)
    cells[image, place] = _TILES[content] * ink[:, None, None]
    colours[image, place] = _COLOURS[content]
    paper = rng.uniform(225, 250, (len(pages), 1, 1, 1)).astype(np.float32)
    pictures = paper[..., None] + cells[..., None] * (colours[:, :, None, None] - paper[..., None])
    pictures = _join(pictures)
    # Noise in steps of eight grey levels: as hard to see through, but PNG files stay small.
    grain = rng.normal(0, camera.noise / 8, pictures.shape[:3])
    pictures += 8 * np.rint(grain)[..., None].astype(np.float32)
    return pictures.clip(0, 255).astype(np.uint8)


def _join(cells: np.ndarray) -> np.ndarray:
    """Cells [B, 144, 8, 8, 3] laid out as pictures [B, 96, 96, 3]."""
    side, pixels = words.SIDE, glyphs.PIXELS
    grid = cells.reshape(-1, side, side, pixels, pixels, 3).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(grid).reshape(-1, IMAGE_PIXELS, IMAGE_PIXELS, 3)


def _by_word() -> tuple[np.ndarray, np.ndarray]:
    """Ink mask [words, 8, 8] and colour [words, 3] of every word that can be drawn."""
    tiles = np.zeros((len(words.WORDS), glyphs.PIXELS, glyphs.PIXELS), dtype=np.float32)
    colours = np.full((len(words.WORDS), 3), 20, dtype=np.float32)
    kinds, characters = words.span("kind"), words.span("character")
    shape, colour = np.divmod(np.arange(kinds.size), len(words.COLOURS))
    tiles[kinds.start : kinds.start + kinds.size] = glyphs.shapes()[shape]
    colours[kinds.start : kinds.start + kinds.size] = glyphs.COLOUR_RGB[colour]
    tiles[characters.start : characters.start + characters.size] = glyphs.characters()
    return tiles, colours


_TILES, _COLOURS = _by_word()
