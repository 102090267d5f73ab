"""What every row of the law table holds: the points it is of, the fit's quality, the best V."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtc.errors import NoAnswerError
from vtc.law.points import Points
from vtc.law.power import BILLION, optimal_visual_tokens
from vtc.law.varpro import Fits

# Below this an exponent is the rounding error of a zero.
NO_EXPONENT = 1e-9
# Exponents that vary by more than this factor over the D that the data admit are weakly identified.
WEAK_SPREAD = 1.2


@dataclass(frozen=True)
class Settings:
    """How to fit: `exponents` fixes (alpha, beta) and leaves k and D to linear least squares."""

    method: str = "varpro"
    level: float = 0.95
    n_draws: int = 400
    seed: int = 0
    text_tokens: float = 50.0
    exponents: tuple[float, float] | None = None


def arrays(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln N (N in billions), ln V and errors of the points, each [n]."""
    table = np.array([point[:3] for point in points.points], dtype=float)
    return np.log(table[:, 0] / BILLION), np.log(table[:, 1]), table[:, 2]


def refuse_hopeless(
    points: Points, log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray
) -> None:
    """Raise NoAnswerError if N and V vary too little, or together, for any law."""
    head = f"no law for {points.title}"
    if np.ptp(log_v) == 0:
        raise NoAnswerError(
            f"{head}: every point has {tokens_of(points)}; measure at two or more token counts"
        )
    if np.ptp(errors) == 0:
        raise NoAnswerError(f"{head}: every point has the same error {errors[0]:g}")
    logs = np.stack([log_n - log_n.mean(), log_v - log_v.mean()])
    if np.ptp(log_n) > 0 and np.linalg.matrix_rank(logs, tol=1e-9) < 2:
        raise NoAnswerError(
            f"{head}: ln N and ln V move together over the points, so their effects cannot be "
            "told apart; measure an LLM at several token counts"
        )


def tokens_of(points: Points) -> str:
    """The first point's visual tokens, with their noun."""
    count = points.points[0].visual_tokens
    return f"{count} visual token{'s' * (count != 1)}"


def point_row(points: Points, settings: Settings, fit: Fits, single: bool) -> dict[str, Any]:
    """The columns of a law that need no interval; `fit` has one entry, `single` means one size."""
    alpha, beta = (
        value if abs(value) > NO_EXPONENT else 0.0
        for value in (float(fit.alpha[0]), float(fit.beta[0]))
    )
    tokens = [point.visual_tokens for point in points.points]
    return {
        "task": points.task,
        "form": "power",
        "method": "fixed-exponents" if settings.exponents else settings.method,
        "by": points.by,
        "group": points.group,
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


def quality(fit: Fits, errors: np.ndarray, n_parameters: int) -> dict[str, float | None]:
    """Sum of squares, rmse, R2 and AICc of a fit with one entry to errors [n]."""
    n, sse = len(errors), float(fit.sse[0])
    spread = float(((errors - errors.mean()) ** 2).sum())
    return {
        "sse": sse,
        "rmse": math.sqrt(sse / n),
        "r2": 1 - sse / spread,
        "aicc": aicc(sse, n, n_parameters),
    }


def straight_rival(
    log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray
) -> dict[str, list[float] | float | None]:
    """The law's plainest rival, Y = c - a ln N - b ln V: what another form would predict afar.

    Logs (N in billions) and errors are [n]; nothing where the points do not
    tell its three numbers.
    """
    columns = np.stack([np.ones_like(log_n), -log_n, -log_v], axis=1)
    if np.linalg.matrix_rank(columns) < 3:
        return {}
    values = np.linalg.lstsq(columns, errors, rcond=None)[0]
    residual = columns @ values - errors
    return {
        "log_linear": [float(value) for value in values],
        "log_linear_aicc": aicc(float(residual @ residual), len(errors), 3),
    }


def aicc(sse: float, n: int, n_parameters: int) -> float | None:
    """Akaike's corrected criterion of n errors; None for a perfect fit or too few of them."""
    p = n_parameters + 1  # the noise's variance is a parameter too
    if not (sse > 0 and n > p + 1):
        return None
    return n * math.log(sse / n) + 2 * p + 2 * p * (p + 1) / (n - p - 1)


def data_flags(points: Points) -> list[str]:
    """What the points themselves make doubtful."""
    flags = {
        "single_size": len(points.sizes) == 1,
        "two_sizes": len(points.sizes) == 2,
        "suspect_rows": points.n_suspect > 0,
        "untrained_rows": points.n_untrained > 0,
        "several_families": len(points.families) > 1,
        "several_compressors": len(points.compressors) > 1,
        "replicates": len({p[:2] for p in points.points}) < len(points.points),
    }
    return [name for name, raised in flags.items() if raised]


def add_exponents(row: dict[str, Any], ends: Mapping[str, Sequence[float]]) -> None:
    """Fill the intervals (low, high) of alpha and beta one by one, and the flags that follow."""
    for name, (low, high) in ends.items():
        if not low <= row[name] <= high:
            # D close under the errors: no fit that the profile reaches resembles this one.
            row["flags"].append("exponents_not_identified")
            row["alpha_low"] = row["alpha_high"] = row["beta_low"] = row["beta_high"] = None
            return
        row[f"{name}_low"], row[f"{name}_high"] = low, high
        if low <= 0 <= high:
            row["flags"].append(f"{name}_may_be_zero")


def add_optimum(row: dict[str, Any], text_tokens: float) -> None:
    """V* and its interval from the ratio's: a larger ratio means fewer tokens."""
    for target, source in (
        ("v_star", "ratio"),
        ("v_star_low", "ratio_high"),
        ("v_star_high", "ratio_low"),
    ):
        ratio = row.get(source)
        best = optimal_visual_tokens(ratio, text_tokens) if ratio else math.inf
        row[target] = best if math.isfinite(best) else None


def rounded(values: np.ndarray) -> list[float]:
    """Seven significant digits: far below the draws' own spread, and a third of the bytes."""
    return [float(f"{value:.7g}") for value in values]
