"""What the figures' axes share: plain numbers on logarithmic scales, and names beside curves."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from vtc.tables.quantity import format_count

NAME_SIZE = 7.5
_LINE = 1.25  # Height of a line of text in units of its font size.
_ROOM = 1 / 12  # Of a logarithmic axis' length: what a number of it takes.


class Name(NamedTuple):
    """What is written beside the right end (x, y) of a curve, in data units."""

    x: float
    y: float
    text: str


def bare(axes: Axes) -> None:
    """A light grid behind what is drawn, and no frame above and to the right."""
    axes.set_axisbelow(True)
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


Which = Literal["x", "y"]


def tokens_scale(axes: Axes, which: Which, tokens: Sequence[float]) -> None:
    """A logarithmic scale of tokens, with the numbers given written out where there is room."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    ticks = apart(sorted(set(tokens)))
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if len(set(tokens)) == 1:
        axes.set(**{f"{which}lim": (ticks[0] / 2, ticks[0] * 2)})


def flops_said(flops: float) -> str:
    """FLOPs in short form without their unit: 20G, 1T."""
    return format_count(flops).replace("B", "G")


def size_said(n_params: float) -> str:
    """An LLM's size as its name has it: 0.5B and 7B; below a tenth of a billion 50M."""
    return f"{n_params / 1e9:.3g}B" if n_params >= 1e8 else format_count(n_params)


def counts_scale(
    axes: Axes, low: float, high: float, said: Callable[[float], str] = size_said
) -> None:
    """A logarithmic scale of x from `low` to `high` with numbers as `said`: 0.5B, 1B, 20B."""
    axes.set_xscale("log")
    axis, decades = axes.xaxis, np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0, 3.0) if decades < 3.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: said(value))


def apart(numbers: Sequence[float], room: float = _ROOM) -> list[float]:
    """Those of ascending numbers above zero that have room beside one another on a log axis.

    `room` is the share of the axis that one takes.
    """
    if not numbers:
        return []
    least = (numbers[-1] / numbers[0]) ** room
    kept = [numbers[0]]
    for number in numbers[1:]:
        if number / kept[-1] > least:
            kept.append(number)
    return kept


def write_names(figure: Figure, names: Mapping[Axes, Sequence[Name]]) -> None:
    """Write names to the right of the axes at the heights of their curves' ends, pushed apart.

    The last thing to be done: heights are those of the finished axes.
    """
    figure.draw_without_rendering()
    points = 72 / figure.dpi  # A pixel in points.
    for axes, own in names.items():
        if not own:
            continue
        # Names of one height stand above their curves where those lie low: the farthest end on top.
        ordered = sorted(own, key=lambda name: (name.y, -name.x))
        ends = axes.transData.transform([(name.x, name.y) for name in ordered])
        right = axes.transAxes.transform((1, 0))[0]
        least = _LINE * NAME_SIZE / points
        low, high = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
        # A curve that leaves the axes is named where it does.
        ends[:, 1] = np.clip(ends[:, 1], low, high)
        inside = axes.transData.inverted().transform(ends)
        heights = spread(ends[:, 1], least, (low, high))
        for name, at, end, height in zip(ordered, inside, ends, heights, strict=True):
            offset = ((right - end[0]) * points + 8, (height - end[1]) * points)
            axes.annotate(
                name.text, at, xytext=offset, textcoords="offset points",
                fontsize=NAME_SIZE, va="center", color="0.1", annotation_clip=False,
                # From the name's left end: from its middle a steep line would cross its neighbours.
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.6",
                            "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 1},
            )  # fmt: skip


def halo(color: Any = "white") -> list[withStroke]:
    """A rim about letters, so that they are read on top of lines."""
    return [withStroke(linewidth=2.2, foreground=color)]


def spread(
    heights: np.ndarray, least: float, ends: tuple[float, float] = (-np.inf, np.inf)
) -> np.ndarray:
    """Ascending numbers moved as little as keeps neighbours at least `least` apart.

    And between the two `ends`, if there is room; else their middle is that of the ends. Least
    squares: with `least` times their place taken off they must only ascend, which pooling
    neighbours that do not solves (isotonic regression).
    """
    places = least * np.arange(len(heights))
    blocks: list[tuple[float, int]] = []  # The mean and the length of each.
    for value in (heights - places).tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] >= mean:
            other, more = blocks.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        blocks.append((mean, count))
    found = np.repeat(*map(np.array, zip(*blocks, strict=True)))
    # With bounds the nearest ascending numbers are the unbounded ones, cut off.
    low, high = ends[0], ends[1] - places[-1]
    if low > high:
        low = high = (low + high) / 2
    return np.clip(found, low, high) + places


def plain(text: str) -> str:
    """A user's name as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def shortened(text: str, letters: int, lines: int = 2) -> str:
    """A long name on at most so many lines of so many letters; dots say that more was there."""
    return plain("\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder="…")))
