"""Laws edited by hand that contradict themselves: estimate, interval and draws are of one fit."""

import math
from collections.abc import Mapping
from typing import Any

from vtc.errors import InputError
from vtc.law.power import from_row

# Of the drawn errors' own range: an estimate at a bound lies at its draws' edge, hardly beyond.
_SLACK = 1.0
_ROUNDING = 1e-3
# An error is a share; at a corner without points a fitted law may pass 1, hardly by as much.
_MOST = 10.0
# Fewer draws than these may well lie to one side of their estimate.
_MIN_DRAWS = 20


def refuse_contradictions(row: Mapping[str, Any], where: str) -> None:
    """Raise InputError if the estimate cannot be that of its own interval, draws or range.

    alpha/beta must lie within ratio_low and ratio_high, and the errors predicted at the corners of
    what was fitted must be shares, about where those of the draws lie.
    """
    law = from_row(row)
    _refuse_ratio(row, law.ratio, where)
    for n_params in (row["n_params_min"], row["n_params_max"]):
        for v in (row["visual_tokens_min"], row["visual_tokens_max"]):
            at = f"at N = {n_params / 1e9:g}B and V = {v}"
            error = law.error(n_params, v)
            if not error <= _MOST:
                raise InputError(
                    f"{where}: alpha {law.alpha:g} and beta {law.beta:g} predict an error of "
                    f"{error:.3g} {at}, within what was fitted; an error is a share in [0, 1]"
                )
            drawn = sorted(type(law)(*draw).error(n_params, v) for draw in law.draws)
            if len(drawn) < _MIN_DRAWS:
                continue
            slack = max(_SLACK * (drawn[-1] - drawn[0]), _ROUNDING)
            if not drawn[0] - slack <= error <= drawn[-1] + slack:
                raise InputError(
                    f"{where}: k, alpha, beta and d predict an error of {error:.3g} {at}, its "
                    f"draws {drawn[0]:.3g} to {drawn[-1]:.3g}: they are of another law; take both "
                    "from one fit, or write [] for the draws"
                )


def _refuse_ratio(row: Mapping[str, Any], ratio: float | None, where: str) -> None:
    low, high = (row[f"ratio_{end}"] for end in ("low", "high"))
    if ratio is None or low is None or high is None:
        return
    if not low * (1 - _ROUNDING) <= ratio <= high * (1 + _ROUNDING) or not math.isfinite(ratio):
        raise InputError(
            f"{where}: alpha/beta is {ratio:.3g}, outside its own interval [{low:.3g}, "
            f"{high:.3g}]; take both from one fit, or leave ratio_low and ratio_high empty"
        )
