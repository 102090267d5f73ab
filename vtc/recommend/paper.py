"""The paper's question: a budget of 2 N (Q + V) FLOPs, and ranked choices of an LLM and a V.

Pure Python on purpose: the answer takes less time than loading NumPy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vtc.catalog import llms
from vtc.catalog.llms import LLM
from vtc.cost.flops import affordable_n_params, prefill_flops
from vtc.errors import InputError, NoAnswerError
from vtc.law.power import optimal_visual_tokens
from vtc.recommend.laws import Mix, of_row, refuse_meaningless
from vtc.recommend.odds import best_shares, wasted
from vtc.tables.quantity import format_flops

VISUAL_TOKENS = (1, 4, 16, 36, 64, 144, 576)


@dataclass(frozen=True)
class Question:
    """What is asked: a budget of FLOPs an image, Q text tokens, a law's row, and real choices.

    With a `mix` of several tasks its error is what counts, and `row` is the first task's.
    """

    flops: float
    text_tokens: float
    law_name: str
    row: Mapping[str, Any]
    models: Sequence[LLM]
    visual_tokens: Sequence[int]
    top: int = 5
    mix: Mix | None = None

    @cached_property
    def law(self) -> Mix:
        """What predicts the error."""
        return self.mix or of_row(self.law_name, self.row)


@dataclass(frozen=True)
class Optimum:
    """The continuous choice: V* (within the V asked), its interval, and the N* that it affords."""

    visual_tokens: float
    low: float | None
    high: float | None
    n_params: float
    free: float  # V* before it was clipped; infinite for "as many as possible"


@dataclass(frozen=True)
class Answer:
    """Rows of the recommendation table, best first, and the continuous optimum."""

    rows: list[dict[str, Any]]
    optimum: Optimum
    n_fitting: int


def default_visual_tokens(row: Mapping[str, Any]) -> tuple[int, ...]:
    """The usual V that lie within the range a law was fitted on; all of them if none does."""
    low, high = row["visual_tokens_min"], row["visual_tokens_max"]
    return tuple(v for v in VISUAL_TOKENS if low <= v <= high) or VISUAL_TOKENS


def optimum(question: Question) -> Optimum:
    """The best V and N if both could be chosen freely within the budget.

    V is clipped to the range of the V asked; without a positive alpha and beta the better end of
    that range is taken.
    """
    smallest, largest = min(question.visual_tokens), max(question.visual_tokens)

    def clip(v: float) -> float:
        return min(max(v, smallest), largest)

    free = _free_optimum(question, smallest, largest)
    best = clip(free)
    low, high = (None if end is None else clip(end) for end in _interval(question))
    n_star = affordable_n_params(question.flops, best, question.text_tokens)
    return Optimum(best, low, high, n_star, free)


def _free_optimum(question: Question, smallest: int, largest: int) -> float:
    """V* before it is clipped; of a mix of tasks, the best within the range."""
    row = question.row
    if len(question.law.parts) > 1:
        return _lowest(question, smallest, largest)
    if row["beta"] <= 0:
        return 0.0
    if row["alpha"] <= 0:
        return math.inf
    return optimal_visual_tokens(row["alpha"] / row["beta"], question.text_tokens)


def _lowest(question: Question, smallest: int, largest: int) -> float:
    """V of the lowest error along N = F / (2 (Q + V)): a grid in ln V, then a finer one."""

    def error(log_v: float) -> float:
        v = math.exp(log_v)
        n_params = affordable_n_params(question.flops, v, question.text_tokens)
        return question.law.error(n_params, v)

    low, high = math.log(smallest), math.log(largest)
    for _ in range(4):
        step = (high - low) / 40
        best = min((low + step * number for number in range(41)), key=error)
        low, high = max(low, best - step), min(high, best + step)
    return min(max(math.exp(best), smallest), largest)


def _interval(question: Question) -> tuple[float | None, float | None]:
    """The ends of V*; none of a mix, or without an interval of the ratio."""
    row, q = question.row, question.text_tokens
    if row["ratio_low"] is None or row["ratio_high"] is None or len(question.law.parts) > 1:
        return None, None
    low, high = (optimal_visual_tokens(row[f"ratio_{end}"], q) for end in ("high", "low"))
    return low, high


def recommend(question: Question) -> Answer:
    """Rank every (LLM, V) whose 2 N (Q + V) fits the budget by its predicted error.

    Raises NoAnswerError if nothing fits, or the law cannot choose.
    """
    if question.flops <= 0 or question.text_tokens < 0:
        raise InputError("the budget must be above zero FLOP, and Q at least 0 tokens")
    law = question.law
    counts = llms.counts(question.models, question.row["n_convention"])
    refuse_meaningless(law, counts)
    q = question.text_tokens
    fitting = []
    for llm, n_params in zip(question.models, counts, strict=True):
        for v in question.visual_tokens:
            flops = prefill_flops(n_params, v, q)
            if flops <= question.flops:
                fitting.append((law.error(n_params, v), flops, v, n_params, llm.model))
    if not fitting:
        _raise_nothing_fits(question, counts)
    fitting.sort()
    errors, costs = [choice[0] for choice in fitting], [choice[1] for choice in fitting]
    shares = best_shares(law, [(choice[3], choice[2]) for choice in fitting])
    best = optimum(question)
    rows = [
        _row(question, best, errors[0], rank, choice)
        for rank, choice in enumerate(fitting[: question.top], start=1)
    ]
    for row, waste in zip(rows, wasted(errors, costs, question.top), strict=True):
        row["wasted"] = waste
        if shares:
            row["p_best"] = shares.get((row["n_params"], row["visual_tokens"]), 0.0)
    return Answer(rows, best, len(fitting))


def _raise_nothing_fits(question: Question, counts: Sequence[int]) -> None:
    n_params, llm = min(zip(counts, question.models, strict=True), key=lambda pair: pair[0])
    v = min(question.visual_tokens)
    need = prefill_flops(n_params, v, question.text_tokens)
    raise NoAnswerError(
        f"nothing fits {format_flops(question.flops)} at Q = {question.text_tokens:g}: the "
        f"smallest choice, {llm.model} with V = {v}, needs {format_flops(need)}; raise "
        "--flops, or lower --q"
    )


def _row(
    question: Question,
    best: Optimum,
    best_error: float,
    rank: int,
    choice: tuple[float, float, int, int, str],
) -> dict[str, Any]:
    error, flops, v, n_params, model = choice
    low, high = question.law.interval(n_params, v) or (None, None)
    return {
        "rank": rank,
        "model": model,
        "n_params": n_params,
        "visual_tokens": v,
        "text_tokens": question.text_tokens,
        "cost_model": "paper",
        "objective": "flops",
        "flops": flops,
        "budget_share": flops / question.flops,
        "error": error,
        "error_low": low,
        "error_high": high,
        "error_log_linear": question.law.rival_error(n_params, v),
        "regret": error - best_error,
        "extrapolates": not question.law.covers(n_params, v),
        "task": question.law.task,
        "law": question.law_name,
        "v_star": best.visual_tokens,
        "v_star_low": best.low,
        "v_star_high": best.high,
        "n_star": best.n_params,
    }
