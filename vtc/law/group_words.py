"""What a law says of its group, in plain sentences. Pure Python."""

from collections.abc import Mapping
from typing import Any

_SHARED = {
    "exponents": "alpha and beta are those of all groups together",
    "alpha": "alpha is that of all groups together, beta its own",
}


def sentences(row: Mapping[str, Any]) -> list[str]:
    """Sentences on the columns of groups of a row of the law table; none for a task not split."""
    lines = []
    if row.get("shared"):
        lines.append(_sharing(row))
    if row.get("alpha_shrunk") is not None:
        ratio = row["ratio_shrunk"]
        lines.append(
            f"Drawn to the mean of the groups as far as its doubt asks: alpha "
            f"{row['alpha_shrunk']:.4f}, beta {row['beta_shrunk']:.4f}"
            + (f", alpha/beta {ratio:.3g}." if ratio is not None else ", no positive ratio.")
        )
    if row.get("ratio_without_group") is not None:
        lines.append(f"Without it the task's alpha/beta is {row['ratio_without_group']:.3g}.")
    if row.get("ratio_jackknife_groups_low") is not None:
        low, high = row["ratio_jackknife_groups_low"], row["ratio_jackknife_groups_high"]
        lines.append(
            f"With other benchmarks of the same kind alpha/beta lies in [{low:.3g}, {high:.3g}] "
            "(jackknife over benchmarks)."
        )
    if row.get("group") is None and row.get("alpha_between") is not None:
        lines.append(
            f"The benchmarks' own alpha differ by a standard deviation of "
            f"{row['alpha_between']:.3g}, their beta by {row['beta_between']:.3g}."
        )
    return lines


def _sharing(row: Mapping[str, Any]) -> str:
    text = _SHARED[row["shared"]]
    p = row.get("shared_p")
    if p is None:
        return f"{text[0].upper()}{text[1:]}."
    verdict = "the points speak against it" if p < 0.05 else "the points do not speak against it"
    return f"{text[0].upper()}{text[1:]}; {verdict} (F test, p = {p:.2g})."
