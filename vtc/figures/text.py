"""How text changes the best number of visual tokens: the published study's Figure 3.

Source of the idea: arXiv 2411.03312, Figure 3 (a: reasoning, b: OCR). At a fixed budget
F = 2 N (Q + V) each V leaves an LLM of N = F / (2 (Q + V)); text that no cache holds makes the
first visual tokens cheap beside it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtc.cost.flops import affordable_n_params, prefill_flops
from vtc.figures.axes import Name, bare, plain, tokens_scale, write_names
from vtc.figures.style import looks, new_figure
from vtc.recommend import VISUAL_TOKENS, Optimum, Question, optimum
from vtc.recommend.laws import Mix
from vtc.tables.quantity import format_flops

STEPS = 160
_MOST_TEXT = 1000


class Curve(NamedTuple):
    """Errors [S] at V [S] under a budget and Q, and whether the N left is one that was fitted."""

    visual_tokens: np.ndarray
    errors: np.ndarray
    covered: np.ndarray


def default_flops(mix: Mix) -> float:
    """What the largest LLM of the law takes at the fewest V, at the Q that its best V is for."""
    row = mix.row
    return prefill_flops(row["n_params_max"], row["visual_tokens_min"], row["text_tokens"])


def token_range(mix: Mix) -> tuple[int, int]:
    """The fewest and the most V that every law of the mix was fitted on."""
    rows = [part.row for part in mix.parts]
    low = max(row["visual_tokens_min"] for row in rows)
    return low, max(min(row["visual_tokens_max"] for row in rows), low)


def at_budget(mix: Mix, flops: float, text_tokens: float) -> Curve:
    """The error of each V with the N that the budget leaves it."""
    v = np.geomspace(*token_range(mix), STEPS)
    pairs = [(affordable_n_params(flops, one, text_tokens), one) for one in v.tolist()]
    errors = np.array([mix.error(n, one) for n, one in pairs])
    return Curve(v, errors, np.array([mix.covers(n, round(one, 9)) for n, one in pairs]))


def best(mix: Mix, flops: float, text_tokens: float) -> Optimum:
    """The best V at that budget within the V fitted, with its interval: `recommend`'s own."""
    question = Question(flops, text_tokens, mix.name, mix.row, (), token_range(mix), mix=mix)
    return optimum(question)


def draw(mixes: Sequence[Mix], text_tokens: Sequence[float], flops: float | None) -> Figure:
    """The figure: a column a task; above, error against V at one budget, a curve a Q; below, V*."""
    figure = new_figure(5.6 * len(mixes) + 0.4, 7.2)
    axes = figure.subplots(2, len(mixes), squeeze=False)
    names = {}
    for column, mix in enumerate(mixes):
        above, below = axes[:, column]
        names[above] = _errors(above, mix, text_tokens, flops or default_flops(mix))
        _best_tokens(below, mix, text_tokens, flops or default_flops(mix))
    axes[0][0].set_ylabel("error (1 - score)")
    axes[1][0].set_ylabel("best V (visual tokens)")
    write_names(figure, names)
    return figure


def _errors(axes: Axes, mix: Mix, text_tokens: Sequence[float], flops: float) -> list[Name]:
    names = []
    for q, look in zip(text_tokens, looks(len(text_tokens)), strict=True):
        curve, found = at_budget(mix, flops, q), best(mix, flops, q)
        drawn = {"color": look["color"], "linestyle": look["linestyle"]}
        axes.plot(curve.visual_tokens, np.where(curve.covered, curve.errors, np.nan),
                  linewidth=2.2, **drawn)  # fmt: skip
        axes.plot(curve.visual_tokens, np.where(_outside(curve), curve.errors, np.nan),
                  linewidth=0.9, **drawn)  # fmt: skip
        axes.plot(found.visual_tokens, mix.error(found.n_params, found.visual_tokens),
                  marker=look["marker"], color=look["color"], markersize=8,
                  markeredgecolor="black", zorder=4)  # fmt: skip
        names.append(Name(curve.visual_tokens[-1], curve.errors[-1], f"Q = {q:g}"))
    low, high = token_range(mix)
    tokens_scale(axes, "x", [low, *(v for v in VISUAL_TOKENS if low < v < high), high])
    axes.set_xlabel("visual tokens V")
    axes.set_title(
        plain(f"{mix.task}: LLMs that {format_flops(flops)} of prefill afford\n")
        + "(markers: the best V; thin: sizes beyond those fitted)",
        fontsize=9.5, loc="left",
    )  # fmt: skip
    bare(axes)
    return names


def _outside(curve: Curve) -> np.ndarray:
    """Where the thin part of a curve is drawn: up to and with the first step of the thick one."""
    out = ~curve.covered
    return out | np.append(out[1:], False) | np.append(False, out[:-1])


def _best_tokens(axes: Axes, mix: Mix, text_tokens: Sequence[float], flops: float) -> None:
    """The best V against Q, with the interval of the law's ratio, ends of the fitted V dashed."""
    low, high = token_range(mix)
    most = max(_MOST_TEXT, *text_tokens)
    q = np.geomspace(1, most, STEPS // 2)
    found = [best(mix, flops, one) for one in q.tolist()]
    if found[0].low is not None:
        lows, highs = ([getattr(one, name) for one in found] for name in ("low", "high"))
        axes.fill_between(q, lows, highs, color="0.82", linewidth=0, label="interval of α/β")
    axes.plot(q, [one.visual_tokens for one in found], color="black", linewidth=1.8,
              label="best V")  # fmt: skip
    for one, look in zip(text_tokens, looks(len(text_tokens)), strict=True):
        if one >= 1:
            axes.plot(one, best(mix, flops, one).visual_tokens, marker=look["marker"],
                      color=look["color"], markersize=8, markeredgecolor="black")  # fmt: skip
    for end in (low, high):
        axes.axhline(end, color="0.4", linestyle=":", linewidth=1.1)
    axes.plot([], [], color="0.4", linestyle=":", label="fewest and most V fitted")
    tokens_scale(axes, "y", [low, *(v for v in VISUAL_TOKENS if low < v < high), high])
    tokens_scale(axes, "x", [10.0**power for power in range(16) if 10.0**power <= most])
    axes.set_ylim(low / 1.35, high * 1.35)
    axes.set_xlabel("text tokens Q that no cache holds")
    axes.legend(fontsize=8, frameon=False, loc="best")
    bare(axes)
