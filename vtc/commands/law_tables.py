"""Laws and forms as a person reads them: an estimate with its interval in one cell."""

from collections.abc import Mapping, Sequence
from typing import Any

_LAW = {
    "alpha": "alpha",
    "beta": "beta",
    "k": "k",
    "d": "D",
    "ratio": "alpha/beta",
    "v_star": "best V",
    "rmse": "rmse",
    "n_points": "points",
    "n_sizes": "sizes",
    "flags": "flags",
}
_FORMS = {
    "task": "task",
    "rank": "rank",
    "form": "form",
    "aicc": "AICc",
    "loo_point_rmse": "without a point",
    "loo_size_rmse": "without a size",
    "best_v": "best V",
    "ties": "ties",
    "rmse": "rmse",
    "values": "values",
    "at_error": "error at",
    "best_error": "best error",
    "flags": "flags",
}
Shown = tuple[list[dict[str, Any]], dict[str, str]]


def laws(rows: Sequence[Mapping[str, Any]], by: str | None) -> Shown:
    """Rows of the law table with their intervals, and the columns with their headings."""
    first = {"task": "task"} | ({"group": by} if by else {})
    shown = [
        {**row, "k": _short(row["k"]), "d": _short(row["d"]), "alpha": _short(row["alpha"]),
         "beta": _short(row["beta"]), "rmse": _short(row["rmse"], 2),
         "ratio": _with_interval(row, "ratio"), "v_star": _with_interval(row, "v_star")}
        for row in rows
    ]  # fmt: skip
    return shown, first | _LAW


def forms(rows: Sequence[Mapping[str, Any]]) -> Shown:
    """Rows of the forms table, and the columns with their headings."""
    names = ("loo_point_rmse", "loo_size_rmse", "rmse")
    shown = [
        {**row, **{name: _short(row[name], 2) for name in names}, "best_v": _short(row["best_v"])}
        for row in rows
    ]
    return shown, _FORMS


def _with_interval(row: Mapping[str, Any], name: str) -> str | None:
    """An estimate and its interval, such as 4.7 [4.32, 5.15]; an open end is a dash.

    A best V without bound is the most that there are, where a ratio says so.
    """
    value, ends = row[name], (row[f"{name}_low"], row[f"{name}_high"])
    most = name == "v_star" and row["ratio"] is not None
    if value is None and not most:
        return None
    if name == "v_star":
        # Fewer visual tokens than one there are none, whatever the formula says.
        value, *ends = (None if cell is None else max(cell, 1.0) for cell in (value, *ends))
    said = "most" if value is None else f"{value:.3g}"
    if all(end is None for end in ends):
        return said
    open_end = "most" if most else "-"
    low, high = (open_end if end is None else f"{end:.3g}" for end in ends)
    return f"{said} [{low}, {high}]"


def _short(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")
