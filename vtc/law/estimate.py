"""From the points of a task to a row of the law table: fit, intervals, draws, flags."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtc.errors import InputError, NoAnswerError
from vtc.law import intervals
from vtc.law.grid import paper_grid
from vtc.law.points import Points
from vtc.law.power import BILLION, optimal_visual_tokens
from vtc.law.varpro import Fits, fit_many
from vtc.tables.specs import LAW

INTERVAL_METHOD = "split-plot Satterthwaite"
# Exponents that vary by more than this factor over the D that the data admit are weakly identified.
WEAK_SPREAD = 1.2
# Below this an exponent is the rounding error of a zero.
NO_EXPONENT = 1e-9


@dataclass(frozen=True)
class Settings:
    """How to fit: `exponents` fixes (alpha, beta) and leaves k and D to linear least squares."""

    method: str = "varpro"
    level: float = 0.95
    n_draws: int = 400
    seed: int = 0
    text_tokens: float = 50.0
    exponents: tuple[float, float] | None = None


def estimate(points: Points, settings: Settings) -> dict[str, Any]:
    """The row of the law table for one task.

    Raises NoAnswerError if the points cannot tell the law at all.
    """
    log_n, log_v, errors = arrays(points)
    refuse_hopeless(points, log_n, log_v, errors)
    fit = _fit(points, settings, log_n, log_v, errors)
    single = len(points.sizes) == 1
    row = {
        **_point_row(points, settings, fit, single),
        **_quality(fit, errors, n_parameters=3 if single else 4),
        "flags": _data_flags(points),
    }
    if fit.d[0] <= 0:
        row["flags"].append("d_at_bound")
    if settings.method == "varpro" and settings.exponents is None:
        profile = intervals.profile(log_n, log_v, errors, fit)
        _add_exponents(row, settings.level, profile, (log_n, log_v, errors))
        if not single:
            _add_ratio(row, settings, fit, (log_n, log_v, errors))
    _add_optimum(row, settings.text_tokens)
    return LAW.complete(row)


def arrays(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln N (N in billions), ln V and errors of the points, each [n]."""
    table = np.array(points.points, dtype=float)
    return np.log(table[:, 0] / BILLION), np.log(table[:, 1]), table[:, 2]


def refuse_hopeless(
    points: Points, log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray
) -> None:
    """Raise NoAnswerError if N and V vary too little, or together, for any law."""
    head = f"no law for task '{points.task}'"
    if np.ptp(log_v) == 0:
        raise NoAnswerError(
            f"{head}: every point has {points.points[0].visual_tokens} visual tokens; "
            "measure at two or more token counts"
        )
    if np.ptp(errors) == 0:
        raise NoAnswerError(f"{head}: every point has the same error {errors[0]:g}")
    logs = np.stack([log_n - log_n.mean(), log_v - log_v.mean()])
    if np.ptp(log_n) > 0 and np.linalg.matrix_rank(logs, tol=1e-9) < 2:
        raise NoAnswerError(
            f"{head}: ln N and ln V move together over the points, so their effects cannot be "
            "told apart; measure an LLM at several token counts"
        )


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
        raise NoAnswerError(f"no law for task '{points.task}': no power law fits the points")
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


def _point_row(points: Points, settings: Settings, fit: Fits, single: bool) -> dict[str, Any]:
    alpha, beta = (
        value if abs(value) > NO_EXPONENT else 0.0
        for value in (float(fit.alpha[0]), float(fit.beta[0]))
    )
    tokens = [point.visual_tokens for point in points.points]
    return {
        "task": points.task,
        "form": "power",
        "method": "fixed-exponents" if settings.exponents else settings.method,
        "families": list(points.families),
        "n_convention": points.convention,
        "unit": "billions",
        "k": float(fit.k[0]),
        "alpha": None if single else alpha,
        "beta": beta,
        "d": float(fit.d[0]),
        "ratio": alpha / beta if alpha > 0 and beta > 0 and not single else None,
        "text_tokens": settings.text_tokens,
        "n_points": len(points.points),
        "n_sizes": len(points.sizes),
        "n_params_min": points.sizes[0],
        "n_params_max": points.sizes[-1],
        "visual_tokens_min": min(tokens),
        "visual_tokens_max": max(tokens),
        "draw_k": [],
        "draw_alpha": [],
        "draw_beta": [],
        "draw_d": [],
        "data_sha": points.sha(),
    }


def _quality(fit: Fits, errors: np.ndarray, n_parameters: int) -> dict[str, float | None]:
    n, sse = len(errors), float(fit.sse[0])
    spread = float(((errors - errors.mean()) ** 2).sum())
    p = n_parameters + 1  # the noise's variance is a parameter too
    possible = sse > 0 and n > p + 1
    aicc = n * math.log(sse / n) + 2 * p + 2 * p * (p + 1) / (n - p - 1) if possible else None
    return {"sse": sse, "rmse": math.sqrt(sse / n), "r2": 1 - sse / spread, "aicc": aicc}


def _data_flags(points: Points) -> list[str]:
    flags = {
        "single_size": len(points.sizes) == 1,
        "two_sizes": len(points.sizes) == 2,
        "suspect_rows": points.n_suspect > 0,
        "several_families": len(points.families) > 1,
        "several_compressors": len(points.compressors) > 1,
        "replicates": len({p[:2] for p in points.points}) < len(points.points),
    }
    return [name for name, raised in flags.items() if raised]


_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _add_exponents(
    row: dict[str, Any], level: float, profile: intervals.Profile, arrays: _Arrays
) -> None:
    """Fill the intervals of alpha and beta one by one, and the flags that follow."""
    row["level"], row["interval_method"] = level, INTERVAL_METHOD
    row["d_admitted_high"] = float(profile.d[profile.admitted].max())
    names = ("beta",) if row["alpha"] is None else ("alpha", "beta")
    alone = intervals.exponent_intervals(*arrays, profile, level) or {}
    for name in names if alone else ():
        low, high = alone[name]
        if not low <= row[name] <= high:
            # D close under the errors: no fit that the profile reaches resembles this one.
            row["flags"].append("exponents_not_identified")
            row["alpha_low"] = row["alpha_high"] = row["beta_low"] = row["beta_high"] = None
            break
        row[f"{name}_low"], row[f"{name}_high"] = low, high
        if low <= 0 <= high:
            row["flags"].append(f"{name}_may_be_zero")
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
    if row["ratio"] is not None:
        ends = intervals.ratio_interval(found, settings.level)
        if ends is not None:
            # An interval with D free: with D at its bound the ratio may lie outside.
            row["ratio_low"] = min(ends[0], row["ratio"])
            row["ratio_high"] = max(ends[1], row["ratio"])
        left = intervals.leave_one_size_out(*arrays, row["ratio"], settings.level)
        if left is not None:
            row["ratio_without_a_size_low"] = min(left.ratios)
            row["ratio_without_a_size_high"] = max(left.ratios)
            row["ratio_jackknife_low"], row["ratio_jackknife_high"] = left.jackknife
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
    row["p_alpha_larger"] = float((draws.alpha > draws.beta).mean())
    for name in ("k", "alpha", "beta", "d"):
        row[f"draw_{name}"] = _rounded(getattr(draws, name))


def _rounded(values: np.ndarray) -> list[float]:
    """Seven significant digits: far below the draws' own spread, and a third of the bytes."""
    return [float(f"{value:.7g}") for value in values]


def _add_optimum(row: dict[str, Any], text_tokens: float) -> None:
    """V* and its interval from the ratio's: a larger ratio means fewer tokens."""
    for target, source in (
        ("v_star", "ratio"),
        ("v_star_low", "ratio_high"),
        ("v_star_high", "ratio_low"),
    ):
        ratio = row.get(source)
        best = optimal_visual_tokens(ratio, text_tokens) if ratio else math.inf
        row[target] = best if math.isfinite(best) else None
