"""The look shared by the figures: colours, markers, and how a figure reaches a file."""

from typing import Any

from matplotlib import colormaps, rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from vtc.figures.fonts import fonts_for
from vtc.figures.panel import file_format
from vtc.tables.atomic import refuse_existing, replacing

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Solid, dashed, dotted, ...: on and off in units of the line's width.
LINES: tuple[Any, ...] = (
    *("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 3))),
    *((0, (6, 1.5, 1.2, 1.5, 1.2, 1.5)), (0, (2, 1))),
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of the given size in inches; it needs no display and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def ordered_colors(n: int) -> list[tuple[float, ...]]:
    """`n` colours of rising lightness: told apart by the colour-blind and in grey print."""
    scale = colormaps["viridis"]
    return [scale(0.85 * index / max(n - 1, 1)) for index in range(n)]


def looks(n: int) -> list[dict[str, Any]]:
    """`n` looks of a curve and its points: colours of rising lightness, markers and line styles."""
    return [
        {
            "color": color,
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)],
        }
        for index, color in enumerate(ordered_colors(n))
    ]


def save(figure: Figure, out: str, force: bool = False) -> str:
    """Write a figure whole or not at all, without a date, so that equal data give equal bytes.

    Letters that the usual font lacks are drawn in an installed one that has them; returns those
    that none has (`fonts.boxes` says so).
    """
    fmt = file_format(out)
    refuse_existing(out, force)
    written = figure.findobj(Text)
    fonts = fonts_for(text.get_text() for text in written)
    if fonts.families != list(rcParams["font.family"]):
        for text in written:
            text.set_fontfamily(fonts.families)
    metadata = {"Date": None} if fmt == "svg" else {"CreationDate": None} if fmt == "pdf" else None
    # The salt makes the names of an SVG's parts the same every time.
    with replacing(out) as partial, rc_context({"svg.hashsalt": "vtc"}):
        figure.savefig(partial, format=fmt, dpi=200, metadata=metadata)
    return fonts.missing
