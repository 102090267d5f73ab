"""Intervals of the exponents and of their ratio, and draws of laws that the data admit as well.

The ratio's interval is linearised at the family's best member with D left free, because the ratio
hardly depends on D. Where the sum of squares keeps falling as D sinks, that member is the
log-linear limit Y = c - a ln N - b ln V (D to minus infinity), an ordinary linear regression.
An exponent alone does depend on D: its interval is the hull over every D in [0, 1) that the data
admit. See docs/laws.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vtc.law import splitplot
from vtc.law.splitplot import Strata
from vtc.law.studentt import t_quantile
from vtc.law.varpro import Fits, fit_many

# Where the search for the best D below zero ends: past it the law is log-linear to five digits.
D_FLOOR = -20.0
PROFILE_STEPS = 33
MAX_LOG_SE = 0.5

Interval = tuple[float, float]


class Surrogate(NamedTuple):
    """The family's best member with D free, linearised: its exponents and its strata."""

    alpha: float
    beta: float
    strata: Strata | None
    log_linear: bool


def surrogate(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, fit: Fits) -> Surrogate:
    """Linearise at the best member with D free; logs and errors are [n], `fit` has one entry."""
    ones = np.ones_like(errors)
    if fit.d[0] <= 0:
        linear = np.stack([ones, -log_n, -log_v], axis=1)
        solution, *_ = np.linalg.lstsq(linear, errors, rcond=None)
        residual = errors - linear @ solution
        fit = fit_many(log_n, log_v, errors[None], d_min=D_FLOOR)
        if residual @ residual <= fit.sse[0]:
            strata = splitplot.split(linear, residual, _plots(log_n, ones))
            return Surrogate(float(solution[1]), float(solution[2]), strata, True)
    alpha, beta = float(fit.alpha[0]), float(fit.beta[0])
    shape = fit.k[0] * np.exp(-alpha * log_n - beta * log_v)
    jacobian = np.stack([shape, -shape * log_n, -shape * log_v, ones], axis=1)
    strata = splitplot.split(jacobian, errors - shape - fit.d[0], _plots(log_n, shape))
    return Surrogate(alpha, beta, strata, False)


def ratio_interval(found: Surrogate, level: float) -> Interval | None:
    """Split-plot Satterthwaite interval of alpha / beta, on its logarithm.

    None when the standard error of ln(alpha / beta) passes MAX_LOG_SE: then one of the exponents
    is hardly distinguishable from zero, the linearisation means nothing, and the data do not bound
    the ratio.
    """
    strata, alpha, beta = found.strata, found.alpha, found.beta
    if strata is None or alpha <= 0 or beta <= 0:
        return None
    gradient = np.zeros(strata.solver.shape[0])
    gradient[1], gradient[2] = 1 / alpha, -1 / beta
    if splitplot.standard_error(strata, gradient)[0] > MAX_LOG_SE:
        return None
    half = splitplot.half_width(strata, gradient, level)
    ratio = alpha / beta
    return ratio * math.exp(-half), ratio * math.exp(half)


class Profile(NamedTuple):
    """The fits at each D of a grid over [0, smallest error): which of them the data admit."""

    fits: Fits
    d: np.ndarray
    admitted: np.ndarray


def profile(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, fit: Fits) -> Profile:
    """Refit at fixed D; a D is admitted if its SSE passes the F test against the best at 95 %.

    What is peculiar about the LLMs bends the curve over N as D does: the test's threshold is
    scaled by what the split-plot variance of D is larger by than that of independent errors.
    """
    d = np.unique(np.append(np.linspace(0, 0.98 * errors.min(), PROFILE_STEPS), fit.d[0]))
    fits = fit_many(log_n, log_v, errors[None] - d[:, None], d_max=0.0)
    df = max(len(errors) - 4, 1)
    rise = t_quantile(0.975, df) ** 2 / df
    shape = fit.k[0] * np.exp(-fit.alpha[0] * log_n - fit.beta[0] * log_v)
    jacobian = np.stack([np.ones_like(shape), shape, -shape * log_n, -shape * log_v], axis=1)
    residual = errors - shape - fit.d[0]
    scaled = splitplot.allowed_rise(jacobian, residual, _plots(log_n, shape), 0, 0.95)
    limit = fit.sse[0] * (1 + max(rise, scaled[1] if scaled else 0.0))
    return Profile(fits, d, fits.sse <= max(limit, fits.sse.min()))


def exponent_intervals(
    log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, found: Profile, level: float
) -> dict[str, Interval] | None:
    """Intervals of alpha and beta: the hull of their split-plot intervals over every admitted D.

    None when no degrees of freedom are left.
    """
    ends: dict[str, list[float]] = {"alpha": [], "beta": []}
    for index in np.flatnonzero(found.admitted):
        alpha, beta = float(found.fits.alpha[index]), float(found.fits.beta[index])
        shape = found.fits.k[index] * np.exp(-alpha * log_n - beta * log_v)
        jacobian = np.stack([shape, -shape * log_n, -shape * log_v], axis=1)
        residual = errors - found.d[index] - shape
        strata = splitplot.split(jacobian, residual, _plots(log_n, shape))
        # D was chosen from the same points: it takes a degree of freedom of its own.
        if strata is None or strata.df_within < 2:
            return None
        for name, value, gradient in (
            ("alpha", alpha, np.array([0.0, 1.0, 0.0])),
            ("beta", beta, np.array([0.0, 0.0, 1.0])),
        ):
            half = splitplot.half_width(strata, gradient, level)
            ends[name] += [value - half, value + half]
    return {name: (min(values), max(values)) for name, values in ends.items()}


def draw_laws(
    log_n: np.ndarray,
    log_v: np.ndarray,
    fit: Fits,
    strata: Strata,
    n_draws: int,
    rng: np.random.Generator,
) -> Fits:
    """Refits [n_draws] of the fitted law plus split-plot noise, all with 0 <= D < 1."""
    return refit(log_n, log_v, fit, splitplot.draw_noise(strata, n_draws, rng))


def refit(log_n: np.ndarray, log_v: np.ndarray, fit: Fits, noise: np.ndarray) -> Fits:
    """Refits of the fitted law plus each row of `noise` [R, n], all with 0 <= D < 1."""
    fitted = fit.k[0] * np.exp(-fit.alpha[0] * log_n - fit.beta[0] * log_v) + fit.d[0]
    draws = fit_many(log_n, log_v, fitted + noise)
    return Fits(*(column[np.isfinite(draws.sse)] for column in draws))


def ratio_quantiles(draws: Fits, level: float) -> tuple[float | None, float | None]:
    """Central interval of alpha / beta over draws; an end is None where it is zero or unbounded.

    A draw with beta <= 0 < alpha counts as infinite, one with alpha <= 0 as zero.
    """
    beta = np.where(draws.beta > 0, draws.beta, 1.0)
    ratios = np.where(draws.beta > 0, np.maximum(draws.alpha, 0.0) / beta, np.inf)
    ratios = np.sort(np.where(draws.alpha > 0, ratios, 0.0))
    ends = [float(ratios[round(share * (len(ratios) - 1))])
            for share in ((1 - level) / 2, (1 + level) / 2)]  # fmt: skip
    low, high = (end if 0 < end < math.inf else None for end in ends)
    return low, high


class LeaveOut(NamedTuple):
    """The ratio with each LLM size left out in turn, and the jackknife interval made of them."""

    ratios: list[float]
    jackknife: Interval


def leave_one_size_out(
    log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, found: Surrogate, level: float
) -> LeaveOut | None:
    """Refit without each LLM size; None below three sizes or where a refit has no ratio.

    `ratios` are those of laws with 0 <= D < 1. The jackknife is that of the estimator behind the
    split-plot interval, the best member with D free (`found`, of all sizes): on ln(alpha / beta),
    with t quantiles of (sizes - 1) degrees of freedom.
    """
    sizes = np.unique(log_n)
    if len(sizes) < 3:
        return None
    ratios, free = [], []
    for size in sizes:
        keep = log_n != size
        part = log_n[keep], log_v[keep], errors[keep]
        fit = fit_many(*part[:2], part[2][None])
        if not (np.isfinite(fit.sse[0]) and fit.alpha[0] > 0 and fit.beta[0] > 0):
            return None
        ratios.append(float(fit.alpha[0] / fit.beta[0]))
        best = surrogate(*part, fit)
        free.append(best.alpha / best.beta if best.alpha > 0 and best.beta > 0 else math.nan)
    whole = found.alpha / found.beta if found.alpha > 0 and found.beta > 0 else math.nan
    if not np.isfinite([whole, *free]).all():
        return None
    return LeaveOut(ratios, jackknife(whole, free, level))


def jackknife(ratio: float, others: Sequence[float], level: float) -> Interval:
    """The interval of a ratio from those with one part of the data left out each, on the log."""
    logs, n = np.log(others), len(others)
    spread = math.sqrt((n - 1) / n * float(((logs - logs.mean()) ** 2).sum()))
    half = t_quantile((1 + level) / 2, n - 1) * spread
    return ratio * math.exp(-half), ratio * math.exp(half)


def _plots(log_n: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """[n, S]: `shape` at the points of each LLM size, zero elsewhere."""
    return (log_n[:, None] == np.unique(log_n)) * shape[:, None]
