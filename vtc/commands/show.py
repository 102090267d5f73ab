"""`vtc show`: look into any artifact."""

import click

from vtc.commands import answers, options


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
@click.option("--wrong", is_flag=True, help="Of predictions, print wrong answers for reading.")
@click.option("--benchmark", help="Only the rows of this benchmark.")
@click.option("--run", "run_id", help="Only the rows of this run, by its run_id.")
@click.option("--sheet", help="Draw answers with their images too: a .png, .svg or .pdf file.")
@click.option(
    "--images", help="Image root of the sheet. [default: where the evaluation had the images]"
)
@click.option(
    "--data-dir",
    type=click.Path(),
    help="Folder with the rows of benchmarks, for logs of lmms-eval that do not hold the truth.",
)
@options.output
def show(
    artifact, rows, columns, describe, footer_only, wrong, benchmark, run_id, sheet, images,
    data_dir, out, fmt, force,
) -> None:  # fmt: skip
    """Show a table, a run, a folder of features or a lab world; convert a table.

    ARTIFACT is a table (Parquet, CSV, JSON lines, `-` for stdin) or a folder that a command wrote.
    As a table for the screen, columns that are the same in every row are said once, on stderr.
    Of predictions, --wrong prints question, answer and truth of wrong answers, in turn from each
    run and benchmark, and --sheet draws the pictures with them. Logged samples of lmms-eval are
    read for --wrong as well, and scored anew.

    \b
    Example:
      vtc show scores.parquet --columns backbone,visual_tokens,score
      vtc show predictions.parquet --wrong -n 12 --sheet wrong.png
      vtc show logs/MODEL/20260101_101112_samples_mme.jsonl --wrong
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
    elif (logged := _logged(artifact, data_dir) if wrong or sheet else None) is not None:
        found = logged
    else:
        found = inspect.open_table(artifact)
    if footer_only:
        click.echo(inspect.footer_json(found))
        return
    console.say(found.summary)
    if benchmark or run_id:
        from vtc.evaluate.looking import filtered

        found = found._replace(rows=filtered(found.rows, artifact, run_id, benchmark))
    if sheet or (wrong and chosen == "table"):
        answers.show(found, artifact, rows, wrong, sheet, images, force)
        return
    if wrong:
        from vtc.evaluate.looking import choose

        found = found._replace(rows=choose(found.rows, artifact, rows or len(found.rows), True))
    if describe:
        found = inspect.description(found)
    names = inspect.choose_columns(found, columns)
    whole = chosen != "table" or inspect.is_description(found)
    shown = found.rows[: rows or (None if whole else 10)]
    if chosen == "table" and columns is None:
        names, same = inspect.split_constant(found.rows, names)
        if same:
            cells = ", ".join(
                f"{key}={console.shorten(console.format_cell(cell))}" for key, cell in same.items()
            )
            console.say(f"the same in every row: {cells}")
    spec = inspect.part_of(found.spec, names)
    picked = [{name: row.get(name) for name in names} for row in shown]
    if rows is None and len(shown) < len(found.rows):
        left = len(found.rows) - len(shown)
        console.say(f"{left} more row{'s' * (left != 1)}: -n {len(found.rows)} shows all")
    options.emit(picked, spec, out, fmt, force, footer=found.footer)


def _logged(artifact, data_dir):
    """The scored samples of a log of lmms-eval, None for any other file."""
    from vtc import console
    from vtc.evaluate.logged import logged_rows
    from vtc.tables import inspect

    rows = logged_rows(artifact, data_dir, console.say)
    if rows is None:
        return None
    typed, spec = inspect.guess(rows)
    return inspect.Artifact(typed, spec, {}, f"{artifact}: {len(rows)} samples of lmms-eval")
