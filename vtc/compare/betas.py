"""The exponent of V of each compressor: what `vtc fit --by compressor` gives, alpha shared."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from vtc.errors import NoAnswerError
from vtc.law.points import MIN_POINTS
from vtc.law.run import Fitted, Material, Request, fit_laws
from vtc.law.studentt import t_quantile
from vtc.tables.compressors import compressor_name

Row = Mapping[str, Any]
Key = tuple[str, str | None, str | None, str]
"""Task, benchmark (None: all of the task), encoder, and the compressor with its settings."""


class Beta(NamedTuple):
    """An exponent of V and the ends of its interval, with the flags of its fit."""

    value: float
    low: float | None
    high: float | None
    flags: tuple[str, ...] = ()

    @property
    def told(self) -> bool:
        """Whether the points tell it: with few V a floor D explains a curve as well as beta."""
        return not {"weakly_identified_exponents", "beta_may_be_zero"} <= set(self.flags)


def betas(rows: Sequence[Row], by: str, level: float) -> dict[Key, Beta]:
    """The beta of every compressor of scores rows that has a law.

    Of several LLM sizes alpha is shared by the compressors of a task; of one size there is no
    alpha, and each law is fitted alone. Compressors of one V, or of fewer than four runs, have
    none.
    """
    parts: dict[tuple[str, str | None, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        benchmark = row["benchmark"] if by == "benchmark" else None
        parts[row["task"], benchmark, row.get("encoder")].append(row)
    found: dict[Key, Beta] = {}
    for key, own in parts.items():
        usable = _usable(own)
        names = list(dict.fromkeys(compressor_name(row) for row in usable))
        for law in _laws(usable, len(names), level):
            name = law.points.group or names[0]
            row = law.row
            flags = tuple(row["flags"])
            found[(*key, str(name))] = Beta(
                row["beta"], row.get("beta_low"), row.get("beta_high"), flags
            )
    return found


def slopes(rows: Sequence[Row], by: str, level: float) -> dict[Key, Beta]:
    """beta with D held at 0: the slope of -ln(error) over ln V, each LLM at a level of its own.

    Least squares, the interval Student's t of the residuals of single runs. Compressors of one V,
    of too few runs for an interval, or with an error of 0 have none.
    """
    parts: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        benchmark = row["benchmark"] if by == "benchmark" else None
        name = str(compressor_name(row))
        parts[row["task"], benchmark, row.get("encoder"), name].append(row)
    found = {key: _slope(own, level) for key, own in parts.items()}
    return {key: slope for key, slope in found.items() if slope is not None}


def _slope(rows: Sequence[Row], level: float) -> Beta | None:
    runs: dict[tuple, list[float]] = defaultdict(list)
    for row in rows:
        runs[row["n_params"], row["backbone"], row["run_id"], row["visual_tokens"]].append(
            1 - row["score"]
        )
    errors = {key: math.fsum(own) / len(own) for key, own in runs.items()}
    if min(errors.values()) <= 0:
        return None
    llms: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for (n_params, backbone, _, tokens), error in errors.items():
        llms[n_params, backbone].append((math.log(tokens), -math.log(error)))
    # Each LLM has its own level: only what moves within one tells the slope.
    moved = [
        (x - fmean(one[0] for one in own), y - fmean(one[1] for one in own))
        for own in llms.values()
        for x, y in own
    ]
    spread, df = math.fsum(x * x for x, _ in moved), len(moved) - len(llms) - 1
    if spread <= 0 or df < 1:
        return None
    slope = math.fsum(x * y for x, y in moved) / spread
    residual = math.fsum((y - slope * x) ** 2 for x, y in moved)
    half = t_quantile((1 + level) / 2, df) * math.sqrt(residual / df / spread)
    return Beta(slope, slope - half, slope + half)


def _usable(rows: Sequence[Row]) -> list[Row]:
    tokens: dict[str | None, set[int]] = defaultdict(set)
    runs: dict[str | None, set[tuple]] = defaultdict(set)
    for row in rows:
        name = compressor_name(row)
        tokens[name].add(row["visual_tokens"])
        runs[name].add((row["run_id"], row["visual_tokens"]))
    return [
        row
        for row in rows
        if len(tokens[compressor_name(row)]) > 1
        and len(runs[compressor_name(row)]) >= MIN_POINTS
        and not row.get("visual_tokens_repeated")
    ]


def _laws(rows: Sequence[Row], n_compressors: int, level: float) -> list[Fitted]:
    if not n_compressors:
        return []
    several = len({row["n_params"] for row in rows}) > 1
    request = Request(
        table="scores",
        by="compressor" if n_compressors > 1 else None,
        share="alpha" if several and n_compressors > 1 else None,
        level=level,
        n_draws=0,
    )
    try:
        # Scores that V does not move let a search run to exponents that overflow; it turns back.
        with np.errstate(over="ignore", invalid="ignore"):
            return fit_laws(request, Material(rows), lambda reason: None)
    except NoAnswerError:
        return []
