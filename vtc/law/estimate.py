"""From the points of a task to a row of the law table: fit, intervals, draws, flags."""

from typing import Any

import numpy as np

from vtc.errors import InputError, NoAnswerError
from vtc.law import intervals, items, splitplot
from vtc.law.grid import paper_grid
from vtc.law.points import Points
from vtc.law.rows import (
    WEAK_SPREAD,
    Settings,
    add_exponents,
    add_optimum,
    arrays,
    data_flags,
    point_row,
    quality,
    refuse_hopeless,
    rounded,
    straight_rival,
)
from vtc.law.varpro import Fits, fit_many
from vtc.tables.specs import LAW

INTERVAL_METHOD = "split-plot Satterthwaite"
# Refits behind the interval over items, whatever number of draws is kept.
MIN_ITEM_DRAWS = 1000


def estimate(
    points: Points, settings: Settings, images: items.Images | None = None
) -> dict[str, Any]:
    """The row of the law table for one task, or one group of it.

    `images`: what the images of its benchmarks move each score by, for draws of other items too.
    Raises NoAnswerError if the points cannot tell the law at all.
    """
    log_n, log_v, errors = arrays(points)
    refuse_hopeless(points, log_n, log_v, errors)
    fit = _fit(points, settings, log_n, log_v, errors)
    single = len(points.sizes) == 1
    row = {
        **point_row(points, settings, fit, single),
        **quality(fit, errors, n_parameters=3 if single else 4),
        **straight_rival(log_n, log_v, errors),
        "flags": data_flags(points),
    }
    if fit.d[0] <= 0:
        row["flags"].append("d_at_bound")
    if settings.method == "varpro" and settings.exponents is None:
        profile = intervals.profile(log_n, log_v, errors, fit)
        _add_exponents(row, settings.level, profile, (log_n, log_v, errors))
        if not single:
            _add_ratio(row, settings, fit, (log_n, log_v, errors))
            if images is not None and settings.n_draws:
                _add_items(row, settings, fit, (log_n, log_v, errors), points, images)
    add_optimum(row, settings.text_tokens)
    return LAW.complete(row)


def _fit(
    points: Points,
    settings: Settings,
    log_n: np.ndarray,
    log_v: np.ndarray,
    errors: np.ndarray,
) -> Fits:
    single = len(points.sizes) == 1
    if settings.exponents is not None:
        return fixed_exponents(log_n, log_v, errors, *settings.exponents)
    if settings.method == "paper-grid":
        if single:
            raise InputError("--method paper-grid needs more than one LLM size; use varpro")
        return paper_grid(log_n, log_v, errors)
    fit = fit_many(log_n, log_v, errors[None])
    if not np.isfinite(fit.sse[0]):
        raise NoAnswerError(f"no law for {points.title}: no power law fits the points")
    return fit


def fixed_exponents(
    log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray, alpha: float, beta: float
) -> Fits:
    """k and 0 <= D < 1 by linear least squares at given exponents; one entry."""
    x = np.exp(-alpha * log_n - beta * log_v)
    slope = float(np.cov(x, errors, bias=True)[0, 1] / x.var())
    d = min(max(float(errors.mean()) - slope * float(x.mean()), 0.0), 1 - 1e-9)
    k = float(x @ (errors - d) / (x @ x))
    if k <= 0:
        raise NoAnswerError(
            f"--exponents {alpha:g}/{beta:g}: the errors grow with N and V, so no law with these "
            "exponents fits them"
        )
    residual = k * x + d - errors
    return Fits(*(np.array([v]) for v in (k, alpha, beta, d, residual @ residual, np.nan)))


_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _add_exponents(
    row: dict[str, Any], level: float, profile: intervals.Profile, arrays: _Arrays
) -> None:
    """Fill the intervals of alpha and beta one by one, and the flags that follow."""
    row["level"], row["interval_method"] = level, INTERVAL_METHOD
    row["d_admitted_high"] = float(profile.d[profile.admitted].max())
    names = ("beta",) if row["alpha"] is None else ("alpha", "beta")
    alone = intervals.exponent_intervals(*arrays, profile, level) or {}
    add_exponents(row, {name: ends for name, ends in alone.items() if name in names})
    for name in names:
        found = np.abs(getattr(profile.fits, name)[profile.admitted])
        if found.max() > WEAK_SPREAD * found.min():
            row["flags"].append("weakly_identified_exponents")
            break


def _add_ratio(row: dict[str, Any], settings: Settings, fit: Fits, arrays: _Arrays) -> None:
    """Fill the ratio's interval, its leave-one-size-out range, and the draws."""
    found = intervals.surrogate(*arrays, fit)
    if found.strata is None:
        row["flags"].append("no_degrees_of_freedom")
        return
    row["run_sd"], row["llm_sd"] = splitplot.noise_sds(found.strata)
    if row["ratio"] is not None:
        ends = intervals.ratio_interval(found, settings.level)
        if ends is not None:
            # An interval with D free: with D at its bound the ratio may lie outside.
            row["ratio_low"] = min(ends[0], row["ratio"])
            row["ratio_high"] = max(ends[1], row["ratio"])
        left = intervals.leave_one_size_out(*arrays, found, settings.level)
        if left is not None:
            row["ratio_without_a_size_low"] = min(left.ratios)
            row["ratio_without_a_size_high"] = max(left.ratios)
            row["ratio_jackknife_low"] = min(left.jackknife[0], row["ratio"])
            row["ratio_jackknife_high"] = max(left.jackknife[1], row["ratio"])
    if settings.n_draws:
        _add_draws(row, settings, fit, found.strata, *arrays[:2])


def _add_draws(
    row: dict[str, Any],
    settings: Settings,
    fit: Fits,
    strata: intervals.Strata,
    log_n: np.ndarray,
    log_v: np.ndarray,
) -> None:
    rng = np.random.default_rng(settings.seed)
    draws = intervals.draw_laws(log_n, log_v, fit, strata, settings.n_draws, rng)
    _keep_draws(row, draws)


def _add_items(
    row: dict[str, Any],
    settings: Settings,
    fit: Fits,
    arrays: _Arrays,
    points: Points,
    images: items.Images,
) -> None:
    """The interval and the draws over other items too: a paired bootstrap crossed with run noise.

    The residuals hold the items' noise as far as the law cannot follow it; that part is taken out
    of the runs' noise, or it would count twice.
    """
    strata = intervals.surrogate(*arrays, fit).strata
    if strata is None:
        return
    moved = items.shifts(points, images)
    covariance = items.covariance(moved)
    row["item_sd"] = float(np.diag(covariance).mean()) ** 0.5
    row["item_sd_not_shared"] = items.not_shared(covariance)
    runs = splitplot.without(strata, covariance)
    rng = np.random.default_rng([settings.seed, 1])
    n_draws = max(settings.n_draws, MIN_ITEM_DRAWS)
    noise = items.resample(moved, n_draws, rng) + splitplot.draw_noise(runs, n_draws, rng)
    draws = intervals.refit(*arrays[:2], fit, noise)
    if row["ratio"] is not None:
        row["ratio_items_low"], row["ratio_items_high"] = intervals.ratio_quantiles(
            draws, settings.level
        )
    _keep_draws(row, Fits(*(column[: settings.n_draws] for column in draws)))


def _keep_draws(row: dict[str, Any], draws: Fits) -> None:
    row["p_alpha_larger"] = float((draws.alpha > draws.beta).mean())
    for name in ("k", "alpha", "beta", "d"):
        row[f"draw_{name}"] = rounded(getattr(draws, name))
