"""Exponents of several groups drawn to their mean, each as far as its own doubt asks.

The true (alpha_g, beta_g) are taken as normal around a common mean with covariance T, what each
group's fit found as normal around its truth with the fit's own covariance S_g, D included among
what it had to find. T is the REML estimate, by EM, which keeps it a covariance; the shrunken
exponents are the posterior means given it. Source: Laird and Ware (1982), "Random-effects models
for longitudinal data".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vtc.law import splitplot
from vtc.law.points import Points
from vtc.law.rows import arrays

MIN_GROUPS = 3
_STEPS = 3000
_SETTLED = 1e-10


class Shrunk(NamedTuple):
    """Exponents (alpha, beta) of the groups [G, 2], their mean [2] and covariance T [2, 2]."""

    exponents: np.ndarray
    mean: np.ndarray
    between: np.ndarray


def covariance(row: Mapping[str, Any], points: Points) -> np.ndarray | None:
    """[2, 2]: the covariance of a fitted law's alpha and beta, with k and D unknown beside them.

    None where the points leave it no degrees of freedom.
    """
    log_n, log_v, errors = arrays(points)
    shape = row["k"] * np.exp(-row["alpha"] * log_n - row["beta"] * log_v)
    jacobian = np.stack([-shape * log_n, -shape * log_v, shape, np.ones_like(shape)], axis=1)
    plots = (log_n[:, None] == np.unique(log_n)) * shape[:, None]
    strata = splitplot.split(jacobian, errors - shape - row["d"], plots)
    if strata is None:
        return None
    found = [splitplot.standard_error(strata, np.array(g, dtype=float))[0] ** 2
             for g in ((1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0))]  # fmt: skip
    cross = (found[2] - found[0] - found[1]) / 2
    return np.array([[found[0], cross], [cross, found[1]]])


def shrink(exponents: np.ndarray, covariances: np.ndarray) -> Shrunk:
    """Shrink `exponents` [G, 2], found with `covariances` [G, 2, 2]; G is at least 2."""
    unit = np.maximum(exponents.std(axis=0, ddof=1), 1e-12)
    y, s = exponents / unit, covariances / np.outer(unit, unit)
    # Never exactly singular: a fit without any residual would leave no weight to the others.
    s = s + 1e-9 * np.eye(2)
    t = np.cov(y.T)
    mean, moved = y.mean(axis=0), y - y.mean(axis=0)
    for _ in range(_STEPS):
        weights = np.linalg.inv(s + t)
        mean_cov = np.linalg.inv(weights.sum(axis=0))
        mean = mean_cov @ np.einsum("gij,gj->i", weights, y)
        gain = t @ weights
        moved = np.einsum("gij,gj->gi", gain, y - mean)
        # The groups' deviations, their doubt, and what the mean's own doubt adds to it.
        spread = t - gain @ t + gain @ mean_cov @ gain.transpose(0, 2, 1)
        new = (spread + moved[:, :, None] * moved[:, None, :]).mean(axis=0)
        new = (new + new.T) / 2
        done = np.abs(new - t).max() < _SETTLED
        t = new
        if done:
            break
    return Shrunk((mean + moved) * unit, mean * unit, t * np.outer(unit, unit))
