"""The laws of a study beside the published ones: python recipes/study/laws.py law.parquet."""

import sys

from vtc import console
from vtc.catalog import laws
from vtc.tables import specs
from vtc.tables.read import read_rows


def line(source: str, law: dict) -> dict:
    """One row of the table: exponents with their intervals, and which one wins."""
    return {
        "law": source,
        "task": law["task"],
        "alpha": span(law, "alpha"),
        "beta": span(law, "beta"),
        "alpha/beta": span(law, "ratio"),
        "D": law["d"],
        "points": law["n_points"],
        "says": verdict(law),
    }


def verdict(law: dict) -> str:
    """Which exponent is larger, if the interval of their ratio, or their own two, tell."""
    low, high = law["ratio_low"], law["ratio_high"]
    told = low is not None and high is not None and not low <= 1 <= high
    ends = [law[name] for name in ("alpha_low", "alpha_high", "beta_low", "beta_high")]
    if not told and None not in ends:
        alpha_low, alpha_high, beta_low, beta_high = ends
        told = alpha_high < beta_low or beta_high < alpha_low
    if not told:
        return "not told apart"
    return "alpha > beta" if law["alpha"] > law["beta"] else "beta > alpha"


def span(law: dict, name: str) -> str:
    """An estimate and, where the fit gives one, its interval."""
    if law[f"{name}_low"] is None or law[f"{name}_high"] is None:
        return console.format_cell(law[name])
    ends = (console.format_cell(law[f"{name}_{end}"]) for end in ("low", "high"))
    return f"{console.format_cell(law[name])} [{', '.join(ends)}]"


def main() -> None:
    study, _ = read_rows(sys.argv[1], specs.LAW)
    published, _ = read_rows(laws.path("published"), specs.LAW)
    rows = [line("study", law) for law in study] + [line("published", law) for law in published]
    rows.sort(key=lambda row: row["task"], reverse=True)
    console.print_table(rows, list(rows[0]))


if __name__ == "__main__":
    main()
