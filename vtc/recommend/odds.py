"""How sure an answer is: how often each choice is the best, and what its rivals would save."""

from collections import Counter
from collections.abc import Iterable, Sequence

from vtc.recommend.laws import Mix

Pair = tuple[float, float]


def best_shares(mix: Mix, pairs: Iterable[Pair]) -> dict[Pair, float]:
    """The share of the law's draws in which a choice has the lowest error, by (N, V).

    A pair stands in `pairs` once for each choice that has it: choices of one N and V tie, and share
    the draws that they win. Pairs that never win are left out; {} without draws. Where all
    exponents are positive only those win that no other pair exceeds in both N and V. Else the
    fewest and the most V of each N are compared.
    """
    if not mix.draws:
        return {}
    choices = Counter(pairs)
    falling = all(
        part.law.alpha > 0 and part.law.beta > 0 for draw in mix.draws for part in draw.parts
    )
    rivals = _frontier(choices) if falling else _ends(choices)
    wins: dict[Pair, int] = {}
    for draw in mix.draws:
        winner = min(rivals, key=lambda pair: draw.error(*pair))
        wins[winner] = wins.get(winner, 0) + 1
    return {pair: count / len(mix.draws) / choices[pair] for pair, count in wins.items()}


def _frontier(pairs: Iterable[Pair]) -> list[Pair]:
    kept: list[Pair] = []
    for n, v in sorted(set(pairs), reverse=True):
        if not kept or v > kept[-1][1]:
            kept.append((n, v))
    return kept


def _ends(pairs: Iterable[Pair]) -> list[Pair]:
    found: dict[float, list[float]] = {}
    for n, v in pairs:
        least, most = found.get(n, (v, v))
        found[n] = [min(least, v), max(most, v)]
    return [(n, v) for n, ends in found.items() for v in dict.fromkeys(ends)]


def wasted(errors: Sequence[float], costs: Sequence[float], top: int) -> list[float]:
    """Of the first `top` choices, the share of each one's cost that a no worse choice saves.

    Choices come in the order of their errors.
    """
    cheapest: list[float] = []
    least, start = float("inf"), 0
    for index, error in enumerate(errors):
        least = min(least, costs[index])
        if index + 1 == len(errors) or errors[index + 1] > error:
            cheapest += [least] * (index + 1 - start)
            start = index + 1
            if start >= top:
                break
    return [1 - low / cost for low, cost in zip(cheapest[:top], costs, strict=False)]
