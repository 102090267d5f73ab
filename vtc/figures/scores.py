"""Scores by benchmark and V: a panel a benchmark, a line an LLM, chance as a dashed line."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, mode
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from vtc.errors import InputError
from vtc.figures.axes import shortened
from vtc.figures.style import looks, new_figure
from vtc.tables.compressors import compressor_name
from vtc.tables.quantity import format_count

MAX_LINES = 12
_COLUMNS = 4
_SHIFT = 1.06
_TWO_SIDED = 1.96  # Standard normal: 95 % of it lie within so many standard errors.
_BEYOND = 0.03
_LETTERS = 30  # Of a title in a panel's width.

Row = Mapping[str, Any]
_Line = tuple[int, str, str]


def draw(rows: Sequence[Row]) -> Figure:
    """The figure of scores rows: score against V, bars of 95 % where a standard error is known.

    A line is an LLM with a compressor; where it has several seeds at a V, the line runs through
    their mean. Raises InputError for more lines than can be told apart.
    """
    panels: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        panels[row["benchmark"]].append(row)
    lines = sorted({_line_of(row) for row in rows})
    if len(lines) > MAX_LINES:
        raise InputError(
            f"{len(lines)} pairs of LLM and compressor are more than the {MAX_LINES} lines that "
            "can be told apart; choose some with --run or --benchmark"
        )
    n_columns = min(_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    # The legend stands above all panels, three names a row.
    legend_rows = -(-(len(lines) + 2) // 3)
    height = 2.5 * n_rows + 0.22 * legend_rows + 0.3
    figure = new_figure(max(2.9 * n_columns + 0.4, 6.4), height)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    look_of = dict(zip(lines, looks(len(lines)), strict=True))
    names = _names(lines)
    for number, (place, (benchmark, own)) in enumerate(
        zip(axes.flat, panels.items(), strict=False)
    ):
        _panel(place, benchmark, own, look_of)
        if number % n_columns == 0:
            place.set_ylabel("score")
        if number + n_columns >= len(panels):
            place.set_xlabel("visual tokens V")
    _legend(figure, look_of, names, rows)
    return figure


def _line_of(row: Row) -> _Line:
    return (row["n_params"], row["backbone"], compressor_name(row) or "")


def _names(lines: Sequence[_Line]) -> dict[_Line, str]:
    """What each line is called: its LLM and size, and the compressor where there are several."""
    several = len({compressor for _, _, compressor in lines}) > 1
    return {
        (n, backbone, compressor): f"{backbone} ({format_count(n)})"
        + (f", {compressor}" if several else "")
        for n, backbone, compressor in lines
    }


def _panel(
    axes: Axes, benchmark: str, rows: Sequence[Row], look_of: Mapping[_Line, Mapping[str, Any]]
) -> None:
    for number, (line, look) in enumerate(look_of.items()):
        # Beside one another, so that bars do not hide one another.
        shift = _SHIFT ** (number - (len(look_of) - 1) / 2)
        own = [row for row in rows if _line_of(row) == line]
        by_tokens: dict[int, list[Row]] = defaultdict(list)
        for row in own:
            by_tokens[row["visual_tokens"]].append(row)
        tokens = sorted(by_tokens)
        means = [fmean(row["score"] for row in by_tokens[v]) for v in tokens]
        axes.plot([v * shift for v in tokens], means, color=look["color"],
                  linestyle=look["linestyle"], linewidth=1.1, zorder=2)  # fmt: skip
        for row in own:
            bar = _TWO_SIDED * row["stderr"] if row.get("stderr") is not None else None
            axes.errorbar(
                row["visual_tokens"] * shift, row["score"], yerr=bar, markersize=5,
                elinewidth=0.9, capsize=2, zorder=3, **{**look, "linestyle": "none"},
            )  # fmt: skip
    chances = [row["chance"] for row in rows if row.get("chance") is not None]
    if chances:
        # That of most runs: another is of other items, and a mean of the two would be of none.
        axes.axhline(mode(chances), color="0.4", linestyle="--", linewidth=1.0, zorder=1)
    tokens = sorted({row["visual_tokens"] for row in rows})
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(_apart(tokens), [str(v) for v in _apart(tokens)])
    if len(tokens) == 1:
        axes.set_xlim(tokens[0] / 2, tokens[0] * 2)
    else:
        axes.margins(x=0.08)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -_BEYOND), min(high, 1 + _BEYOND))  # Bars may leave what scores can be.
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
    axes.set_axisbelow(True)
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    items = {row["n_items"] for row in rows if row.get("n_items")}
    size = f" (n = {items.pop()})" if len(items) == 1 else ""
    # A name on a line of its own where both have no room on one.
    apart = "\n" if len(benchmark) + len(size) > _LETTERS else ""
    title = f"{shortened(benchmark, _LETTERS, 1)}{apart}{size.strip() if apart else size}"
    axes.set_title(title, fontsize=10, loc="left")


def _apart(tokens: Sequence[int]) -> list[int]:
    """Those V whose numbers have room beside one another on a logarithmic axis."""
    if not tokens:
        return []
    least = (tokens[-1] / tokens[0]) ** (1 / 9)
    kept = [tokens[0]]
    for v in tokens[1:]:
        if v / kept[-1] > least:
            kept.append(v)
    return kept


def _legend(
    figure: Figure,
    look_of: Mapping[_Line, Mapping[str, Any]],
    names: Mapping[_Line, str],
    rows: Sequence[Row],
) -> None:
    handles = [
        Line2D([], [], label=names[line], markersize=5, **look) for line, look in look_of.items()
    ]
    if any(row.get("chance") is not None for row in rows):
        handles.append(Line2D([], [], color="0.4", linestyle="--", label="chance"))
    if any(row.get("stderr") is not None for row in rows):
        handles.append(Line2D([], [], linestyle="none", label="bars: 95 % intervals"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
