"""The look shared by the figures: colours, markers, and how a figure reaches a file."""

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vtc.figures.panel import file_format
from vtc.tables.atomic import refuse_existing, replacing

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of the given size in inches; it needs no display and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def ordered_colors(n: int) -> list[tuple[float, ...]]:
    """`n` colours of rising lightness: told apart by the colour-blind and in grey print."""
    scale = colormaps["viridis"]
    return [scale(0.85 * index / max(n - 1, 1)) for index in range(n)]


def save(figure: Figure, out: str, force: bool = False) -> None:
    """Write a figure whole or not at all, without a date, so that equal data give equal bytes."""
    fmt = file_format(out)
    refuse_existing(out, force)
    metadata = {"Date": None} if fmt == "svg" else {"CreationDate": None} if fmt == "pdf" else None
    with replacing(out) as partial:
        figure.savefig(partial, format=fmt, dpi=200, metadata=metadata)
