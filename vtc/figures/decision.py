"""A decision map: the best LLM and the best V over a budget and the length of the text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vtc.figures.axes import counts_scale, halo, plain, shortened, size_said, tokens_scale
from vtc.figures.choices import NOTHING, Map
from vtc.figures.style import new_figure, ordered_colors

_DARK = 0.5  # Below this lightness letters on it are white.
# A short name is about so many times as wide as high, in cells of the map.
_WIDE = 2
_DEEP = 3  # Cells above and below a name that must be of its region,
_LETTER = 1.8  # and to each side for every letter of it.
_HIGHEST = 24  # Regions that a legend names.

Array = np.ndarray


def draw(found: Map) -> Figure:
    """The figure: the best LLM to the left, the best V to the right, over budgets and text."""
    figure = new_figure(11.4, 5.2)
    left, right = figure.subplots(1, 2, sharey=True)
    choices = found.choices
    models = [shortened(llm.model, 24, 1) for llm in choices.models]
    tokens = [f"V = {v}" for v in choices.visual_tokens]
    sizes = [size_said(n) for n in choices.counts]
    _panel(left, found, found.model, Names(models, sizes, np.array(choices.counts)))
    _panel(
        right,
        found,
        found.tokens,
        Names(tokens, list(map(str, choices.visual_tokens)), np.array(choices.visual_tokens)),
    )
    left.set_ylabel("text tokens Q that no cache holds")
    left.set_title(plain(f"best LLM, {choices.law.task} (law {choices.law.name})"), fontsize=10,
                   loc="left")  # fmt: skip
    right.set_title("best V (lines: those between LLMs)", fontsize=10, loc="left")
    extra = []
    if (found.best < 0).any():
        extra.append(Patch(facecolor="white", edgecolor="0.6", hatch="xx", label="nothing fits"))
    if found.beyond.any():
        extra.append(Patch(facecolor="0.9", edgecolor="0.3", hatch="//",
                           label="beyond the sizes or V that the law was fitted on"))  # fmt: skip
    if extra:
        figure.legend(handles=extra, loc="outside lower left", ncols=2, fontsize=8, frameon=False)
    return figure


class Names(NamedTuple):
    """What places are called: in full, in short, and how large they are."""

    full: Sequence[str]
    short: Sequence[str]
    sizes: Array


def _panel(axes: Axes, found: Map, places: Array, names: Names) -> None:
    """Regions of one choice: lighter where it is larger, lines between LLMs, names inside."""
    there = sorted({int(p) for p in np.unique(places)} - {NOTHING}, key=lambda p: names.sizes[p])
    colors: dict[int, Any] = dict(zip(there, ordered_colors(len(there)), strict=True))
    image = np.ones((*places.shape, 3))
    for place, color in colors.items():
        image[places == place] = color[:3]
    axes.pcolormesh(found.budgets, found.text_tokens, image, rasterized=True)
    for model in np.unique(found.model):
        inside = (found.model == model).astype(float)
        if inside.min() < 1:
            axes.contour(found.budgets, found.text_tokens, inside, levels=[0.5], colors="black",
                         linewidths=0.9)  # fmt: skip
    for mask, hatch in ((found.beyond, "//"), (found.best < 0, "xx")):
        if mask.any():
            cover = axes.contourf(found.budgets, found.text_tokens, mask.astype(float),
                                  levels=[0.5, 1.5], colors="none", hatches=[hatch])  # fmt: skip
            cover.set_edgecolor((0, 0, 0, 0.25))
            cover.set_linewidth(0)
    for place in there:
        _name(axes, found, places == place, names.short[place], colors[place])
    counts_scale(axes, float(found.budgets[0]), float(found.budgets[-1]), found.choices.said)
    low, high = float(found.text_tokens[0]), float(found.text_tokens[-1])
    tens = [10.0**power for power in range(-3, 9) if low <= 10.0**power <= high]
    tokens_scale(axes, "y", tens if len(tens) > 1 else [low, high])
    axes.set_xlim(found.budgets[0], found.budgets[-1])
    axes.set_ylim(low, high)
    axes.set_xlabel(found.choices.label)
    # The largest first, and of very many every so-manieth.
    shown = there[:: -max(1, -(-len(there) // _HIGHEST))]
    handles = [
        Patch(facecolor=colors[p], edgecolor="black", linewidth=0.5, label=names.full[p])
        for p in shown
    ]
    axes.legend(handles=handles, fontsize=7, frameon=False, loc="upper left",
                bbox_to_anchor=(1, 1), borderaxespad=0.3, handlelength=1.2)  # fmt: skip


def _name(axes: Axes, found: Map, region: Array, name: str, color: Any) -> None:
    """Write a region's name where it has most room; nothing where it has too little."""
    line, column, depth = deepest(region)
    if depth < _DEEP or depth * _WIDE < _LETTER * len(name):
        return
    dark = np.dot(color[:3], (0.299, 0.587, 0.114)) < _DARK
    axes.text(found.budgets[column], found.text_tokens[line], name, fontsize=8, ha="center",
              va="center", fontweight="bold", color="white" if dark else "black",
              path_effects=halo(color))  # fmt: skip


def deepest(mask: Array) -> tuple[int, int, int]:
    """The place in a region [Q, B] that is farthest from its edge, and how many steps that is.

    A step is one cell up and down, and several to the sides, as names are wide.
    """
    left, depth, place = mask.copy(), 0, (0, 0)
    while left.any():
        rows, columns = np.nonzero(left)
        middle = len(rows) // 2
        place, depth = (int(rows[middle]), int(columns[middle])), depth + 1
        for _ in range(_WIDE):
            padded = np.pad(left, ((0, 0), (1, 1)))
            left = left & padded[:, :-2] & padded[:, 2:]
        padded = np.pad(left, ((1, 1), (0, 0)))
        left = left & padded[:-2] & padded[2:]
    return *place, depth
