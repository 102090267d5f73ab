"""Intervals of alpha and beta one by one, for groups that share exponents.

An exponent depends on D, and D is bounded, so the interval is a profile's: the exponent is held
further and further from its estimate, all else is fitted anew under the bounds, and what passes an
F test on the sum of squares is inside. That test takes errors for independent, but an LLM under
several compressors has one peculiarity, so its threshold is scaled (`splitplot.allowed_rise`), with
every D free or held, whichever allows more.
"""

from typing import NamedTuple

import numpy as np

from vtc.law import splitplot
from vtc.law.shared import Data, SharedFit, held_exponent

# Steps outwards, in standard errors at fixed D.
_OFFSETS = 2.0 ** np.arange(-1, 9, 0.5)


class Linear(NamedTuple):
    """A model linearised at a fit: its columns are the exponents', then a factor a group."""

    jacobian: np.ndarray  # [n, E + G]
    residual: np.ndarray  # [n]
    plots: np.ndarray  # [n, S]


def exponent_intervals(data: Data, share: str, fit: SharedFit, level: float) -> np.ndarray | None:
    """Intervals [E, 2] of alpha and of beta (or of every group's); an end may be infinite.

    None when no degrees of freedom are left.
    """
    held = linearise(data, share, fit)
    member = (data.group[:, None] == np.arange(data.n_groups)) * 1.0
    free = held._replace(jacobian=np.concatenate([held.jacobian, member], axis=1))
    best, n_exponents = exponents(fit, share), held.jacobian.shape[1] - data.n_groups
    ends = np.empty((n_exponents, 2))
    for index in range(n_exponents):
        first, other = (splitplot.allowed_rise(*model, index, level) for model in (held, free))
        if first is None or other is None:
            return None
        unit, rise = first[0], max(first[1], other[1])
        limit = float(fit.sse[0]) * (1 + rise)
        for end, sign in enumerate((-1.0, 1.0)):
            offsets = sign * unit * _OFFSETS
            far = held_exponent(data, share, fit, index, offsets)
            ends[index, end] = best[index] + _crossing(offsets, far.sse, float(fit.sse[0]), limit)
    return ends


def exponents(fit: SharedFit, share: str) -> np.ndarray:
    """[E]: alpha, and the shared beta or every group's."""
    betas = fit.beta[0, :1] if share == "exponents" else fit.beta[0]
    return np.concatenate([fit.alpha[0, :1], betas])


def linearise(data: Data, share: str, fit: SharedFit) -> Linear:
    """The law linearised in its exponents and factors, D held."""
    fitted = fit.fitted(data)[0]
    shape = fitted - fit.d[0, data.group]
    member = (data.group[:, None] == np.arange(data.n_groups)) * 1.0
    by_v = -(shape * data.log_v)[:, None]
    columns = [
        -(shape * data.log_n)[:, None],
        by_v if share == "exponents" else by_v * member,
        shape[:, None] * member,
    ]
    plots = (data.llm[:, None] == np.unique(data.llm)) * shape[:, None]
    return Linear(np.concatenate(columns, axis=1), data.errors - fitted, plots)


def _crossing(offsets: np.ndarray, sse: np.ndarray, best: float, limit: float) -> float:
    """The offset at which the SSE passes the limit; infinite where it never does.

    The root of its rise is nearly a straight line.
    """
    refused = np.flatnonzero(~(sse <= limit))
    if not refused.size:
        return float(np.sign(offsets[0])) * np.inf
    at = int(refused[0])
    inner, low = (offsets[at - 1], sse[at - 1]) if at else (0.0, best)
    if not np.isfinite(sse[at]):
        return float(inner)
    roots = np.sqrt(np.maximum(np.array([low, limit, sse[at]]) - best, 0.0))
    share = (roots[1] - roots[0]) / max(roots[2] - roots[0], 1e-300)
    return float(inner + share * (offsets[at] - inner))
