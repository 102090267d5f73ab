"""Bitmaps of 8x8 pixels: twelve shapes, and 36 characters of 5x7."""

import numpy as np

from vtc.lab import words

PIXELS = 8
"""Pixels along each side of a cell; the encoder's patch."""

COLOUR_RGB = np.array(
    [
        (214, 40, 40),
        (44, 160, 60),
        (40, 80, 210),
        (240, 210, 40),
        (245, 140, 30),
        (140, 50, 170),
        (120, 75, 40),
        (20, 20, 20),
        (50, 200, 210),
        (245, 130, 190),
        (125, 130, 30),
        (130, 130, 130),
    ],
    dtype=np.float32,
)

# Seven rows of five pixels a character, as one hexadecimal byte a row.
_FONT = {
    "A": "0E11111F111111", "B": "1E11111E11111E", "C": "0E11101010110E", "D": "1E11111111111E",
    "E": "1F10101E10101F", "F": "1F10101E101010", "G": "0E11101713110F", "H": "1111111F111111",
    "I": "0E04040404040E", "J": "0702020202120C", "K": "11121418141211", "L": "1010101010101F",
    "M": "111B1515111111", "N": "11191915131311", "O": "0E11111111110E", "P": "1E11111E101010",
    "Q": "0E11111115120D", "R": "1E11111E141211", "S": "0F10100E01011E", "T": "1F040404040404",
    "U": "1111111111110E", "V": "11111111110A04", "W": "1111111515150A", "X": "11110A040A1111",
    "Y": "1111110A040404", "Z": "1F01020408101F", "0": "0E11131519110E", "1": "040C040404040E",
    "2": "0E11010204081F", "3": "1F02040201110E", "4": "02060A121F0202", "5": "1F101E0101110E",
    "6": "0608101E11110E", "7": "1F010204080808", "8": "0E11110E11110E", "9": "0E11110F01020C",
}  # fmt: skip


def characters() -> np.ndarray:
    """Ink masks [36, 8, 8] of the characters, in the order of words.CHARACTERS."""
    masks = np.zeros((len(words.CHARACTERS), PIXELS, PIXELS), dtype=np.float32)
    for i, character in enumerate(words.CHARACTERS):
        rows = bytes.fromhex(_FONT[character])
        for y, row in enumerate(rows):
            masks[i, y, 1:6] = [(row >> (4 - x)) & 1 for x in range(5)]
    return masks


def shapes() -> np.ndarray:
    """Ink masks [12, 8, 8] of the shapes, in the order of words.SHAPES."""
    y, x = np.mgrid[0:PIXELS, 0:PIXELS] - 3.5
    far, off = np.maximum(abs(x), abs(y)), np.hypot(x, y)
    masks = {
        "square": far <= 3,
        "disc": off <= 3.6,
        "cross": abs(abs(x) - abs(y)) < 1,
        "plus": np.minimum(abs(x), abs(y)) < 1,
        "ring": (off <= 3.8) & (off > 2.2),
        "diamond": abs(x) + abs(y) <= 3.5,
        "peak": abs(x) <= (y + 4) / 2,
        "bowl": abs(x) <= (4 - y) / 2,
        "bar": abs(y) <= 1.5,
        "pillar": abs(x) <= 1.5,
        "frame": (far > 2) & (far <= 3.5),
        "step": x <= y,
    }
    return np.stack([masks[name] for name in words.SHAPES]).astype(np.float32)
