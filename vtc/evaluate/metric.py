"""What a metric is: how a prediction is scored, and how the scores of many become one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

COMPAT = "lmms-eval"
"""The harness whose scores `--compat` reproduces, also where it is wrong (docs/benchmarks.md)."""


class Scored(NamedTuple):
    """What a metric read from a prediction, and the score in [0, 1] it gives it."""

    parsed: str
    score: float


class Truth(NamedTuple):
    """What a prediction is held against: accepted answers, and what else a metric may read."""

    references: Sequence[str]
    choices: Sequence[str] = ()
    category: str | None = None
    about: Mapping[str, Any] = {}


class Total(NamedTuple):
    """The score of many predictions, and how it leans on each of them.

    `influences` has a number a row, the derivative of the score by the row's weight, over the
    number of rows: with clusters their sums give the standard error (the delta method).
    """

    score: float
    influences: list[float]


Row = Mapping[str, Any]
"""A scored prediction: a row of the predictions table."""
Score = Callable[[str, Truth], Scored]
"""Scores one prediction against the truth about its item."""
Sum = Callable[[Sequence[Row]], Total]
"""Makes one score of many scored rows."""


def mean(rows: Sequence[Row]) -> Total:
    """The mean score of the rows."""
    scores = [row["score"] for row in rows]
    average = math.fsum(scores) / len(scores)
    return Total(average, [(score - average) / len(scores) for score in scores])


@dataclass(frozen=True)
class Metric:
    """A metric, the name and version of its parser, and what it needs of an item.

    `closed`: the only references there may be, in lower case, where a question leaves no others.
    `compat` scores as lmms-eval does where that differs, `compat_total` adds up as it does.
    `points`: what a whole category counts, where a benchmark's figures are points (MME's 200).
    `incomplete` says what rows lack for their total, None if nothing.
    """

    score: Score
    parser: str
    meaning: str
    min_references: int = 1
    closed: frozenset[str] = frozenset()
    compat: Score | None = None
    total: Sum = mean
    compat_total: Sum | None = None
    points: float | None = None
    incomplete: Callable[[Sequence[Row]], str | None] = lambda rows: None

    def unfit(self, name: str, references: Sequence[str]) -> str | None:
        """Why the metric, called `name`, cannot score against these references; None if it can."""
        if not references:
            return "no accepted answer"
        if len(references) < self.min_references:
            answers = "1 answer" if len(references) == 1 else f"{len(references)} answers"
            return f"{answers}, but metric {name} needs at least {self.min_references}"
        for reference in references if self.closed else ():
            if reference.lower().strip() not in self.closed:
                wanted = " or ".join(sorted(self.closed, reverse=True))
                return f"'{reference[:40]}', but metric {name} knows {wanted} alone"
        return None

    def scorer(self, compat: bool) -> Score:
        """How a prediction is scored, as lmms-eval does if `compat`."""
        return self.compat or self.score if compat else self.score

    def summer(self, compat: bool) -> Sum:
        """How scores add up, as in lmms-eval if `compat`."""
        return self.compat_total or self.total if compat else self.total

    def parser_name(self, compat: bool) -> str:
        """The parser's name and version, and whose rule it follows if not our own."""
        return f"{self.parser} ({COMPAT} 0.7)" if compat else self.parser
