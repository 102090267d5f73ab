"""Several sources as one epoch: how often each is seen.

The weight of a source is how many times an epoch goes through it: 2 is twice, 0.5 a random half,
drawn once by seed. So the lengths of the sources stay what they are, and an epoch has an end.
"""

from collections.abc import Sequence
from typing import TypeVar

from vtc.errors import InputError

Row = TypeVar("Row")


def parse_weights(text: str | None, names: Sequence[str]) -> tuple[float, ...]:
    """The weight of each source: from 2,1 in their order, or NAME=2, those not named being 1.

    Raises InputError for a number that is none or not above 0, or a name that is no source's.
    """
    if text is None:
        return (1.0,) * len(names)
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        if len(parts) != len(names):
            raise InputError(
                f"--weights {text}: give {len(names)} numbers, one a source of samples, or NAME=W"
            )
        return tuple(_weight(part, text) for part in parts)
    weights = dict.fromkeys(names, 1.0)
    for part in parts:
        name, found, value = part.rpartition("=")
        if not found or name not in weights:
            raise InputError(f"--weights {text}: '{part}' is no NAME=W of {', '.join(names)}")
        weights[name] = _weight(value, text)
    return tuple(weights[name] for name in names)


def mix(parts: Sequence[Sequence[Row]], weights: Sequence[float], seed: int) -> list[Row]:
    """The rows of one epoch of the mixture, source by source; the same for the same seed.

    Raises InputError if a weight leaves nothing of its source.
    """
    import numpy as np

    rows: list[Row] = []
    for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        whole = int(weight)
        n_more = round((weight - whole) * len(part))
        if not whole and not n_more:
            raise InputError(f"--weights: {weight:g} leaves none of {len(part)} samples")
        rows += list(part) * whole
        drawn = np.random.default_rng([seed, number]).choice(len(part), n_more, replace=False)
        rows += [part[index] for index in sorted(drawn.tolist())]
    return rows


def _weight(value: str, text: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = 0.0
    if not 0 < weight < 1e6:
        raise InputError(f"--weights {text}: '{value}' is no number above 0")
    return weight
