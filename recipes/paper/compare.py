"""A run's scores beside the published ones of the same LLM and V; exits with 1 if they differ.

python recipes/paper/compare.py scores.csv --tolerance 0.01

The published score of a task is the mean over its benchmarks; so is ours.
"""

import argparse
import csv
import sys
from collections import defaultdict

from vtc.catalog.llms import find
from vtc.catalog.measurements import PUBLISHED

Cell = tuple[str, str, int]


def published() -> dict[Cell, float]:
    """(task, LLM, V) -> published mean score."""
    with open(PUBLISHED, encoding="utf-8") as file:
        return {
            (row["task"], row["backbone"], int(row["visual_tokens"])): float(row["score"])
            for row in csv.DictReader(file)
        }


def measured(path: str) -> dict[Cell, float]:
    """(task, LLM, V) -> mean over the benchmarks of a scores table (CSV)."""
    scores: dict[Cell, list[float]] = defaultdict(list)
    with open(path, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cell = (row["task"], row["backbone"], int(row["visual_tokens"]))
            scores[cell].append(float(row["score"]))
    return {cell: sum(values) / len(values) for cell, values in scores.items()}


def same(ours: Cell, theirs: Cell) -> bool:
    """Whether two cells are of one task, LLM and V, whatever the LLM's spelling."""
    names = find(ours[1]), find(theirs[1])
    return ours[::2] == theirs[::2] and None not in names and names[0] == names[1]


def main() -> None:
    """Print a line a cell that both have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores")
    parser.add_argument("--tolerance", type=float, default=0.01)
    arguments = parser.parse_args()
    known, far, found = published(), 0, 0
    for cell, score in measured(arguments.scores).items():
        for theirs in (other for other in known if same(cell, other)):
            difference = score - known[theirs]
            found += 1
            far += abs(difference) > arguments.tolerance
            print(
                f"{cell[0]}, {cell[1]}, V = {cell[2]}: {score:.4f}, published "
                f"{known[theirs]:.4f}, difference {difference:+.4f}"
            )
    if not found:
        sys.exit("no cell of these scores is published")
    sys.exit(f"{far} of {found} differ by more than {arguments.tolerance}" if far else 0)


if __name__ == "__main__":
    main()
