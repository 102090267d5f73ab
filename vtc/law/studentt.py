"""Quantiles of Student's t without SciPy, whose import alone costs more than a whole fit."""

import math


def t_quantile(probability: float, df: float) -> float:
    """The quantile of Student's t with `df` > 0 degrees of freedom (not necessarily whole)."""
    if not 0 < probability < 1 or df <= 0:
        raise ValueError("need 0 < probability < 1 and df > 0")
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < probability:
        low, high = high, 2 * high
    t = (low + high) / 2
    for _ in range(200):
        gap = t_cdf(t, df) - probability
        low, high = (t, high) if gap < 0 else (low, t)
        # Newton's step; where it leaves what is known of the root, halving.
        step = t - gap / _density(t, df)
        after = step if low < step < high else (low + high) / 2
        if abs(after - t) <= 1e-15 * t or after in (low, high):
            return after
        t = after
    return t


def _density(t: float, df: float) -> float:
    log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    return math.exp(log - (df + 1) / 2 * math.log1p(t * t / df))


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) of Student's t."""
    tail = 0.5 * incomplete_beta(df / 2, 0.5, df / (df + t * t))
    return 1 - tail if t > 0 else tail


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction.

    Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.5.8.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 1000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + factor * d)
            c = 1 + factor / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction
