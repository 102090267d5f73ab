"""`vtc score`: predictions in, scores out, without a model."""

import click

from vtc.commands import options


@click.command("score")
@click.argument("predictions", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--metric", help="Score with this metric, whatever the table says.")
@click.option("--benchmark", help="Name of the benchmark, for a table without that column.")
@click.option(
    "--task",
    type=click.Choice(["reasoning", "ocr", "general"]),
    help="Task family, if the table has none.",
)
@click.option("--run-id", help="Name of the run. [default: the table's, else the file's name]")
@click.option("--backbone", help="Name of the LLM, if the table has none.")
@click.option("--family", help="Family of the LLM, if the table has none.")
@click.option("--n-params", type=options.Quantity(), help="Size of the LLM, such as 7b.")
@click.option("--visual-tokens", type=click.IntRange(1), help="Visual tokens of the run.")
@click.option("--compressor", help="Compressor of the run, if the table has none.")
@click.option("--encoder", help="Vision encoder of the run, if the table has none.")
@click.option("--seed", type=int, help="Training seed of the run, if the table has none.")
@click.option(
    "--data-dir",
    type=click.Path(),
    help="Folder with the rows of named benchmarks (DIR/NAME/*.parquet), for predictions without "
    "references.",
)
@options.scoring
@options.config
@options.output
def score(
    predictions, data_dir, compat, incomplete, by, average, sets, out, fmt, force, **given
) -> None:
    """Score predictions from their stored text: one row a run and benchmark, no model.

    PREDICTIONS are tables that `vtc eval` wrote, or anybody's (Parquet, CSV or JSON lines): each
    needs `prediction` and `references` (a text, or a list of them); `image_id`, where several items
    share an image, keeps the standard errors honest. Columns that they lack are given as options.
    Scores that are no mean of items (MME, POPE, MMBench) need the columns `category` and `group`.
    Of a benchmark that vtc knows (vtc benchmarks) `prediction` and `item_id` are enough beside
    --data-dir. Logged samples of lmms-eval are known by their content (docs/evaluation.md).

    \b
    Example:
      vtc score predictions.parquet -o scores.parquet
      vtc score theirs.csv --metric anls --benchmark docvqa --task ocr --n-params 7b \\
          --visual-tokens 576 -o scores.parquet
      vtc score predictions.parquet --average -o averages.parquet
      vtc score predictions.parquet --by category
      vtc score logs/*_samples_mme.jsonl --n-params 7b --visual-tokens 576 -o scores.parquet
    """
    from vtc import console
    from vtc.commands.scores import Scoring
    from vtc.evaluate.predictions import Source
    from vtc.tables.provenance import footer
    from vtc.tables.write import check_output

    check_output(out, fmt, force)
    scoring = Scoring(compat is not None, incomplete, by, average, sets)
    scoring.check()
    settings = {key: value for key, value in given.items() if value is not None}
    settings |= {"compat": compat, "incomplete": incomplete, "average": average, "set": list(sets)}
    settings |= {"by": by} if by else {}
    settings |= {"data_dir": data_dir} if data_dir else {}
    source = Source(given, data_dir, incomplete, console.say)
    rows = scoring.of_files(predictions, source)
    about = footer(settings=settings, inputs=predictions, seed=given["seed"])
    columns = scoring.columns(rows, "backbone")
    options.emit(rows, scoring.table, out, fmt, force, footer=about, columns=columns)
