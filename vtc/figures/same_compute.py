"""Scores by benchmark of runs that cost the same: few tokens in a large LLM, or many in a small.

Source of the idea: arXiv 2411.03312, Figure 4. Compute is the LLM's prefill, 2 N (Q + V).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtc.cost.flops import prefill_flops
from vtc.errors import InputError, NoAnswerError
from vtc.figures.axes import bare, shortened
from vtc.figures.style import looks, new_figure
from vtc.tables.compressors import compressor_name
from vtc.tables.quantity import format_count, format_flops

MOST = 8
"""Choices of one panel that can be told apart."""
_TWO_SIDED = 1.96  # Standard normal: 95 % of it lie within so many standard errors.

Row = Mapping[str, Any]


class Choice(NamedTuple):
    """An LLM with a compressor at some V, and what its prefill takes."""

    n_params: int
    visual_tokens: int
    compressor: str
    flops: float


class Match(NamedTuple):
    """A budget of FLOPs, and the choices that cost about as much, the smallest LLM first."""

    flops: float
    choices: tuple[Choice, ...]


def choices_of(rows: Sequence[Row], text_tokens: float) -> list[Choice]:
    """The distinct choices of scores rows, by N and V.

    Where the LLM drops visual tokens, those of a layer on average count.
    """
    found = {}
    for row in rows:
        key = (row["n_params"], row["visual_tokens"], compressor_name(row) or "")
        tokens = row.get("visual_tokens_mean") or row["visual_tokens"]
        found[key] = prefill_flops(row["n_params"], tokens, text_tokens)
    return [Choice(n, v, name, flops) for (n, v, name), flops in sorted(found.items())]


def match(choices: Sequence[Choice], flops: float, within: float) -> Match:
    """The choice of each LLM and compressor nearest to a budget, those within a factor of it.

    `within` is .25 for a quarter more or less. Raises NoAnswerError if fewer than two LLMs have
    one.
    """
    nearest: dict[tuple[int, str], Choice] = {}
    for one in choices:
        key = (one.n_params, one.compressor)
        if key not in nearest or _gap(one, flops) < _gap(nearest[key], flops):
            nearest[key] = one
    kept = [one for one in nearest.values() if _gap(one, flops) <= math.log1p(within)]
    if len({one.n_params for one in kept}) < 2:
        near = ", ".join(
            f"{format_count(one.n_params)} at V = {one.visual_tokens} ({format_flops(one.flops)})"
            for one in sorted(nearest.values(), key=lambda one: _gap(one, flops))[:3]
        )
        raise NoAnswerError(
            f"fewer than two LLMs have a run within {100 * within:g} % of {format_flops(flops)}; "
            f"nearest: {near}; give another --flops, a larger --within, or train such a run"
        )
    return Match(flops, tuple(sorted(kept)))


def best_budget(choices: Sequence[Choice], within: float) -> float:
    """The budget at which most LLMs have a run that costs about as much, the closest together.

    Sought at the means (of logarithms) of every two runs of different LLMs. Raises NoAnswerError
    with one LLM alone, or if no two runs cost about the same.
    """
    if len({one.n_params for one in choices}) < 2:
        raise NoAnswerError("runs of one LLM size alone: none to compare at the same compute")
    found = []
    for index, one in enumerate(choices):
        for other in choices[index + 1 :]:
            budget = math.sqrt(one.flops * other.flops)
            if one.n_params == other.n_params or _gap(one, budget) > math.log1p(within):
                continue
            matched = match(choices, budget, within)
            sizes = len({choice.n_params for choice in matched.choices})
            widest = max(_gap(choice, budget) for choice in matched.choices)
            found.append((-sizes, widest, budget))
    if not found:
        raise NoAnswerError(
            f"no two LLMs have runs within {100 * within:g} % of one another's FLOPs; give a "
            "larger --within, or train runs of other V"
        )
    return min(found)[2]


def draw(rows: Sequence[Row], matches: Sequence[Match]) -> Figure:
    """The figure: a column of benchmarks a budget; each choice's score, with 95 % intervals.

    Raises InputError for more choices than can be told apart.
    """
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    most = max(len(one.choices) for one in matches)
    if most > MOST:
        raise InputError(
            f"{most} choices at one budget are more than the {MOST} that can be told apart; choose "
            "some with --run"
        )
    # A line a choice, and one between benchmarks.
    height = (0.14 * most + 0.22) * len(benchmarks) + 1.1 + 0.17 * most
    figure = new_figure(5.0 * len(matches) + 1.6, max(height, 3.2))
    axes = figure.subplots(1, len(matches), squeeze=False, sharey=True, sharex=True)[0]
    for place, one in zip(axes, matches, strict=True):
        _panel(place, rows, benchmarks, one)
    axes[0].set_yticks(range(len(benchmarks)), [shortened(name, 22) for name in benchmarks])
    axes[0].set_ylim(len(benchmarks) - 0.4, -0.6)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], benchmarks: Sequence[str], matched: Match) -> None:
    several = len({one.compressor for one in matched.choices}) > 1
    step = 0.8 / max(len(matched.choices), 2)
    for number, (one, look) in enumerate(
        zip(matched.choices, looks(len(matched.choices)), strict=True)
    ):
        label = f"{format_count(one.n_params)}, V = {one.visual_tokens} ({format_flops(one.flops)})"
        label += f", {one.compressor}" if several else ""
        drawn = {"linestyle": "none", "color": look["color"], "marker": look["marker"]}
        axes.plot([], [], label=label, markersize=6, **drawn)
        for row in rows:
            if (row["n_params"], row["visual_tokens"], compressor_name(row) or "") != one[:3]:
                continue
            y = (
                benchmarks.index(row["benchmark"])
                + (number - (len(matched.choices) - 1) / 2) * step
            )
            bar = _TWO_SIDED * row["stderr"] if row.get("stderr") is not None else None
            axes.errorbar(100 * row["score"], y, xerr=None if bar is None else 100 * bar,
                          markersize=5.5, elinewidth=1.0, capsize=2, **drawn)  # fmt: skip
    for place, name in enumerate(benchmarks):
        chance = next(
            (r["chance"] for r in rows if r["benchmark"] == name and r.get("chance")), None
        )
        if chance is not None:
            axes.plot([100 * chance] * 2, [place - 0.45, place + 0.45], color="0.5",
                      linestyle=":", linewidth=1.2, zorder=1)  # fmt: skip
        if place:
            axes.axhline(place - 0.5, color="0.85", linewidth=0.6)
    bare(axes)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("score (%)")
    legend = axes.legend(
        title=f"about {format_flops(matched.flops)} of prefill", fontsize=8, frameon=False,
        loc="lower left", bbox_to_anchor=(0, 1), alignment="left", borderaxespad=0.2,
    )  # fmt: skip
    legend.get_title().set_fontsize(10)


def _gap(one: Choice, flops: float) -> float:
    return abs(math.log(one.flops / flops))
