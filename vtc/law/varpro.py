"""Global least squares of the power law by variable projection, many data sets at once.

For given exponents the law is a straight line in x = N^-alpha V^-beta, so k and D have a closed
form (D is clamped to its bounds). What is left is a search over the two exponents. It runs in
polar form: the angle is the ratio of the exponents, which data identify well; the radius is the
curvature, which they hardly do. The whole circle is searched, so zero and negative exponents are
found as easily as positive ones. A coarse grid gives the start, Levenberg-Marquardt the digits.

Method: Golub and Pereyra (1973), "The differentiation of pseudo-inverses and nonlinear least
squares problems whose variables separate".
"""

from typing import NamedTuple

import numpy as np

N_ANGLES = 120
RADII = np.geomspace(2e-3, 12.0, 28)
D_MAX = 1 - 1e-9
# Enough for the published data to converge to the last digits; typical fits take 10 to 20.
MAX_ITERATIONS = 200
# Rows of errors searched at once: bounds the memory of the grid stage at about 30 MB.
CHUNK = 256
# Refused steps in a row before a row has settled; the damping has grown by 4 to this power.
PATIENCE = 8
# A step in standardised exponents that no longer matters: the sum of squares follows its square.
SETTLED = 1e-10
# Share of the rows in work that must still move; below it the settled ones leave.
CROWD = 0.8


class Fits(NamedTuple):
    """Fitted laws, one an entry: arrays [R]; `sse_bound` is the best SSE with D at its minimum."""

    k: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    d: np.ndarray
    sse: np.ndarray
    sse_bound: np.ndarray


class _Design(NamedTuple):
    features: np.ndarray  # [n, m] standardised, negated logs of N and V (those that vary)
    center: np.ndarray  # [2] means of ln N, ln V
    scale: np.ndarray  # [2] standard deviations of ln N, ln V
    varies: np.ndarray  # [2] which of them vary


class _State(NamedTuple):
    exponents: np.ndarray  # [B, m] in standardised units
    k: np.ndarray  # [B]
    d: np.ndarray  # [B]
    sse: np.ndarray  # [B]


def fit_many(
    log_n: np.ndarray,
    log_v: np.ndarray,
    errors: np.ndarray,
    d_min: float = 0.0,
    d_max: float = D_MAX,
) -> Fits:
    """Fit every row of `errors` [R, n] on the same points: ln N [n] (N in billions), ln V [n].

    The global least-squares optimum with k > 0 and d_min <= D <= d_max. A factor that does not
    vary over the points gets exponent 0. Rows without any admissible law get SSE = inf.
    """
    design = _standardise(log_n, log_v)
    parts = [
        _fit_chunk(design, errors[at : at + CHUNK], d_min, d_max)
        for at in range(0, len(errors), CHUNK)
    ]
    return Fits(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _standardise(log_n: np.ndarray, log_v: np.ndarray) -> _Design:
    logs = np.stack([log_n, log_v], axis=1)
    center, scale = logs.mean(axis=0), logs.std(axis=0)
    varies = scale > 1e-12
    features = -(logs - center)[:, varies] / scale[varies]
    return _Design(features, center, np.where(varies, scale, 1.0), varies)


def _fit_chunk(design: _Design, errors: np.ndarray, d_min: float, d_max: float) -> Fits:
    free, bound = _grid_starts(design.features, errors, d_min, d_max)
    rows = len(errors)
    doubled = np.concatenate([errors, errors])
    start = np.concatenate([free, bound])
    upper = np.concatenate([np.full(rows, d_max), np.full(rows, d_min)])
    state = _polish(design.features, doubled, start, d_min, upper)
    # The bound is a candidate of its own: on it the free search would only creep.
    pick = np.where(
        state.sse[rows:] <= state.sse[:rows], np.arange(rows, 2 * rows), np.arange(rows)
    )
    exponents = np.zeros((rows, 2))
    exponents[:, design.varies] = state.exponents[pick]
    exponents /= design.scale
    with np.errstate(over="ignore"):
        k = state.k[pick] * np.exp(exponents @ design.center)
    # Absurd exponents of an N or V far from 1 can take k out of the floating-point range.
    sse = np.where(np.isfinite(k) & (k > 0), state.sse[pick], np.inf)
    return Fits(k, exponents[:, 0], exponents[:, 1], state.d[pick], sse, state.sse[rows:])


def _directions(n_features: int) -> np.ndarray:
    """Unit vectors [A, m] of exponents: the whole circle, or both signs of a single one."""
    if n_features == 1:
        return np.array([[1.0], [-1.0]])
    angles = np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _grid_starts(
    features: np.ndarray, errors: np.ndarray, d_min: float, d_max: float
) -> tuple[np.ndarray, np.ndarray]:
    """The best exponents [R, m] of the grid with D free, and with D at its lower bound.

    With x and the errors as vectors, a cell's sum of squares is what is left of the errors behind
    their projection on x, so that the best cell is the one with the largest product.
    """
    directions = _directions(features.shape[1])
    grid = (RADII[:, None, None] * directions).reshape(-1, features.shape[1])
    x = grid @ features.T
    np.exp(x, out=x)
    n = x.shape[1]
    mean_x, mean_y = x @ np.full(n, 1 / n), errors.mean(axis=1)[:, None]
    squares = _dot(x, x)

    rows = np.arange(len(errors))
    held = errors - d_min
    product = held @ x.T
    product /= np.sqrt(squares)
    bound = product.argmax(axis=1)
    bound_sse = (held * held).sum(axis=1) - np.maximum(product[rows, bound], 0.0) ** 2

    # Exact enough for a start: at the smallest radius a millionth of the square is left.
    length = np.sqrt(np.maximum(squares - n * mean_x**2, 1e-300))
    centred = errors - mean_y
    product = centred @ x.T
    product /= length
    # Where D would leave its range, the bound's own search has the cell.
    drop = product * (mean_x / length)
    product[(drop > mean_y - d_min) | (drop < mean_y - d_max)] = -1.0
    free = product.argmax(axis=1)
    free_sse = (centred * centred).sum(axis=1) - product[rows, free] ** 2
    inside = (product[rows, free] > 0) & (free_sse < bound_sse)
    return grid[np.where(inside, free, bound)], grid[bound]


def _project(
    features: np.ndarray, errors: np.ndarray, exponents: np.ndarray, lower: float, upper: np.ndarray
) -> tuple[_State, np.ndarray]:
    """k, D and SSE in closed form for given exponents [B, m]; also x [B, n]."""
    x = np.exp(exponents @ features.T)
    mean_x, mean_y = x.mean(axis=1), errors.mean(axis=1)
    deviation = x - mean_x[:, None]
    spread = np.maximum((deviation * deviation).sum(axis=1), 1e-300)
    k = (deviation * errors).sum(axis=1) / spread
    d = np.clip(mean_y - k * mean_x, lower, upper)
    k = (x * (errors - d[:, None])).sum(axis=1) / (x * x).sum(axis=1)
    residual = k[:, None] * x + d[:, None] - errors
    sse = np.where(k > 0, (residual * residual).sum(axis=1), np.inf)
    return _State(exponents, k, d, sse), x


def _polish(
    features: np.ndarray, errors: np.ndarray, start: np.ndarray, lower: float, upper: np.ndarray
) -> _State:
    """Levenberg-Marquardt on all rows at once; after each step k and D are projected anew."""
    found, x = _project(features, errors, start, lower, upper)
    state, rows = found, np.arange(len(errors))
    damping = np.full(len(errors), 1e-3)
    stalled = np.zeros(len(errors), dtype=int)
    for _ in range(MAX_ITERATIONS):
        step = _step(features, errors, state, x, damping, lower, upper)
        small = np.abs(step).max(axis=1) < SETTLED
        # A trust region: no exponent may move further than one standardised unit at once.
        step *= np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        trial, trial_x = _project(features, errors, state.exponents + step, lower, upper)
        better = trial.sse < state.sse
        # Written without a difference: both may be infinite where k would be negative.
        stalled = np.where(trial.sse < state.sse * (1 - 1e-14), 0, stalled + 1)
        state = _State(
            *(
                np.where(better[:, None] if new.ndim == 2 else better, new, old)
                for new, old in zip(trial, state, strict=True)
            )
        )
        x = np.where(better[:, None], trial_x, x)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e9)
        moving = (stalled < PATIENCE) & ~small
        if moving.mean() < CROWD:
            # Rows that have settled leave: few stay long, and all would wait for them.
            for whole, part in zip(found, state, strict=True):
                whole[rows] = part
            if not moving.any():
                return found
            state = _State(*(part[moving] for part in state))
            errors, upper, x = errors[moving], upper[moving], x[moving]
            rows, damping, stalled = rows[moving], damping[moving], stalled[moving]
    for whole, part in zip(found, state, strict=True):
        whole[rows] = part
    return found


def _step(
    features: np.ndarray,
    errors: np.ndarray,
    state: _State,
    x: np.ndarray,
    damping: np.ndarray,
    lower: float,
    upper: np.ndarray,
) -> np.ndarray:
    """The damped Gauss-Newton step [B, m] of the projected problem (Kaufman's Jacobian).

    The exponents' columns lose what k and D can absorb: their projection on x, and on 1 where D
    is free to move.
    """
    fitted = state.k[:, None] * x
    residual = fitted + state.d[:, None] - errors
    free = ((state.d > lower) & (state.d < upper))[:, None]
    basis = x - np.where(free, x.mean(axis=1, keepdims=True), 0.0)
    basis /= np.maximum(np.sqrt(_dot(basis, basis)), 1e-150)[:, None]
    columns = []
    for feature in features.T:
        column = fitted * feature
        column -= np.where(free, column.mean(axis=1, keepdims=True), 0.0)
        column -= basis * _dot(basis, column)[:, None]
        columns.append(column)
    gradient = [_dot(column, residual) for column in columns]
    damped = [np.maximum(_dot(column, column), 1e-30) * (1 + damping) for column in columns]
    if len(columns) == 1:
        return -(gradient[0] / damped[0])[:, None]
    cross = _dot(*columns)
    determinant = np.maximum(damped[0] * damped[1] - cross * cross, 1e-300)
    steps = (
        damped[1] * gradient[0] - cross * gradient[1],
        damped[0] * gradient[1] - cross * gradient[0],
    )
    return -np.stack(steps, axis=1) / determinant[:, None]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[B]: the products of the rows of a and b [B, n]."""
    return np.einsum("bn,bn->b", a, b)
