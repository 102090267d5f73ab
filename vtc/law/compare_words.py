"""What a comparison of forms says, in plain sentences. Pure Python."""

from collections.abc import Sequence
from typing import Any

from vtc.tables.quantity import format_count, format_flops


def describe(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The ranking of one task in sentences: who leads, who ties, what it means for the advice."""
    first = rows[0]
    what = f"form {first['form']}" if len(rows) == 1 else f"{len(rows)} forms"
    lines = [f"{first['task']}: {what} over {first['n_points']} points."]
    for criterion, word in (
        ("aicc", "AICc"),
        ("loo_point", "leaving out a point"),
        ("loo_size", "leaving out an LLM size"),
    ):
        tied = [row["form"] for row in rows if criterion in row["ties"]]
        if tied and len(rows) > 1:
            verb = "leads" if len(tied) == 1 else "cannot be told apart, and lead"
            lines.append(f"  By {word}, {', '.join(tied)} {verb}.")
    flagged = {row["form"]: row["flags"] for row in rows}
    for flag, sentence in _SENTENCES.items():
        named = [form for form, flags in flagged.items() if flag in flags]
        if named:
            lines.append(f"  {', '.join(named)}: {sentence}")
    best = [row["best_v"] for row in rows]
    lines.append(
        f"  Best V at {format_flops(first['flops'])} and Q = {first['text_tokens']:g}: "
        f"{_range([f'{v:.3g}' for v in (min(best), max(best))], rows)}."
    )
    for index, (n, v) in enumerate(
        zip(first["at_n_params"], first["at_visual_tokens"], strict=True)
    ):
        found = [row["at_error"][index] for row in rows]
        ends = _range([_share(min(found)), _share(max(found))], rows)
        lines.append(f"  Error at N = {format_count(n)}, V = {v:g}: {ends}.")
    return lines


_SENTENCES = {
    "boundary": "a parameter stands at its bound (D, E or V0).",
    "log_linear_limit": (
        "with D at 0 the sum of squares is above that of the log-linear limit (D to minus "
        "infinity): the data do not tell an irreducible error."
    ),
    "not_identified": "its parameters are not identified one by one.",
    "best_v_at_end": "the best V is the fewest or the most measured.",
    "extrapolates": "the best N lies outside the sizes measured.",
}


def _range(ends: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """The least and the most over the forms; one figure where they read the same."""
    if ends[0] == ends[1]:
        return ends[0] + " by every form" * (len(rows) > 1)
    return f"{ends[0]} to {ends[1]} by form"


def _share(error: float) -> str:
    """An error as a person reads it: far from its data a form may predict what no error can be."""
    return f"{error:.3f}" if error < 10 else f"{error:.3g}"
