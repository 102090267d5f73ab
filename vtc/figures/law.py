"""Error against FLOPs, a curve a size of LLM, and the best line: the published study's Figure 1.

Source of the layout: arXiv 2411.03312, Figure 1: a at Q = 0 (text in the cache), b at Q = 50. The
last row shows the error against V.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtc.cost.flops import prefill_flops
from vtc.figures.axes import (
    Name,
    apart,
    bare,
    counts_scale,
    flops_said,
    halo,
    plain,
    size_said,
    tokens_scale,
    write_names,
)
from vtc.figures.panel import Panel
from vtc.figures.style import looks, new_figure
from vtc.law.power import PowerLaw, optimal_visual_tokens

CURVE_STEPS = 200
_MOST_WRITTEN = 8  # V beside the points of the smallest LLM.


def draw(panels: Sequence[Panel], text_tokens: Sequence[float]) -> Figure:
    """The figure: a column a task; error against 2 N (Q + V), a row a Q; below, error against V."""
    n_rows = len(text_tokens) + 1
    figure = new_figure(5.4 * len(panels) + 0.4, 3.7 * n_rows + 0.2)
    axes = figure.subplots(n_rows, len(panels), squeeze=False)
    names: dict[Axes, list[Name]] = {}
    for column, panel in enumerate(panels):
        for place, q in zip(axes[:, column], text_tokens, strict=False):
            _flops_axes(place, panel, q, first=q == text_tokens[0])
        names[axes[-1][column]] = _tokens_axes(axes[-1][column], panel)
    for place in axes[:, 0]:
        place.set_ylabel("error (1 - score)")
    write_names(figure, names)
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
    flops = np.array([prefill_flops(n, v, text_tokens) for n, v in pairs])
    errors = np.array([law.error(n, v) for n, v in pairs])
    # With an exponent below zero a larger budget may be better left unspent.
    kept = errors <= np.minimum.accumulate(errors) + 1e-12
    return flops[kept], errors[kept]


def _flops_axes(axes: Axes, panel: Panel, q: float, first: bool) -> None:
    _draw_sizes(axes, panel, lambda n, v: prefill_flops(n, v, q))
    sizes, tokens = panel.points.sizes, _token_range(panel)
    if len(sizes) > 1:
        flops, errors = best_line(panel.law, sizes, tokens, q)
        axes.plot(flops, errors, color="black", linewidth=2.4, alpha=0.8, zorder=4,
                  solid_capstyle="butt", label="best N and V (law)")  # fmt: skip
    _label_tokens(axes, panel, q)
    counts_scale(axes, *axes.dataLim.intervalx, said=flops_said)
    axes.margins(x=0.1)
    axes.set_xlabel(f"LLM prefill, 2 N (Q + V), in FLOPs, Q = {q:g}")
    title = f"{_heading(panel)}\n{_advice(panel, q)}" if first else _advice(panel, q)
    axes.set_title(title.strip(), fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="best")


def _tokens_axes(axes: Axes, panel: Panel) -> list[Name]:
    names = _draw_sizes(axes, panel, lambda n, v: v)
    tokens_scale(axes, "x", [point.visual_tokens for point in panel.points.points])
    axes.set_xlabel("visual tokens V")
    return names


def _draw_sizes(axes: Axes, panel: Panel, x_of: Any) -> list[Name]:
    """A curve of the law and the measured points for each size; points held out stay hollow.

    Returns the sizes as names of the curves' right ends.
    """
    low, high = _token_range(panel)
    curve = np.geomspace(low, high, CURVE_STEPS).tolist()
    sizes, names = panel.points.sizes, []
    for n, look in zip(sizes, looks(len(sizes)), strict=True):
        axes.plot([x_of(n, v) for v in curve], [panel.law.error(n, v) for v in curve],
                  color=look["color"], linestyle=look["linestyle"], linewidth=1.3,
                  zorder=2)  # fmt: skip
        points = [point for point in panel.points.points if point.n_params == n]
        hollow = [panel.held_out(point) for point in points]
        label = f"{size_said(n)}{' (held out)' if all(hollow) else ''}"
        names.append(Name(x_of(n, high), panel.law.error(n, high), label))
        for open_marker in sorted(set(hollow)):
            shown = [p for p, held in zip(points, hollow, strict=True) if held == open_marker]
            axes.plot(
                [x_of(n, p.visual_tokens) for p in shown], [p.error for p in shown],
                linestyle="none", marker=look["marker"], markersize=5.5, color=look["color"],
                markerfacecolor="white" if open_marker else look["color"],
                label=label if open_marker == hollow[0] else None, zorder=3,
            )  # fmt: skip
    bare(axes)
    return names


def _label_tokens(axes: Axes, panel: Panel, q: float) -> None:
    """Write V beside the points of the smallest LLM: to the left of its curve there is room."""
    n = panel.points.sizes[0]
    measured = sorted({p.visual_tokens for p in panel.points.points if p.n_params == n})
    for v in measured if len(measured) <= _MOST_WRITTEN else apart(measured, 1 / _MOST_WRITTEN):
        lowest = min(
            p.error for p in panel.points.points if (p.n_params, p.visual_tokens) == (n, v)
        )
        axes.annotate(
            f"V={v:g}" if v == _token_range(panel)[0] else f"{v:g}",
            (prefill_flops(n, v, q), lowest), xytext=(-5, -4), textcoords="offset points",
            ha="right", va="top", fontsize=7, color="0.25", zorder=6, path_effects=halo(),
        )  # fmt: skip


def _heading(panel: Panel) -> str:
    """The task and its exponents."""
    row = panel.row
    name = plain(row["task"] if row.get("group") is None else f"{row['task']}, {row['group']}")
    if row["ratio"] is None:
        return f"{name}: β = {row['beta']:.3g}"
    interval = ""
    if row["ratio_low"] is not None and row["ratio_high"] is not None:
        interval = f" [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    return (
        f"{name}: α = {row['alpha']:.3g}, β = {row['beta']:.3g}, α/β = {row['ratio']:.2f}{interval}"
    )


def _advice(panel: Panel, q: float) -> str:
    """The best V at Q text tokens; nothing of a law without a ratio."""
    if panel.row["ratio"] is None:
        return ""
    best = optimal_visual_tokens(panel.row["ratio"], q)
    if np.isinf(best):
        return f"best V at Q = {q:g}: as many as possible"
    return f"best V at Q = {q:g}: {'as few as possible' if best < 1 else f'{best:.3g}'}"


def _token_range(panel: Panel) -> tuple[int, int]:
    tokens = [point.visual_tokens for point in panel.points.points]
    return min(tokens), max(tokens)
