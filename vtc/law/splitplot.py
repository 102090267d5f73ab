"""Split-plot variance: an LLM's peculiarity hits all of its points, a run's noise only one.

The size of the LLM is the whole-plot factor with few levels, visual tokens the sub-plot factor.
Whatever is special about one LLM moves all its points together, so the exponent of N is known
only as well as a handful of LLMs allow, however many token counts each was measured at.
Residuals are therefore split into two strata, between and within LLMs, and a parameter's variance
is assembled from both mean squares (Henderson's method 3; degrees of freedom after Satterthwaite,
1946, "An approximate distribution of estimates of variance components").
"""

from typing import NamedTuple

import numpy as np

from vtc.law.studentt import t_quantile


class Strata(NamedTuple):
    """A linear (or linearised) model and the residual mean squares of its two strata."""

    solver: np.ndarray  # [p, n]: parameters = solver @ errors
    plots: np.ndarray  # [n, S]: column s is the shape of a peculiarity of LLM s
    ms_within: float
    df_within: int
    ms_between: float
    df_between: int
    plot_size: float  # E[ms_between] = s2 + plot_size * variance of the peculiarities
    jacobian: np.ndarray  # [n, p]


def split(jacobian: np.ndarray, residual: np.ndarray, plots: np.ndarray) -> Strata | None:
    """Split the residual [n] of a model with `jacobian` [n, p] into strata by `plots` [n, S].

    None when no residual degrees of freedom are left within LLMs. With two sizes of LLM there are
    none between them either (df_between = 0): the variance within stands for both.
    """
    n = len(residual)
    both = np.concatenate([jacobian, plots], axis=1)
    rss_model, rank_model = _fit(jacobian, residual)
    rss_both, rank_both = _fit(both, residual)
    df_within, df_between = n - rank_both, rank_both - rank_model
    if df_within < 1:
        return None
    solver = np.linalg.pinv(jacobian)
    ms_within = rss_both / df_within
    unexplained = plots - jacobian @ (solver @ plots)
    plot_size = float((unexplained * plots).sum()) / max(df_between, 1)
    # Extreme exponents can leave all but one LLM without weight: nothing between them is left.
    if df_between == 0 or plot_size <= 1e-9 * float((plots * plots).sum()):
        return Strata(solver, plots, ms_within, df_within, ms_within, 0, 1.0, jacobian)
    ms_between = max(rss_model - rss_both, 0.0) / df_between
    return Strata(solver, plots, ms_within, df_within, ms_between, df_between, plot_size, jacobian)


def standard_error(strata: Strata, gradient: np.ndarray) -> tuple[float, float]:
    """Standard error of gradient [p] @ parameters, and its Satterthwaite degrees of freedom."""
    weights = strata.solver.T @ gradient
    shared = float(((strata.plots.T @ weights) ** 2).sum()) / strata.plot_size
    if strata.df_between == 0:
        shared = 0.0
    within = max(float(weights @ weights) - shared, 0.0) * strata.ms_within
    between = shared * strata.ms_between
    variance = within + between
    if variance <= 0:
        return 0.0, float(strata.df_within)
    spread = within**2 / strata.df_within
    if strata.df_between:
        spread += between**2 / strata.df_between
    return variance**0.5, variance**2 / spread


def half_width(strata: Strata, gradient: np.ndarray, level: float) -> float:
    """Half the width of the t interval of gradient @ parameters."""
    se, df = standard_error(strata, gradient)
    return t_quantile((1 + level) / 2, df) * se


def allowed_rise(
    jacobian: np.ndarray, residual: np.ndarray, plots: np.ndarray, index: int, level: float
) -> tuple[float, float] | None:
    """The standard error of parameter `index`, and the share by which a profile's SSE may rise.

    Arguments as `split`. Of independent errors that share is t^2 / df, an F test. Points of one
    LLM are not independent: the share grows by the square of what the split-plot interval of the
    linearised model is longer by (as Rao and Scott, 1984, scale likelihood ratios of clustered
    data). None without degrees of freedom.
    """
    strata = split(jacobian, residual, plots)
    df = len(residual) - np.linalg.matrix_rank(jacobian)
    if strata is None or df < 1:
        return None
    gradient = np.zeros(len(strata.solver))
    gradient[index] = 1.0
    se, _ = standard_error(strata, gradient)
    left = residual - jacobian @ (strata.solver @ residual)
    plain = float(np.linalg.norm(strata.solver[index]) * np.linalg.norm(left)) / df**0.5
    if not (se > 0 and plain > 0):
        return None
    t = t_quantile((1 + level) / 2, df)
    return se, t**2 / df * (half_width(strata, gradient, level) / (t * plain)) ** 2


def draw_noise(strata: Strata, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draws [R, n] of the errors' noise; the two variances are drawn too, from their chi-squares.

    Few LLMs leave the variance between them uncertain; scaling by drawn chi-squares gives the
    draws the heavy tails that a t quantile has.
    """
    n, n_plots = strata.plots.shape
    within = strata.ms_within * strata.df_within / rng.chisquare(strata.df_within, n_draws)
    noise = np.sqrt(within)[:, None] * rng.standard_normal((n_draws, n))
    if strata.df_between:
        drawn = rng.chisquare(strata.df_between, n_draws)
        between = strata.ms_between * strata.df_between / drawn
        shared = np.sqrt(np.maximum(between - within, 0.0) / strata.plot_size)
        noise += (shared[:, None] * rng.standard_normal((n_draws, n_plots))) @ strata.plots.T
    return noise


def noise_sds(strata: Strata) -> tuple[float, float | None]:
    """Standard deviations of a run's noise and of an LLM's peculiarity, in units of the error.

    The second is an average over the points, and None where nothing between LLMs is left.
    """
    if strata.df_between == 0:
        return strata.ms_within**0.5, None
    shared = max(strata.ms_between - strata.ms_within, 0.0) / strata.plot_size
    sizes = (strata.plots**2).sum(axis=1)
    return strata.ms_within**0.5, (shared * float(sizes.mean())) ** 0.5


def draw_new(
    strata: Strata, plots: np.ndarray, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws [R, m] of the noise of new runs, their LLMs' peculiarities included; `plots` [m, S]."""
    within = strata.ms_within * strata.df_within / rng.chisquare(strata.df_within, n_draws)
    noise = np.sqrt(within)[:, None] * rng.standard_normal((n_draws, len(plots)))
    if strata.df_between:
        drawn = rng.chisquare(strata.df_between, n_draws)
        between = strata.ms_between * strata.df_between / drawn
        shared = np.sqrt(np.maximum(between - within, 0.0) / strata.plot_size)
        noise += (shared[:, None] * rng.standard_normal((n_draws, plots.shape[1]))) @ plots.T
    return noise


def without(strata: Strata, covariance: np.ndarray) -> Strata:
    """The strata less the part of both mean squares that noise of known `covariance` [n, n] makes.

    By the method of moments, each floored at zero: what is left is the noise of runs alone.
    """
    model = _basis(strata.jacobian)
    both = _basis(np.concatenate([strata.jacobian, strata.plots], axis=1))
    in_model = float((model * (covariance @ model)).sum())
    in_both = float((both * (covariance @ both)).sum())
    within = max(float(np.trace(covariance)) - in_both, 0.0) / strata.df_within
    ms_within = max(strata.ms_within - within, 0.0)
    ms_between = ms_within
    if strata.df_between:
        between = max(in_both - in_model, 0.0) / strata.df_between
        ms_between = max(strata.ms_between - between, 0.0)
    return strata._replace(ms_within=ms_within, ms_between=ms_between)


def _fit(columns: np.ndarray, residual: np.ndarray) -> tuple[float, int]:
    """Residual sum of squares of a linear fit, and the rank of its columns."""
    basis = _basis(columns)
    left = residual - basis @ (basis.T @ residual)
    return float(left @ left), basis.shape[1]


def _basis(columns: np.ndarray) -> np.ndarray:
    """[n, rank]: an orthonormal basis of the space of the columns."""
    # Columns to unit length, so that the rank does not depend on their units.
    scaled = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    u, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    return u[:, : int((singular > 1e-9 * singular[0]).sum())]
