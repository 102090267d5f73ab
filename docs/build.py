"""Write docs/cli.md and docs/tables.md from the program itself; `--check` only compares.

Run `python docs/build.py` after changing a command or a table; tests/test_docs.py compares.
"""

import sys
from pathlib import Path

import click

from vtc.cli import main
from vtc.commands import COMMANDS
from vtc.tables.spec import Table
from vtc.tables.specs import TABLES

DOCS = Path(__file__).parent
WIDTH = 100


def cli_page() -> str:
    """Every command's help, as the program prints it."""
    settings = {**main.context_settings, "terminal_width": WIDTH}
    root = click.Context(main, info_name="vtc", **settings)
    parts = [
        "# The command line\n",
        "Made by `docs/build.py` from `vtc COMMAND --help`; edit the commands, not this page.\n",
        _help(main, root, "vtc"),
    ]
    parts += [_section(command, root) for command in COMMANDS]
    return "\n".join(parts)


def tables_page() -> str:
    """Every table: its columns, types, units and meanings."""
    parts = [
        "# The tables\n",
        "Made by `docs/build.py` from `vtc/tables/specs.py`; edit that file, not this page.\n\n"
        "A Parquet file of vtc has a footer, the JSON object under its metadata key `vtc`:\n"
        "table, version, vtc's version, command line, settings, seed, inputs with their SHA-256,\n"
        "versions of the libraries, time (`vtc show FILE --footer`). CSV and JSON lines hold the\n"
        "rows alone, lists as JSON. A column that may be empty has a `?` behind its type.\n",
    ]
    parts += [_table(table) for table in TABLES]
    return "\n".join(parts)


PAGES = {"cli.md": cli_page, "tables.md": tables_page}


def _section(command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, parent, info_name=command.name)
    text = _help(command, context, context.command_path)
    if isinstance(command, click.Group):
        below = [_section(sub, context) for sub in command.commands.values()]
        text = "\n".join([text, *below])
    return text


def _help(command: click.Command, context: click.Context, title: str) -> str:
    return f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"


def _table(table: Table) -> str:
    lines = [
        f"## {table.name} (version {table.version})\n",
        f"{_sentence(table.meaning)}\n",
        "| column | type | unit | meaning |",
        "|---|---|---|---|",
    ]
    for column in table.columns:
        kind = f"{column.type}?" if column.nullable else column.type
        cells = (f"`{column.name}`", f"`{kind}`", column.unit, column.meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def stale() -> list[str]:
    """Names of the pages that differ from what the program says now."""
    return [
        name
        for name, page in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != page()
    ]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(f"docs/{name} is stale; run docs/build.py" for name in stale()) or 0)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/{name}")
