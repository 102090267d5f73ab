"""What a fitted law says, and what its data cannot say, in plain sentences."""

from collections.abc import Mapping
from typing import Any

from vtc.law import group_words, held_out_words
from vtc.tables.quantity import format_count


def describe(row: Mapping[str, Any], n_dropped: int = 0) -> list[str]:
    """Sentences on a row of the law table, the finding first, then its doubts."""
    group = "" if row.get("group") is None else f", {row['by']} {row['group']}"
    head = f"{row['task']}{group}: "
    lines = [head + _law(row), *_finding(row), *_doubts(row), *group_words.sentences(row)]
    if n_dropped:
        lines.append(f"{n_dropped} suspect rows were left out.")
    if row.get("holdout"):
        lines += held_out_words.sentences(row)
    return [line if line.startswith(head) else f"  {line}" for line in lines]


def _law(row: Mapping[str, Any]) -> str:
    size = "" if row["alpha"] is None else f" N^-{row['alpha']:.4f}"
    sizes = f"{row['n_sizes']} LLM size{'s' * (row['n_sizes'] != 1)}"
    # Laws of hopeless data may have a k of hundreds of digits.
    k = f"{row['k']:.4f}" if row["k"] < 1e4 else f"{row['k']:.4g}"
    formula = f"{k}{size} V^-{row['beta']:.4f} + {row['d']:.4f}"
    if "exponents_not_identified" in row["flags"]:
        formula = f"k N^-alpha V^-beta + {row['d']:.4f}, k, alpha and beta not identified"
    return (
        f"Y = {formula} (N in {row['unit']}, {row['n_convention']}), rmse {row['rmse']:.4f} over "
        f"{row['n_points']} points of {sizes}, by {row['method']}."
    ).replace("^--", "^+")


def _finding(row: Mapping[str, Any]) -> list[str]:
    if row["alpha"] is None:
        return [
            f"One LLM size only ({format_count(row['n_params_min'])}): beta alone is fitted, and "
            "no LLM size can be recommended; add runs of another size."
        ]
    if "exponents_not_identified" in row["flags"] and row.get("ratio_low") is None:
        return ["No best V follows from it."]
    if row["ratio"] is None:
        useless = [
            name
            for name, exponent in (
                ("a larger LLM", row["alpha"]),
                ("more visual tokens", row["beta"]),
            )
            if exponent <= 0
        ]
        return [
            f"alpha {row['alpha']:.4g} and beta {row['beta']:.4g} are not both positive: "
            f"{' and '.join(useless)} did not lower the error, so there is no best ratio."
        ]
    q = f"at Q = {row['text_tokens']:g}"
    ratio = f"alpha/beta = {row['ratio']:.3g}{_span(row, 'ratio')}"
    if row.get("alpha_low") is not None:
        ratio += f", alpha{_span(row, 'alpha')}, beta{_span(row, 'beta')}"
    if row["v_star"] is None:
        low = row.get("v_star_low")
        least = f" (the interval's other end: {at_least_one(low)} {q})" if low is not None else ""
        return [f"{ratio}: beta >= alpha, so as many visual tokens as possible{least}."]
    end = row.get("v_star_high")
    span = ""
    if row.get("v_star_low") is not None:
        upper = at_least_one(end) if end is not None else "no bound"
        span = f" [{at_least_one(row['v_star_low'])}, {upper}]"
    unit = "visual token, the fewest there are" if row["v_star"] <= 1 else "visual tokens"
    return [f"{ratio}; best V {q}: {at_least_one(row['v_star'])}{span} {unit}."]


def at_least_one(visual_tokens: float) -> str:
    """A best V as it is printed: below one token, where a formula may end, there is none."""
    return f"{max(visual_tokens, 1.0):.3g}"


def _span(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None:
        return ""
    return f" [{low:.3g}, {high:.3g}]"


def _doubts(row: Mapping[str, Any]) -> list[str]:
    flags, lines = row["flags"], []
    if row.get("interval_method") and row["ratio"] and "no_degrees_of_freedom" not in flags:
        lines.append(_interval_sentence(row))
    if row.get("item_sd") is not None:
        lines.append(_items(row))
    if "d_at_bound" in flags or "weakly_identified_exponents" in flags:
        lines.append(_not_identified(row))
    lines += [sentence for flag, sentence in _SENTENCES.items() if flag in flags]
    return lines


def _interval_sentence(row: Mapping[str, Any]) -> str:
    if row.get("ratio_low") is None:
        text = "The data do not bound alpha/beta: an exponent is hardly distinguishable from 0"
    else:
        text = f"Brackets are {row['level']:.0%} intervals ({row['interval_method']})"
    low, high = row.get("ratio_without_a_size_low"), row.get("ratio_without_a_size_high")
    if low is not None and high is not None:
        jack_low, jack_high = row["ratio_jackknife_low"], row["ratio_jackknife_high"]
        text += (
            f"; leaving out one LLM size moves alpha/beta between {low:.3g} and {high:.3g} "
            f"(jackknife interval [{jack_low:.3g}, {jack_high:.3g}]{_narrower(row)})"
        )
    if row.get("p_alpha_larger") is not None:
        text += f"; alpha > beta in {row['p_alpha_larger']:.1%} of the draws"
    return text + "."


def _narrower(row: Mapping[str, Any]) -> str:
    """Said where the jackknife over sizes, mostly the wider interval, is the narrower one."""
    low, high = row.get("ratio_low"), row.get("ratio_high")
    if low is None or high is None:
        return ""
    if row["ratio_jackknife_high"] / row["ratio_jackknife_low"] >= high / low:
        return ""
    return ", here the narrower one: take the brackets"


def _items(row: Mapping[str, Any]) -> str:
    low, high = row.get("ratio_items_low"), row.get("ratio_items_high")
    text = (
        f"A point's images leave it a standard error of {row['item_sd']:.4f}, of which "
        f"{row['item_sd_not_shared']:.4f} does not shift all points alike (a run's own noise with "
        f"them: {row['run_sd']:.4f})"
    )
    if row["ratio"] is None:
        return f"{text}."
    least, most = f"{low or 0:.3g}", "no bound" if high is None else f"{high:.3g}"
    return f"{text}; with other images of the same kind alpha/beta lies in [{least}, {most}]."


def _not_identified(row: Mapping[str, Any]) -> str:
    text = "D is at its bound 0" if "d_at_bound" in row["flags"] else "D is hardly determined"
    if row.get("d_admitted_high") is not None:
        text += f"; the data admit D up to {row['d_admitted_high']:.3g}"
    if "weakly_identified_exponents" not in row["flags"]:
        return f"{text}."
    if row["alpha"] is None:
        return f"{text}: beta{_span(row, 'beta')}, k and D are not identified one by one."
    if row["ratio"] is None:
        return f"{text}: alpha and beta are not identified one by one."
    return (
        f"{text}: alpha and beta are not identified one by one, only their ratio is; and the ratio "
        "is what the best V depends on."
    )


_SENTENCES = {
    "exponents_not_identified": (
        "alpha and beta are not identified: D is so close to some errors that ever steeper laws "
        "fit alike; the table's values are those where the search ended."
    ),
    "two_sizes": (
        "Two LLM sizes only: an LLM's own peculiarity cannot be told from the effect of size, so "
        "the intervals are too narrow."
    ),
    "no_degrees_of_freedom": "Too few points for intervals: every point is used up by the fit.",
    "alpha_may_be_zero": "alpha may be zero: its interval covers 0.",
    "beta_may_be_zero": "beta may be zero: its interval covers 0.",
    "suspect_rows": "Rows noted as suspect are among the points; --drop-suspect leaves them out.",
    "untrained_rows": "Runs at V that they were not trained at are among the points; "
    "--drop-untrained leaves them out.",
    "several_families": "The points mix LLM families, whose laws may differ.",
    "several_compressors": "The points mix compressors, whose laws may differ.",
    "replicates": "Several runs of one N and V, whatever else tells them apart, are a point each.",
}
