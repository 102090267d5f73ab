"""Which compressor is best: at the same number of tokens, and at the same cost. Pure Python."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vtc.compare.estimates import Estimate, difference, interval

How = Literal["measured", "interpolated", "cheaper"]
"""measured: a run costs just this. interpolated: between two V. cheaper: its largest V that was
measured costs less, so that this is the least it can do."""

Place = Literal["only", "best", "tied", "behind"]
"""only: nothing to compare with. best: told apart from all others. tied: not told apart from the
best, or the best and not told apart from the next. behind: told apart from the best."""

_EQUAL = 1e-9  # Costs that differ by less, relatively, are one.


class At(NamedTuple):
    """What a compressor does at some cost, with how many tokens, and how that is known."""

    label: str
    estimate: Estimate
    visual_tokens: float
    how: How


class Verdict(NamedTuple):
    """Where one stands among several: its place, the best of them, and how far it is from that."""

    place: Place
    best: At
    difference: Estimate | None


@dataclass(frozen=True)
class Curve:
    """A compressor's scores at the V that were measured, by ascending cost."""

    label: str
    costs: tuple[float, ...]
    visual_tokens: tuple[int, ...]
    estimates: tuple[Estimate, ...]

    @classmethod
    def of(cls, label: str, points: Sequence[tuple[float, int, Estimate]]) -> "Curve":
        """A curve of (cost, V, estimate) in any order."""
        ordered = sorted(points, key=lambda point: point[:2])
        costs, tokens, estimates = zip(*ordered, strict=True)
        return cls(label, costs, tokens, estimates)

    def at(self, cost: float) -> At | None:
        """What it does for `cost`; None if its cheapest run costs more.

        Between two measured V the cost says how many tokens it buys (costs are straight in V
        there), and the score is straight in ln V, as errors of a law nearly are. Beyond the
        dearest run nothing is extrapolated: that run itself is what the cost buys at least.
        """
        if cost < self.costs[0] * (1 - _EQUAL):
            return None
        for number, own in enumerate(self.costs):
            if math.isclose(cost, own, rel_tol=_EQUAL):
                found = self.estimates[number], float(self.visual_tokens[number])
                return At(self.label, *found, "measured")
        above = next((n for n, own in enumerate(self.costs) if own > cost), None)
        if above is None:
            return At(self.label, self.estimates[-1], float(self.visual_tokens[-1]), "cheaper")
        below = above - 1
        low, high = self.visual_tokens[below], self.visual_tokens[above]
        share = (cost - self.costs[below]) / (self.costs[above] - self.costs[below])
        tokens = low + share * (high - low)
        weight = share if low == high else math.log(tokens / low) / math.log(high / low)
        between = _mixed(self.estimates[below], self.estimates[above], weight)
        return At(self.label, between, tokens, "interpolated")


def _mixed(low: Estimate, high: Estimate, weight: float) -> Estimate:
    """Between two V of one compressor: other trainings, but the same items.

    The items' errors go together, so that theirs are added and not their squares.
    """
    shares = (1 - weight, weight)

    def mixed(one: float | None, other: float | None, alike: bool) -> float | None:
        if one is None or other is None:
            return None
        sds = shares[0] * math.sqrt(one), shares[1] * math.sqrt(other)
        return sum(sds) ** 2 if alike else sum(sd * sd for sd in sds)

    return Estimate(
        shares[0] * low.score + shares[1] * high.score,
        mixed(low.seeds, high.seeds, alike=False),
        min(low.seeds_df, high.seeds_df),
        mixed(low.items, high.items, alike=True),
        min(low.items_df, high.items_df),
    )


def verdicts(rivals: Sequence[At], level: float) -> Mapping[str, Verdict]:
    """Where each of several stands, by label; `rivals` are not empty.

    Two are told apart if the interval of their difference leaves zero out; without any known doubt
    nothing is.
    """
    best = max(rivals, key=lambda one: one.estimate.score)
    if len(rivals) == 1:
        return {best.label: Verdict("only", best, None)}
    found: dict[str, Verdict] = {}
    for one in rivals:
        if one is not best:
            gap = difference(one.estimate, best.estimate)
            ends = interval(gap, level)
            apart = ends is not None and ends[1] < 0
            found[one.label] = Verdict("behind" if apart else "tied", best, gap)
    alone = all(verdict.place == "behind" for verdict in found.values())
    found[best.label] = Verdict("best" if alone else "tied", best, None)
    return found
