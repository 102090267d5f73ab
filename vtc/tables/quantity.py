"""Numbers as people write them: 3e12, 3T, 3TFLOP, 7b, 0.5b."""

import math
import re

_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15}
_LETTERS = (
    *((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T")),
    *((1e9, "B"), (1e6, "M"), (1e3, "K")),
)
_PATTERN = re.compile(
    r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmgbtp]?)\s*(?:flops?)?\s*",
    re.IGNORECASE,
)


def parse_quantity(text: str) -> float:
    """A number with an optional scale (k, M, G or B, T, P) and an optional unit FLOP.

    Raises ValueError for anything else and for numbers that are not finite.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a number such as 3e12, 3T or 7b")
    value = float(match[1]) * _SCALES[match[2].lower()]
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is too large")
    return value


def format_count(count: float) -> str:
    """A count in short form with three significant digits: 7B, 1.8B, 494M, 13.5K, 1e+30."""
    if abs(count) >= 1e3 * _LETTERS[0][0]:
        return f"{count:.3g}"
    for scale, letter in _LETTERS:
        if abs(count) >= scale:
            return f"{count / scale:.3g}{letter}"
    return f"{count:.3g}"


def format_flops(flops: float) -> str:
    """Floating-point operations in short form: 51 GFLOP, 3 TFLOP, 1.2 ZFLOP."""
    short = format_count(flops).replace("B", "G")
    return f"{short[:-1]} {short[-1]}FLOP" if short[-1].isalpha() else f"{short} FLOP"
