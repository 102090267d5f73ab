"""Compressors side by side: score against V, and against the cost of it all.

Source of the readings: arXiv 2411.03312, Table 1 (same V); the cost adds encoder, compressor and
the question's pass, which that table leaves out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from vtc.errors import InputError
from vtc.figures.axes import NAME_SIZE, Name, bare, plain, tokens_scale, write_names
from vtc.figures.style import LINES, MARKERS, new_figure, ordered_colors
from vtc.tables.quantity import format_count

MOST = 14
"""Compressors that can be told apart in one panel."""
LEVEL = (0, (7, 2))
_SHIFT = 1.035  # Between neighbours' bars at one V.

Row = Mapping[str, Any]


class Line(NamedTuple):
    """A compressor's rows, by ascending V."""

    label: str
    rows: tuple[Row, ...]


class Panel(NamedTuple):
    """A task or benchmark with an LLM: its compressors, the one with the highest score first."""

    title: str
    lines: tuple[Line, ...]

    def is_level(self, line: Line) -> bool:
        """Whether it is the one row at a V above all others': the uncompressed model, mostly.

        On the axes of the others it would leave them a corner.
        """
        others = [row["visual_tokens"] for one in self.lines if one is not line for row in one.rows]
        return len(line.rows) == 1 and bool(others) and line.rows[0]["visual_tokens"] > max(others)


def panels_of(rows: Sequence[Row]) -> list[Panel]:
    """The panels of comparison rows.

    Raises InputError for more compressors than can be told apart.
    """
    fields: dict[tuple, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key = (row["task"], row.get("benchmark"), row["backbone"], row.get("encoder"))
        fields[key][row["compressor"]].append(row)
    found = []
    for (task, benchmark, backbone, _), own in fields.items():
        if len(own) > MOST:
            raise InputError(
                f"{len(own)} compressors are more than the {MOST} that one panel can tell apart; "
                "compare fewer"
            )
        lines = [
            Line(label, tuple(sorted(them, key=lambda row: row["visual_tokens"])))
            for label, them in own.items()
        ]
        lines.sort(key=lambda line: -max(row["score"] for row in line.rows))
        found.append(Panel(f"{benchmark or task}, {backbone}", tuple(lines)))
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """The figure of comparison rows: a row of two panels a task (or benchmark) and LLM.

    Bars are the scores' intervals. Where no cost is known there is the left panel alone.
    """
    panels = panels_of(rows)
    cost = "time_ms" if any(row.get("time_ms") is not None for row in rows) else "flops"
    both = any(row.get(cost) is not None for row in rows)
    most = max(len(panel.lines) for panel in panels)
    height = max(2.9, 0.16 * most + 1.1)
    figure = new_figure(9.6 if both else 5.6, height * len(panels) + 0.3)
    axes = figure.subplots(len(panels), 2 if both else 1, squeeze=False)
    labels = sorted({line.label for panel in panels for line in panel.lines})
    looks = dict(zip(labels, _looks(len(labels)), strict=True))
    names: dict[Axes, list[Name]] = {}
    for (left, *right), panel in zip(axes, panels, strict=True):
        names[left] = _by_tokens(left, panel, looks)
        for place in right:
            # The same scores: the names beside the right panel serve both.
            names[place], names[left] = _by_cost(place, panel, looks, cost), []
            place.sharey(left)
        left.set_ylabel("score")
        left.set_title(plain(panel.title), fontsize=10, loc="left")
    longest = max(len(name.text) for own in names.values() for name in own)
    _leave_room(figure, longest)
    write_names(figure, names)
    # The names lie in the room that is left; another layout would shrink the panels for them.
    figure.set_layout_engine("none")
    return figure


def _leave_room(figure: Figure, letters: int) -> None:
    """Keep the right edge free for names of so many letters and the lines that lead to them."""
    share = (letters * NAME_SIZE * 0.58 / 72 + 0.2) / figure.get_figwidth()
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1 - share, 1))


def _looks(n: int) -> list[dict[str, Any]]:
    """Looks of which no two of MOST have marker and line alike."""
    rounds = len(MARKERS)
    return [
        {
            "color": color,
            "marker": MARKERS[index % rounds],
            "linestyle": LINES[(index + index // rounds * 3) % len(LINES)],
        }
        for index, color in enumerate(ordered_colors(n))
    ]


def _by_tokens(axes: Axes, panel: Panel, looks: Mapping[str, Mapping[str, Any]]) -> list[Name]:
    """Score against V; the names of what was drawn."""
    names, every = [], []
    count = len(panel.lines)
    for number, line in enumerate(panel.lines):
        if panel.is_level(line):
            continue
        # Beside one another, so that bars do not hide one another.
        shift = _SHIFT ** (number - (count - 1) / 2)
        tokens = [row["visual_tokens"] for row in line.rows]
        _line(axes, [v * shift for v in tokens], line, looks[line.label])
        every += tokens
        names.append(Name(tokens[-1] * shift, line.rows[-1]["score"], plain(line.label)))
    if every:
        tokens_scale(axes, "x", every)
    axes.set_xlabel("visual tokens V")
    return names + _levels(axes, panel, looks, None)


def _by_cost(
    axes: Axes, panel: Panel, looks: Mapping[str, Mapping[str, Any]], cost: str
) -> list[Name]:
    """Score against FLOPs or time; the names of what was drawn."""
    names, every = [], []
    for line in panel.lines:
        known = tuple(row for row in line.rows if row.get(cost) is not None)
        if panel.is_level(line) and known and _is_near(known[0], panel, cost):
            # A level is a point, too, where it leaves the others room.
            _line(axes, [known[0][cost]], line, looks[line.label])
            every.append(known[0][cost])
        if panel.is_level(line) or not known:
            continue
        _line(axes, [row[cost] for row in known], Line(line.label, known), looks[line.label])
        every += [row[cost] for row in known]
        names.append(Name(known[-1][cost], known[-1]["score"], plain(line.label)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if every and max(every) > 4 * min(every):
        axes.set_xscale("log")
        subs = (
            (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0) if max(every) < 10 * min(every) else (1.0, 2.0, 5.0)
        )
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    numbers = (lambda value, _: f"{value:g}") if cost == "time_ms" else _flops
    axes.xaxis.set_major_formatter(FuncFormatter(numbers))
    axes.set_xlabel(
        "time to the first token (ms)"
        if cost == "time_ms"
        else "FLOPs: encoder, compressor, question and LLM"
    )
    # Those of unknown cost are named all the same, at the height they have in the left panel.
    right = axes.get_xlim()[1]
    names += [
        Name(right, line.rows[-1]["score"], plain(f"{line.label} (no cost)"))
        for line in panel.lines
        if not panel.is_level(line) and all(row.get(cost) is None for row in line.rows)
    ]
    return names + _levels(axes, panel, looks, cost)


def _is_near(row: Row, panel: Panel, cost: str) -> bool:
    """Whether a row costs no more than twice what all the others do."""
    rows = [other for line in panel.lines for other in line.rows if other is not row]
    others = [other[cost] for other in rows if other.get(cost) is not None]
    return not others or row[cost] <= 2 * max(others)


def _levels(
    axes: Axes, panel: Panel, looks: Mapping[str, Mapping[str, Any]], cost: str | None
) -> list[Name]:
    """Scores of what has one V far beyond the others', and chance, as lines across the panel."""
    right, names = axes.get_xlim()[1], []
    for line in filter(panel.is_level, panel.lines):
        [row] = line.rows
        look = looks[line.label]
        if row.get("score_low") is not None and row.get("score_high") is not None:
            axes.axhspan(row["score_low"], row["score_high"], color="0.93", zorder=0)
        axes.axhline(row["score"], color=look["color"], linestyle=LEVEL, linewidth=1.1, zorder=1)
        said = f"{line.label} (V = {row['visual_tokens']})"
        if cost is not None and row.get(cost) is None:
            said += " (no cost)"
        elif cost is not None:
            said += f", {_flops(row[cost], 0) if cost == 'flops' else f'{row[cost]:.3g} ms'}"
        names.append(Name(right, row["score"], plain(said)))
    known = [row["chance"] for line in panel.lines for row in line.rows if row.get("chance")]
    if known:
        axes.axhline(max(known), color="0.5", linestyle=(0, (1, 2)), linewidth=0.9, zorder=1)
        names.append(Name(right, max(known), "chance"))
    bare(axes)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
    return names


def _flops(value: float, _: float) -> str:
    return format_count(value).replace("B", "G")


def _line(axes: Axes, x: Sequence[float], line: Line, look: Mapping[str, Any]) -> None:
    if not line.rows:
        return
    scores = [row["score"] for row in line.rows]
    bars = [
        [row["score"] - (row["score_low"] if row.get("score_low") is not None else row["score"])
         for row in line.rows],
        [(row["score_high"] if row.get("score_high") is not None else row["score"]) - row["score"]
         for row in line.rows],
    ]  # fmt: skip
    axes.errorbar(x, scores, yerr=bars, markersize=4.5, linewidth=1.1, elinewidth=0.6, **look)
