"""The law with D held at 0, a straight plane in logarithms: python loglinear.py SCORES [...].

A cross-check of `vtc fit`, for studies whose D is not identified: ordinary least squares of
log(error) on log(N) and log(V), with a jackknife over LLM sizes, and the largest size predicted
from the others.
"""

import sys

import numpy as np

from vtc import console
from vtc.tables import specs
from vtc.tables.read import read_rows


def exponents(rows: list[dict]) -> np.ndarray:
    """log k, alpha and beta of rows of a scores table."""
    solution, *_ = np.linalg.lstsq(design(rows), np.log([r["error"] for r in rows]), rcond=None)
    return solution


def design(rows: list[dict]) -> np.ndarray:
    """[1, -log N, -log V] of each row."""
    n, v = (np.log([float(row[name]) for row in rows]) for name in ("n_params", "visual_tokens"))
    return np.stack([np.ones_like(n), -n, -v], axis=1)


def summary(task: str, rows: list[dict]) -> dict:
    """Exponents with jackknife standard errors over sizes, and how the largest is predicted."""
    sizes = sorted({row["n_params"] for row in rows})
    without = [[row for row in rows if row["n_params"] != size] for size in sizes]
    jack = np.array([exponents(some) for some in without])
    spread = np.sqrt((len(sizes) - 1) / len(sizes) * ((jack - jack.mean(0)) ** 2).sum(0))
    _, alpha, beta = exponents(rows)
    held = [row for row in rows if row["n_params"] == sizes[-1]]
    predicted = np.exp(design(held) @ jack[-1])
    off = predicted / np.array([row["error"] for row in held]) - 1
    return {
        "task": task,
        "alpha": alpha,
        "alpha se": spread[1],
        "beta": beta,
        "beta se": spread[2],
        "points": len(rows),
        "held-out N": sizes[-1],
        "mean |off|": float(np.abs(off).mean()),
        "mean off": float(off.mean()),
    }


def main() -> None:
    rows = [row for path in sys.argv[1:] for row in read_rows(path, specs.SCORES)[0]]
    tasks = sorted({row["task"] for row in rows}, reverse=True)
    table = [summary(task, [row for row in rows if row["task"] == task]) for task in tasks]
    console.print_table(table, list(table[0]))


if __name__ == "__main__":
    main()
