"""How far two forms of the law would differ about runs that nobody has made yet.

Both forms are fitted to the points there are. A run that was not made deviates from a form's
prediction by its own noise, by what is peculiar to its LLM, and by what the fit does not know; the
two forms' gap in units of that is the number of standard deviations by which the run would speak
against the wrong one. Runs that share an LLM, or what the fit does not know, share it here too, so
the sigmas of several runs do not simply add up.
"""

from typing import NamedTuple

import numpy as np

from vtc.errors import InputError
from vtc.law.design import Noise
from vtc.law.design_pool import Pool
from vtc.law.forms import FORMS, Form
from vtc.law.points import Points
from vtc.law.rows import arrays

# The parameters that a bound can hold at zero.
_BOUND = ("d", "e", "v0")
# An LLM's sd of zero, and the sd of a level of which nothing is known, in units of the error.
_NO_SD, _ANY_LEVEL = 1e-9, 1.0


class Views(NamedTuple):
    """Of K candidates: the forms' gap, and for each form the covariance of what it predicts.

    The covariance is that of a run's error without the run's own noise.
    """

    gap: np.ndarray  # [K] first less second, in units of the error
    covariance: np.ndarray  # [2, K, K]
    run_sd: float


def parse_forms(text: str) -> tuple[str, str]:
    """Two names of a text such as power,log-linear; raises InputError for another."""
    names = tuple(part.strip() for part in text.split(","))
    if len(names) != 2 or len(set(names)) != 2 or not set(names) <= set(FORMS):
        raise InputError(f"--forms {text}: name two of {', '.join(FORMS)}, as in power,log-linear")
    return names[0], names[1]


def views(points: Points, pool: Pool, names: tuple[str, str], noise: Noise) -> Views | None:
    """What two forms say of the candidates; None where one of them does not fit the points."""
    log_n, log_v, errors = arrays(points)
    predicted, doubts = [], []
    for name in names:
        form = FORMS[name]
        values = form.fit(log_n, log_v, errors, None)
        if values is None or not np.isfinite(values).all():
            return None
        old = _jacobian(form, values, log_n, log_v)
        new = _jacobian(form, values, pool.log_n, pool.log_v)
        predicted.append(form.predict(values, pool.log_n, pool.log_v))
        doubts.append(_covariance(old, new, pool, noise))
    return Views(predicted[0] - predicted[1], np.stack(doubts), noise.run_sd)


def _covariance(old: np.ndarray, new: np.ndarray, pool: Pool, noise: Noise) -> np.ndarray:
    """[K, K]: what the points leave unknown of the candidates' errors, a run's own noise aside.

    `old` [n, q] and `new` [K, q] are derivatives by a form's parameters; LLMs' peculiarities are
    drawn from a normal of their sd, and a level that no point has from a wide one.
    """
    peculiar, told = (pool.own_plots > 0).astype(float), (pool.plots > 0).astype(float)
    free = np.zeros((len(old), pool.levels.shape[1]))
    columns = np.concatenate([old, free, peculiar], axis=1)
    before = np.zeros(columns.shape[1])
    q, p = old.shape[1], old.shape[1] + free.shape[1]
    before[q:p] = 1 / _ANY_LEVEL**2
    before[p:] = 1 / max(noise.llm_sd, _NO_SD) ** 2
    precision = columns.T @ columns / noise.run_sd**2 + np.diag(before)
    ahead = np.concatenate([new, (pool.levels > 0).astype(float), told], axis=1)
    # To unit diagonal, or the small derivatives would be cut off as if they were zero.
    scale = 1 / np.sqrt(np.maximum(np.diagonal(precision), 1e-300))
    doubt = np.linalg.pinv(precision * np.outer(scale, scale), rcond=1e-13, hermitian=True)
    return (ahead * scale) @ doubt @ (ahead * scale).T


def _jacobian(form: Form, values: np.ndarray, log_n: np.ndarray, log_v: np.ndarray) -> np.ndarray:
    """[m, q]: derivatives by the parameters that no bound holds, by central differences."""
    columns = []
    for index, (name, value) in enumerate(zip(form.names, values, strict=True)):
        if name in _BOUND and value <= 0:
            continue
        step = 1e-5 * max(abs(value), 1e-3)
        ends = [values.copy(), values.copy()]
        ends[0][index] -= step
        ends[1][index] += step
        low, high = (form.predict(end, log_n, log_v) for end in ends)
        columns.append((high - low) / (2 * step))
    return np.stack(columns, axis=1)


class Told:
    """How far chosen runs would tell the forms apart: chi-squares, the lesser form's counts."""

    def __init__(self, seen: Views) -> None:
        self._gap = np.stack([seen.gap, seen.gap])
        self._covariance = seen.covariance.copy()
        self._run = seen.run_sd**2
        self._total = np.zeros(2)

    @property
    def chi_square(self) -> float:
        """Of all runs taken."""
        return float(self._total.min())

    @property
    def value(self) -> float:
        """The chi-square: what the runs taken are worth."""
        return self.chi_square

    def alone(self) -> np.ndarray:
        """[K]: what each candidate would add."""
        variance = np.diagonal(self._covariance, axis1=1, axis2=2) + self._run
        return self._added(self._gap**2 / variance)

    def together(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """What each pair of candidates would add; of one twice, two runs of it."""
        a, b = self._gap[:, first], self._gap[:, second]
        aa = self._covariance[:, first, first] + self._run
        bb = self._covariance[:, second, second] + self._run
        ab = self._covariance[:, first, second]
        return self._added((a * a * bb - 2 * a * b * ab + b * b * aa) / (aa * bb - ab * ab))

    def take(self, index: int) -> None:
        """Make one run: what it shares with others is known from then on."""
        for form in range(2):
            column = self._covariance[form][:, index].copy()
            variance, gap = column[index] + self._run, self._gap[form][index]
            self._total[form] += gap**2 / variance
            self._gap[form] -= column * (gap / variance)
            self._covariance[form] -= np.outer(column, column) / variance

    def _added(self, by_form: np.ndarray) -> np.ndarray:
        return (self._total[:, None] + by_form).min(axis=0) - self.chi_square
