"""A contact sheet: pictures with their question, the answer given and the truth."""

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vtc.figures.style import new_figure

MOST = 60
"""Cells of one sheet; more are too small to read, and too large a file."""

_COLUMNS = 4
_SIDE = 2.6  # Width of a cell in inches, and height of its pictures.
_LETTERS = 40  # Letters of a line at the font size below, in that width.
_LINE = 0.145  # Height of a line in inches.
_GAP = 0.02  # Between pictures of one cell, a share of its width.
_FONT = 7.5
_LONGEST = {"Q": 6, "A": 4, "T": 3}  # Lines of each text, at most.
# Blue and vermilion (Okabe and Ito 2008): told apart by the colour-blind; the words say it too.
_RIGHT, _WRONG = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Cell:
    """What a cell shows: PIL pictures (none: `note` in their place), and three texts."""

    pictures: Sequence[Any]
    note: str
    title: str
    question: str
    answer: str
    truth: str
    right: bool

    @property
    def texts(self) -> Iterator[str]:
        """All that is written in it."""
        yield from (self.note, self.title, self.question, self.answer, self.truth)


def draw(cells: Sequence[Cell], families: Sequence[str] | None = None) -> Figure:
    """The sheet, four cells a row; right answers in blue, wrong ones in vermilion, and in words.

    A letter is drawn in the first of the font `families` that has it (`fonts.fonts_for`).
    """
    looks = {"fontsize": _FONT, "fontfamily": list(families or rcParams["font.family"])}
    n_columns = min(_COLUMNS, len(cells))
    rows = [cells[start : start + n_columns] for start in range(0, len(cells), n_columns)]
    texts = [[_lines(cell) for cell in row] for row in rows]
    heights = [_SIDE + _LINE * (max(map(len, own)) + 1) for own in texts]
    figure = new_figure(n_columns * (_SIDE + 0.25), sum(heights) + 0.15 * len(rows))
    grid = figure.add_gridspec(len(rows), n_columns, height_ratios=heights)
    for number, (row, own, height) in enumerate(zip(rows, texts, heights, strict=True)):
        for column, (cell, lines) in enumerate(zip(row, own, strict=True)):
            inner = grid[number, column].subgridspec(
                2, 1, height_ratios=(_SIDE, height - _SIDE), hspace=0.02
            )
            _show(figure.add_subplot(inner[0]), cell, looks)
            _write(figure.add_subplot(inner[1]), lines, height - _SIDE, looks)
    return figure


def _show(axes: Axes, cell: Cell, looks: dict[str, Any]) -> None:
    """The pictures side by side, each whole; without any, the note in an empty frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    title = _short(cell.title, _letters_of(cell.title))
    axes.set_title(title, color="0.35", loc="left", pad=2, parse_math=False, **looks)
    if not cell.pictures:
        note = textwrap.fill(cell.note, 28)
        axes.text(0.5, 0.5, note, ha="center", va="center", color="0.4", parse_math=False, **looks)
        for side in axes.spines.values():
            side.set_color("0.8")
        return
    axes.axis("off")
    n = len(cell.pictures)
    for index, picture in enumerate(cell.pictures):
        place = axes.inset_axes((index / n, 0, 1 / n - _GAP * (n > 1), 1))
        small = picture.copy()
        small.thumbnail((600, 600))
        place.imshow(small)
        place.set_anchor("NW")
        place.axis("off")


def _write(
    axes: Axes, lines: Sequence[tuple[str, str]], height: float, looks: dict[str, Any]
) -> None:
    axes.axis("off")
    # A line that is wider than thought (boxes for letters are) moves no picture, and is cut.
    for number, (text, color) in enumerate(lines):
        axes.text(
            0, 1 - (number + 0.2) * _LINE / height, text,
            transform=axes.transAxes, color=color, va="top", parse_math=False,
            in_layout=False, clip_on=True, **looks,
        )  # fmt: skip


def _lines(cell: Cell) -> list[tuple[str, str]]:
    """The texts under a picture in lines, each with its colour."""
    verdict = "right" if cell.right else "wrong"
    color = _RIGHT if cell.right else _WRONG
    parts = [
        ("Q", "Q: ", cell.question, "black"),
        ("A", f"A ({verdict}): ", cell.answer, color),
        ("T", "T: ", cell.truth, "0.35"),
    ]
    found = []
    for letter, label, text, shade in parts:
        wrapped = textwrap.wrap(
            text, _letters_of(text), initial_indent=label, subsequent_indent="    ",
            max_lines=_LONGEST[letter], placeholder=" ...",
        )  # fmt: skip
        found += [(line, shade) for line in wrapped]
    return found


def _letters_of(text: str) -> int:
    """Letters of a line of such a text: Chinese, Japanese and Korean ones are twice as wide."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return (
        max(_LETTERS // 2, round(_LETTERS * len(text) / (len(text) + wide))) if text else _LETTERS
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
