"""The published procedure: a brute-force grid over (k, alpha, beta, D), here searched whole.

The reference code (arXiv 2411.03312) shuffles this grid and stops after a fifth of it, so its
answer changes from run to run; this one visits all five million cells, so it has one answer.
"""

import numpy as np

from vtc.law.varpro import Fits

K = np.linspace(0.2, 0.7, 50)
ALPHA = np.linspace(0.0, 0.2, 100)
BETA = np.linspace(0.0, 0.05, 100)
D = np.linspace(0.0, 0.3, 10)


def paper_grid(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray) -> Fits:
    """The best cell for points [n]: ln N (N in billions), ln V and errors. One entry."""
    n = len(errors)
    alpha, beta = (axis.ravel() for axis in np.meshgrid(ALPHA, BETA, indexing="ij"))
    x = np.exp(-np.outer(alpha, log_n) - np.outer(beta, log_v))
    sx, sxx, sxy = x.sum(axis=1), (x * x).sum(axis=1), x @ errors
    k, d = K[:, None], D[None, :]
    constant = errors @ errors - 2 * d * errors.sum() + n * d * d
    # The sum of squares is a quadratic in (k, D) whose coefficients depend on the exponents.
    best = (np.inf, 0, 0)
    for index in range(len(alpha)):
        sse = constant + k * k * sxx[index] - 2 * k * sxy[index] + 2 * k * d * sx[index]
        cell = int(sse.argmin())
        if sse.flat[cell] < best[0]:
            best = (float(sse.flat[cell]), index, cell)
    _, index, cell = best
    row, column = np.unravel_index(cell, (len(K), len(D)))
    residual = K[row] * x[index] + D[column] - errors
    found = (K[row], alpha[index], beta[index], D[column], residual @ residual, np.nan)
    return Fits(*(np.array([value]) for value in found))
