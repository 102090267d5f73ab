"""What runs that nobody has made yet would do to a law's intervals: the design, without its errors.

The law is linearised as its intervals are (`intervals.surrogate`), so the variance of a quantity
depends on where runs stand, not on what they find: sums over runs are all it needs, and a run adds
to them. The noise is that of a split plot (`splitplot`): a run's own, and what is peculiar to an
LLM and hits all of its runs, so that a second V of an LLM helps less than one run's noise suggests.
The laws are still fitted by plain least squares, and an interval's width is the mean width of those
that `fit` would print: over what both mean squares, with few degrees of freedom, may come out as.
"""

from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from vtc.law.intervals import Surrogate
from vtc.law.studentt import t_quantile

# Where ln t is known exactly, in 1 / df; between them it is a straight line, to a part in 1000.
_KNOTS = np.linspace(0.0, 1.0, 49)
_MANY = 1e6
# Values that a mean square may have, equally likely, and shares of the variance tabulated.
_CHANCES = 24
_SHARES = np.linspace(0.0, 1.0, 41)
# ln of the width of an interval that there is none of: more than any other, so it comes first.
_NO_INTERVAL = 1e3


class Noise(NamedTuple):
    """Standard deviations, in units of the error: of a run, and of what is peculiar to an LLM."""

    run_sd: float
    llm_sd: float


class Line(NamedTuple):
    """The linearised law: Y = k N^-alpha V^-beta + D, or (`log_linear`) its limit in logs.

    Of the limit Y = k - alpha ln N - beta ln V, D is zero. N is in billions.
    """

    alpha: float
    beta: float
    k: float
    d: float
    log_linear: bool

    @property
    def n_columns(self) -> int:
        """Parameters: 3 in the limit, else 4."""
        return 3 if self.log_linear else 4

    @property
    def exponents(self) -> str:
        """Both exponents in words, with the form that they are of: others than a fit's with D."""
        form = "c - alpha ln N - beta ln V" if self.log_linear else f"D = {self.d:.3g}"
        return f"alpha {self.alpha:.3g} and beta {self.beta:.3g} (of the best law, {form})"

    def jacobian(self, log_n: np.ndarray, log_v: np.ndarray) -> np.ndarray:
        """[m, p]: derivatives by (ln k, alpha, beta, D) of the errors of runs; k itself in logs."""
        shape = self.shape(log_n, log_v)
        columns = [shape, -shape * log_n, -shape * log_v]
        return np.stack(columns if self.log_linear else [*columns, np.ones_like(shape)], axis=-1)

    def shape(self, log_n: np.ndarray, log_v: np.ndarray) -> np.ndarray:
        """[m]: how much of an LLM's peculiarity each run has, as of the law's level."""
        if self.log_linear:
            return np.ones_like(log_n)
        return self.k * np.exp(-self.alpha * log_n - self.beta * log_v)

    def error(self, log_n: np.ndarray, log_v: np.ndarray) -> np.ndarray:
        """[m]: the errors that it predicts."""
        if self.log_linear:
            return self.k - self.alpha * log_n - self.beta * log_v
        return self.shape(log_n, log_v) + self.d


def line(found: Surrogate, log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray) -> Line:
    """The surrogate as a line: its level is what least squares make of the errors [n]."""
    slope = found.alpha * log_n + found.beta * log_v
    if found.log_linear:
        return Line(found.alpha, found.beta, float((errors + slope).mean()), 0.0, True)
    columns = np.stack([np.exp(-slope), np.ones_like(slope)], axis=1)
    k, d = np.linalg.lstsq(columns, errors, rcond=None)[0]
    return Line(found.alpha, found.beta, float(k), float(d), False)


class Sums(NamedTuple):
    """Sums over runs: all that the variances need. Leading axes [...] are designs side by side.

    `cross` couples parameters with the LLMs' peculiarities, `weight` is each one's sum of squares.
    """

    gram: np.ndarray  # [..., p, p]
    cross: np.ndarray  # [..., p, S]
    weight: np.ndarray  # [..., S]
    n: np.ndarray  # [...]

    def plus(self, other: "Sums") -> "Sums":
        """The runs of both."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def at(self, index: np.ndarray | int) -> "Sums":
        """Those of some of the designs."""
        return Sums(*(part[index] for part in self))


def sums(jacobian: np.ndarray, plots: np.ndarray) -> Sums:
    """The sums over the runs of each design: jacobian [..., m, p] and plots [..., m, S]."""
    turned = np.swapaxes(jacobian, -1, -2)
    n = np.full(jacobian.shape[:-2], jacobian.shape[-2])
    return Sums(turned @ jacobian, turned @ plots, (plots * plots).sum(-2), n)


class Expected(NamedTuple):
    """Of a quantity: its standard error, and what its interval is made of; each [...].

    `share` is the part of the variance that the mean square between LLMs stands for. Where no
    degree of freedom is left within LLMs, there is no interval.
    """

    se: np.ndarray
    share: np.ndarray
    df_within: np.ndarray
    df_between: np.ndarray

    @property
    def df(self) -> np.ndarray:
        """Satterthwaite's degrees of freedom, mean squares at their expectations; 0 for none."""
        within = (1 - self.share) ** 2 / np.maximum(self.df_within, 1)
        between = self.share**2 / np.maximum(self.df_between, 1)
        return np.where(self.df_within >= 1, 1 / np.maximum(within + between, 1e-300), 0.0)


def expected(design: Sums, gradient: np.ndarray, noise: Noise, unit: float) -> Expected:
    """The doubt about gradient [p] @ parameters, of each design.

    `unit` is the mean square of the plots' cells, in which an LLM's sd is counted. Parameters of
    which no run tells anything are left out; the gradient must not need them.
    """
    p = design.gram.shape[-1]
    diagonal = np.diagonal(design.gram, axis1=-2, axis2=-1)
    known = diagonal > 0
    scale = 1 / np.sqrt(np.where(known, diagonal, 1.0))
    gram = design.gram * scale[..., :, None] * scale[..., None, :]
    gram = gram + (~known)[..., None] * np.eye(p)
    cross = design.cross * scale[..., :, None]
    inverse = np.linalg.pinv(gram, rcond=1e-12, hermitian=True)
    weights = inverse @ (gradient * scale)[..., None]
    within = (weights[..., 0] * (gradient * scale)).sum(-1)
    shared = (np.swapaxes(cross, -1, -2) @ weights)[..., 0]
    shared = (shared * shared).sum(-1)
    run, llm = noise.run_sd**2, noise.llm_sd**2 / unit
    df_within, df_between, plot_size = _degrees(design, gram, cross, inverse, known)
    part = np.where(df_between > 0, shared / np.maximum(plot_size, 1e-300), 0.0)
    between = part * (run + plot_size * llm)
    # The fit floors this at zero too: in lopsided designs both say more than the variance is.
    rest = np.maximum(within - part, 0.0) * run
    # With nothing left between LLMs the fit cannot see their part; it is there all the same.
    variance = np.where(df_between > 0, rest + between, within * run + shared * llm)
    whole = rest + between
    share = np.where(whole > 0, between / np.maximum(whole, 1e-300), 0.0)
    return Expected(np.sqrt(variance), share, df_within, df_between)


def _degrees(
    design: Sums, gram: np.ndarray, cross: np.ndarray, inverse: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Degrees of freedom within and between LLMs, and the plots' size: as in `splitplot.split`."""
    there = design.weight > 0
    each = np.where(there, 1 / np.where(there, design.weight, 1.0), 0.0)
    inside = gram - (cross * each[..., None, :]) @ np.swapaxes(cross, -1, -2)
    inside = inside * known[..., :, None] * known[..., None, :]
    rank = (np.linalg.eigvalsh(inside) > 1e-9).sum(-1)
    n_llms, n_known = there.sum(-1), known.sum(-1)
    df_within = design.n - n_llms - rank
    df_between = n_llms + rank - n_known
    explained = np.einsum("...ps,...pq,...qs->...", cross, inverse, cross)
    total = design.weight.sum(-1) - explained
    df_between = np.where(total > 1e-9 * design.weight.sum(-1), df_between, 0)
    return df_within, df_between, total / np.maximum(df_between, 1)


def log_widths(found: Expected, level: float, share: np.ndarray | None = None) -> np.ndarray:
    """ln of the mean half width of each interval; without degrees of freedom 1000.

    `share` takes another part of the variance for that between LLMs than the designs have.
    """
    part = found.share if share is None else np.broadcast_to(share, found.se.shape)
    logs = np.full(found.se.shape, _NO_INTERVAL)
    pairs = np.stack([found.df_within, found.df_between], axis=-1)
    for within, between in np.unique(pairs.reshape(-1, 2), axis=0).tolist():
        if within < 1:
            continue
        at = (found.df_within == within) & (found.df_between == between)
        t = np.interp(part[at], _SHARES, _log_t(within, between, level))
        logs[at] = np.log(np.maximum(found.se[at], 1e-300)) + t
    return logs


def half_width(found: Expected, level: float) -> float:
    """The mean half width of one design's interval; infinite without degrees of freedom."""
    log = float(log_widths(Expected(*map(np.atleast_1d, found)), level)[0])
    return float(np.exp(log)) if log < _NO_INTERVAL else np.inf


@cache
def _log_t(df_within: int, df_between: int, level: float) -> np.ndarray:
    """ln of the mean of t times the standard error found, over the expected one, by share.

    The mean is over both mean squares, whose chi-squares are independent.
    """
    # With nothing left between LLMs all of the variance is taken from within.
    share = (_SHARES if df_between else 0 * _SHARES)[:, None, None]
    within = (1 - share) * _chances(df_within)[:, None]
    between = share * _chances(max(df_between, 1))
    total = within + between
    inverse = within**2 / df_within + between**2 / max(df_between, 1)
    inverse = inverse / np.maximum(total**2, 1e-300)
    log_t = np.interp(inverse, _KNOTS, _knot_logs(level))
    return np.log((np.sqrt(total) * np.exp(log_t)).mean(axis=(1, 2)))


@cache
def _knot_logs(level: float) -> np.ndarray:
    """ln of Student's t at the knots."""
    return np.log([t_quantile((1 + level) / 2, 1 / max(x, 1 / _MANY)) for x in _KNOTS.tolist()])


@cache
def _chances(df: int) -> np.ndarray:
    """Equally likely values of a mean square over its expectation (Wilson and Hilferty, 1931)."""
    normal = NormalDist()
    z = np.array([normal.inv_cdf((i + 0.5) / _CHANCES) for i in range(_CHANCES)])
    spread = 2 / (9 * df)
    values = np.maximum(1 - spread + z * spread**0.5, 0.02) ** 3
    return values / values.mean()


def likely_llm_sd(
    ms_within: float, ms_between: float, df_between: int, plot_size: float, unit: float
) -> float:
    """The LLMs' sd for which a smaller mean square between them is as likely as a larger one.

    The estimate less a run's part (`splitplot.noise_sds`) is often zero with few LLMs, which is no
    reason to plan as if they had no peculiarities: this is median-unbiased instead. The median of
    a chi-square is Wilson and Hilferty's, good to 2 % at two degrees of freedom.
    """
    median = (1 - 2 / (9 * df_between)) ** 3
    return float(np.sqrt(max(ms_between / median - ms_within, 0.0) / plot_size * unit))
