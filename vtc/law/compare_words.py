"""What a comparison of forms says, in plain sentences. Pure Python."""

from collections.abc import Sequence
from typing import Any

from vtc.law.power import BILLION


def describe(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The ranking of one task in sentences: who leads, who ties, what it means for the advice."""
    first = rows[0]
    lines = [f"{first['task']}: {len(rows)} forms over {first['n_points']} points."]
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
        f"  Best V at {first['flops']:.3g} FLOP and Q = {first['text_tokens']:g}: "
        f"{min(best):.3g} to {max(best):.3g} by form."
    )
    for index, (n, v) in enumerate(
        zip(first["at_n_params"], first["at_visual_tokens"], strict=True)
    ):
        found = [row["at_error"][index] for row in rows]
        ends = f"{_share(min(found))} to {_share(max(found))}"
        lines.append(f"  Error at N = {n / BILLION:.3g}B, V = {v:g}: {ends}.")
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


def _share(error: float) -> str:
    """An error as a person reads it: far from its data a form may predict what no error can be."""
    return f"{error:.3f}" if error < 10 else f"{error:.3g}"
