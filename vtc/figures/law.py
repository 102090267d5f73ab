"""Error against FLOPs, a curve a size of LLM, and the best line: the published study's Figure 1.

Source of the layout: arXiv 2411.03312, Figure 1. A second row shows the error against V.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from vtc.cost.flops import prefill_flops
from vtc.figures.panel import Panel
from vtc.figures.style import MARKERS, new_figure, ordered_colors
from vtc.law.power import PowerLaw, optimal_visual_tokens
from vtc.tables.quantity import format_count

CURVE_STEPS = 200


def draw(panels: Sequence[Panel], text_tokens: float) -> Figure:
    """The figure: a column a task; above, error against 2 N (Q + V); below, error against V."""
    figure = new_figure(5.2 * len(panels) + 0.4, 7.6)
    axes = figure.subplots(2, len(panels), squeeze=False)
    for column, panel in enumerate(panels):
        _flops_axes(axes[0][column], panel, text_tokens)
        _tokens_axes(axes[1][column], panel)
        for row in range(2):
            axes[row][column].set_ylabel("error (1 - score)" if column == 0 else "")
    return figure


def best_line(
    law: PowerLaw, sizes: Sequence[int], tokens: tuple[int, int], text_tokens: float
) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs and errors [S] of the law's best choices with N and V inside the measured range.

    Inside the range the best V is V*, whatever the budget. Below the budget of the smallest N at
    V*, only V can still shrink; above that of the largest, only V can still grow.
    """
    low, high = tokens
    ratio = law.ratio
    free = optimal_visual_tokens(ratio, text_tokens) if ratio else (np.inf if law.beta > 0 else 0)
    best = float(np.clip(free, low, high))
    below, above = np.geomspace(low, best, 50), np.geomspace(best, high, 50)
    between = np.geomspace(sizes[0], sizes[-1], CURVE_STEPS)
    n = np.concatenate([np.full(50, sizes[0]), between, np.full(50, sizes[-1])])
    v = np.concatenate([below, np.full(CURVE_STEPS, best), above])
    pairs = list(zip(n.tolist(), v.tolist(), strict=True))
    return (
        np.array([prefill_flops(n, v, text_tokens) for n, v in pairs]),
        np.array([law.error(n, v) for n, v in pairs]),
    )


def _flops_axes(axes: Axes, panel: Panel, q: float) -> None:
    _draw_sizes(axes, panel, lambda n, v: prefill_flops(n, v, q))
    sizes, tokens = panel.points.sizes, _token_range(panel)
    if len(sizes) > 1:
        flops, errors = best_line(panel.law, sizes, tokens, q)
        axes.plot(flops, errors, color="black", linestyle="--", linewidth=1.8, zorder=4,
                  label="best N and V (law)")  # fmt: skip
    _label_tokens(axes, panel, q)
    axes.margins(x=0.08)
    axes.set_xlabel(f"LLM prefill FLOPs, 2 N (Q + V), Q = {q:g}")
    axes.set_title(_title(panel, q), fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="upper right")


def _tokens_axes(axes: Axes, panel: Panel) -> None:
    _draw_sizes(axes, panel, lambda n, v: v)
    ticks = sorted({point.visual_tokens for point in panel.points.points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_xlabel("visual tokens V")


def _draw_sizes(axes: Axes, panel: Panel, x_of: Any) -> None:
    """A curve of the law and the measured points for each size; points held out stay hollow."""
    low, high = _token_range(panel)
    curve = np.geomspace(low, high, CURVE_STEPS).tolist()
    sizes = panel.points.sizes
    for index, (n, color) in enumerate(zip(sizes, ordered_colors(len(sizes)), strict=True)):
        axes.plot([x_of(n, v) for v in curve], [panel.law.error(n, v) for v in curve],
                  color=color, linewidth=1.2, zorder=2)  # fmt: skip
        points = [point for point in panel.points.points if point.n_params == n]
        hollow = [panel.held_out(point) for point in points]
        label = f"{format_count(n)}{' (held out)' if all(hollow) else ''}"
        for open_marker in sorted(set(hollow)):
            shown = [p for p, held in zip(points, hollow, strict=True) if held == open_marker]
            axes.plot(
                [x_of(n, p.visual_tokens) for p in shown], [p.error for p in shown],
                linestyle="none", marker=MARKERS[index % len(MARKERS)], markersize=5.5,
                color=color, markerfacecolor="white" if open_marker else color,
                label=label if open_marker == hollow[0] else None, zorder=3,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label_tokens(axes: Axes, panel: Panel, q: float) -> None:
    """Write V beside the points of the smallest LLM: to the left of its curve there is room."""
    n = panel.points.sizes[0]
    for v in sorted({p.visual_tokens for p in panel.points.points if p.n_params == n}):
        lowest = min(
            p.error for p in panel.points.points if (p.n_params, p.visual_tokens) == (n, v)
        )
        axes.annotate(
            f"V={v}" if v == _token_range(panel)[0] else str(v),
            (prefill_flops(n, v, q), lowest), xytext=(-5, -4), textcoords="offset points",
            ha="right", va="top", fontsize=7, color="0.35",
        )  # fmt: skip


def _title(panel: Panel, q: float) -> str:
    row = panel.row
    name = row["task"] if row.get("group") is None else f"{row['task']}, {row['group']}"
    if row["ratio"] is None:
        return f"{name}: β = {row['beta']:.3g}"
    interval = ""
    if row["ratio_low"] is not None and row["ratio_high"] is not None:
        interval = f" [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    best = optimal_visual_tokens(row["ratio"], q)
    tokens = f"best V = {best:.3g}" if np.isfinite(best) else "best V: as many as possible"
    if best < 1:
        tokens = "best V: as few as possible"
    return (
        f"{name}: α = {row['alpha']:.3g}, β = {row['beta']:.3g}, "
        f"α/β = {row['ratio']:.2f}{interval}\n{tokens}"
    )


def _token_range(panel: Panel) -> tuple[int, int]:
    tokens = [point.visual_tokens for point in panel.points.points]
    return min(tokens), max(tokens)
