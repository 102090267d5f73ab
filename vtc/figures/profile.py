"""Profile curves of laws: how fast the fit worsens away from each parameter's best value."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vtc.figures.style import new_figure

_NAMES = {"alpha": "α", "beta": "β", "ratio": "α/β", "d": "D"}
# Past this rise a curve only says "no": it is cut there.
_HIGHEST = 12.0

Row = Mapping[str, Any]


def draw(rows: Sequence[Row]) -> Figure:
    """A row of panels a law, a panel a parameter: the F of each value, admitted values thick.

    `rows` are of the profile table.
    """
    laws = list(dict.fromkeys((row["task"], row["group"]) for row in rows))
    names = [name for name in _NAMES if any(row["parameter"] == name for row in rows)]
    figure = new_figure(2.9 * len(names) + 0.4, 2.6 * len(laws) + 0.6)
    axes = figure.subplots(len(laws), len(names), squeeze=False)
    for line, (task, group) in enumerate(laws):
        for column, name in enumerate(names):
            own = [row for row in rows if (row["task"], row["group"]) == (task, group)]
            curve = sorted((r for r in own if r["parameter"] == name), key=lambda r: r["value"])
            panel = axes[line][column]
            if not curve:
                panel.set_axis_off()
                continue
            _panel(panel, curve, name, threshold(own))
            if column == 0:
                title = task if group is None else f"{task}, {group}"
                panel.set_title(title, fontsize=10, loc="left")
                panel.set_ylabel("F of the rise")
    handles = [
        Line2D([], [], color="black", linewidth=2.6, label="values that the data admit"),
        Line2D([], [], color="0.45", linestyle="--", label="values that they do not"),
        Line2D([], [], color="0.6", linewidth=0.8, linestyle=":", label="the F between them"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    return figure


def threshold(curve: Sequence[Row]) -> float | None:
    """The F that parts the admitted values of a law from the others; None if all are of one kind.

    It lies midway between the largest F admitted and the smallest that is not.
    """
    inside = [row["f"] for row in curve if row["admitted"] and row["f"] is not None]
    others = [row["f"] for row in curve if not row["admitted"] and row["f"] is not None]
    return (max(inside) + min(others)) / 2 if inside and others else None


def admitted(
    values: Sequence[float], rises: Sequence[float], bound: float | None
) -> tuple[list[float], list[float]]:
    """The curve where it is below the bound, its ends interpolated; nan where it is above."""
    x, y = [values[0]], [rises[0]]
    for (v, f), (w, g) in pairwise(zip(values, rises, strict=True)):
        if bound is not None and (f - bound) * (g - bound) < 0:
            x.append(v + (w - v) * (bound - f) / (g - f))
            y.append(bound)
        x.append(w)
        y.append(g)
    if bound is None:
        return x, y
    return x, [f if f <= bound else float("nan") for f in y]


def _panel(axes: Axes, curve: Sequence[Row], name: str, bound: float | None) -> None:
    values = [row["value"] for row in curve]
    rises = [row["f"] if row["f"] is not None else 0.0 for row in curve]
    axes.plot(values, rises, color="0.45", linewidth=1.2, linestyle="--")
    axes.plot(*admitted(values, rises, bound), color="black", linewidth=2.6)
    if bound is not None:
        axes.axhline(bound, color="0.6", linewidth=0.8, linestyle=":")
    best = min(range(len(curve)), key=lambda at: curve[at]["sse"])
    axes.plot(values[best], rises[best], marker="o", color="black", markersize=5)
    axes.set_ylim(-0.4, _HIGHEST)
    inside = [v for v, rise in zip(values, rises, strict=True) if rise <= _HIGHEST]
    margin = 0.05 * (max(inside) - min(inside) or 1)
    axes.set_xlim(min(inside) - margin, max(inside) + margin)
    axes.set_xlabel(f"{_NAMES[name]} = {values[best]:.3g}")
    axes.grid(True, color="0.9", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
