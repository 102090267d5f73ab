"""The runs that could be made, as a design sees them beside those that were."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vtc.law.design import Line, Sums, sums
from vtc.law.points import Points
from vtc.law.power import BILLION
from vtc.law.rows import arrays

OWN_LEVEL = ("", "")
"""Family and compressor of a run whose level is that of the points."""


@dataclass(frozen=True)
class Candidate:
    """A run that could be made, `seeds` times at most, for `hours` GPU-hours each.

    `level` is empty where family and compressor are those of the points. Another has a level of its
    own, as `fit --by ... --share exponents` gives a group: its runs tell the exponents only by how
    they differ from one another.
    """

    llm: str
    n_params: int
    visual_tokens: int
    hours: float
    flops: float | None = None
    compressor: str | None = None
    family: str | None = None
    seeds: int = 1
    level: tuple[str, str] = OWN_LEVEL

    @property
    def plot(self) -> tuple[str, int]:
        """What its LLM's peculiarity is shared with: an LLM has one under every compressor."""
        return self.level[0], self.n_params

    @property
    def cell(self) -> tuple:
        """What repeats of it share."""
        return *self.level, self.n_params, self.visual_tokens


class Pool(NamedTuple):
    """The measured runs and K candidates, as sums and one by one."""

    base: Sums  # of the measured runs
    each: Sums  # [K] of every candidate alone
    unit: float  # mean square of the measured runs' plots
    own_plots: np.ndarray  # [n, S] of the measured runs
    plots: np.ndarray  # [K, S]
    levels: np.ndarray  # [K, L] which level of its own each has, if any
    log_n: np.ndarray  # [K]
    log_v: np.ndarray  # [K]
    hours: np.ndarray  # [K]
    seeds: np.ndarray  # [K]
    measured: np.ndarray  # [K] runs of the same cell that there are


def pool_of(points: Points, line: Line, candidates: Sequence[Candidate]) -> Pool:
    """The design of the points and of each candidate, in the same parameters and LLMs."""
    log_n, log_v, _ = arrays(points)
    own = [("", point.n_params) for point in points.points]
    plots = list(dict.fromkeys([*own, *(one.plot for one in candidates)]))
    levels = list(dict.fromkeys(one.level for one in candidates if one.level != OWN_LEVEL))
    new_n = np.log(np.array([one.n_params for one in candidates], dtype=float) / BILLION)
    new_v = np.log(np.array([one.visual_tokens for one in candidates], dtype=float))

    def design(n: np.ndarray, v: np.ndarray, at_plot: list, at_level: list) -> tuple:
        shape = line.shape(n, v)
        member = np.array([[key == level for level in levels] for key in at_level], dtype=float)
        jacobian = line.jacobian(n, v)
        if levels:
            jacobian = np.concatenate([jacobian, member * shape[:, None]], axis=1)
        hit = np.array([[key == plot for plot in plots] for key in at_plot], dtype=float)
        return jacobian, hit * shape[:, None]

    jacobian, hit = design(log_n, log_v, own, [OWN_LEVEL] * len(own))
    extra, new_hit = design(
        new_n, new_v, [one.plot for one in candidates], [one.level for one in candidates]
    )
    there = Counter((*OWN_LEVEL, *point[:2]) for point in points.points)
    return Pool(
        sums(jacobian, hit),
        sums(extra[:, None, :], new_hit[:, None, :]),
        float((hit * hit).sum(axis=1).mean()),
        hit,
        new_hit,
        extra[:, line.n_columns :],
        new_n,
        new_v,
        np.array([one.hours for one in candidates]),
        np.array([one.seeds for one in candidates]),
        np.array([there[one.cell] for one in candidates]),
    )
