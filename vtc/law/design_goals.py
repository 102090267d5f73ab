"""What a plan is for: the quantity whose interval its runs should narrow."""

import math
from dataclasses import dataclass

import numpy as np

from vtc.errors import InputError, NoAnswerError
from vtc.law.design import Line
from vtc.law.intervals import MAX_LOG_SE
from vtc.law.power import BILLION, optimal_visual_tokens
from vtc.tables.quantity import format_count, parse_quantity

KINDS = ("ratio", "vstar", "predict", "discriminate")
_FEWEST_PARAMETERS = 1000
_SHAPE = "write predict:N=14b,V=16, an LLM size and a whole number of visual tokens"


@dataclass(frozen=True)
class Goal:
    """One of KINDS; `n_params` and `visual_tokens` are those of predict."""

    kind: str
    n_params: float = 0.0
    visual_tokens: int = 0

    @property
    def title(self) -> str:
        """What is narrowed, in words."""
        if self.kind == "predict":
            size = format_count(self.n_params)
            return f"the error of {size} with {self.visual_tokens} visual tokens"
        return "V*" if self.kind == "vstar" else "alpha/beta"


def parse_goal(text: str) -> Goal:
    """The goal of a text such as ratio or predict:N=14b,V=16; raises InputError for another."""
    kind, colon, rest = text.strip().partition(":")
    if kind not in KINDS or (kind != "predict" and colon):
        raise InputError(
            f"--goal {text} is unknown; choose ratio, vstar, predict:N=14b,V=16 or discriminate"
        )
    if kind != "predict":
        return Goal(kind)
    found: dict[str, float] = {}
    for part in rest.split(","):
        name, _, value = part.partition("=")
        try:
            found[name.strip().upper()] = parse_quantity(value)
        except ValueError:
            raise InputError(f"--goal {text}: {_SHAPE}") from None
    if set(found) != {"N", "V"} or rest.count(",") != 1:
        raise InputError(f"--goal {text}: {_SHAPE}")
    n, v = found["N"], found["V"]
    if 0 < n < _FEWEST_PARAMETERS:
        n *= BILLION  # N=14 is 14 billion, as in the paper's tables: no LLM has 14 parameters.
    if n < _FEWEST_PARAMETERS or v < 1 or v != int(v):
        raise InputError(f"--goal {text}: {_SHAPE}")
    return Goal(kind, n, int(v))


@dataclass(frozen=True)
class Quantity:
    """A linearised quantity: its derivatives [p] by the law's own parameters, and its value.

    `in_logs`: the interval is that of its logarithm (of alpha/beta).
    """

    gradient: np.ndarray
    value: float
    in_logs: bool

    def interval(self, half: float, se: float) -> tuple[float | None, float | None]:
        """Its ends at half a width; none where it is not bounded."""
        if not math.isfinite(half) or (self.in_logs and se > MAX_LOG_SE):
            return None, None
        if self.in_logs:
            return self.value * math.exp(-half), self.value * math.exp(half)
        return max(self.value - half, 0.0), min(self.value + half, 1.0)


def quantity(goal: Goal, line: Line, n_columns: int) -> Quantity:
    """What the goal narrows; `n_columns` are the design's parameters, levels of others included.

    Raises NoAnswerError if a goal about alpha/beta meets exponents that are not both positive.
    """
    gradient = np.zeros(n_columns)
    if goal.kind == "predict":
        log_n, log_v = np.log([goal.n_params / BILLION]), np.log([float(goal.visual_tokens)])
        gradient[: line.n_columns] = line.jacobian(log_n, log_v)[0]
        return Quantity(gradient, float(line.error(log_n, log_v)[0]), False)
    if line.alpha <= 0 or line.beta <= 0:
        raise NoAnswerError(
            f"{line.exponents} are not both positive, so there is no ratio to narrow; "
            "take --goal predict:N=...,V=..., or look at the points first"
        )
    gradient[1], gradient[2] = 1 / line.alpha, -1 / line.beta
    return Quantity(gradient, line.alpha / line.beta, True)


def tokens(
    ends: tuple[float | None, float | None], text_tokens: float
) -> tuple[float | None, float | None]:
    """The interval of V* = Q / (ratio - 1) of one of the ratio; None where it has no bound."""
    low, high = (
        optimal_visual_tokens(end, text_tokens) if end else math.inf for end in (ends[1], ends[0])
    )
    if ends[1] is None:
        return None, None
    return low if math.isfinite(low) else None, high if math.isfinite(high) else None
