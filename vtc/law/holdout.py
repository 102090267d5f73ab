"""Points held out of a fit, and how well the law predicts them."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from vtc.errors import InputError
from vtc.law.points import MIN_POINTS, Point, Points
from vtc.law.power import from_row
from vtc.tables.quantity import format_count, parse_quantity

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_PATTERN = re.compile(r"\s*(n_params|visual_tokens)\s*(>=|<=|==|>|<)\s*(\S+)\s*")


def parse(condition: str) -> Callable[[Point], bool]:
    """The test of a condition such as 'n_params>=7b' or 'visual_tokens==576'.

    Raises InputError showing the form.
    """
    match = _PATTERN.fullmatch(condition)
    try:
        bound = parse_quantity(match[3]) if match else None
    except ValueError:
        bound = None
    if match is None or bound is None:
        raise InputError(
            f"--holdout '{condition}': write n_params or visual_tokens, one of >= <= == > <, and "
            "a number, as in 'n_params>=7b'"
        )
    name, compare = match[1], _OPERATORS[match[2]]
    return lambda point: compare(getattr(point, name), bound)


def split(points: Points, condition: str) -> tuple[Points, tuple[Point, ...]]:
    """The points to fit and those held out; raises InputError if either side is too small."""
    held = parse(condition)
    out = tuple(point for point in points.points if held(point))
    kept = [point for point in points.points if not held(point)]
    if not out:
        sizes = ", ".join(map(format_count, points.sizes))
        tokens = ", ".join(map(str, sorted({point.visual_tokens for point in points.points})))
        raise InputError(
            f"--holdout '{condition}' matches no point of {points.title}; it has n_params {sizes} "
            f"and visual_tokens {tokens}"
        )
    if len(kept) < MIN_POINTS:
        raise InputError(
            f"--holdout '{condition}' leaves {len(kept)} points of {points.title}; "
            f"a law needs at least {MIN_POINTS}"
        )
    return points.subset(kept), out


def assess(row: Mapping[str, Any], out: tuple[Point, ...], condition: str) -> dict[str, Any]:
    """The holdout columns of the law table: errors of predicting the points held out."""
    if row["alpha"] is None:
        sizes = {point.n_params for point in out} | {row["n_params_min"]}
        if len(sizes) > 1:
            raise InputError(
                f"--holdout '{condition}': the fit has one LLM size, so it has no alpha to predict "
                "another size with; keep at least two sizes in the fit"
            )
    law = from_row({**row, "alpha": row["alpha"] or 0.0})
    pairs = [(law.error(p.n_params, p.visual_tokens), p.error) for p in out]
    gaps = [predicted - measured for predicted, measured in pairs]
    shares = [abs(p - measured) / measured for p, measured in pairs if measured > 0]
    return {
        "holdout": condition,
        "holdout_points": len(out),
        "holdout_rmse": math.sqrt(sum(gap * gap for gap in gaps) / len(gaps)),
        "holdout_bias": sum(gaps) / len(gaps),
        "holdout_mape": sum(shares) / len(shares) if shares else None,
        "holdout_max_ape": max(shares) if shares else None,
        "holdout_n_params": [float(p.n_params) for p in out],
        "holdout_visual_tokens": [float(p.visual_tokens) for p in out],
        "holdout_error": [p.error for p in out],
        "holdout_predicted": [predicted for predicted, _ in pairs],
        "holdout_noise": math.sqrt(sum(gap * gap for gap in gaps) / len(gaps)) / row["run_sd"]
        if row.get("run_sd")
        else None,
    }
