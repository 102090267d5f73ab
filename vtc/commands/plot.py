"""vtc plot: tables in, figures out; one subcommand a figure."""

import click

from vtc.commands import options


@click.group()
def plot():
    """Draw a figure as PNG, SVG or PDF.

    \b
    Example:
      vtc plot law scores.parquet --law law.parquet -o law.png
      vtc plot scores scores.parquet -o scores.png
    """


@plot.command()
@click.argument("table", metavar="TABLE", type=click.Path(allow_dash=True))
@click.option(
    "--law",
    "law_file",
    help="Law file of `vtc fit`, published or paper. [default: fit the table here]",
)
@click.option("--task", "tasks", multiple=True, help="Draw this task only (repeatable).")
@options.text_tokens("Text tokens Q in the FLOPs.")
@click.option("--drop-suspect", is_flag=True, help="Leave out rows whose note begins 'suspect'.")
@click.option("-o", "--out", required=True, help="Figure file: .png, .svg or .pdf.")
@click.option("--force", is_flag=True, help="Overwrite a figure that exists.")
@options.config
def law(table, law_file, tasks, text_tokens, drop_suspect, out, force):
    """Error against FLOPs and against V, a curve a size of LLM, and the best line.

    TABLE is what `vtc fit` takes; a column of panels a task. Points that the law was fitted
    without (--holdout) are hollow.

    \b
    Example:
      vtc plot law scores.parquet --law law.parquet -o law.png
    """
    from vtc import console
    from vtc.figures.panel import file_format, law_panels
    from vtc.tables.atomic import refuse_existing

    file_format(out)
    refuse_existing(out, force)
    panels = law_panels(table, law_file, tasks, drop_suspect)

    from vtc.figures import style
    from vtc.figures.law import draw

    style.save(draw(panels, text_tokens), out, force)
    console.say(f"wrote {out} ({len(panels)} task{'s' * (len(panels) != 1)})")


@plot.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", required=True, help="Figure file: .png, .svg or .pdf.")
@click.option("--force", is_flag=True, help="Overwrite a figure that exists.")
@options.config
def train(runs, out, force):
    """Loss, gradient norm and learning rate of trainings against samples, a curve a run.

    RUN is a run folder, a checkpoint of a training under way (OUT/NAME.training/step-...), or a
    train_log.parquet.

    \b
    Example:
      vtc plot train runs/tokenpacker-v1 runs/tokenpacker-v16 -o loss.png
    """
    from vtc import console
    from vtc.figures.panel import file_format
    from vtc.tables.atomic import refuse_existing

    file_format(out)
    refuse_existing(out, force)

    from vtc.figures import style
    from vtc.figures.train import draw, loss_label, read_logs

    style.save(draw(read_logs(runs), loss_label(runs)), out, force)
    console.say(f"wrote {out} ({len(runs)} run{'s' * (len(runs) != 1)})")


@plot.command()
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path())
@click.option("--benchmark", "benchmarks", multiple=True, help="Draw this one only (repeatable).")
@click.option("--run", "runs", multiple=True, help="Draw this run_id only (repeatable).")
@click.option("-o", "--out", required=True, help="Figure file: .png, .svg or .pdf.")
@click.option("--force", is_flag=True, help="Overwrite a figure that exists.")
@options.config
def scores(tables, benchmarks, runs, out, force):
    """Scores against V, a panel a benchmark, a line an LLM, with intervals and chance.

    TABLE is a scores table of `vtc score` or `vtc eval`, or a predictions table, whose scores are
    added up first.

    \b
    Example:
      vtc plot scores scores.parquet -o scores.png
      vtc plot scores predictions.parquet --benchmark textvqa -o textvqa.png
    """
    from vtc import console
    from vtc.evaluate.looking import score_rows
    from vtc.figures.panel import file_format
    from vtc.tables.atomic import refuse_existing

    file_format(out)
    refuse_existing(out, force)
    rows = score_rows(tables, runs, benchmarks)

    from vtc.figures import style
    from vtc.figures.scores import draw

    style.save(draw(rows), out, force)
    console.say(f"wrote {out} ({len(rows)} scores)")


@plot.command()
@click.argument("table", metavar="TABLE", type=click.Path(allow_dash=True))
@click.option("-o", "--out", required=True, help="Figure file: .png, .svg or .pdf.")
@click.option("--force", is_flag=True, help="Overwrite a figure that exists.")
@options.config
def profile(table, out, force):
    """How fast a law's fit worsens away from the best alpha, beta, alpha/beta and D.

    TABLE is what `vtc fit --profile` wrote. A thick line is what the data admit: a flat one is a
    parameter that they do not tell.

    \b
    Example:
      vtc fit scores.parquet --profile profile.parquet -o law.parquet
      vtc plot profile profile.parquet -o profile.png
    """
    from vtc import console
    from vtc.figures.panel import file_format
    from vtc.tables import specs
    from vtc.tables.atomic import refuse_existing
    from vtc.tables.read import read_rows

    file_format(out)
    refuse_existing(out, force)
    rows = read_rows(table, specs.PROFILE).rows

    from vtc.figures import style
    from vtc.figures.profile import draw

    style.save(draw(rows), out, force)
    console.say(f"wrote {out}")
