"""What a law says of points held out of its fit, in plain sentences. Pure Python."""

from collections.abc import Mapping
from typing import Any

from vtc.tables.quantity import format_count

# Points that are told one by one.
_MOST = 14


def sentences(row: Mapping[str, Any]) -> list[str]:
    """Sentences on the holdout columns of a row of the law table."""
    shares = ""
    if row["holdout_mape"] is not None:
        shares = (
            f" ({row['holdout_mape']:.2%} of the measured error on average, at most "
            f"{row['holdout_max_ape']:.2%})"
        )
    noise = f", {row['holdout_rmse'] / row['rmse']:.2g} times the fit's" if row["rmse"] > 0 else ""
    units = ""
    if row.get("holdout_noise") is not None:
        units = f"; that is {row['holdout_noise']:.2g} times the noise of a run"
    inside = ""
    if row.get("holdout_inside") is not None:
        inside = (
            f"; {round(row['holdout_inside'] * row['holdout_points'])} of them lie in the "
            f"{row['level']:.0%} interval of a new run"
        )
    lines = [
        f"Held out ({row['holdout']}, {row['holdout_points']} points): rmse "
        f"{row['holdout_rmse']:.4f}{noise}, bias {row['holdout_bias']:+.4f}{shares}{units}{inside}."
    ]
    points = _points(row)
    lines += [f"  {line}" for line in points[:_MOST]]
    if len(points) > _MOST:
        lines.append(f"  and {len(points) - _MOST} more (columns holdout_*).")
    return lines


def _points(row: Mapping[str, Any]) -> list[str]:
    lines = []
    lows, highs = (row.get(f"holdout_{end}") for end in ("low", "high"))
    for index, (n, v, measured, predicted) in enumerate(
        zip(
            *(row[f"holdout_{name}"]
              for name in ("n_params", "visual_tokens", "error", "predicted")),
            strict=True,
        )
    ):  # fmt: skip
        span = f" [{lows[index]:.3f}, {highs[index]:.3f}]" if lows and highs else ""
        gap = predicted - measured
        share = f"{gap / measured:+.1%}" if measured > 0 else f"{gap:+.4f}"
        if row.get("run_sd"):
            share += f", {gap / row['run_sd']:+.1f} times the noise"
        lines.append(
            f"N = {format_count(n)}, V = {v:g}: predicted {predicted:.3f}{span}, measured "
            f"{measured:.3f} ({share})."
        )
    return lines
