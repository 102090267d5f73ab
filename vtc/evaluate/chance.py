"""The blind baseline: what constant answers reach that look at the question but at no image."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from vtc.evaluate import metrics
from vtc.evaluate.item import Item
from vtc.evaluate.metric import Metric, mean

MIN_GROUP = 20
"""Least number of items of one question text that have a constant answer of their own. Below it
the answer would fit the few items rather than the question; such items are pooled."""

_CANDIDATES = 5


def chance(items: Sequence[Item], metric: str) -> float:
    """Score of the best constant answer to each question text, in [0, 1].

    Of each group of items with the same question (rarer ones pooled in one group), the five most
    frequent answers are tried, and the best counts. A model that answers no better has not been
    shown to see. Where the score is no mean over items (MME, POPE, MMBench), all items are given
    the one answer that scores best.
    """
    rule = metrics.METRICS[metric]
    if rule.total is not mean:
        return _best_of_all(items, rule)
    by_question: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_question[item.question].append(item)
    groups = [group for group in by_question.values() if len(group) >= MIN_GROUP]
    rest = [item for group in by_question.values() if len(group) < MIN_GROUP for item in group]
    if rest:
        groups.append(rest)
    return sum(_best_constant(group, rule) for group in groups) / len(items)


def _best_constant(group: Sequence[Item], rule: Metric) -> float:
    """Sum over the group of the scores of its best frequent answer."""
    return max(
        sum(rule.score(answer, item.truth).score for item in group) for answer in _frequent(group)
    )


def _best_of_all(items: Sequence[Item], rule: Metric) -> float:
    """The total score of the best frequent answer, given to every item."""

    def total(answer: str) -> float:
        rows = []
        for item in items:
            found = rule.score(answer, item.truth)
            row = {"item_id": item.item_id, "category": item.category, "group": item.group}
            row |= {"references": item.references, "parsed": found.parsed, "score": found.score}
            rows.append(row)
        return rule.total(rows).score

    return max(map(total, _frequent(items)))


def _frequent(items: Sequence[Item]) -> list[str]:
    counts = Counter(answer for item in items for answer in item.references)
    # Ties go by the alphabet, so that the order of the rows cannot change the result.
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:_CANDIDATES]
