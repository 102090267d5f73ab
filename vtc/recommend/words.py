"""Sentences that every answer has: of its law, its first choice, and what speaks against them."""

from collections.abc import Mapping, Sequence
from typing import Any

from vtc.catalog.llms import LLM
from vtc.recommend.laws import Mix
from vtc.recommend.units import counted
from vtc.tables.quantity import format_count


def law_sentences(mix: Mix) -> list[str]:
    """Each law of the mix, and how the tasks are weighed."""
    lines = []
    for part in mix.parts:
        row = part.row
        size = f"{row['k']:.4g} N^{-row['alpha']:.4g} V^{-row['beta']:.4g} + {row['d']:.3g}"
        made = f"fitted to {row['n_points']} points" if row["n_points"] else "written by hand"
        lines.append(f"Law {mix.name}, {row['task']}: error = {size} (N in {row['unit']}), {made}.")
    if len(mix.parts) > 1:
        shares = " + ".join(f"{part.weight:.0%} {part.task}" for part in mix.parts)
        lines.append(f"Errors are those of the mix: {shares}.")
    return lines


def tokens(count: int) -> str:
    """The number of visual tokens with its noun."""
    return f"{count} visual token{'s' * (count != 1)}"


def not_the_answer(least: int, reasons: Sequence[str]) -> list[str]:
    """Why the fewest visual tokens are not the answer; nothing without a reason."""
    if not reasons:
        return []
    what = "One visual token is" if least == 1 else f"{least} visual tokens are"
    return [f"{what} not the answer here: {'; '.join(reasons)}."]


def tokens_gain_more(mix: Mix) -> str:
    """Tasks whose law gains more from tokens than from parameters."""
    said = []
    for part in mix.parts:
        alpha, beta = part.law.alpha, part.law.beta
        if beta > 0 and alpha <= beta:
            said.append(
                f"for {part.task} tokens lower the error more than parameters do "
                f"(alpha {alpha:.3g} <= beta {beta:.3g})"
            )
    return " and ".join(said)


def text_is_paid(mix: Mix, paid: float, least: int, images: int = 1) -> str:
    """Text that every inference computes, `paid` tokens of it: visual tokens beside it are cheap.

    Of the law of one task, if its best V by FLOPs is above the fewest of the choice.
    """
    ratio = mix.parts[0].law.ratio
    if len(mix.parts) > 1 or ratio is None or ratio <= 1 or not paid:
        return ""
    best = paid / (ratio - 1) / images
    if best <= max(1, least):
        return ""
    return (
        f"{counted(paid, 'token')} of text that no cache holds cost as much with one visual token "
        f"as with more (of FLOPs alone the best V is {best:.3g})"
    )


def error_with_interval(row: Mapping[str, Any]) -> str:
    """The predicted error of a row, and its interval where there is one."""
    interval = ""
    if row["error_low"] is not None:
        interval = f" [{row['error_low']:.3f}, {row['error_high']:.3f}]"
    return f"predicted error {row['error']:.3f}{interval}"


def best_of(n_fitting: int, row: Mapping[str, Any]) -> str:
    """How many choices the first row is the best of, and in which share of the law's draws.

    All draws have the law's form: the share knows nothing of another one.
    """
    if n_fitting == 1:
        return "the only real choice that fits"
    share = row.get("p_best")
    sure = "" if share is None else f", the best in {share:.0%} of the law's draws (its form given)"
    return f"the best of {n_fitting} real choices that fit{sure}"


def extrapolations(mix: Mix, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the laws cover, if a row lies outside it."""
    if not any(row["extrapolates"] for row in rows):
        return []
    ranges = [
        f"{format_count(row['n_params_min'])} to {format_count(row['n_params_max'])} or V = "
        f"{row['visual_tokens_min']} to {row['visual_tokens_max']}"
        for row in (part.row for part in mix.parts)
    ]
    said = " and ".join(dict.fromkeys(ranges))
    return [f"Rows that extrapolate (*) lie outside the fitted {said}.", *_another_form(mix, rows)]


def _another_form(mix: Mix, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the law's rival says of the first row that extrapolates: intervals know one form."""
    row = next(row for row in rows if row["extrapolates"])
    rival = row["error_log_linear"]
    if rival is None:
        return []
    gaps = [_aicc_gap(part.row) for part in mix.parts]
    fits = ""
    if len(gaps) == 1 and gaps[0] is not None:
        better = "better" if gaps[0] > 0 else "worse"
        fits = f", which fits the same points {better} (AICc {abs(gaps[0]):.1f} apart),"
    where = ""
    if row["error_low"] is not None:
        inside = row["error_low"] <= rival <= row["error_high"]
        where = ", inside the interval" if inside else ", outside the interval"
    return [
        f"There the form decides, which intervals and draws take for granted: one linear in ln N "
        f"and ln V{fits} predicts {rival:.3f} for {row['model']} with "
        f"{tokens(row['visual_tokens'])}{where}."
    ]


def _aicc_gap(row: Mapping[str, Any]) -> float | None:
    """By how much the rival's AICc lies below the law's."""
    own, rival = row.get("aicc"), row.get("log_linear_aicc")
    return None if own is None or rival is None else own - rival


def doubts(mix: Mix, models: Sequence[LLM]) -> list[str]:
    """What speaks against the choice: wrong signs of the law, and LLMs of other families."""
    lines = []
    for part in mix.parts:
        which = "this law" if len(mix.parts) == 1 else f"the law of {part.task}"
        if part.row["alpha"] <= 0:
            lines.append(f"In {which} a larger LLM did not lower the error.")
        if part.row["beta"] <= 0:
            lines.append(
                f"In {which} more visual tokens did not lower the error: the fewest are taken, and "
                "whether that is the task's or its runs' noise the interval of beta tells."
            )
    fitted = mix.row["families"] or []
    others = sorted({llm.family or "your LLMs" for llm in models} - set(fitted))
    if fitted and others:
        lines.append(f"The law was fitted on {', '.join(fitted)}; {_of_others(others, models)}")
    return lines


def _of_others(others: Sequence[str], models: Sequence[LLM]) -> str:
    if len({llm.family for llm in models}) == 1:
        return f"for {', '.join(others)} trust the order more than the errors."
    return (
        f"{', '.join(others)} may err more or less at the same N, which no law in N tells: trust "
        "the order within a family, not between families."
    )
