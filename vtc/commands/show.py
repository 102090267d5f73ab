"""`vtc show`: look into any artifact."""

import click

from vtc.commands import options


@click.command("show")
@click.argument("artifact", type=click.Path(allow_dash=True))
@click.option(
    "-n",
    "--rows",
    type=click.IntRange(1),
    help="Rows shown. [default: 10 of a table on the screen, else all]",
)
@click.option("--columns", help="Columns shown, such as run_id,score. [default: those that differ]")
@click.option("--describe", is_flag=True, help="Show the columns: type, unit, meaning.")
@click.option("--footer", "footer_only", is_flag=True, help="Show what made it, as JSON.")
@options.output
def show(artifact, rows, columns, describe, footer_only, out, fmt, force) -> None:
    """Show a table, a run, a folder of features or a lab world; convert a table.

    ARTIFACT is a table (Parquet, CSV, JSON lines, `-` for stdin) or a folder that a command wrote.
    As a table for the screen, columns that are the same in every row are said once, on stderr.

    \b
    Example:
      vtc show scores.parquet --columns backbone,visual_tokens,score
      vtc show runs/tokenpacker-v16
      vtc show law.parquet --format csv -o law.csv
    """
    from pathlib import Path

    from vtc import console
    from vtc.tables import inspect
    from vtc.tables.write import check_output

    chosen = check_output(out, fmt, force)
    if artifact != "-" and Path(artifact).is_dir():
        found = inspect.open_folder(artifact)
    else:
        found = inspect.open_table(artifact)
    if footer_only:
        click.echo(inspect.footer_json(found))
        return
    console.say(found.summary)
    if describe:
        found = inspect.description(found)
    names = inspect.choose_columns(found, columns)
    whole = chosen != "table" or inspect.is_description(found)
    shown = found.rows[: rows or (None if whole else 10)]
    if chosen == "table" and columns is None:
        names, same = inspect.split_constant(found.rows, names)
        if same:
            cells = ", ".join(f"{key}={console.format_cell(cell)}" for key, cell in same.items())
            console.say(f"the same in every row: {cells}")
    spec = inspect.part_of(found.spec, names)
    picked = [{name: row.get(name) for name in names} for row in shown]
    if rows is None and len(shown) < len(found.rows):
        left = len(found.rows) - len(shown)
        console.say(f"{left} more row{'s' * (left != 1)}: -n {len(found.rows)} shows all")
    options.emit(picked, spec, out, fmt, force, footer=found.footer)
