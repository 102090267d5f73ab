"""A law, a budget and a catalog in; ranked choices of an LLM and a number of visual tokens out.

Pure Python on purpose: the answer takes less time than loading NumPy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc.catalog import laws, llms
from vtc.catalog.llms import LLM
from vtc.cost.flops import affordable_n_params, prefill_flops
from vtc.errors import InputError, NoAnswerError
from vtc.law.power import PowerLaw, from_row, optimal_visual_tokens
from vtc.tables import specs
from vtc.tables.quantity import format_count, format_flops
from vtc.tables.read import number, read_rows, title

VISUAL_TOKENS = (1, 4, 16, 36, 64, 144, 576)


@dataclass(frozen=True)
class Question:
    """What is asked: a budget of FLOPs an image, Q text tokens, a law's row, and real choices."""

    flops: float
    text_tokens: float
    law_name: str
    row: Mapping[str, Any]
    models: Sequence[LLM]
    visual_tokens: Sequence[int]
    top: int = 5


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


def law_file(law: str) -> str | Path:
    """The file of a shipped law, or `law` itself; raises InputError if there is neither."""
    if law in laws.SHIPPED:
        return laws.path(law)
    if law != "-" and not Path(law).exists():
        known = ", ".join(laws.SHIPPED)
        raise InputError(f"--law {law} does not exist; give {known}, or a file of `vtc fit`")
    return law


def law_row(law: str, task: str | None) -> dict[str, Any]:
    """The row of a shipped law or of a law file for `task` (default: reasoning, or the only one).

    Raises InputError if the file has no such task, or a law that cannot weigh N against V.
    """
    rows = read_rows(law_file(law), specs.LAW).rows
    law = title(law)
    tasks = [row["task"] for row in rows]
    chosen = task or (tasks[0] if len(set(tasks)) == 1 else "reasoning")
    found = [row for row in rows if row["task"] == chosen]
    if len(found) != 1:
        count = "no law" if not found else f"{len(found)} laws"
        raise InputError(
            f"law {law} has {count} of task '{chosen}' (it has: {', '.join(tasks)}); "
            "name one with --task"
        )
    if found[0]["alpha"] is None:
        raise InputError(
            f"law {law} was fitted on one LLM size, so it has no alpha and cannot weigh LLM size "
            "against visual tokens; fit it on runs of two or more sizes"
        )
    if found[0]["k"] <= 0:
        raise InputError(f"law {law}, task {chosen}: k is {found[0]['k']:g}; it must be above zero")
    return found[0]


def read_models(path: str, family: str | None = None) -> list[LLM]:
    """LLMs of a user's table: model, n_params or n_params_b, and, if wanted, family, exact counts.

    Raises InputError naming the row and the column.
    """
    name = title(path)
    found: dict[tuple[str, str], LLM] = {}
    for index, row in enumerate(read_rows(path).rows):
        llm = _model(row, f"{name}, row {index}")
        if (llm.family, llm.model) in found:
            raise InputError(f"{name}, row {index}: model '{llm.model}' stands twice")
        found[llm.family, llm.model] = llm
    if not found:
        raise InputError(f"{name} has no rows")
    kept = [llm for llm in found.values() if family is None or llm.family == family]
    if not kept:
        have = ", ".join(sorted({llm.family for llm in found.values()} - {""})) or "no family"
        raise InputError(f"{name} has no LLM of family '{family}'; it has {have}")
    return kept


def _model(row: Mapping[str, Any], where: str) -> LLM:
    size = "n_params_b" if row.get("n_params") is None and row.get("n_params_b") else "n_params"
    for column in ("model", size):
        if row.get(column) is None:
            raise InputError(f"{where}: column '{column}' is missing or empty")
    counts = []
    for column in (size, "n_params_total", "n_params_nonembedding"):
        cell = row.get(column)
        if cell is not None:
            cell = llms.checked_count(number(cell, f"{where}, column '{column}'"), column, where)
        counts.append(cell)
    return LLM(str(row["model"]), str(row.get("family") or ""), *counts)


def default_visual_tokens(row: Mapping[str, Any]) -> tuple[int, ...]:
    """The usual V that lie within the range a law was fitted on; all of them if none does."""
    low, high = row["visual_tokens_min"], row["visual_tokens_max"]
    return tuple(v for v in VISUAL_TOKENS if low <= v <= high) or VISUAL_TOKENS


def optimum(question: Question) -> Optimum:
    """The best V and N if both could be chosen freely within the budget.

    V is clipped to the range of the V asked; without a positive alpha and beta the better end of
    that range is taken.
    """
    row, q = question.row, question.text_tokens
    smallest, largest = min(question.visual_tokens), max(question.visual_tokens)
    if row["beta"] <= 0:
        free = 0.0
    elif row["alpha"] <= 0:
        free = math.inf
    else:
        free = optimal_visual_tokens(row["alpha"] / row["beta"], q)

    def clip(v: float) -> float:
        return min(max(v, smallest), largest)

    ends: list[float | None] = [None, None]
    if row["ratio_low"] is not None and row["ratio_high"] is not None:
        pair = (row["ratio_high"], row["ratio_low"])
        ends = [clip(optimal_visual_tokens(ratio, q)) for ratio in pair]
    best = clip(free)
    n_star = affordable_n_params(question.flops, best, q)
    return Optimum(best, ends[0], ends[1], n_star, free)


def recommend(question: Question) -> Answer:
    """Rank every (LLM, V) whose 2 N (Q + V) fits the budget by its predicted error.

    Raises NoAnswerError if nothing fits.
    """
    if question.flops <= 0 or question.text_tokens < 0:
        raise InputError("the budget must be above zero FLOP, and Q at least 0 tokens")
    law = from_row(question.row)
    counts = llms.counts(question.models, question.row["n_convention"])
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
    best = optimum(question)
    rows = [
        _row(question, law, best, fitting[0][0], rank, choice)
        for rank, choice in enumerate(fitting[: question.top], start=1)
    ]
    return Answer(rows, best, len(fitting))


def _raise_nothing_fits(question: Question, counts: Sequence[int]) -> None:
    n_params, llm = min(zip(counts, question.models, strict=True), key=lambda pair: pair[0])
    v = min(question.visual_tokens)
    need = prefill_flops(n_params, v, question.text_tokens)
    raise NoAnswerError(
        f"nothing fits {format_flops(question.flops)} at Q = {question.text_tokens:g}: the "
        f"smallest choice, {llm.model} with V = {v}, needs {format_flops(need)}"
    )


def _row(
    question: Question,
    law: PowerLaw,
    best: Optimum,
    best_error: float,
    rank: int,
    choice: tuple[float, float, int, int, str],
) -> dict[str, Any]:
    error, flops, v, n_params, model = choice
    row = question.row
    low, high = law.interval(n_params, v, row["level"] or 0.95) or (None, None)
    inside_n = row["n_params_min"] <= n_params <= row["n_params_max"]
    inside_v = row["visual_tokens_min"] <= v <= row["visual_tokens_max"]
    return {
        "rank": rank,
        "model": model,
        "n_params": n_params,
        "visual_tokens": v,
        "text_tokens": question.text_tokens,
        "flops": flops,
        "budget_share": flops / question.flops,
        "error": error,
        "error_low": low,
        "error_high": high,
        "regret": error - best_error,
        "extrapolates": not (inside_n and inside_v),
        "task": row["task"],
        "law": question.law_name,
        "v_star": best.visual_tokens,
        "v_star_low": best.low,
        "v_star_high": best.high,
        "n_star": best.n_params,
    }


def explain(question: Question, answer: Answer) -> list[str]:
    """The answer and its grounds in plain sentences."""
    row, best = question.row, answer.optimum
    lines = [_law_sentence(question), *_optimum_sentences(question, best)]
    first = answer.rows[0]
    interval = ""
    if first["error_low"] is not None:
        interval = f" [{first['error_low']:.3f}, {first['error_high']:.3f}]"
    tokens = f"{first['visual_tokens']} visual token{'s' * (first['visual_tokens'] != 1)}"
    lines.append(
        f"Deploy {first['model']} with {tokens}: predicted error {first['error']:.3f}{interval}, "
        f"{first['budget_share']:.0%} of the budget; the best of {answer.n_fitting} real choices "
        "that fit."
    )
    if any(choice["extrapolates"] for choice in answer.rows):
        lines.append(
            f"Rows that extrapolate lie outside the fitted {format_count(row['n_params_min'])} to "
            f"{format_count(row['n_params_max'])} or V = {row['visual_tokens_min']} to "
            f"{row['visual_tokens_max']}."
        )
    lines += _doubts(question)
    lines.append(
        "FLOPs are 2 N (Q + V), the LLM's prefill; vision encoder, compressor and generated tokens "
        "come on top."
    )
    return lines


def _doubts(question: Question) -> list[str]:
    """What speaks against the choice: wrong signs of the law, and LLMs of other families."""
    row, lines = question.row, []
    useless = [
        name
        for name, exponent in (("a larger LLM", row["alpha"]), ("more visual tokens", row["beta"]))
        if exponent <= 0
    ]
    if useless:
        lines.append(
            f"In this law {' and '.join(useless)} did not lower the error: its runs are too few or "
            "too noisy to choose by."
        )
    fitted = row["families"] or []
    others = sorted({llm.family or "your LLMs" for llm in question.models} - set(fitted))
    if fitted and others:
        lines.append(
            f"The law was fitted on {', '.join(fitted)}; for {', '.join(others)} trust the order "
            "more than the errors."
        )
    return lines


def _law_sentence(question: Question) -> str:
    row = question.row
    size = f"{row['k']:.4g} N^{-row['alpha']:.4g} V^{-row['beta']:.4g} + {row['d']:.3g}"
    return (
        f"Law {question.law_name}, {row['task']}: error = {size} (N in {row['unit']}), fitted to "
        f"{row['n_points']} points."
    )


def _optimum_sentences(question: Question, best: Optimum) -> list[str]:
    q = question.text_tokens
    why = _why(question, best)
    span, size_span = "", ""
    if best.low is not None and best.high is not None:
        ends = [affordable_n_params(question.flops, v, q) for v in (best.high, best.low)]
        span = f" [{best.low:.3g}, {best.high:.3g}]"
        size_span = f" [{format_count(ends[0])}, {format_count(ends[1])}]"
    lines = [
        f"Continuous optimum for {format_flops(question.flops)} at Q = {q:g}: "
        f"V* = {best.visual_tokens:.3g}{span} visual tokens, N* = "
        f"{format_count(best.n_params)}{size_span} parameters ({why})."
    ]
    counts = llms.counts(question.models, question.row["n_convention"])
    if best.n_params > max(counts):
        lines.append(
            f"N* is above the largest LLM to choose from ({format_count(max(counts))}): what it "
            "leaves of the budget buys visual tokens."
        )
    elif best.n_params < min(counts):
        lines.append(
            f"N* is below the smallest LLM to choose from ({format_count(min(counts))}): it must "
            "make do with fewer visual tokens."
        )
    return lines


def _why(question: Question, best: Optimum) -> str:
    alpha, beta = question.row["alpha"], question.row["beta"]
    if beta <= 0:
        return "more visual tokens do not lower the error: the fewest"
    if alpha <= beta:
        return f"alpha {alpha:.3g} <= beta {beta:.3g}: as many visual tokens as there are"
    text = f"Q / (alpha/beta - 1), alpha/beta = {alpha / beta:.3g}"
    if best.free != best.visual_tokens:
        edge = "fewest" if best.free < best.visual_tokens else "most"
        text += f"; {best.free:.3g} clipped to the {edge} visual tokens there are"
    return text
