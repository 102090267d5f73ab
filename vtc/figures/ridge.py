"""The valley of the fit over alpha and beta: which pairs of exponents the data admit.

At every pair the best k > 0 and 0 <= D < 1 are a line's (closed form). The regions are those of an
F test with 2 and n - 4 degrees of freedom, which takes the errors for independent (docs/laws.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vtc.errors import NoAnswerError
from vtc.figures.axes import bare, plain
from vtc.figures.panel import Panel
from vtc.figures.style import new_figure
from vtc.law.rows import arrays

LEVELS = (0.5, 0.95, 0.99)
CELLS = 240
_D_MAX = 1 - 1e-9
_GREYS = ("0.6", "0.77", "0.9")
_TRIES = 12  # Times that the range grows until the outermost region is whole.

Array = np.ndarray


class Valley(NamedTuple):
    """Exponents [A] and [B], the sum of squares [B, A] at each pair, and the p of its rise."""

    alpha: Array
    beta: Array
    sse: Array
    p: Array


def sums_of_squares(panel: Panel, alpha: Array, beta: Array) -> Array:
    """[B, A]: the least sum of squares with k > 0 and 0 <= D < 1 at each pair of exponents.

    Infinite where no k above zero fits.
    """
    log_n, log_v, errors = arrays(_fitted(panel))
    found = np.empty((len(beta), len(alpha)))
    across = np.exp(-np.outer(alpha, log_n - log_n.mean()))
    for line, slope in enumerate(beta.tolist()):
        x = across * np.exp(-slope * (log_v - log_v.mean()))
        centred = x - x.mean(axis=1, keepdims=True)
        steep = centred @ errors / np.maximum((centred**2).sum(axis=1), 1e-300)
        d = np.clip(errors.mean() - steep * x.mean(axis=1), 0.0, _D_MAX)[:, None]
        k = (x * (errors - d)).sum(axis=1) / (x * x).sum(axis=1)
        gaps = k[:, None] * x + d - errors
        found[line] = np.where(k > 0, (gaps * gaps).sum(axis=1), np.inf)
    return found


def valley(panel: Panel) -> Valley:
    """The surface about the law, as far as its outermost region goes.

    Raises NoAnswerError for a law of one LLM size, too few points, or points without noise.
    """
    row, n = panel.row, len(_fitted(panel).points)
    if row["alpha"] is None:
        raise NoAnswerError(
            f"{panel.points.title}: one LLM size has no alpha, so there is no ridge; draw "
            "`plot profile` of its beta"
        )
    if n <= 4 or row["sse"] <= 1e-18:
        raise NoAnswerError(
            f"{panel.points.title}: {n} points that the law meets exactly, or no more than its "
            "four parameters, leave no noise to judge other exponents by"
        )
    low, high = _first_range(row)
    for attempt in range(_TRIES):
        steps = CELLS if attempt == _TRIES - 1 else CELLS // 4
        found = _surface(panel, low, high, steps, n - 4)
        # A region that reaches an edge goes on behind it.
        inside = found.p > 1 - LEVELS[-1]
        grow = np.array([[inside[:, 0].any(), inside[0].any()],
                         [inside[:, -1].any(), inside[-1].any()]])  # fmt: skip
        if not grow.any():
            break
        width = high - low
        low, high = low - 0.5 * width * grow[0], high + 0.5 * width * grow[1]
    rows, columns = np.nonzero(inside)
    if rows.size:
        low, high = (np.array([found.alpha[pick(columns)], found.beta[pick(rows)]])
                     for pick in (np.min, np.max))  # fmt: skip
        margin = 0.12 * (high - low) + 1e-3 * np.abs(high)
        low, high = low - margin, high + margin
    return _surface(panel, low, high, CELLS, n - 4)


def _first_range(row) -> tuple[Array, Array]:
    ends = []
    for name in ("alpha", "beta"):
        known = [row[column] for column in (name, f"{name}_low", f"{name}_high")
                 if row.get(column) is not None]  # fmt: skip
        half = max(max(known) - min(known), 0.3 * abs(row[name]), 1e-3)
        ends.append((min(known) - half, max(known) + half))
    low, high = np.array(ends).T
    return low, high


def _surface(panel: Panel, low: Array, high: Array, steps: int, df: int) -> Valley:
    alpha, beta = (np.linspace(low[at], high[at], steps) for at in range(2))
    sse = sums_of_squares(panel, alpha, beta)
    best = min(panel.row["sse"], float(sse.min()))
    # With 2 degrees of freedom the F distribution has this closed form: f = rise / 2 / (best / df).
    p = (1 + np.maximum(sse - best, 0.0) / best) ** (-df / 2)
    return Valley(alpha, beta, sse, p)


def _fitted(panel: Panel):
    return panel.points.subset([p for p in panel.points.points if not panel.held_out(p)])


def draw(panels: Sequence[Panel]) -> Figure:
    """The figure: a panel a law; regions in grey, the draws of the law, and lines of one ratio."""
    n_columns = min(len(panels), 3)
    n_rows = -(-len(panels) // n_columns)
    figure = new_figure(4.9 * n_columns + 0.4, 4.5 * n_rows + 0.6)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    for place, panel in zip(axes.flat, panels, strict=False):
        _panel(place, panel)
    handles = [Patch(facecolor=grey, label=f"{100 * level:g} % region")
               for level, grey in zip(LEVELS, _GREYS, strict=True)]  # fmt: skip
    handles += [
        Line2D([], [], marker="o", color="black", linestyle="none", markersize=6, label="the law"),
        Line2D([], [], marker=".", color="#993404", linestyle="none", markersize=4,
               label="its draws (LLMs' peculiarities too)"),
        Line2D([], [], color="black", linestyle="-", label="its α/β"),
        Line2D([], [], color="black", linestyle="--", label="ends of its interval"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=4 if n_columns > 1 else 2,
                  fontsize=8, frameon=False)  # fmt: skip
    return figure


def _panel(axes: Axes, panel: Panel) -> None:
    found, row = valley(panel), panel.row
    edges = [1 - level for level in reversed(LEVELS)]
    axes.contourf(found.alpha, found.beta, found.p, levels=[*edges, 1.0], colors=_GREYS[::-1])
    axes.contour(found.alpha, found.beta, found.p, levels=edges, colors="black", linewidths=0.6)
    limits = (found.alpha[0], found.alpha[-1]), (found.beta[0], found.beta[-1])
    draws = np.array([row["draw_alpha"], row["draw_beta"]])
    if draws.size:
        axes.plot(*draws, marker=".", linestyle="none", color="#993404", markersize=2.2, alpha=0.7)
    for name, style in (("ratio", "-"), ("ratio_low", "--"), ("ratio_high", "--")):
        if row.get(name) is not None:
            axes.plot([0, 10 * row[name]], [0, 10], color="black", linestyle=style, linewidth=1.1)
    axes.plot(row["alpha"], row["beta"], marker="o", color="black", markersize=6,
              markeredgecolor="white", zorder=5)  # fmt: skip
    for zero in (axes.axhline, axes.axvline):
        zero(0, color="0.5", linewidth=0.8, zorder=1)
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
    axes.set_xlabel("α (LLM size)")
    axes.set_ylabel("β (visual tokens)")
    name = row["task"] if row.get("group") is None else f"{row['task']}, {row['group']}"
    ratio = "" if row["ratio"] is None else f", α/β = {row['ratio']:.3g}"
    axes.set_title(plain(f"{name}{ratio}"), fontsize=10, loc="left")
    bare(axes)
