"""The published study's design and points, for the tests of laws."""

import csv

import numpy as np

from vtc.catalog.measurements import PUBLISHED

SIZES = np.log([0.5, 1.8, 4.0, 7.0])
TOKENS = np.log([1, 4, 16, 36, 64, 144, 576])
LOG_N, LOG_V = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS, indexing="ij"))


def published(task="reasoning"):
    """ln N, ln V and errors of the published points of a task, without its suspect rows."""
    rows = [r for r in csv.DictReader(PUBLISHED.open()) if r["task"] == task and not r["note"]]
    log_n = np.log([float(row["n_params_b"]) for row in rows])
    log_v = np.log([float(row["visual_tokens"]) for row in rows])
    return log_n, log_v, 1 - np.array([float(row["score"]) for row in rows])


def law(k, alpha, beta, d):
    """Errors of a power law at the points of the design."""
    return k * np.exp(-alpha * LOG_N - beta * LOG_V) + d
