"""Profile curves: how well the law fits at each value of alpha, beta, alpha/beta or D.

At every value of one of them the others are fitted anew (global least squares under k > 0 and
0 <= D < 1). Where a curve stays flat, the data do not tell that parameter. A value is admitted when
the rise of the sum of squares passes an F test with 1 and n - 4 degrees of freedom, which takes the
errors for independent: with LLMs that are peculiar the truth is wider (docs/laws.md).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vtc.law.points import Points
from vtc.law.rows import arrays
from vtc.law.studentt import incomplete_beta
from vtc.law.varpro import D_MAX, RADII, fit_many
from vtc.tables.specs import PROFILE

STEPS = 41
# Half the range about the estimate where an interval says nothing, as a share of the estimate.
_WIDE = 1.0
_REFINEMENTS = 4
_CELLS = 241


def profile_rows(points: Points, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the profile table for the law in `row` of these points: 41 values a parameter.

    With one LLM size only beta and D have a curve; alpha/beta has one where both are positive.
    """
    log_n, log_v, errors = arrays(points)
    base = {"task": points.task, "by": points.by, "group": points.group}
    best = float(row["sse"])
    df = max(len(errors) - (3 if row["alpha"] is None else 4), 1)
    found = []
    for name, values in _ranges(row, errors).items():
        fits = [_CURVES[name](log_n, log_v, errors, value) for value in values.tolist()]
        # A refit may find what the law's own search did to the last digit only.
        for value, fit in zip(values.tolist(), fits, strict=True):
            if not np.isfinite(fit[-1]):
                continue
            f = max(fit[-1] - best, 0.0) / (best / df) if best > 0 else None
            cells = dict(zip(("k", "alpha", "beta", "d", "sse"), fit, strict=True))
            p = None if f is None else incomplete_beta(df / 2, 0.5, df / (df + f))
            inside = p is None or p > 1 - (row["level"] or 0.95)
            cells |= {"parameter": name, "value": value, "f": f, "p": p, "admitted": inside}
            found.append(PROFILE.complete(base | cells))
    return found


def _ranges(row: Mapping[str, Any], errors: np.ndarray) -> dict[str, np.ndarray]:
    """The values of each parameter: its interval and half as much again on both sides."""
    names = ("beta",) if row["alpha"] is None else ("alpha", "beta")
    ranges = {}
    for name in names + (("ratio",) if row["ratio"] is not None else ()):
        value, low, high = row[name], row.get(f"{name}_low"), row.get(f"{name}_high")
        if low is None or high is None:
            low, high = (value - _WIDE * abs(value) / 2, value + _WIDE * abs(value) / 2)
        width = max((high - low) / 2, 1e-6)
        low, high = min(low, value) - width, max(high, value) + width
        if name == "ratio":
            low = max(low, value / 20)
        ranges[name] = np.unique(np.append(np.linspace(low, high, STEPS - 1), value))
    top = max(0.98 * float(errors.min()), row["d"])
    ranges["d"] = np.unique(np.append(np.linspace(0, top, STEPS - 1), row["d"]))
    return ranges


_Fit = tuple[float, float, float, float, float]
_Line = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _at_alpha(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, value: float) -> _Fit:
    return _scan(log_n, log_v, errors, lambda b: (np.full_like(b, value), b), log_v.std())


def _at_beta(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, value: float) -> _Fit:
    if np.ptp(log_n) == 0:
        return _scan(log_n, log_v, errors, lambda a: (0 * a, np.full_like(a, value)), 1.0)
    return _scan(log_n, log_v, errors, lambda a: (a, np.full_like(a, value)), log_n.std())


def _at_ratio(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, value: float) -> _Fit:
    # Both signs: a law that rises is among those that the exponents' circle holds.
    unit = float(np.hypot(log_n.std() * value, log_v.std()))
    return _scan(log_n, log_v, errors, lambda b: (value * b, b), unit)


def _at_d(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, value: float) -> _Fit:
    fit = fit_many(log_n, log_v, errors[None] - value, d_max=0.0)
    first, alpha, beta = (float(column[0]) for column in fit[:3])
    return first, alpha, beta, value, float(fit.sse[0])


_CURVES = {"alpha": _at_alpha, "beta": _at_beta, "ratio": _at_ratio, "d": _at_d}


def _scan(
    log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, line: _Line, unit: float
) -> _Fit:
    """The best law on a line of exponents (alpha, beta)(t), t up to 12 / unit: a grid, refined."""
    reach = np.concatenate([-RADII[::-1], [0.0], RADII]) / unit
    t = np.unique(np.interp(np.linspace(0, len(reach) - 1, _CELLS), range(len(reach)), reach))
    found, at = _project(log_n, log_v, errors, *line(t)), 0
    for again in range(_REFINEMENTS):
        if again:
            low, high = t[max(at - 1, 0)], t[min(at + 1, len(t) - 1)]
            t = np.linspace(low, high, _CELLS)
            found = _project(log_n, log_v, errors, *line(t))
        at = int(np.argmin(found[-1]))
    first, alpha, beta, d, sse = (float(column[at]) for column in found)
    return first, alpha, beta, d, sse


def _project(
    log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, alpha: np.ndarray, beta: np.ndarray
) -> tuple[np.ndarray, ...]:
    """k, alpha, beta, D and SSE [T] of the best k > 0 and 0 <= D < 1 at exponents [T]."""
    # Centred logs keep the powers in range; k takes what that leaves.
    mean_n, mean_v = log_n.mean(), log_v.mean()
    x = np.exp(-np.outer(alpha, log_n - mean_n) - np.outer(beta, log_v - mean_v))
    mean_x, mean_y = x.mean(axis=1), errors.mean()
    deviation = x - mean_x[:, None]
    slope = deviation @ errors / np.maximum((deviation * deviation).sum(axis=1), 1e-300)
    d = np.clip(mean_y - slope * mean_x, 0.0, D_MAX)
    k = (x * (errors - d[:, None])).sum(axis=1) / (x * x).sum(axis=1)
    gap = k[:, None] * x + d[:, None] - errors
    with np.errstate(over="ignore"):
        scaled = k * np.exp(alpha * mean_n + beta * mean_v)
    sse = np.where((k > 0) & np.isfinite(scaled), (gap * gap).sum(axis=1), np.inf)
    return scaled, alpha, beta, d, sse
