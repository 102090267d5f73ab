"""vtc fit: points or scores in, laws out."""

import click

from vtc.commands import options

FORMS = ("power", "power-d0", "log-linear", "logit-linear", "interaction", "additive", "offset")


@click.command()
@click.argument(
    "tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path(allow_dash=True)
)
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
    "--form",
    type=click.Choice((*FORMS, "all")),
    default="power",
    show_default=True,
    help="Form of the law; any but power, and all, writes a table of forms, ranked.",
)
@click.option("--at", metavar="N:V,...", help="With --form: predict there, such as 14b:1,14b:576.")
@click.option(
    "--flops",
    type=options.Quantity(),
    help="With --form: budget of the best V. [default: the largest LLM's at the fewest V]",
)
@click.option(
    "--exponents", metavar="A/B", help="Fix alpha/beta, as in .077/.015; fit only k and D."
)
@click.option(
    "--holdout", metavar="CONDITION", help="Hold points out and predict them: 'n_params>=7b'."
)
@click.option(
    "--by",
    type=click.Choice(("benchmark", "compressor", "encoder", "family")),
    help="A law for each of these, in place of one a task (benchmark: and that of their mean).",
)
@click.option(
    "--share",
    type=click.Choice(("exponents", "alpha")),
    help="With --by: the groups share alpha and beta, or alpha; each keeps k and D.",
)
@click.option("--drop-suspect", is_flag=True, help="Leave out rows whose note begins 'suspect'.")
@click.option(
    "--drop-untrained",
    is_flag=True,
    help="Leave out runs at V that they were not trained at.",
)
@click.option(
    "--level",
    type=options.Finite(0.5, 1, max_open=True),
    default=0.95,
    show_default=True,
    help="Coverage the intervals aim at.",
)
@click.option(
    "--profile", metavar="FILE", help="Also write how well other values fit, by parameter."
)
@click.option(
    "--report", metavar="NAME", help="Also write a filled checklist: NAME.md and NAME.json."
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
def fit(tables, out, fmt, force, profile, report, **settings) -> None:
    """Fit Y(N, V) = k N^-alpha V^-beta + D to points, one law a task, with intervals.

    TABLE is CSV, Parquet or JSON (`-`: stdin): a scores table, or any table with
    visual_tokens, n_params (a count) or n_params_b (billions), and error or score. Files of
    predictions are scored first, and their images are resampled for intervals over other items.
    Several tables are fitted as one; each run must be in one of them.

    \b
    Example:
      vtc fit scores.parquet -o law.parquet
      vtc fit runs/*/scores.parquet -o law.parquet
      vtc fit points.csv --holdout 'n_params>=7b'
      vtc fit predictions.parquet --by benchmark -o laws.parquet
      vtc fit scores.parquet --by compressor --share alpha
      vtc fit points.csv --form all --at 14b:1,14b:576
      vtc fit points.csv --profile profile.parquet --report law
    """
    from vtc import console
    from vtc.commands import law_tables
    from vtc.law.extras import Extras
    from vtc.law.run import Request, compare_table, fit_laws
    from vtc.law.sentences import describe
    from vtc.tables import provenance, specs, write

    chosen = write.check_output(out, fmt, force)
    request = Request(tables[0], more=tables[1:], **settings)
    extras = Extras(profile, report, force)
    extras.check(request, out)
    material = material_of(request.inputs)
    if request.form == "power":
        lacking: list[str] = []
        fitted = fit_laws(request, material, lacking.append)
        rows = [law.row for law in fitted]
        lines = [*lacking]
        lines += [line for law in fitted for line in describe(law.row, law.n_dropped)]
        lines += extras.write(request, material, fitted, lacking)
        spec, shown = specs.LAW, lambda: law_tables.laws(rows, request.by)
    else:
        rows, lines = compare_table(request, material)
        spec, shown = specs.FORMS, lambda: law_tables.forms(rows)
    for line in lines:
        console.say(line)
    if chosen == "table" and out == "-":
        short, columns = shown()
        console.print_table(short, [*columns], columns)
        return
    footer = None
    if chosen == "parquet":
        footer = provenance.footer(
            settings=request.settings(), inputs=list(request.inputs), seed=request.seed
        )
    options.emit(rows, spec, out, fmt, force, footer=footer)


def material_of(tables):
    """What is fitted: the tables' rows, or, of files of predictions, their scores by image."""
    from vtc import console
    from vtc.errors import InputError
    from vtc.evaluate.kinds import is_predictions
    from vtc.evaluate.uneven import uneven
    from vtc.law.points import without_repeated
    from vtc.law.run import Material
    from vtc.law.several import read_tables, refuse_twice

    kinds = {is_predictions(table): table for table in tables}
    if len(kinds) > 1:
        raise InputError(
            f"{kinds[True]} holds predictions, {kinds[False]} scores; `vtc score` makes scores of "
            "the first"
        )
    if True in kinds:
        from vtc.evaluate.influences import read_influences

        refuse_twice(tables)
        found = Material(*read_influences(*tables))
    else:
        found = Material(read_tables(tables))
    for sentence in (*uneven(found.rows), without_repeated(found.rows)):
        if sentence:
            console.say(sentence)
    return found
