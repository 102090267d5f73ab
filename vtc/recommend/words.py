"""Sentences that every answer has: of its law, its first choice, and what speaks against them."""

from collections.abc import Mapping, Sequence
from typing import Any

from vtc.catalog.llms import LLM
from vtc.recommend.laws import Mix
from vtc.tables.quantity import format_count


def law_sentences(mix: Mix) -> list[str]:
    """Each law of the mix, and how the tasks are weighed."""
    lines = []
    for part in mix.parts:
        row = part.row
        size = f"{row['k']:.4g} N^{-row['alpha']:.4g} V^{-row['beta']:.4g} + {row['d']:.3g}"
        lines.append(
            f"Law {mix.name}, {row['task']}: error = {size} (N in {row['unit']}), fitted to "
            f"{row['n_points']} points."
        )
    if len(mix.parts) > 1:
        shares = " + ".join(f"{part.weight:.0%} {part.task}" for part in mix.parts)
        lines.append(f"Errors are those of the mix: {shares}.")
    return lines


def tokens(count: int) -> str:
    """The number of visual tokens with its noun."""
    return f"{count} visual token{'s' * (count != 1)}"


def error_with_interval(row: Mapping[str, Any]) -> str:
    """The predicted error of a row, and its interval where there is one."""
    interval = ""
    if row["error_low"] is not None:
        interval = f" [{row['error_low']:.3f}, {row['error_high']:.3f}]"
    return f"predicted error {row['error']:.3f}{interval}"


def best_in_draws(row: Mapping[str, Any]) -> str:
    """How often the law's draws put this row first; nothing without draws."""
    share = row.get("p_best")
    return "" if share is None else f", the best in {share:.0%} of the law's draws"


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
    return [f"Rows that extrapolate (*) lie outside the fitted {said}."]


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
        lines.append(
            f"The law was fitted on {', '.join(fitted)}; for {', '.join(others)} trust the order "
            "more than the errors."
        )
    return lines
