"""Scores with their doubt: of the images asked, and of the training's seed. Pure Python."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vtc.law.studentt import t_quantile


class Estimate(NamedTuple):
    """A score, and its variance by source, each with its degrees of freedom.

    `seeds` is the variance of a mean over training seeds, `items` that of the choice of images;
    None: nobody knows.
    """

    score: float
    seeds: float | None
    seeds_df: float
    items: float | None
    items_df: float

    @property
    def variance(self) -> float | None:
        """Of both sources that are known, as if independent; None if neither is."""
        known = [part for part in (self.seeds, self.items) if part is not None]
        return sum(known) if known else None

    def half_width(self, level: float) -> float | None:
        """Half the interval of that coverage: Student's t, degrees of freedom after Satterthwaite.

        Satterthwaite, "An approximate distribution of estimates of variance components" (1946).
        None where no variance is known.
        """
        variance = self.variance
        if variance is None:
            return None
        if variance <= 0:
            return 0.0
        parts = ((self.seeds, self.seeds_df), (self.items, self.items_df))
        spent = sum(part * part / df for part, df in parts if part and df > 0)
        df = variance * variance / spent if spent > 0 else math.inf
        return t_quantile((1 + level) / 2, min(df, 1e6)) * math.sqrt(variance)


class SeedNoise(NamedTuple):
    """The variance of one run's score between training seeds, and its degrees of freedom."""

    variance: float
    df: int


def seed_noise(cells: Iterable[Sequence[float]]) -> SeedNoise | None:
    """The variance between the seeds of a cell, pooled over cells; None if all have one seed.

    Two seeds of one compressor at one V tell next to nothing of their spread (t with one degree of
    freedom); those of all cells together do, if training is about as noisy in each.
    """
    total, df = 0.0, 0
    for scores in cells:
        mean = math.fsum(scores) / len(scores)
        total += math.fsum((score - mean) ** 2 for score in scores)
        df += len(scores) - 1
    return SeedNoise(total / df, df) if df else None


def estimate(
    scores: Sequence[float],
    stderrs: Sequence[float | None],
    n_items: int | None,
    noise: SeedNoise | None,
) -> Estimate:
    """The mean over the seeds of a cell.

    All seeds answer the same items, so that their standard errors over images do not shrink with
    the number of seeds: the mean of the squares stands for all. `noise` is what `seed_noise` found.
    """
    known = [error for error in stderrs if error is not None]
    items = math.fsum(error * error for error in known) / len(known) if known else None
    return Estimate(
        math.fsum(scores) / len(scores),
        None if noise is None else noise.variance / len(scores),
        0.0 if noise is None else float(noise.df),
        items,
        math.inf if n_items is None else max(float(n_items - 1), 1.0),
    )


def combined(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """The sum of weights times estimates, taken as independent.

    Scores of the same items go up and down together, so that a difference has less doubt than
    this says: what is told apart is apart.
    """

    def added(values: Sequence[float | None]) -> float | None:
        if all(value is None for value in values):
            return None
        pairs = zip(parts, values, strict=True)
        return math.fsum(weight * weight * (value or 0.0) for (weight, _), value in pairs)

    own = [one for _, one in parts]
    return Estimate(
        math.fsum(weight * one.score for weight, one in parts),
        added([one.seeds for one in own]),
        min((one.seeds_df for one in own if one.seeds is not None), default=0.0),
        added([one.items for one in own]),
        min((one.items_df for one in own if one.items is not None), default=math.inf),
    )


def difference(one: Estimate, other: Estimate) -> Estimate:
    """`one` minus `other`."""
    return combined(((1.0, one), (-1.0, other)))


def interval(one: Estimate, level: float) -> tuple[float, float] | None:
    """The ends of its interval; None where no variance is known."""
    half = one.half_width(level)
    return None if half is None else (one.score - half, one.score + half)
