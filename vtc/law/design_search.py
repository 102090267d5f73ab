"""In which order to make runs: the most gain an hour first, each step knowing those before it.

A plan is made twice, by gain per GPU-hour and by gain alone, the better within the budget is kept
(Leskovec et al., 2007, "Cost-effective outbreak detection in networks": neither alone has a bound,
the better of both does), and its runs are put in the order of their gain an hour. Each step tries
every single run and every pair of runs, of a large pool only those that share a level of their own:
two such runs may pay only together.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vtc.law.design import Noise, Sums, expected, log_widths
from vtc.law.design_forms import Told, Views
from vtc.law.design_pool import Pool

# Pools up to this many candidates are searched by pairs: 20,100 pairs a step.
MOST_IN_PAIRS = 200
# And of larger pools as many of each level of its own: 1,275 pairs.
_MOST_ALIKE = 50
# What a step must gain to be one: a thousandth of a width, or of a chi-square of one.
_LEAST = 1e-3
# A pair must beat the best single run by this factor: of equals, the smaller step.
_PAIR_MARGIN = 1.05


class Gains(Protocol):
    """What runs would gain beside those taken."""

    def alone(self) -> np.ndarray:
        """[K]: each candidate."""
        ...

    def together(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Each pair of candidates."""
        ...

    def take(self, index: int) -> None:
        """Make a run."""
        ...

    @property
    def value(self) -> float:
        """What the runs taken are worth; its zero is anywhere."""
        ...


class Narrowing:
    """Gains in ln of an interval's width."""

    def __init__(self, pool: Pool, gradient: np.ndarray, noise: Noise, level: float) -> None:
        self._pool, self._gradient, self._noise, self._level = pool, gradient, noise, level
        self.design = pool.base

    def alone(self) -> np.ndarray:
        """[K]: how much each run would take off."""
        return self._gain(self._pool.each)

    def together(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How much each pair of runs would take off."""
        return self._gain(self._pool.each.at(first).plus(self._pool.each.at(second)))

    def take(self, index: int) -> None:
        """Make a run."""
        self.design = self.design.plus(self._pool.each.at(index))

    @property
    def value(self) -> float:
        """Less ln of the interval's width."""
        found = expected(self.design, self._gradient, self._noise, self._pool.unit)
        return -float(log_widths(found, self._level))

    def _gain(self, more: Sums) -> np.ndarray:
        now, then = (
            expected(design, self._gradient, self._noise, self._pool.unit)
            for design in (self.design, self.design.plus(more))
        )
        # A run may narrow an interval by no more than moving weight between the two mean squares:
        # with few LLMs t changes much with that, and nothing has been learnt.
        steady = log_widths(then, self._level, now.share)
        after = np.maximum(log_widths(then, self._level), steady)
        return float(log_widths(now, self._level)) - after


class Step(NamedTuple):
    """A run of the plan: its candidate, and whether it was taken in a pair with the next one."""

    index: int
    paired: bool = False


def gains(
    pool: Pool, gradient: np.ndarray, noise: Noise, level: float, seen: Views | None, tell: bool
) -> Callable[[], Gains]:
    """A fresh count of what is to be gained: narrower intervals or, to `tell` forms, sigmas."""
    if tell and seen is not None:
        return lambda: Told(seen)
    return lambda: Narrowing(pool, gradient, noise, level)


def search(pool: Pool, fresh: Callable[[], Gains], budget: float) -> list[Step]:
    """The runs worth their hours within `budget` GPU-hours, in order; none if none gains."""
    one_each = np.ones_like(pool.hours)
    plans = [_greedy(pool, fresh(), budget, price, pool.seeds) for price in (pool.hours, one_each)]
    by_rate, by_gain = (_worth(fresh(), plan) for plan in plans)
    chosen = _needed(fresh, plans[1] if by_gain > by_rate + _LEAST else plans[0])
    allowed = np.zeros_like(pool.seeds)
    for step in chosen:
        allowed[step.index] += 1
    ordered = _greedy(pool, fresh(), np.inf, pool.hours, allowed)
    # What gained beside others may gain nothing at its place in the order.
    return ordered if len(ordered) == len(chosen) else chosen


def in_pairs(pool: Pool) -> bool:
    """Whether a step tries every pair, and not those within levels alone."""
    return len(pool.hours) <= MOST_IN_PAIRS


def _worth(counter: Gains, plan: Sequence[Step]) -> float:
    """What a plan's runs are worth."""
    for step in plan:
        counter.take(step.index)
    return counter.value


def _needed(fresh: Callable[[], Gains], plan: Sequence[Step]) -> list[Step]:
    """The plan without runs that others have made worthless, the last ones first."""
    kept = list(plan)
    worth = _worth(fresh(), kept)
    for place in reversed(range(len(kept))):
        rest = kept[:place] + kept[place + 1 :]
        without = _worth(fresh(), rest)
        if without > worth - _LEAST:
            # Its partner, if it had one, stands alone from here on.
            if place:
                rest[place - 1] = Step(rest[place - 1].index)
            kept, worth = rest, without
    return kept


def _greedy(
    pool: Pool, counter: Gains, budget: float, price: np.ndarray, seeds: np.ndarray
) -> list[Step]:
    """Steps by gain for their `price` [K] while the budget of hours lasts."""
    plan: list[Step] = []
    left, spent = seeds.copy(), 0.0
    while found := _next(pool, counter, budget - spent, price, left):
        for place, index in enumerate(found):
            counter.take(index)
            left[index] -= 1
            spent += float(pool.hours[index])
            plan.append(Step(index, paired=place == 0 and len(found) == 2))
    return plan


def _next(
    pool: Pool, counter: Gains, hours: float, price: np.ndarray, left: np.ndarray
) -> tuple[int, ...]:
    """The run, or the pair, to make next; empty if nothing that fits gains."""
    free = np.flatnonzero((left > 0) & (pool.hours <= hours))
    if not len(free):
        return ()
    rates = np.zeros(len(pool.hours))
    rates[free] = _rate(counter.alone()[free], price[free])
    best = int(rates.argmax())
    single = (best,) if rates[best] > 0 else ()
    first, second = _pairs(pool, free)
    fits = pool.hours[first] + pool.hours[second] <= hours
    fits &= (first != second) | (left[first] > 1)
    first, second = first[fits], second[fits]
    if not len(first):
        return single
    of_pairs = _rate(counter.together(first, second), price[first] + price[second])
    at = int(of_pairs.argmax())
    if of_pairs[at] <= _PAIR_MARGIN * rates[best]:
        return single
    # Of a pair the run that gains more by itself comes first.
    pair = (int(first[at]), int(second[at]))
    return pair if rates[pair[0]] >= rates[pair[1]] else pair[::-1]


def _pairs(pool: Pool, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs worth a look: all, or of a large pool those within a level of their own."""
    if in_pairs(pool):
        first, second = np.triu_indices(len(free))
        return free[first], free[second]
    found = [np.zeros((2, 0), dtype=int)]
    for level in range(pool.levels.shape[1]):
        # The cheapest, where one level alone has too many.
        alike = free[pool.levels[free, level] > 0]
        alike = alike[np.argsort(pool.hours[alike], kind="stable")][:_MOST_ALIKE]
        found.append(alike[np.stack(np.triu_indices(len(alike)))])
    first, second = np.concatenate(found, axis=1)
    return first, second


def _rate(gain: np.ndarray, price: np.ndarray) -> np.ndarray:
    return np.where(gain > _LEAST, gain, 0.0) / price
