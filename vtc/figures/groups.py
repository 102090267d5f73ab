"""Exponents of groups (benchmarks, compressors, ...) beside one another: a forest plot.

Reads laws of `vtc fit --by`: each group's own exponents with their intervals, those drawn to the
groups' mean (docs/laws.md, Groups), and what alpha/beta of the mean is without a benchmark.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from vtc.errors import InputError
from vtc.figures.axes import apart, bare, shortened
from vtc.figures.style import new_figure

_NAMES = {"alpha": "α (LLM size)", "beta": "β (visual tokens)", "ratio": "α/β"}
# Half the width of an axis in units of how far its estimates spread; longer bars leave it.
_REACH = 1.6
# An estimate so many quartile ranges beyond the quartiles is far from all others.
_FAR = 4.0

Row = Mapping[str, Any]


def ordered(rows: Sequence[Row]) -> list[Row]:
    """The groups of one task by their ratio, those without one last; the whole task at the end.

    Raises InputError if the laws are of no groups.
    """
    groups = [row for row in rows if row.get("group") is not None]
    if not groups:
        raise InputError(
            "the laws are of whole tasks; fit those of groups: vtc fit scores.parquet --by "
            "benchmark -o laws.parquet"
        )
    wholes = [row for row in rows if row.get("group") is None]
    known = sorted((row for row in groups if _ratio(row)), key=lambda row: row["ratio"])
    return [*known, *(row for row in groups if not _ratio(row)), *wholes]


def draw(rows: Sequence[Row]) -> Figure:
    """The figure: rows of panels a task, a panel each for alpha, beta and their ratio."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    own = {task: ordered([row for row in rows if row["task"] == task]) for task in tasks}
    heights = [0.34 * len(found) + 0.9 for found in own.values()]
    figure = new_figure(9.6, sum(heights) + 0.7)
    axes = figure.subplots(len(tasks), 3, squeeze=False, height_ratios=heights)
    for line, (task, found) in enumerate(own.items()):
        labels = [_label(row) for row in found]
        for place, name in zip(axes[line], _NAMES, strict=True):
            _panel(place, found, name)
            place.set_yticks(range(len(found)), labels if name == "alpha" else [""] * len(found))
            place.set_ylim(len(found) - 0.5, -0.5)
            place.set_xlabel(_NAMES[name])
        axes[line][0].set_title(
            f"{shortened(task, 40, 1)}, by {found[0]['by']}", fontsize=10, loc="left"
        )
    figure.legend(handles=_legend(rows), loc="outside upper left", ncols=3, fontsize=8,
                  frameon=False)  # fmt: skip
    return figure


def _label(row: Row) -> str:
    return "the whole task" if row.get("group") is None else shortened(str(row["group"]), 26)


def _ratio(row: Row) -> bool:
    return row.get("ratio") is not None


def span(rows: Sequence[Row], name: str) -> tuple[float, float] | None:
    """The range of an axis: the estimates with room about them, and bars as far as that reaches.

    Estimates far from all others stay outside. Of the ratio in logarithms. None if there is no
    estimate.
    """
    log = name == "ratio"
    values = _cells(rows, (name, f"{name}_shrunk"), log)
    ends = _cells(rows, (f"{name}_low", f"{name}_high"), log)
    if not len(values):
        return None
    first, middle, third = np.quantile(values, (0.25, 0.5, 0.75))
    least = 0.1 if log else max(0.1 * abs(middle), 0.02)
    reach = _FAR * max(third - first, least)
    values = values[(values >= first - reach) & (values <= third + reach)]
    low, high = values.min(), values.max()
    room = _REACH * max(high - low, least)
    low = min(low, max(ends.min(initial=low), low - room))
    high = max(high, min(ends.max(initial=high), high + room))
    margin = 0.06 * (high - low) or 0.05
    low, high = float(low - margin), float(high + margin)
    return (math.exp(low), math.exp(high)) if log else (low, high)


def _cells(rows: Sequence[Row], columns: Sequence[str], log: bool) -> np.ndarray:
    """The values of some columns that are there; of `log` the logarithms of those above zero."""
    found = [row[column] for row in rows for column in columns if row.get(column) is not None]
    return np.log([v for v in found if v > 0]) if log else np.array(found, dtype=float)


def _panel(axes: Axes, rows: Sequence[Row], name: str) -> None:
    found = span(rows, name)
    bare(axes)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    if found is None:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "none positive", transform=axes.transAxes, ha="center", color="0.4")
        return
    if name == "ratio":
        _ratio_scale(axes, *found)
    axes.set_xlim(*found)
    for place, row in enumerate(rows):
        _estimate(axes, row, name, place, found)
    whole = next((row for row in rows if row.get("group") is None), None)
    if whole is not None:
        axes.axhline(len(rows) - 1.5, color="0.7", linewidth=0.8)
        if whole.get(name) is not None:
            axes.axvline(whole[name], color="0.35", linestyle=":", linewidth=1.1, zorder=1)
    one = 1.0 if name == "ratio" else 0.0
    if found[0] < one < found[1]:
        axes.axvline(one, color="0.6", linewidth=1.0, zorder=1)


def _ratio_scale(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 7, 10, 20, 50, 100)
             if low <= t <= high]  # fmt: skip
    if len(ticks) < 3:
        # Ratios that are close to one another: round steps between them.
        steps = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        ticks = [float(t) for t in steps if low <= t <= high]
    ticks = apart(ticks) if len(ticks) > 6 else ticks
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _estimate(axes: Axes, row: Row, name: str, place: int, found: tuple[float, float]) -> None:
    """One group: its estimate and interval, the shrunken one, and the whole's without it."""
    value = row.get(name)
    if value is None:
        axes.annotate("no law" if row.get("k") is None else "–", (0.5, place),
                      xycoords=("axes fraction", "data"), color="0.4", fontsize=8, ha="center",
                      va="center")  # fmt: skip
        return
    if not found[0] <= value <= found[1]:
        beyond = value > found[1]
        axes.annotate(f"{value:.3g} →" if beyond else f"← {value:.3g}", (float(beyond), place),
                      xycoords=("axes fraction", "data"), fontsize=8, va="center",
                      ha="right" if beyond else "left")  # fmt: skip
        return
    whole = row.get("group") is None
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is not None and high is not None:
        inside = (max(low, found[0]), min(high, found[1]))
        axes.plot(inside, [place] * 2, color="0.25", linewidth=1.3, zorder=2)
        for end, cut, marker in ((0, low < found[0], "<"), (1, high > found[1], ">")):
            axes.plot(inside[end], place, marker=marker if cut else "|", color="0.25", markersize=6,
                      clip_on=False, zorder=2)  # fmt: skip
    axes.plot(value, place, marker="D" if whole else "o", color="black", markersize=6.5, zorder=4)
    shrunk = row.get(f"{name}_shrunk")
    if shrunk is not None and found[0] <= shrunk <= found[1]:
        axes.plot(shrunk, place + 0.26, marker="s", color="#0072B2", markerfacecolor="white",
                  markersize=5, zorder=3)  # fmt: skip
    if name == "ratio" and row.get("ratio_without_group") is not None:
        axes.plot(row["ratio_without_group"], place - 0.26, marker="x", color="#D55E00",
                  markersize=5, zorder=3)  # fmt: skip


def _legend(rows: Sequence[Row]) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], marker="o", color="black", markersize=6, label="a group's own fit, interval"
        ),
    ]
    if any(row.get("group") is None for row in rows):
        handles.append(Line2D([], [], marker="D", color="black", linestyle=":", markersize=6,
                              label="the whole task"))  # fmt: skip
    if any(row.get("alpha_shrunk") is not None for row in rows):
        handles.append(Line2D([], [], marker="s", color="#0072B2", markerfacecolor="white",
                              linestyle="none", markersize=5,
                              label="drawn to the groups' mean"))  # fmt: skip
    if any(row.get("ratio_without_group") is not None for row in rows):
        handles.append(Line2D([], [], marker="x", color="#D55E00", linestyle="none", markersize=5,
                              label="α/β of the whole task without it"))  # fmt: skip
    return handles
