"""How much of the way to the uncompressed model a compressor goes. Pure Python.

Li et al. (arXiv 2411.03312, section 4) say of QueCC how much of the gap between the next best
compressor and the uncompressed model it closes; beside that stands the share of the way from a
floor that saw nothing, which is one scale for all compressors.
"""

from dataclasses import dataclass

from vtc.compare.estimates import Estimate, combined, difference, interval


@dataclass(frozen=True)
class Share:
    """A share of a gap, and the ends of its interval where the doubt is known."""

    value: float
    low: float | None = None
    high: float | None = None


def share_closed(own: Estimate, floor: Estimate, whole: Estimate, level: float) -> Share | None:
    """(own - floor) / (whole - floor), with an interval by the delta method.

    None where `whole` is not told apart from `floor`: a share of nothing says nothing. It may be
    below 0 or above 1.
    """
    gap = difference(whole, floor)
    ends = interval(gap, level)
    if gap.score <= 0 or (ends is not None and ends[0] <= 0):
        return None
    value = (own.score - floor.score) / gap.score
    if ends is None:
        return Share(value)
    if own is floor:
        return Share(0.0, 0.0, 0.0)
    if own is whole:
        return Share(1.0, 1.0, 1.0)
    moved = combined(
        (
            (1 / gap.score, own),
            (-(1 - value) / gap.score, floor),
            (-value / gap.score, whole),
        )
    )
    half = moved.half_width(level)
    return Share(value) if half is None else Share(value, value - half, value + half)
