"""Intervals of new runs that a law has not seen: of the law, their LLM's own, and run noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vtc.law import intervals, splitplot
from vtc.law.points import Point, Points
from vtc.law.power import BILLION, central
from vtc.law.rows import Settings, arrays
from vtc.law.varpro import Fits


def foretell(
    row: Mapping[str, Any], kept: Points, out: Sequence[Point], settings: Settings
) -> dict[str, Any]:
    """Columns of the law table: where each point of `out` is expected, at the row's level.

    `row` is the law of `kept`. Each draw adds to a refitted law what is special about an LLM, and
    the noise of a run. Empty for laws without draws.
    """
    log_n, log_v, errors = arrays(kept)
    fit = Fits(*(np.array([row[name]]) for name in ("k", "alpha", "beta", "d", "sse", "sse")))
    if not row["draw_k"] or row["alpha"] is None:
        return {}
    found = intervals.surrogate(log_n, log_v, errors, fit)
    if found.strata is None:
        return {}
    rng = np.random.default_rng([settings.seed, 2])
    n_draws = max(settings.n_draws, 1000)
    draws = intervals.draw_laws(log_n, log_v, fit, found.strata, n_draws, rng)
    new_n, new_v = (np.log([getattr(p, name) / unit for p in out])
                    for name, unit in (("n_params", BILLION), ("visual_tokens", 1.0)))  # fmt: skip
    shape = np.ones(len(out))
    if not found.log_linear:
        shape = fit.k[0] * np.exp(-fit.alpha[0] * new_n - fit.beta[0] * new_v)
    plots = (new_n[:, None] == np.unique(new_n)) * shape[:, None]
    lines = -draws.alpha[:, None] * new_n - draws.beta[:, None] * new_v
    laws = draws.k[:, None] * np.exp(np.minimum(lines, 300.0)) + draws.d[:, None]
    runs = laws + splitplot.draw_new(found.strata, plots, len(laws), rng)
    ends = [central(column.tolist(), row["level"]) for column in runs.T]
    inside = [low <= p.error <= high for (low, high), p in zip(ends, out, strict=True)]
    return {
        "holdout_low": [low for low, _ in ends],
        "holdout_high": [high for _, high in ends],
        "holdout_inside": sum(inside) / len(inside),
    }
