"""What another V than the best costs: FLOPs wasted, and error above the best at one budget.

What is wasted, `law.regret` says; it depends on neither the budget, nor k, D and the unit of N.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtc.cost.flops import affordable_n_params
from vtc.errors import InputError
from vtc.figures.axes import Name, bare, plain, tokens_scale, write_names
from vtc.figures.style import looks, new_figure
from vtc.figures.text import default_flops, token_range
from vtc.law.regret import wasted
from vtc.recommend import VISUAL_TOKENS
from vtc.recommend.laws import Mix
from vtc.tables.quantity import format_flops

STEPS = 300
LITTLE = 0.02
"""A share of the FLOPs that hardly matters; the V that waste no more are told."""
_RATIOS = 41

Array = np.ndarray


def slopes_of(mix: Mix) -> tuple[float, Array]:
    """beta / alpha of a law, and [R] of those that its interval admits (its own, if it has none).

    The law's alpha is above zero. Raises InputError for a mix of tasks.
    """
    if len(mix.parts) > 1:
        raise InputError("regret is that of one law; name one task with --task, not a mix")
    row = mix.row
    slope = row["beta"] / row["alpha"]
    if row.get("ratio_low") is None or row.get("ratio_high") is None:
        return slope, np.array([slope])
    return slope, np.append(
        np.linspace(1 / row["ratio_high"], 1 / row["ratio_low"], _RATIOS), slope
    )


def little(slope: float, text_tokens: float, tokens: tuple[int, int]) -> tuple[int, int] | None:
    """The fewest and the most whole V that waste no more than `LITTLE`; None if none does."""
    v = np.arange(tokens[0], tokens[1] + 1)
    kept = v[wasted(slope, text_tokens, v, tokens) <= LITTLE]
    return (int(kept[0]), int(kept[-1])) if len(kept) else None


def draw(mixes: Sequence[Mix], text_tokens: Sequence[float], flops: float | None) -> Figure:
    """The figure: a column a task; above, FLOPs wasted against V; below, error above the best."""
    figure = new_figure(5.6 * len(mixes) + 0.4, 7.0)
    axes = figure.subplots(2, len(mixes), squeeze=False)
    names = {}
    for column, mix in enumerate(mixes):
        above, below = axes[:, column]
        names[above] = _wasted(above, mix, text_tokens)
        names[below] = _error(below, mix, text_tokens, flops or default_flops(mix))
        low, high = token_range(mix)
        for place in (above, below):
            tokens_scale(place, "x", [low, *(v for v in VISUAL_TOKENS if low < v < high), high])
            bare(place)
            place.set_xlabel("visual tokens V")
            place.set_ylim(bottom=0)
    axes[0][0].set_ylabel("FLOPs wasted at equal error (%)")
    axes[1][0].set_ylabel("error above the best V's\n(percentage points)")
    write_names(figure, names)
    return figure


def _wasted(axes: Axes, mix: Mix, text_tokens: Sequence[float]) -> list[Name]:
    """A curve a Q; the Q nearest to the law's own has the band of its interval."""
    slope, admitted = slopes_of(mix)
    tokens = token_range(mix)
    v = np.geomspace(*tokens, STEPS)
    own = min(text_tokens, key=lambda q: abs(q - mix.row["text_tokens"]))
    names = []
    for q, look in zip(text_tokens, looks(len(text_tokens)), strict=True):
        if q == own and len(admitted) > 1:
            band = 100 * wasted(admitted, q, v, tokens)
            axes.fill_between(v, band.min(axis=0), band.max(axis=0), color="0.85", linewidth=0)
        share = 100 * wasted(slope, q, v, tokens)
        axes.plot(v, share, color=look["color"], linestyle=look["linestyle"], linewidth=1.7)
        at = int(share.argmin())
        axes.plot(v[at], 0, marker=look["marker"], color=look["color"], markersize=8,
                  markeredgecolor="black", clip_on=False, zorder=4)  # fmt: skip
        names.append(Name(v[-1], share[-1], f"Q = {q:g}"))
    axes.axhline(100 * LITTLE, color="0.4", linestyle=":", linewidth=1.1)
    few = little(slope, own, tokens)
    words = f"no V wastes less than {100 * LITTLE:g} %"
    if few is not None:
        which = f"{few[0]} to {few[1]} waste" if few[0] < few[1] else f"{few[0]} alone wastes"
        words = f"V = {which} at most {100 * LITTLE:g} %"
    band = ", band: interval of α/β" if len(admitted) > 1 else ""
    axes.set_title(
        plain(f"{mix.task}: at Q = {own:g}, {words}\n(markers: the best V; dotted: ")
        + f"{100 * LITTLE:g} %{band})",
        fontsize=9.5, loc="left",
    )  # fmt: skip
    return names


def _error(axes: Axes, mix: Mix, text_tokens: Sequence[float], flops: float) -> list[Name]:
    """The error above the best one under one budget, a curve a Q."""
    v = np.geomspace(*token_range(mix), STEPS)
    names = []
    for q, look in zip(text_tokens, looks(len(text_tokens)), strict=True):
        pairs = [(affordable_n_params(flops, one, q), one) for one in v.tolist()]
        errors = np.array([mix.error(n, one) for n, one in pairs])
        above = 100 * (errors - errors.min())
        axes.plot(v, above, color=look["color"], linestyle=look["linestyle"], linewidth=1.7)
        names.append(Name(v[-1], above[-1], f"Q = {q:g}"))
    axes.set_title(f"with {format_flops(flops)} of prefill", fontsize=9.5, loc="left")
    return names
