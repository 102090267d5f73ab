"""Figures of trainings and of scores."""

import click

from vtc.commands import options, plotting


@click.command(short_help="Trainings: loss, gradient norm and learning rate against samples.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@plotting.output
def train(runs, out, force):
    """Loss, gradient norm and learning rate of trainings against samples, a curve a run.

    RUN is a run folder, a checkpoint of a training under way (OUT/NAME.training/step-...), or a
    train_log.parquet.

    \b
    Example:
      vtc plot train runs/tokenpacker-v1 runs/tokenpacker-v16 -o loss.png
    """
    plotting.check(out, force)
    from vtc.figures.train import draw, loss_label, read_logs

    figure = draw(read_logs(runs), loss_label(runs))
    plotting.save(figure, out, force, plotting.counted(len(runs), "run"))


_TABLES = click.argument(
    "tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path(allow_dash=True)
)


@click.command(short_help="Scores against V by benchmark, with intervals and chance.")
@_TABLES
@click.option("--benchmark", "benchmarks", multiple=True, help="Draw this one only (repeatable).")
@click.option("--run", "runs", multiple=True, help="Draw this run_id only (repeatable).")
@plotting.output
def scores(tables, benchmarks, runs, out, force):
    """Scores against V, a panel a benchmark, a line an LLM, with intervals and chance.

    TABLE is a scores table of `vtc score` or `vtc eval`, or a predictions table, whose scores are
    added up first.

    \b
    Example:
      vtc plot scores scores.parquet -o scores.png
      vtc plot scores predictions.parquet --benchmark textvqa -o textvqa.png
    """
    plotting.check(out, force)
    from vtc.evaluate.looking import score_rows
    from vtc.figures.scores import draw

    rows = score_rows(tables, runs, benchmarks)
    plotting.save(draw(rows), out, force, plotting.counted(len(rows), "score"))


@click.command("same-compute", short_help="Scores by benchmark of runs that cost the same FLOPs.")
@_TABLES
@click.option(
    "--flops",
    type=options.Several(options.Quantity()),
    help="Budgets of prefill, a column each. [default: that at which most LLMs have a run]",
)
@click.option(
    "--within",
    type=options.Finite(0, 1, min_open=True),
    default=0.25,
    show_default=True,
    help="How far from a budget a run may cost, as a share of it.",
)
@options.text_tokens("Text tokens Q in the FLOPs.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Draw this one only (repeatable).")
@click.option("--run", "runs", multiple=True, help="Draw this run_id only (repeatable).")
@plotting.output
def same_compute(tables, flops, within, text_tokens, benchmarks, runs, out, force):
    """Scores of runs that cost the same prefill: few tokens in a large LLM, many in a small one.

    Of each LLM (and compressor) the V nearest to the budget 2 N (Q + V) is taken. TABLE is what
    `plot scores` takes. Lines through points are 95 % intervals, dotted lines chance.

    \b
    Example:
      vtc plot same-compute scores.parquet -o same.png
      vtc plot same-compute scores.parquet --flops 300G,1T --within 0.4 -o same.png
    """
    plotting.check(out, force)
    from vtc.evaluate.looking import score_rows
    from vtc.figures.same_compute import best_budget, choices_of, draw, match

    rows = score_rows(tables, runs, benchmarks)
    every = choices_of(rows, text_tokens)
    budgets = flops or (best_budget(every, within),)
    found = [match(every, budget, within) for budget in budgets]
    plotting.save(draw(rows, found), out, force, plotting.counted(len(found), "budget"))
