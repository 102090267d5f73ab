"""What the subcommands of `plot` share: where a figure goes, and what laws are drawn of."""

from collections.abc import Callable
from typing import Any

import click

from vtc.commands import options


def output(function: Callable) -> Callable:
    """Add `-o`, `--force` and `--config`: where a figure goes, and whether to overwrite."""
    for option in (
        options.config,
        click.option("--force", is_flag=True, help="Overwrite a figure that exists."),
        click.option("-o", "--out", required=True, help="Figure file: .png, .svg or .pdf."),
    ):
        function = option(function)
    return function


def points(function: Callable) -> Callable:
    """Add TABLE..., scores or points as for `vtc fit`, with `--task` and `--drop-suspect`."""
    for option in (
        click.option(
            "--drop-suspect", is_flag=True, help="Leave out rows whose note begins 'suspect'."
        ),
        click.option("--task", "tasks", multiple=True, help="Draw this task only (repeatable)."),
        click.argument(
            "tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path(allow_dash=True)
        ),
    ):
        function = option(function)
    return function


def law_of_points(function: Callable) -> Callable:
    """Add `--law`, the law of points that a table holds."""
    return click.option(
        "--law",
        "law_file",
        help="Law file of `vtc fit`, published or paper. [default: fit the table here]",
    )(function)


def laws(function: Callable) -> Callable:
    """Add LAW, a law file or a shipped law, with `--task` and `--group`."""
    for option in (
        click.option("--group", help="Group of a law fitted with --by. [default: the whole task]"),
        click.option(
            "--task",
            "tasks",
            multiple=True,
            help="Task, or a mix such as reasoning:0.7,ocr:0.3 (repeatable). [default: all]",
        ),
        click.argument("law", metavar="[LAW]", default="published"),
    ):
        function = option(function)
    return function


def check(out: str, force: bool) -> None:
    """Refuse an output of another format, or one that exists, before anything is read."""
    import warnings

    from vtc.figures.panel import file_format
    from vtc.tables.atomic import refuse_existing

    # Letters that no font has are drawn as boxes, and said in the end.
    warnings.filterwarnings("ignore", message="Glyph")
    file_format(out)
    refuse_existing(out, force)


def save(figure: Any, out: str, force: bool, what: str = "") -> None:
    """Write the figure, whole or not at all, and say so."""
    from vtc import console
    from vtc.figures import fonts, style

    missing = style.save(figure, out, force)
    if missing:
        console.say(fonts.boxes(missing))
    console.say(f"wrote {out}{f' ({what})' if what else ''}")


def counted(count: int, thing: str) -> str:
    """A count of things in words: 1 task, 2 tasks."""
    return f"{count} {thing}{'s' * (count != 1)}"
