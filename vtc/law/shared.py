"""Power laws of several groups that share exponents: y = k_g N^-alpha V^-beta_g + D_g.

With `exponents` shared all groups have one alpha and one beta; with `alpha` shared each has a beta
of its own. Every group keeps its k > 0 and 0 <= D < 1, which have a closed form at given exponents
(variable projection, as in `varpro`); the exponents are searched on a grid, then by descent.
"""

from typing import NamedTuple

import numpy as np

from vtc.law.separable import Project, Projected, descend, minimise
from vtc.law.varpro import D_MAX, N_ANGLES, RADII

_SIGNED = np.concatenate([-RADII[::-1], RADII])
_STARTS = 5
# Cells of the grid times points that are projected at once.
_CHUNK = 400


class Data(NamedTuple):
    """Points of all groups: ln N, ln V and errors [n]; the indices of group and LLM [n]."""

    log_n: np.ndarray
    log_v: np.ndarray
    errors: np.ndarray
    group: np.ndarray
    llm: np.ndarray

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max()) + 1


class SharedFit(NamedTuple):
    """Fitted laws: arrays [R, G] of R data sets and G groups, and the sums of squares [R]."""

    k: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    d: np.ndarray
    sse: np.ndarray

    def fitted(self, data: Data) -> np.ndarray:
        """The law's errors [R, n] at the points."""
        k, alpha, beta, d = (column[:, data.group] for column in self[:4])
        return k * np.exp(-alpha * data.log_n - beta * data.log_v) + d


class _Scale(NamedTuple):
    features: np.ndarray  # [n, 2] standardised, negated logs
    center: np.ndarray
    scale: np.ndarray


def fit_shared(data: Data, share: str, d_min: float = 0.0) -> SharedFit:
    """The global least-squares optimum, R = 1; SSE is infinite if no law is admissible.

    `share`: exponents or alpha. N and V must both vary over the points.
    """
    scale = _standardise(data)
    rows = data.errors[None]
    project = _projection(data, scale, rows, share, d_min)
    if share == "exponents":
        angles = np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        grid = RADII[None, :, None] * circle[:, None, :]
        theta = minimise(_in_parts(project), grid)[None]
    else:
        starts = _alpha_starts(data, scale, d_min)
        theta, now = descend(project, starts, *_box(starts.shape[1]))
        theta = theta[[int(now.sse.argmin())]]
    return _unpack(data, scale, project(theta), theta, share)


def refit_shared(data: Data, share: str, fit: SharedFit, rows: np.ndarray) -> SharedFit:
    """Refits [R, G] to each row of errors [R, n], by descent from one `fit` to similar errors."""
    scale = _standardise(data)
    project = _projection(data, scale, rows, share, 0.0)
    exponents = fit.alpha[0, :1] * scale.scale[0], fit.beta[0] * scale.scale[1]
    start = np.concatenate(
        [exponents[0], exponents[1][:1] if share == "exponents" else exponents[1]]
    )
    starts = np.repeat(start[None], len(rows), axis=0)
    theta, now = descend(project, starts, *_box(len(start)))
    return _unpack(data, scale, now, theta, share)


def held_exponent(
    data: Data, share: str, fit: SharedFit, index: int, offsets: np.ndarray
) -> SharedFit:
    """Refits [R, G] with one exponent held at `offsets` [R] from that of `fit`, of one entry.

    `index` 0 is alpha, the others are the shared beta or the groups'. By descent, from the other
    exponents as they are, and in the same ratio to the one that is held.
    """
    scale = _standardise(data)
    project = _projection(data, scale, data.errors[None], share, 0.0)
    betas = fit.beta[0, :1] if share == "exponents" else fit.beta[0]
    best = np.concatenate([fit.alpha[0, :1] * scale.scale[0], betas * scale.scale[1]])
    unit = scale.scale[0] if index == 0 else scale.scale[1]
    held = np.concatenate([best[index] + offsets * unit] * 2)

    def whole(rest: np.ndarray) -> np.ndarray:
        values = np.repeat(held, len(rest) // len(held))
        return np.insert(rest, index, values, axis=1)

    others = np.delete(best, index)
    stretch = (
        held[: len(offsets)] / best[index] if abs(best[index]) > 1e-9 else np.ones(len(offsets))
    )
    starts = np.concatenate([np.tile(others, (len(offsets), 1)), np.outer(stretch, others)])
    rest, now = descend(lambda rest: project(whole(rest)), starts, *_box(len(others)))
    found = _unpack(data, scale, now, whole(rest), share)
    pick = np.where(
        found.sse[: len(offsets)] <= found.sse[len(offsets) :],
        np.arange(len(offsets)),
        np.arange(len(offsets), 2 * len(offsets)),
    )
    return SharedFit(*(column[pick] for column in found))


def _standardise(data: Data) -> _Scale:
    logs = np.stack([data.log_n, data.log_v], axis=1)
    center, scale = logs.mean(axis=0), logs.std(axis=0)
    return _Scale(-(logs - center) / scale, center, scale)


def _box(m: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(m, -RADII[-1]), np.full(m, RADII[-1])


def _projection(data: Data, scale: _Scale, rows: np.ndarray, share: str, d_min: float) -> Project:
    """k and D of each group in closed form; every start b has the errors rows[b] (or the one)."""
    own = [np.flatnonzero(data.group == g) for g in range(data.n_groups)]

    def project(theta: np.ndarray) -> Projected:
        errors = np.repeat(rows, len(theta) // len(rows), axis=0) if len(rows) > 1 else rows
        residual = np.empty((len(theta), len(data.group)))
        coefficients = np.empty((len(theta), 2 * len(own)))
        for g, at in enumerate(own):
            beta = theta[:, 1] if share == "exponents" else theta[:, 1 + g]
            line = np.outer(theta[:, 0], scale.features[at, 0])
            x = np.exp(line + np.outer(beta, scale.features[at, 1]))
            k, d, gap = _line(x, errors[:, at], d_min)
            residual[:, at] = gap
            coefficients[:, 2 * g], coefficients[:, 2 * g + 1] = k, d
        return Projected(coefficients, residual)

    return project


def _line(
    x: np.ndarray, errors: np.ndarray, d_min: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """k [B], D [B] and residuals [B, n] (infinite where k would not be positive) at x [B, n]."""
    mean_x, mean_y = x.mean(axis=1), errors.mean(axis=1)
    deviation = x - mean_x[:, None]
    spread = np.maximum((deviation * deviation).sum(axis=1), 1e-300)
    slope = (deviation * errors).sum(axis=1) / spread
    d = np.clip(mean_y - slope * mean_x, d_min, D_MAX)
    k = (x * (errors - d[:, None])).sum(axis=1) / (x * x).sum(axis=1)
    gap = k[:, None] * x + d[:, None] - errors
    return k, d, np.where((k > 0)[:, None], gap, np.inf)


def _in_parts(project: Project) -> Project:
    """The same, of many cells in parts: bounds the memory of the grid."""

    def parts(theta: np.ndarray) -> Projected:
        found = [project(theta[at : at + _CHUNK]) for at in range(0, len(theta), _CHUNK)]
        return Projected(*(np.concatenate(column) for column in zip(*found, strict=True)))

    return parts


def _alpha_starts(data: Data, scale: _Scale, d_min: float) -> np.ndarray:
    """The best exponents [5, 1 + G] of a grid: at a given alpha the groups are independent."""
    total = np.zeros(len(_SIGNED))
    betas = np.empty((len(_SIGNED), data.n_groups))
    for g in range(data.n_groups):
        at = np.flatnonzero(data.group == g)
        powers = np.exp(np.outer(_SIGNED, scale.features[at, 1]))
        for row, alpha in enumerate(_SIGNED):
            x = np.exp(alpha * scale.features[at, 0]) * powers
            *_, gap = _line(x, data.errors[None, at], d_min)
            sse = (gap * gap).sum(axis=1)
            betas[row, g] = _SIGNED[sse.argmin()]
            total[row] += sse.min()
    best = np.argsort(total, kind="stable")[:_STARTS]
    return np.concatenate([_SIGNED[best, None], betas[best]], axis=1)


def _unpack(
    data: Data, scale: _Scale, found: Projected, theta: np.ndarray, share: str
) -> SharedFit:
    rows, n_groups = len(theta), data.n_groups
    exponents = theta[:, 1:] if share == "alpha" else np.repeat(theta[:, 1:], n_groups, axis=1)
    alpha = np.repeat(theta[:, :1], n_groups, axis=1) / scale.scale[0]
    beta = exponents / scale.scale[1]
    with np.errstate(over="ignore", invalid="ignore"):
        k = found.coefficients[:, ::2] * np.exp(alpha * scale.center[0] + beta * scale.center[1])
    usable = (np.isfinite(k) & (k > 0)).all(axis=1)
    return SharedFit(
        k, alpha, beta, found.coefficients[:, 1::2].reshape(rows, n_groups),
        np.where(usable, found.sse, np.inf),
    )  # fmt: skip
