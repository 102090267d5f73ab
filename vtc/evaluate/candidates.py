"""The answers that an item can have, where they are known before it is answered."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vtc.errors import InputError
from vtc.evaluate.benchmarks.spec import letter
from vtc.evaluate.item import Item

_YES_NO = ("yes", "no")


class Candidate(NamedTuple):
    """An answer as it becomes the prediction, and the ways of writing it, which add up."""

    answer: str
    spellings: tuple[str, ...]


def candidates(items: Sequence[Item], name: str) -> list[tuple[Candidate, ...]]:
    """The candidates of each item of a benchmark; none for a question that is open.

    An item with choices has their letters; one whose choice is missing (an empty text) lacks its
    letter. Where the accepted answers of all items are yes or no, these are the candidates, with a
    capital and without. Raises InputError, naming the benchmark, if all of its questions are open.
    """
    # Of all items, not of each: that a question can be answered by yes or no is told by its
    # reference alone, which no answer may look at.
    closed = all(r.lower().strip() in _YES_NO for item in items for r in item.references)
    found = [_letters(item) or (_yes_and_no() if closed else ()) for item in items]
    if not any(found):
        raise InputError(
            f"benchmark {name} has free answers: neither choices nor yes and no alone; "
            "leave it out, or take --answer-by generation"
        )
    return found


def likeliest(options: Sequence[Candidate], scores: Sequence[Sequence[float]]) -> str:
    """The answer of the highest likelihood, the first of equals; `scores` in nats, by spelling."""
    totals = [_log_sum(own) for own in scores]
    return options[totals.index(max(totals))].answer


def _letters(item: Item) -> tuple[Candidate, ...]:
    letters = [letter(number) for number, choice in enumerate(item.choices) if choice.strip()]
    return tuple(Candidate(one, (one,)) for one in letters)


def _yes_and_no() -> tuple[Candidate, ...]:
    return tuple(Candidate(word.capitalize(), (word.capitalize(), word)) for word in _YES_NO)


def _log_sum(scores: Sequence[float]) -> float:
    """log sum exp, for probabilities that add up."""
    most = max(scores)
    return most if most == -math.inf else most + math.log(sum(math.exp(s - most) for s in scores))
