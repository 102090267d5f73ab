"""What a choice of V wastes if beta/alpha is another than thought, in FLOPs at equal error.

At a fixed error the law asks for N V^(beta/alpha) = constant, so that FLOPs 2 N (Q + V) go as
(Q + V) V^-slope, with the slope beta/alpha: neither k, D and the budget nor the unit of N enters.
Wasted is the share of the FLOPs that the best V would save. Slopes are numbers or arrays [...],
infinite where tokens alone help; `span` is the fewest and the most V.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

Span = tuple[float, float]


def slope_of(ratio: float | None) -> float:
    """beta / alpha of a law's alpha / beta; infinite of a ratio that is zero or None."""
    return 1 / ratio if ratio else math.inf


def best_tokens(slope: ArrayLike, text_tokens: float, span: Span) -> np.ndarray:
    """The best V [...] within the span: `power.optimal_visual_tokens`, from a slope of 1 on all."""
    slopes = np.asarray(slope, dtype=float)
    below = slopes < 1
    inner = np.where(below, slopes, 0.0)
    return np.clip(np.where(below, text_tokens * inner / (1 - inner), np.inf), *span)


def log_left(
    slope: ArrayLike, text_tokens: float, visual_tokens: ArrayLike, span: Span
) -> np.ndarray:
    """Logarithm [..., S] of the share of the FLOPs of V [S] that the best V takes, at most 0.

    It tells choices apart of which next to nothing is left, whose waste is 1 to the last digit.
    """
    slopes = np.asarray(slope, dtype=float)[..., None]
    v = np.asarray(visual_tokens, dtype=float)
    more = best_tokens(slopes, text_tokens, span) - v
    log_more = np.log1p(more / v)
    # Where V is the best, an infinite slope costs nothing either.
    slopes = np.where(log_more == 0, 0.0, slopes)
    return np.minimum(np.log1p(more / (text_tokens + v)) - slopes * log_more, 0.0)


def wasted(
    slope: ArrayLike, text_tokens: float, visual_tokens: ArrayLike, span: Span
) -> np.ndarray:
    """Share [..., S] of the FLOPs of V [S] that the best V within the span saves, in [0, 1]."""
    # Of nothing the waste is 0, and not -0.
    return np.abs(np.expm1(log_left(slope, text_tokens, visual_tokens, span)))


def worst(
    ratio: float, low: float | None, high: float | None, text_tokens: float, span: Span
) -> float:
    """The most that the best V for alpha/beta = `ratio` wastes if the truth is in [low, high].

    What is wasted grows with the distance of the truth to either side, so the ends decide. An end
    that is None is unbounded: zero below, infinite above.
    """
    chosen = best_tokens(slope_of(ratio), text_tokens, span)
    ends = [slope_of(low), slope_of(math.inf if high is None else high)]
    return float(wasted(ends, text_tokens, [chosen], span).max())
