"""Global least squares of the forms that are no power law and not linear: a grid, then descent.

A form's linear coefficients are solved in closed form at given exponents (variable projection),
under their sign constraints; what is left has two or three unknowns. The best cell of each slice
of a grid starts a Levenberg-Marquardt descent, all starts at once.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np

STARTS = 5
MAX_ITERATIONS = 120
# Refused steps in a row before a start is given up: the damping has grown by 4 to this power.
PATIENCE = 14
SETTLED = 1e-6
STEP = 1e-6


class Projected(NamedTuple):
    """Linear coefficients [B, q] and residuals [B, n] at given exponents; SSE may be infinite."""

    coefficients: np.ndarray
    residual: np.ndarray

    @property
    def sse(self) -> np.ndarray:
        """[B], infinite where no admissible coefficients exist."""
        return (self.residual * self.residual).sum(axis=1)


Project = Callable[[np.ndarray], Projected]


def minimise(project: Project, grid: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """The unknowns [m] of the smallest SSE; `grid` is [slices, cells, m], `start` one more start.

    The descent stays within the grid's range in each unknown.
    """
    n_slices, n_cells, m = grid.shape
    sse = project(grid.reshape(-1, m)).sse.reshape(n_slices, n_cells)
    best = grid[np.arange(n_slices), sse.argmin(axis=1)]
    order = np.argsort(sse.min(axis=1), kind="stable")[:STARTS]
    starts = best[order] if start is None else np.vstack([best[order[:2]], start])
    theta, now = descend(project, starts, grid.min(axis=(0, 1)), grid.max(axis=(0, 1)))
    return theta[int(now.sse.argmin())]


def descend(
    project: Project, starts: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, Projected]:
    """Levenberg-Marquardt from every start [B, m] at once, within [low, high] in each unknown.

    `project` is called with [B, m] and with [B * m, m], where m rows belong to each start: it may
    give each start data of its own. Returns the unknowns [B, m] and what they project to.
    """
    theta = np.clip(starts, low, high)
    now = project(theta)
    damping = np.full(len(theta), 1e-3)
    stalled = np.zeros(len(theta), dtype=int)
    for _ in range(MAX_ITERATIONS):
        step = _step(project, theta, now, damping, low, high)
        trial = np.clip(theta + step, low, high)
        new = project(trial)
        better = new.sse < now.sse
        stalled = np.where(new.sse < now.sse * (1 - 1e-12), 0, stalled + 1)
        theta = np.where(better[:, None], trial, theta)
        now = Projected(*(np.where(better[:, None], a, b) for a, b in zip(new, now, strict=True)))
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e9)
        if ((stalled >= PATIENCE) | (np.abs(step).max(axis=1) < SETTLED)).all():
            break
    return theta, now


def _step(
    project: Project,
    theta: np.ndarray,
    now: Projected,
    damping: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """The damped Gauss-Newton step [B, m], by differences of the projected residual."""
    b, m = theta.shape
    # Differences point inwards, so that they never leave the range.
    sign = np.where(theta + STEP > high, -STEP, STEP)
    moved = theta[:, None, :] + sign[:, :, None] * np.eye(m)
    residual = project(moved.reshape(-1, m)).residual.reshape(b, m, -1)
    with np.errstate(invalid="ignore"):
        jacobian = (residual - now.residual[:, None, :]) / sign[:, :, None]
    jacobian = np.where(np.isfinite(jacobian), jacobian, 0.0)
    here = np.where(np.isfinite(now.residual), now.residual, 0.0)
    gradient = np.einsum("bmn,bn->bm", jacobian, here)
    # An unknown at its end that would leave is held.
    held = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
    jacobian = np.where(held[:, :, None], 0.0, jacobian)
    gradient = np.where(held, 0.0, gradient)
    normal = np.einsum("bin,bjn->bij", jacobian, jacobian)
    index = np.arange(m)
    size = np.maximum(np.einsum("bii->bi", normal), 1e-30)
    normal[:, index, index] = size * (1 + damping[:, None])
    step = -np.linalg.solve(normal, gradient[:, :, None])[:, :, 0]
    return step * np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))


def non_negative(basis: np.ndarray, errors: np.ndarray) -> Projected:
    """Least squares with coefficients >= 0: `basis` [B, n, q], errors [n]; every active set."""
    b, q = basis.shape[0], basis.shape[2]
    scale = np.maximum(np.sqrt(np.einsum("bnq,bnq->bq", basis, basis)), 1e-300)
    unit = basis / scale[:, None, :]
    gram = unit.transpose(0, 2, 1) @ unit
    moment = errors @ unit
    coefficients = np.zeros((b, q))
    gain = np.zeros(b)
    for size in range(1, q + 1):
        for columns in combinations(range(q), size):
            found = _solved(gram, moment, columns)
            least, gained = found[0], 0.0
            for column, value in zip(columns, found, strict=True):
                gained = gained + value * moment[:, column]
                least = np.minimum(least, value)
            better = (least >= 0) & (gained > gain)
            if not better.any():
                continue
            coefficients[better] = 0.0
            for column, value in zip(columns, found, strict=True):
                coefficients[better, column] = value[better]
            gain = np.where(better, gained, gain)
    residual = (unit @ coefficients[:, :, None])[:, :, 0] - errors
    return Projected(coefficients / scale, residual)


def _solved(gram: np.ndarray, moment: np.ndarray, columns: tuple[int, ...]) -> list[np.ndarray]:
    """The normal equations of some columns of unit length, a value [B] a column.

    One and two in closed form: a descent asks a hundred thousand times for a handful of rows.
    """
    ridge = 1 + 1e-13
    if len(columns) == 1:
        return [moment[:, columns[0]] / ridge]
    if len(columns) == 2:
        i, j = columns
        cross = gram[:, i, j]
        determinant = ridge * ridge - cross * cross
        first = (ridge * moment[:, i] - cross * moment[:, j]) / determinant
        return [first, (ridge * moment[:, j] - cross * moment[:, i]) / determinant]
    at = list(columns)
    part = gram[:, at][:, :, at] + 1e-13 * np.eye(len(at))
    return list(np.linalg.solve(part, moment[:, at, None])[:, :, 0].T)
