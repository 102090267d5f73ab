"""The blind baseline: what constant answers reach that look at the question but at no image."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from vtc.evaluate import metrics
from vtc.evaluate.items import Item

MIN_GROUP = 20
"""Least number of items of one question text that have a constant answer of their own. Below it
the answer would fit the few items rather than the question; such items are pooled."""

_CANDIDATES = 5


def chance(items: Sequence[Item], metric: str) -> float:
    """Mean score of the best constant answer to each question text, in [0, 1].

    Of each group of items with the same question (rarer ones pooled in one group), the five most
    frequent answers are tried, and the best counts. A model that answers no better has not been
    shown to see.
    """
    by_question: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_question[item.question].append(item)
    groups = [group for group in by_question.values() if len(group) >= MIN_GROUP]
    rest = [item for group in by_question.values() if len(group) < MIN_GROUP for item in group]
    if rest:
        groups.append(rest)
    return sum(_best_constant(group, metric) for group in groups) / len(items)


def _best_constant(group: Sequence[Item], metric: str) -> float:
    """Sum over the group of the scores of its best frequent answer."""
    score = metrics.METRICS[metric].score
    counts = Counter(answer for item in group for answer in item.references)
    # Ties go by the alphabet, so that the order of the rows cannot change the result.
    frequent = sorted(counts, key=lambda answer: (-counts[answer], answer))[:_CANDIDATES]
    return max(sum(score(answer, item.truth).score for item in group) for answer in frequent)
