"""Figures of laws and of the points that they are fitted to."""

import click

from vtc.commands import options, plotting


@click.command(short_help="Error against FLOPs and V, the law's curves and its best line.")
@plotting.points
@plotting.law_of_points
@click.option(
    "--q",
    "text_tokens",
    type=options.Several(options.Quantity(zero=True)),
    default="50",
    show_default=True,
    help="Text tokens Q in the FLOPs, a row of panels each.",
)
@plotting.output
def law(tables, law_file, tasks, text_tokens, drop_suspect, out, force):
    """Error against FLOPs and against V, a curve a size of LLM, and the best line.

    TABLE holds scores or points, as for `vtc fit`; a column of panels a task. Points that the law
    was fitted without (--holdout) are hollow. The published study's Figure 1 is --q 0,50.

    \b
    Example:
      vtc plot law scores.parquet --law law.parquet -o law.png
      vtc plot law scores.parquet --q 0,50 --task reasoning -o figure1.png
    """
    plotting.check(out, force)
    from vtc.figures.panel import law_panels

    panels = law_panels(tables, law_file, tasks, drop_suspect)
    from vtc.figures.law import draw

    plotting.save(draw(panels, text_tokens), out, force, plotting.counted(len(panels), "task"))


@click.command(short_help="Held-out points, what the law expected, and how far off it was.")
@plotting.points
@click.option("--law", "law_file", help="Law file of `vtc fit --holdout`.")
@click.option(
    "--holdout", "condition", metavar="CONDITION", help="Fit here without these: 'n_params>=7b'."
)
@plotting.output
def holdout(tables, law_file, tasks, condition, drop_suspect, out, force):
    """Points that the law never saw, where it expected a run, and how far off it was in %.

    TABLE holds all scores or points, as for `vtc fit`. The published study's Figures 2 and 6.

    \b
    Example:
      vtc plot holdout scores.parquet --holdout 'n_params>=7b' -o holdout.png
      vtc plot holdout scores.parquet --law held.parquet -o holdout.svg
    """
    plotting.check(out, force)
    from vtc.figures.holdout import draw, read_panels

    panels = read_panels(tables, law_file, condition, tasks, drop_suspect)
    plotting.save(draw(panels), out, force, plotting.counted(len(panels), "task"))


@click.command(short_help="How fast a fit worsens away from the best alpha, beta, ratio and D.")
@click.argument("table", metavar="TABLE", type=click.Path(allow_dash=True))
@plotting.output
def profile(table, out, force):
    """How fast a law's fit worsens away from the best alpha, beta, alpha/beta and D.

    TABLE is what `vtc fit --profile` wrote. A thick line is what the data admit: a flat one is a
    parameter that they do not tell.

    \b
    Example:
      vtc fit scores.parquet --profile profile.parquet -o law.parquet
      vtc plot profile profile.parquet -o profile.png
    """
    plotting.check(out, force)
    from vtc.tables import specs
    from vtc.tables.read import read_rows

    rows = read_rows(table, specs.PROFILE).rows
    from vtc.figures.profile import draw

    plotting.save(draw(rows), out, force)


@click.command(short_help="Which pairs of alpha and beta the points admit: the fit's valley.")
@plotting.points
@plotting.law_of_points
@plotting.output
def ridge(tables, law_file, tasks, drop_suspect, out, force):
    """Which pairs of alpha and beta the points admit, and the lines of equal alpha/beta.

    A long narrow region along such a line says that the ratio is known and the exponents one by
    one are not. TABLE holds scores or points, as for `vtc fit`; a panel a task.

    \b
    Example:
      vtc plot ridge scores.parquet --law law.parquet -o ridge.png
    """
    plotting.check(out, force)
    from vtc.figures.panel import law_panels

    panels = law_panels(tables, law_file, tasks, drop_suspect)
    from vtc.figures.ridge import draw

    plotting.save(draw(panels), out, force, plotting.counted(len(panels), "law"))


@click.command(short_help="Forms of the law beside one another, inside the points and beyond.")
@plotting.points
@click.option(
    "--forms", "forms_file", help="Table of `vtc fit --form all`. [default: fit all forms here]"
)
@plotting.output
def forms(tables, tasks, forms_file, drop_suspect, out, force):
    """What each form of the law says inside the points, for larger LLMs, and for more tokens.

    TABLE holds scores or points, as for `vtc fit`; a row of panels a task. With --forms the legend
    has the gaps of AICc, else the root mean squared residuals.

    \b
    Example:
      vtc fit scores.parquet --form all -o forms.parquet
      vtc plot forms scores.parquet --forms forms.parquet -o forms.png
    """
    plotting.check(out, force)
    from vtc.figures.forms import draw, read_forms

    found = read_forms(tables, forms_file, tasks, drop_suspect)
    plotting.save(draw(found), out, force, plotting.counted(len(found), "task"))


@click.command(short_help="Exponents by benchmark, compressor, ...: a forest plot.")
@click.argument("table", metavar="LAWS", type=click.Path(allow_dash=True))
@click.option("--task", "tasks", multiple=True, help="Draw this task only (repeatable).")
@plotting.output
def groups(table, tasks, out, force):
    """Exponents of benchmarks, compressors, encoders or families beside one another.

    LAWS is what `vtc fit --by` wrote. Squares are exponents drawn to the groups' mean as far as
    each one's own doubt asks; crosses the whole task's alpha/beta without that benchmark.

    \b
    Example:
      vtc fit scores.parquet --by benchmark -o laws.parquet
      vtc plot groups laws.parquet -o benchmarks.png
    """
    plotting.check(out, force)
    from vtc.errors import InputError
    from vtc.law.written import read_laws
    from vtc.tables.read import title

    rows = read_laws(table)
    there = list(dict.fromkeys(row["task"] for row in rows))
    for task in tasks:
        if task not in there:
            raise InputError(
                f"{title(table)} has no law of task '{task}'; it has {', '.join(there)}"
            )
    from vtc.figures.groups import draw

    kept = [row for row in rows if not tasks or row["task"] in tasks]
    plotting.save(draw(kept), out, force, plotting.counted(len(kept), "law"))
