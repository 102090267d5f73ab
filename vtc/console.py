"""The only file that knows terminals: tables on stdout, words and progress on stderr."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

_verbosity = 0


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
    title: str | None = None,
) -> None:
    """Print rows as an aligned table on stdout: numbers to the right, no cell ever cut off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numeric = all(isinstance(row.get(name), int | float | None) for row in rows)
        heading = Text((headings or {}).get(name, name))
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        # Text, not str: rich would read [brackets] in a cell as its markup.
        table.add_row(*(Text(format_cell(row.get(name))) for name in columns))
    console = Console()
    # A table wider than the terminal (or than a pipe's 80 columns) is printed whole: the
    # terminal wraps it, and grep and awk see every column.
    console.width = max(console.width, 1_000_000)
    console.print(table, highlight=False, soft_wrap=True)


def format_cell(value: Any) -> str:
    """One table cell: floats with four significant digits, missing values as a dash.

    Control characters, line ends and a terminal's escape codes among them, are shown escaped.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_cell(item) for item in value)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


@contextmanager
def progress(description: str, total: int | None = None):
    """A progress bar on stderr; yields `advance(n=1, words="")`, `words` to stand beside the bar.

    Silent when stderr is no terminal.
    """
    if _verbosity < 0 or not sys.stderr.isatty():
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
