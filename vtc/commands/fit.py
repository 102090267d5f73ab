"""vtc fit: points or scores in, laws out."""

import click

from vtc.commands import options

COLUMNS = (
    *("task", "alpha", "beta", "k", "d", "ratio", "ratio_low", "ratio_high"),
    *("v_star", "v_star_low", "v_star_high", "rmse", "n_points", "n_sizes", "flags"),
)


@click.command()
@click.argument("table", metavar="TABLE", type=click.Path(allow_dash=True))
@click.option("--task", "tasks", multiple=True, help="Fit this task only (repeatable).")
@click.option(
    "--n",
    "convention",
    type=click.Choice(("nominal", "total", "non-embedding")),
    default="nominal",
    show_default=True,
    help="How to count the LLM's parameters N.",
)
@click.option(
    "--method",
    type=click.Choice(("varpro", "paper-grid")),
    default="varpro",
    show_default=True,
    help="Global least squares, or the published brute-force grid (whole, no intervals).",
)
@click.option(
    "--exponents", metavar="A/B", help="Fix alpha/beta, as in .077/.015; fit only k and D."
)
@click.option(
    "--holdout", metavar="CONDITION", help="Hold points out and predict them: 'n_params>=7b'."
)
@click.option("--drop-suspect", is_flag=True, help="Leave out rows whose note begins 'suspect'.")
@click.option(
    "--level",
    type=options.Finite(0.5, 1, max_open=True),
    default=0.95,
    show_default=True,
    help="Coverage the intervals aim at.",
)
@options.text_tokens("Text tokens Q of the best V.")
@click.option(
    "--draws",
    "n_draws",
    type=click.IntRange(0, 100_000),
    default=400,
    show_default=True,
    help="Draws of the law kept for prediction intervals.",
)
@options.seed
@options.output
@options.config
def fit(out, fmt, force, **settings) -> None:
    """Fit Y(N, V) = k N^-alpha V^-beta + D to a table, one law a task, with intervals.

    TABLE is CSV, Parquet or JSON (`-`: stdin): a scores table, or any table with
    visual_tokens, n_params (a count) or n_params_b (billions), and error or score.

    \b
    Example:
      vtc fit scores.parquet -o law.parquet
      vtc fit points.csv --holdout 'n_params>=7b'
    """
    from vtc import console
    from vtc.law.run import Request, fit_table
    from vtc.law.sentences import describe
    from vtc.tables import provenance, specs, write

    chosen = write.check_output(out, fmt, force)
    request = Request(**settings)
    fitted = fit_table(request)
    for row, n_dropped in fitted:
        for line in describe(row, n_dropped):
            console.say(line)
    rows = [row for row, _ in fitted]
    footer = None
    if chosen == "parquet":
        footer = provenance.footer(
            settings=request.settings(), inputs=[request.table], seed=request.seed
        )
    options.emit(rows, specs.LAW, out, fmt, force, footer=footer, columns=COLUMNS)
