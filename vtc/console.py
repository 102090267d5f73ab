"""The only file that knows terminals: tables on stdout, words and progress on stderr."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import click

from vtc.errors import naming_stdout

_verbosity = 0

# Places of a line: between two columns; of a cell that others are padded to; of a text or heading
# that is never cut.
_GAP, _PADDED, _LEAST_TEXT, _HEADING = 2, 60, 20, 12


def set_verbosity(level: int) -> None:
    """Set how much is said on stderr: -1 nothing, 0 the usual, 1 more."""
    global _verbosity
    _verbosity = level


def say(message: str, level: int = 0) -> None:
    """Write one line of words to stderr, if the verbosity allows `level`."""
    if _verbosity >= level:
        click.echo(message, err=True)


def print_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    headings: Mapping[str, str] | None = None,
) -> None:
    """Print rows as an aligned table on stdout, numbers to the right.

    On a terminal no line is wider than it: long texts are shortened, then the columns that say
    least are left out, and stderr says which. Elsewhere every cell stands whole.
    """
    from rich.console import Console
    from rich.text import Text

    table = _table(rows, columns, headings or {})
    width = _terminal_width()
    if width is not None:
        table, left_out = _fitted(table, width)
        say_left_out(left_out)
    padded = [column.padded() for column in table]
    lines = ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
    # Text, not str: rich would read [brackets] in a cell as its markup.
    text = Text(lines[0], style="bold")
    for line in lines[1:]:
        text.append(Text(f"\n{line}", style="not bold"))
    with naming_stdout():
        Console().print(text, highlight=False, soft_wrap=True)


def fits(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    headings: Mapping[str, str] | None = None,
) -> bool:
    """Whether `print_table` leaves no column out."""
    width = _terminal_width()
    if width is None:
        return True
    return not _fitted(_table(rows, columns, headings or {}), width)[1]


def say_left_out(columns: Sequence[str]) -> None:
    """Say, of columns that a terminal has no room for, which they are."""
    if columns:
        some = f"{len(columns)} columns do" if len(columns) > 1 else "one column does"
        say(f"{some} not fit here: {', '.join(columns)}; --format csv shows all")


def _table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], headings: Mapping[str, str]
) -> "list[_Column]":
    return [_column(headings.get(name, name), [row.get(name) for row in rows]) for name in columns]


def _terminal_width() -> int | None:
    """Places of a line of the terminal that stdout is; None where it is none."""
    if sys.stdout and sys.stdout.isatty():
        return shutil.get_terminal_size((80, 24)).columns
    return None


@dataclass
class _Column:
    """A column of a table: its heading and cells as text; numbers stand to the right, uncut."""

    name: str
    cells: list[str]
    numeric: bool
    says_little: int
    width: int

    @property
    def least(self) -> int:
        """The width below which it is rather left out."""
        if self.numeric:
            return min(self.width, max(*map(_width, self.cells[1:]), _HEADING, 0))
        return min(self.width, _LEAST_TEXT)

    def padded(self) -> list[str]:
        """The cells, all of them as wide as the column; one that is wider stays so."""
        return [_pad(cell, self.width, self.numeric) for cell in self.cells]

    def cut(self, width: int) -> "_Column":
        """The column no wider than `width`."""
        return replace(self, cells=[shorten(cell, width) for cell in self.cells], width=width)


def _column(heading: str, values: Sequence[Any]) -> _Column:
    cells = [heading, *map(format_cell, values)]
    numeric = all(isinstance(value, int | float | None) for value in values)
    empty = all(value is None for value in values)
    same = len(values) > 1 and all(cell == cells[1] for cell in cells[2:])
    # A long cell makes its own line longer, not those of all rows.
    width = max(min(_width(cell), _PADDED) for cell in cells)
    return _Column(heading, cells, numeric, 2 if empty else int(same), max(width, _width(heading)))


def _fitted(table: list[_Column], width: int) -> tuple[list[_Column], list[str]]:
    """The columns cut to a terminal's width, and the names of those that are left out.

    The first column stays. First to go are columns without a value, then those of one value in all
    rows, then the last ones.
    """
    whole = [replace(one, width=max(map(_width, one.cells))) for one in table]
    kept = list(whole)
    for one in sorted(reversed(whole[1:]), key=lambda column: -column.says_little):
        if _total(column.least for column in kept) <= width:
            break
        kept.remove(one)
    level = max(column.width for column in kept)
    while level > 1 and _total(_at(column, level) for column in kept) > width:
        level -= 1
    fitted = [column.cut(min(_at(column, level), width)) for column in kept]
    return fitted, [column.name for column in whole if column not in kept]


def _at(column: _Column, level: int) -> int:
    return min(column.width, max(column.least, level))


def _total(widths: Iterable[int]) -> int:
    each = list(widths)
    return sum(each) + _GAP * (len(each) - 1)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _pad(text: str, width: int, to_the_right: bool) -> str:
    blanks = " " * max(width - _width(text), 0)
    return blanks + text if to_the_right else text + blanks


def shorten(text: str, width: int = _PADDED) -> str:
    """The text in at most `width` places of a terminal, an ellipsis at its end if it was cut."""
    from rich.cells import set_cell_size

    if _width(text) <= width:
        return text
    unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    mark = ("…" if unicode else "...")[:width]
    return set_cell_size(text, width - len(mark)).rstrip() + mark


def format_cell(value: Any) -> str:
    """One table cell: floats with four significant digits, missing values as a dash.

    Turns of a conversation are `role: text`, other objects `{key: value}`. Control characters, line
    ends and a terminal's escape codes among them, are shown escaped.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        between = " | " if any(isinstance(item, Mapping) for item in value) else ", "
        return between.join(format_cell(item) for item in value)
    if isinstance(value, Mapping):
        if set(value) == {"role", "text"}:
            return f"{format_cell(value['role'])}: {format_cell(value['text'])}"
        inside = (f"{format_cell(key)}: {format_cell(item)}" for key, item in value.items())
        return "{" + ", ".join(inside) + "}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


@contextmanager
def progress(description: str, total: int | None = None):
    """A progress bar on stderr; yields `advance(n=1, words="")`, `words` to stand beside the bar.

    Silent when stderr is no terminal.
    """
    if _verbosity < 0 or not (sys.stderr and sys.stderr.isatty()):
        yield lambda n=1, words="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
        console=Console(stderr=True),
        transient=True,
        # Data printed meanwhile is for stdout: rich would send it where the bar is, to stderr.
        redirect_stdout=False,
    )
    with bar:
        task = bar.add_task(description, total=total, words="")

        def advance(n: int = 1, words: str = "") -> None:
            bar.update(task, advance=n, words=words)

        yield advance
