"""Forms of the law against one another: criteria, predictions left out, ties, what they advise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vtc.cost.flops import affordable_n_params, prefill_flops
from vtc.errors import InputError, NoAnswerError
from vtc.law.compare_words import describe
from vtc.law.estimate import arrays, refuse_hopeless
from vtc.law.forms import FORMS, Form
from vtc.law.points import Points
from vtc.law.power import BILLION
from vtc.law.varpro import fit_many
from vtc.tables.quantity import parse_quantity
from vtc.tables.specs import FORMS as TABLE

__all__ = ["Interest", "certificate", "compare", "describe", "parse_at"]

# AICc takes the errors for independent, which those of one LLM are not: a small gap says nothing.
AICC_TIE = 4.0
V_STEPS = 2000


@dataclass(frozen=True)
class Interest:
    """Where to compare: points (N, V), None for beyond the data, and a budget, None for theirs."""

    at: tuple[tuple[float, float], ...] | None = None
    flops: float | None = None
    text_tokens: float = 50.0


class _Fitted(NamedTuple):
    form: Form
    values: np.ndarray
    sse: float
    aicc: float
    by_point: np.ndarray | None  # [n] squared errors of predicting each point without it
    by_size: np.ndarray | None  # [S] mean squared errors of predicting each size without it


def parse_at(text: str | None) -> tuple[tuple[float, float], ...] | None:
    """(N, V) pairs of a text such as '14b:1,14b:576'; raises InputError showing the form."""
    if text is None:
        return None
    pairs = []
    for part in text.split(","):
        try:
            n, v = (parse_quantity(half) for half in part.split(":"))
        except ValueError:
            n = v = 0.0
        # A finite N below a million is a size written in billions.
        if not (1e6 <= n < math.inf and 1 <= v < math.inf):
            raise InputError(
                f"--at '{part}': write N:V, an LLM size and visual tokens of at least 1, as in "
                "14b:1,14b:576"
            )
        pairs.append((n, v))
    return tuple(pairs)


def compare(points: Points, names: Sequence[str], interest: Interest) -> list[dict[str, Any]]:
    """Rows of the forms table for one task, the lowest AICc first.

    Raises NoAnswerError with fewer than two LLM sizes, or if no form can be fitted.
    """
    log_n, log_v, errors = arrays(points)
    refuse_hopeless(points, log_n, log_v, errors)
    if len(points.sizes) < 2:
        raise NoAnswerError(
            f"no comparison for {points.title}: one LLM size cannot tell forms of a law in "
            "N and V apart; add runs of another size"
        )
    fits = [_fit(FORMS[name], log_n, log_v, errors) for name in names]
    found = sorted((fit for fit in fits if fit is not None), key=lambda f: (f.aicc, f.sse))
    if not found:
        raise NoAnswerError(f"no law for {points.title}: no form asked for fits the points")
    ties = _ties(found)
    rows = []
    for rank, fitted in enumerate(found, start=1):
        row = {
            "task": points.task,
            "rank": rank,
            "form": fitted.form.name,
            "formula": fitted.form.formula,
            "names": list(fitted.form.names),
            "values": [float(value) for value in fitted.values],
            "n_convention": points.convention,
            "n_points": len(errors),
            "sse": fitted.sse,
            "rmse": math.sqrt(fitted.sse / len(errors)),
            "aicc": fitted.aicc if math.isfinite(fitted.aicc) else None,
            "aicc_gap": _gap(fitted.aicc, found[0].aicc),
            "loo_point_rmse": _rms(fitted.by_point),
            "loo_size_rmse": _rms(fitted.by_size),
            "ties": ties[fitted.form.name],
            "flags": _flags(fitted, log_n, log_v, errors),
            "data_sha": points.sha(),
        }
        rows.append(TABLE.complete(row | _advice(fitted, points, interest, row["flags"])))
    return rows


def _fit(form: Form, log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray) -> _Fitted | None:
    values = form.fit(log_n, log_v, errors, None)
    if values is None or not np.isfinite(values).all():
        return None
    residual = form.predict(values, log_n, log_v) - errors
    sse, n, p = float(residual @ residual), len(errors), len(values) + 1
    aicc = math.inf
    if sse > 0 and n > p + 1:
        aicc = n * math.log(sse / n) + 2 * p + 2 * p * (p + 1) / (n - p - 1)
    elif sse == 0 and n > p + 1:
        aicc = -math.inf

    def without(keep: np.ndarray) -> np.ndarray | None:
        """Squared errors of predicting the points left out; None if no fit can."""
        if keep.sum() < len(values) or np.ptp(log_n[keep]) == 0 or np.ptp(log_v[keep]) == 0:
            return None
        again = form.fit(log_n[keep], log_v[keep], errors[keep], values)
        if again is None:
            return None
        gap = form.predict(again, log_n[~keep], log_v[~keep]) - errors[~keep]
        return gap**2 if np.isfinite(gap).all() else None

    by_point = [without(np.arange(n) != index) for index in range(n)]
    sizes = np.unique(log_n)
    by_size = [without(log_n != size) for size in sizes]
    apart = _together(by_size) if len(sizes) > 2 else None
    return _Fitted(form, values, sse, aicc, _together(by_point), apart)


def _together(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """The mean of each part, or None if a part is missing."""
    if any(part is None for part in parts):
        return None
    return np.array([part.mean() for part in parts if part is not None])


def _rms(squares: np.ndarray | None) -> float | None:
    return None if squares is None else float(np.sqrt(squares.mean()))


def _gap(aicc: float, best: float) -> float | None:
    return aicc - best if math.isfinite(aicc) and math.isfinite(best) else None


def _ties(found: list[_Fitted]) -> dict[str, list[str]]:
    """For each form the rankings whose leader it is, or that it cannot be told from."""
    ties: dict[str, list[str]] = {fitted.form.name: [] for fitted in found}
    best = found[0].aicc
    for fitted in found:
        if fitted is found[0] or (fitted.aicc - best < AICC_TIE and math.isfinite(best)):
            ties[fitted.form.name].append("aicc")
    for criterion, squares in (
        ("loo_point", {f.form.name: f.by_point for f in found}),
        ("loo_size", {f.form.name: f.by_size for f in found}),
    ):
        known = {name: values for name, values in squares.items() if values is not None}
        if not known:
            continue
        leader = min(known, key=lambda name: float(known[name].mean()))
        for name, values in known.items():
            # Paired: the same points are predicted by both, so what they share cancels.
            gaps = values - known[leader]
            if gaps.mean() <= gaps.std(ddof=1) / math.sqrt(len(gaps)):
                ties[name].append(criterion)
    return ties


def _flags(fitted: _Fitted, log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray) -> list[str]:
    values = dict(zip(fitted.form.names, fitted.values, strict=True))
    flags = []
    if values.get("d", 1) <= 0 or values.get("e", 1) <= 0 or values.get("v0", 1) <= 0:
        flags.append("boundary")
    if values.get("v0", 0) >= 7 * np.exp(log_v.max()):
        flags.append("boundary")
    if _rank(fitted, log_n, log_v) < len(values):
        flags.append("not_identified")
    # D = 0 and yet the limit D to minus infinity is better: no exponent is the data's own.
    bound = fitted.form.name == "power" and values["d"] <= 0
    if bound and _log_linear_sse(log_n, log_v, errors) < fitted.sse:
        flags += ["log_linear_limit", "not_identified"]
    return sorted(set(flags))


def _log_linear_sse(log_n: np.ndarray, log_v: np.ndarray, errors: np.ndarray) -> float:
    """The sum of squares of the power law's limit D to minus infinity."""
    columns = np.stack([np.ones_like(log_n), -log_n, -log_v], axis=1)
    gap = columns @ np.linalg.lstsq(columns, errors, rcond=None)[0] - errors
    return float(gap @ gap)


def _rank(fitted: _Fitted, log_n: np.ndarray, log_v: np.ndarray) -> int:
    """The rank of the derivatives of the prediction by the parameters."""
    columns = []
    for index, value in enumerate(fitted.values):
        step = 1e-6 * max(abs(value), 1e-3)
        moved = fitted.values.copy()
        moved[index] += step
        column = fitted.form.predict(moved, log_n, log_v)
        column = column - fitted.form.predict(fitted.values, log_n, log_v)
        columns.append(column / max(float(np.linalg.norm(column)), 1e-300))
    return int(np.linalg.matrix_rank(np.stack(columns, axis=1), tol=1e-5))


def _advice(
    fitted: _Fitted, points: Points, interest: Interest, flags: list[str]
) -> dict[str, Any]:
    """What a form predicts at the points of interest, and its best V and N under the budget."""
    tokens = [point.visual_tokens for point in points.points]
    low, high = min(tokens), max(tokens)
    largest, q = points.sizes[-1], interest.text_tokens
    at = interest.at or ((2.0 * largest, float(low)), (2.0 * largest, float(high)))
    flops = interest.flops or prefill_flops(largest, low, q)
    v = np.geomspace(low, high, V_STEPS)
    n = np.array([affordable_n_params(flops, float(one), q) for one in v])
    errors = fitted.form.predict(fitted.values, np.log(n / BILLION), np.log(v))
    best = int(errors.argmin())
    if best in (0, V_STEPS - 1):
        flags.append("best_v_at_end")
    if not points.sizes[0] <= n[best] <= largest:
        flags.append("extrapolates")
    pairs = np.array(at)
    predicted = fitted.form.predict(
        fitted.values, np.log(pairs[:, 0] / BILLION), np.log(pairs[:, 1])
    )
    return {
        "at_n_params": pairs[:, 0].tolist(),
        "at_visual_tokens": pairs[:, 1].tolist(),
        "at_error": predicted.tolist(),
        "flops": flops,
        "text_tokens": q,
        "best_v": float(v[best]),
        "best_n_params": float(n[best]),
        "best_error": float(errors[best]),
    }


def certificate(points: Points) -> str:
    """The power law's SSE at its optimum and on the faces that bound it, in a sentence."""
    log_n, log_v, errors = arrays(points)
    rows = errors[None]
    top = 1 - 1e-9
    free, zero = fit_many(log_n, log_v, rows), fit_many(log_n, log_v, rows, d_max=0.0)
    most = fit_many(log_n, log_v, rows, d_min=top)
    limit = _log_linear_sse(log_n, log_v, errors)
    most_sse = (
        f"{most.sse[0]:.6g}" if np.isfinite(most.sse[0]) else "no law (every error lies below)"
    )
    return (
        f"  Power law's sum of squares: optimum {free.sse[0]:.6g}; at D = 0 {zero.sse[0]:.6g}; "
        f"at D = 1 {most_sse}; log-linear limit {limit:.6g}."
    )
