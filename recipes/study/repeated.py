"""What repeating visual tokens does to the error: python repeated.py SCORES.

Runs of the same LLM, seed and distinct tokens V, fed k times and once, are pairs: the mean of their
differences in error, with a t interval over the pairs, holds the noise of training and all items.
"""

import sys
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t

from vtc import console
from vtc.tables import specs
from vtc.tables.read import read_rows

LEVEL = 0.95


def cells(rows: list[dict]) -> dict[tuple[int, int], dict[tuple[str, int], float]]:
    """Errors by (distinct V, k), of each (LLM, seed)."""
    found: dict[tuple[int, int], dict[tuple[str, int], float]] = {}
    for row in rows:
        k = row["visual_tokens_repeated"] or 1
        of_runs = found.setdefault((row["visual_tokens"] // k, k), {})
        of_runs[row["backbone"], row["seed"]] = row["error"]
    return found


def difference(one: dict, other: dict) -> str:
    """The mean of one minus other over the runs of both, with its interval."""
    pairs = [one[run] - other[run] for run in one.keys() & other.keys()]
    half = t.ppf((1 + LEVEL) / 2, len(pairs) - 1) * stdev(pairs) / sqrt(len(pairs))
    return f"{fmean(pairs):+.3f} +- {half:.3f}"


def table(rows: list[dict]) -> list[dict]:
    """A row for each V and k, by tokens fed."""
    found = cells(rows)
    runs = sorted({run for of_runs in found.values() for run in of_runs})
    return [
        {
            "V x k": f"{v} x {k}",
            "fed": v * k,
            **{f"{name} s{seed}": f"{found[v, k][name, seed]:.3f}" for name, seed in runs},
            "to V x 1": difference(found[v, k], found[v, 1]) if k > 1 else "",
            "to kV x 1": difference(found[v, k], found[v * k, 1]) if k > 1 else "",
        }
        for v, k in sorted(found, key=lambda cell: (cell[0] * cell[1], cell[0]))
    ]


def main() -> None:
    rows = [row for path in sys.argv[1:] for row in read_rows(path, specs.SCORES).rows]
    for task in sorted({row["task"] for row in rows}, reverse=True):
        own = table([row for row in rows if row["task"] == task])
        console.say(
            f"{task}: errors, and differences with {LEVEL:.0%} intervals over pairs of runs"
        )
        console.print_table(own, list(own[0]))


if __name__ == "__main__":
    main()
