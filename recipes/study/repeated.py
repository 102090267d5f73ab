"""What repeating visual tokens does to the error: python repeated.py PREDICTIONS [...].

Runs of the same LLM, seed and distinct tokens V, fed k times and once, answer the same items: the
mean of their differences in error, over runs and items, has an interval by image.
"""

import sys
from collections import defaultdict
from statistics import fmean

from vtc import console
from vtc.evaluate.aggregate import clustered_stderr
from vtc.tables import specs
from vtc.tables.read import read_rows

TWO_SIDED = 1.96  # Standard normal: 95 % of it lie within so many standard errors.

Run = tuple[str, int]
Errors = dict[str, tuple[str, float]]
"""Image and error of each item."""


def cells(rows: list[dict]) -> dict[tuple[int, int], dict[Run, Errors]]:
    """Errors of each run (LLM, seed), by distinct V and k."""
    found: dict[tuple[int, int], dict[Run, Errors]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        k = row["visual_tokens_repeated"] or 1
        errors = found[row["visual_tokens"] // k, k][row["backbone"], row["seed"]]
        errors[row["item_id"]] = row["image_id"], 1 - row["score"]
    return found


def difference(one: dict[Run, Errors], other: dict[Run, Errors]) -> str:
    """The mean of one minus other over the runs and items of both, with its interval."""
    moved, images = [], []
    for run in one.keys() & other.keys():
        for item, (image, error) in one[run].items():
            moved.append(error - other[run][item][1])
            images.append(image)
    stderr = clustered_stderr(moved, images)
    return "" if stderr is None else f"{fmean(moved):+.3f} +- {TWO_SIDED * stderr:.3f}"


def table(rows: list[dict]) -> list[dict]:
    """A row for each V and k, by tokens fed: each run's error, and what they differ by."""
    found = cells(rows)
    runs = sorted({run for of_runs in found.values() for run in of_runs})
    lines = []
    for v, k in sorted(found, key=lambda cell: (cell[0] * cell[1], cell[0])):
        own = found[v, k]
        errors = {
            f"{name} s{seed}": f"{fmean(error for _, error in own[name, seed].values()):.3f}"
            for name, seed in runs
            if (name, seed) in own
        }
        less, more = (found.get(cell) if k > 1 else None for cell in ((v, 1), (v * k, 1)))
        lines.append(
            {
                "V x k": f"{v} x {k}",
                "fed": v * k,
                **errors,
                "to V x 1": difference(own, less) if less else "",
                "to kV x 1": difference(own, more) if more else "",
            }
        )
    return lines


def main() -> None:
    rows = [row for path in sys.argv[1:] for row in read_rows(path, specs.PREDICTIONS).rows]
    for task in sorted({row["task"] for row in rows}, reverse=True):
        own = table([row for row in rows if row["task"] == task])
        console.say(f"{task}: errors; mean differences over the runs of both, 95 % intervals")
        console.print_table(own, list(own[0]))


if __name__ == "__main__":
    main()
