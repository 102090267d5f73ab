"""Points that a law never saw, where it expected them, and how far off it was.

Source of the idea: arXiv 2411.03312, Figures 2 and 6, where laws of the smaller LLMs foretell the
largest. The intervals are those of a new run (docs/laws.md).
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vtc.errors import InputError
from vtc.figures.axes import Name, bare, plain, size_said, tokens_scale, write_names
from vtc.figures.panel import Panel, law_panels, read
from vtc.figures.style import looks, new_figure
from vtc.law.points import read_points
from vtc.law.run import Material, Request, fit_table

CURVE_STEPS = 100
# Points of several sizes at one V stand beside one another, so that their bars are seen.
_SHIFT = 1.05


class HeldOut(NamedTuple):
    """A point that the fit never saw: what was measured, expected, and where a run may lie."""

    n_params: float
    visual_tokens: float
    error: float
    predicted: float
    low: float | None
    high: float | None

    @property
    def off(self) -> tuple[float, float | None, float | None]:
        """Measured above expected, and the ends of the interval likewise, in % of the expected."""
        low, high = (None if end is None else self._share(end) for end in (self.low, self.high))
        return self._share(self.error), low, high

    def _share(self, value: float) -> float:
        return 100 * (value / self.predicted - 1)


def read_panels(
    tables: str | Sequence[str],
    law: str | None,
    condition: str | None,
    tasks: tuple[str, ...],
    drop_suspect: bool,
) -> list[Panel]:
    """A panel a law of the file `law`, or fitted here to the points that `condition` leaves.

    Raises InputError if the laws saw all points, or without either of the two.
    """
    if (law is None) == (condition is None):
        raise InputError(
            "give one of --law, a file of `vtc fit --holdout`, and --holdout, such as "
            "'n_params>=7b'"
        )
    if law is not None:
        panels = law_panels(tables, law, tasks, drop_suspect)
        if any(not panel.row.get("holdout") for panel in panels):
            raise InputError(
                f"--law {law} was fitted to all points; fit it with --holdout 'n_params>=7b', say"
            )
        return panels
    rows, source = read(tables)
    request = Request(source, tasks, holdout=condition, drop_suspect=drop_suspect)
    # A task whose points tell no law has no panel.
    laws = {row["task"]: row for row, _ in fit_table(request, Material(rows))}
    points = read_points(rows, source, tasks=tasks, drop_suspect=drop_suspect)
    return [Panel(own, laws[own.task]) for own in points if own.task in laws]


def held_out(row: Any) -> list[HeldOut]:
    """The points held out of a row of the law table, by N and V."""
    names = ("n_params", "visual_tokens", "error", "predicted", "low", "high")
    columns = [row.get(f"holdout_{name}") or [] for name in names]
    count = len(columns[0])
    filled = [column or [None] * count for column in columns]
    return sorted(HeldOut(*cells) for cells in zip(*filled, strict=True))


def draw(panels: Sequence[Panel]) -> Figure:
    """The figure: a column a task; above, error against V; below, how far off the law was, in %."""
    figure = new_figure(5.6 * len(panels) + 0.4, 6.8)
    axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", height_ratios=(3, 2))
    names = {}
    for column, panel in enumerate(panels):
        above, below = axes[:, column]
        names[above] = _errors(above, panel)
        names[below] = _off(below, panel)
        for place in (above, below):
            tokens_scale(place, "x", [p.visual_tokens for p in panel.points.points])
            bare(place)
    axes[0][0].set_ylabel("error (1 - score)")
    axes[1][0].set_ylabel("measured above\nexpected error (%)")
    columns = 1 if len(panels) == 1 else 3
    figure.legend(handles=_legend(), loc="outside upper left", ncols=columns, fontsize=8,
                  frameon=False)  # fmt: skip
    write_names(figure, names)
    return figure


def _errors(axes: Axes, panel: Panel) -> list[Name]:
    """Points and curves of the sizes; what was held out is hollow, with its interval."""
    sizes = panel.points.sizes
    tokens = [point.visual_tokens for point in panel.points.points]
    curve = np.geomspace(min(tokens), max(tokens), CURVE_STEPS).tolist()
    names = []
    for n, look in zip(sizes, looks(len(sizes)), strict=True):
        seen = [p for p in panel.points.points if p.n_params == n and not panel.held_out(p)]
        axes.plot(curve, [panel.law.error(n, v) for v in curve], color=look["color"],
                  linestyle="-" if seen else "--", linewidth=1.2, zorder=2)  # fmt: skip
        axes.plot([p.visual_tokens for p in seen], [p.error for p in seen], linestyle="none",
                  marker=look["marker"], markersize=5, color=look["color"], zorder=3)  # fmt: skip
        _bars(axes, panel, n, look, lambda p: (p.error, p.low, p.high))
        label = size_said(n) if seen else f"{size_said(n)}, held out"
        names.append(Name(curve[-1], panel.law.error(n, curve[-1]), label))
    row = panel.row
    name = row["task"] if row.get("group") is None else f"{row['task']}, {row['group']}"
    axes.set_title(plain(f"{name}: held out {row['holdout']}"), fontsize=10, loc="left")
    return names


def _off(axes: Axes, panel: Panel) -> list[Name]:
    """How far each point held out lies from what was expected."""
    axes.axhline(0, color="0.4", linewidth=1.0, zorder=1)
    sizes, names = panel.points.sizes, []
    own = held_out(panel.row)
    for n, look in zip(sizes, looks(len(sizes)), strict=True):
        found = [p for p in own if p.n_params == n]
        if found:
            _bars(axes, panel, n, look, lambda p: p.off)
            names.append(Name(found[-1].visual_tokens, found[-1].off[0], size_said(n)))
    axes.set_xlabel("visual tokens V")
    row = panel.row
    words = []
    if row.get("holdout_mape") is not None:
        words.append(f"off by {100 * row['holdout_mape']:.3g} % on average")
    if row.get("holdout_inside") is not None:
        words.append(f"{round(row['holdout_inside'] * len(own))} of {len(own)} inside")
    axes.set_title(", ".join(words), fontsize=9, loc="left")
    return names


def _bars(axes: Axes, panel: Panel, n: float, look: Any, of: Any) -> None:
    """The points held out of one size: measured ones hollow, intervals as bars about them."""
    own = [p for p in held_out(panel.row) if p.n_params == n]
    sizes = sorted({p.n_params for p in held_out(panel.row)})
    shift = _SHIFT ** (sizes.index(n) - (len(sizes) - 1) / 2) if n in sizes else 1.0
    for v, group in groupby(own, key=lambda p: p.visual_tokens):
        points = list(group)
        _, low, high = of(points[0])
        if low is not None and high is not None:
            axes.plot([v * shift] * 2, [low, high], color="0.35", linewidth=1.1, marker="_",
                      markersize=6, zorder=2)  # fmt: skip
        for point in points:
            axes.plot(v * shift, of(point)[0], linestyle="none", marker=look["marker"],
                      markersize=6, color="black", markerfacecolor="white",
                      zorder=4)  # fmt: skip


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], marker="o", linestyle="-", color="0.3", markersize=5,
               label="fitted points and their law"),
        Line2D([], [], marker="o", linestyle="--", color="0.3", markerfacecolor="white",
               markersize=6, label="held out: what was measured, and what the law expected"),
        Line2D([], [], marker="|", linestyle="none", color="0.35", markersize=11,
               label="where a new run was expected (the law's level)"),
    ]  # fmt: skip
