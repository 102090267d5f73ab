"""Rows of the law table for groups that share exponents: intervals, draws and the test of sharing.

The intervals are those of a single law (`intervals`), linearised for all groups together: the
exponents that are shared are learnt from all points. An LLM that stands in several groups (two
compressors on the same LLM) has one peculiarity in all of them; LLMs of several families do not.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vtc.errors import NoAnswerError
from vtc.law import splitplot
from vtc.law.estimate import INTERVAL_METHOD
from vtc.law.intervals import D_FLOOR, MAX_LOG_SE, Strata, jackknife
from vtc.law.points import Points
from vtc.law.rows import (
    Settings,
    add_exponents,
    add_optimum,
    arrays,
    data_flags,
    point_row,
    quality,
    rounded,
    straight_rival,
    tokens_of,
)
from vtc.law.shared import Data, SharedFit, fit_shared, refit_shared
from vtc.law.shared_intervals import exponent_intervals, linearise
from vtc.law.studentt import incomplete_beta
from vtc.law.varpro import Fits, fit_many
from vtc.tables.specs import LAW

METHOD = {
    "exponents": "alpha and beta shared",
    "alpha": "alpha shared",
}


class _Linear(NamedTuple):
    """The best member with D free below zero, linearised: exponents [G] and its strata."""

    alpha: np.ndarray
    beta: np.ndarray
    strata: Strata | None


def shared_rows(groups: Sequence[Points], settings: Settings, share: str) -> list[dict[str, Any]]:
    """A row a group. Raises NoAnswerError if the groups together cannot tell the exponents."""
    if len(groups) < 2:
        raise NoAnswerError(f"--share {share}: fewer than two groups are left to share it")
    data = _data(groups)
    where = f"no law for task '{groups[0].task}' with {METHOD[share]}"
    if np.ptp(data.log_n) == 0 or np.ptp(data.log_v) == 0:
        raise NoAnswerError(f"{where}: N and V must both vary over the groups' points")
    fit = fit_shared(data, share)
    if not np.isfinite(fit.sse[0]):
        raise NoAnswerError(f"{where}: no power law fits all groups")
    linear = _linearise(data, share, fit)
    ratios = _ratios(_with_d_free(data, share, fit))[0]
    without = _without_each_size(data, share)
    p_value = _sharing_p(data, share, fit)
    draws = _draws(data, share, fit, linear.strata, settings)
    alone = exponent_intervals(data, share, fit, settings.level)
    rows = []
    for g, points in enumerate(groups):
        at = data.group == g
        own = _one(fit, g, float((((fit.fitted(data)[0] - data.errors)[at]) ** 2).sum()))
        row = {
            **point_row(points, settings, own, single=False),
            **quality(own, data.errors[at], n_parameters=4),
            **straight_rival(data.log_n[at], data.log_v[at], data.errors[at]),
            "shared": share,
            "shared_p": p_value,
            "level": settings.level,
            "interval_method": f"{INTERVAL_METHOD}, {METHOD[share]}",
            "flags": data_flags(points) + ["d_at_bound"] * int(own.d[0] <= 0),
        }
        # A criterion of one group says nothing where others move its exponents.
        row["aicc"] = None
        row["flags"] = [flag for flag in row["flags"] if flag not in ("single_size", "two_sizes")]
        if len(np.unique(data.log_n)) == 2:
            row["flags"].append("two_sizes")
        if linear.strata is None:
            row["flags"].append("no_degrees_of_freedom")
        else:
            row["run_sd"], row["llm_sd"] = splitplot.noise_sds(linear.strata)
            _add_interval(row, linear, share, g, settings.level)
        if alone is not None:
            _add_exponents(row, alone, 1 if share == "exponents" else 1 + g)
        if without and row["ratio"] is not None:
            _add_without(row, ratios[g], g, without, settings.level)
        if draws is not None:
            _add_draws(row, draws, g)
        add_optimum(row, settings.text_tokens)
        rows.append(LAW.complete(row))
    return rows


def refuse_lone(points: Points, share: str) -> None:
    """Raise NoAnswerError for a group that tells nothing of its own, whatever the others tell."""
    log_n, log_v, errors = arrays(points)
    head = f"no law for {points.title}"
    if np.ptp(errors) == 0:
        raise NoAnswerError(f"{head}: every point has the same error {errors[0]:g}")
    if np.ptp(log_v) == 0 and (share == "alpha" or np.ptp(log_n) == 0):
        tells = "its own beta" if share == "alpha" else "k and D"
        raise NoAnswerError(
            f"{head}: every point has {tokens_of(points)}, which does not "
            f"tell {tells}; measure at two or more token counts"
        )


def _data(groups: Sequence[Points]) -> Data:
    parts = [arrays(points) for points in groups]
    index = np.repeat(np.arange(len(groups)), [len(part[0]) for part in parts])
    log_n, log_v, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Two families' LLMs of one size are two LLMs; two compressors stand on the same one.
    apart = index if groups[0].by == "family" else np.zeros_like(index)
    _, llm = np.unique(np.stack([apart, log_n]), axis=1, return_inverse=True)
    return Data(log_n, log_v, errors, index, llm.ravel())


def _one(fit: SharedFit, g: int, sse: float) -> Fits:
    cells = (fit.k[0, g], fit.alpha[0, g], fit.beta[0, g], fit.d[0, g], sse, math.nan)
    return Fits(*(np.array([cell]) for cell in cells))


def _linearise(data: Data, share: str, fit: SharedFit) -> _Linear:
    fit = _with_d_free(data, share, fit)
    model = linearise(data, share, fit)
    member = (data.group[:, None] == np.arange(data.n_groups)) * 1.0
    # At the floor D and k are one: the law is log-linear there.
    columns = [model.jacobian, member[:, fit.d[0] > 0.99 * D_FLOOR]]
    jacobian = np.concatenate(columns, axis=1)
    if len(data.errors) <= jacobian.shape[1]:
        return _Linear(fit.alpha[0], fit.beta[0], None)
    strata = splitplot.split(jacobian, model.residual, model.plots)
    return _Linear(fit.alpha[0], fit.beta[0], strata)


def _with_d_free(data: Data, share: str, fit: SharedFit) -> SharedFit:
    """The best member with every D free below zero; `fit` itself where none is at its bound."""
    return fit_shared(data, share, d_min=D_FLOOR) if (fit.d[0] <= 0).any() else fit


def _add_exponents(row: dict[str, Any], ends: np.ndarray, at: int) -> None:
    """Fill a group's intervals of alpha and beta, which is the exponent `at`, and the flags."""
    own = dict(zip(("alpha", "beta"), ends[[0, at]].tolist(), strict=True))
    if not np.isfinite(list(own.values())).all():
        row["flags"].append("weakly_identified_exponents")
    add_exponents(row, {name: pair for name, pair in own.items() if np.isfinite(pair).all()})


def _add_interval(row: dict[str, Any], linear: _Linear, share: str, g: int, level: float) -> None:
    alpha, beta = float(linear.alpha[g]), float(linear.beta[g])
    if row["ratio"] is None or linear.strata is None or alpha <= 0 or beta <= 0:
        return
    gradient = np.zeros(linear.strata.solver.shape[0])
    gradient[0], gradient[1 if share == "exponents" else 1 + g] = 1 / alpha, -1 / beta
    if splitplot.standard_error(linear.strata, gradient)[0] > MAX_LOG_SE:
        return
    half = splitplot.half_width(linear.strata, gradient, level)
    # An interval with D free: with D at its bound the ratio may lie outside.
    row["ratio_low"] = min(alpha / beta * math.exp(-half), row["ratio"])
    row["ratio_high"] = max(alpha / beta * math.exp(half), row["ratio"])


def _ratios(fit: SharedFit) -> np.ndarray:
    """[R, G] alpha / beta, not a number where an exponent is not positive."""
    usable = (fit.alpha > 0) & (fit.beta > 0)
    return np.where(usable, fit.alpha, np.nan) / np.where(usable, fit.beta, 1.0)


class _Without(NamedTuple):
    """The groups' ratios [G] without an LLM size: with 0 <= D < 1, and of the best D below too."""

    bounded: np.ndarray
    free: np.ndarray


def _without_each_size(data: Data, share: str) -> list[_Without]:
    """The ratios without each LLM size; empty below three sizes."""
    sizes = np.unique(data.log_n)
    found = []
    for size in sizes if len(sizes) > 2 else ():
        keep = data.log_n != size
        left = Data(*(column[keep] for column in data))
        # Every group must keep enough points of its own.
        if np.bincount(left.group, minlength=data.n_groups).min() < 2:
            return []
        fit = fit_shared(left, share)
        found.append(_Without(_ratios(fit)[0], _ratios(_with_d_free(left, share, fit))[0]))
    return found


def _add_without(row: dict[str, Any], ratio: float, g: int, left: list[_Without], level: float):
    """Fill the range without a size, and the jackknife of the `ratio` with D free, of group g."""
    bounded, free = ([float(found[g]) for found in part] for part in zip(*left, strict=True))
    if not np.isfinite([ratio, *bounded, *free]).all():
        return
    row["ratio_without_a_size_low"], row["ratio_without_a_size_high"] = min(bounded), max(bounded)
    low, high = jackknife(ratio, free, level)
    row["ratio_jackknife_low"] = min(low, row["ratio"])
    row["ratio_jackknife_high"] = max(high, row["ratio"])


def _sharing_p(data: Data, share: str, fit: SharedFit) -> float | None:
    """p of the F test of sharing against a law of each group's own; errors taken as independent.

    None where a group alone has too few points or one LLM size.
    """
    sse = 0.0
    for g in range(data.n_groups):
        at = data.group == g
        log_n, log_v = data.log_n[at], data.log_v[at]
        if at.sum() <= 4 or np.ptp(log_n) == 0 or np.ptp(log_v) == 0:
            return None
        sse += float(fit_many(log_n, log_v, data.errors[None, at]).sse[0])
    extra = (data.n_groups - 1) * (2 if share == "exponents" else 1)
    df = len(data.errors) - 4 * data.n_groups
    if extra == 0 or sse <= 0:
        return None
    f = max(float(fit.sse[0]) - sse, 0.0) / extra / (sse / df)
    return incomplete_beta(df / 2, extra / 2, df / (df + extra * f))


def _draws(
    data: Data, share: str, fit: SharedFit, strata: Strata | None, settings: Settings
) -> SharedFit | None:
    if strata is None or not settings.n_draws:
        return None
    rng = np.random.default_rng(settings.seed)
    noise = splitplot.draw_noise(strata, settings.n_draws, rng)
    draws = refit_shared(data, share, fit, fit.fitted(data) + noise)
    return SharedFit(*(column[np.isfinite(draws.sse)] for column in draws))


def _add_draws(row: dict[str, Any], draws: SharedFit, g: int) -> None:
    row["p_alpha_larger"] = float((draws.alpha[:, g] > draws.beta[:, g]).mean())
    for name in ("k", "alpha", "beta", "d"):
        row[f"draw_{name}"] = rounded(getattr(draws, name)[:, g])
