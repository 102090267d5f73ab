"""vtc recommend: a budget in, ranked choices out."""

import click

from vtc.commands import options

COLUMNS = (
    *("rank", "model", "visual_tokens", "n_params", "flops", "budget_share"),
    *("error", "error_low", "error_high", "regret", "extrapolates"),
)


@click.command()
@click.option(
    "--flops",
    type=options.Quantity(),
    required=True,
    help="Budget of one inference in FLOP, such as 3e12, 3T or 3TFLOP.",
)
@options.text_tokens("Text tokens Q of the question; 0 if they are cached.")
@click.option("--task", help="Task of the law. [default: reasoning, or the law's only task]")
@click.option(
    "--law",
    default="published",
    show_default=True,
    help="published, paper (printed exponents), or a file from `vtc fit`.",
)
@click.option("--family", help="Family of LLMs to choose from. [default: qwen1.5]")
@click.option(
    "--models",
    help="Table of your own LLMs instead: model, n_params (or n_params_b, in billions) and, if "
    "wanted, family.",
)
@click.option(
    "--visual-tokens",
    type=options.Numbers(),
    help="V to choose from. [default: those of 1,4,16,36,64,144,576 that the law covers]",
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Choices to show."
)
@options.output
@options.config
def recommend(flops, text_tokens, task, law, family, models, visual_tokens, top, out, fmt, force):
    """Choose an LLM and a number of visual tokens for a budget of FLOPs.

    Prints the best continuous choice, V* = Q / (alpha/beta - 1), and ranks the real ones by
    the error that a law predicts. Needs no training: the law of the published measurements
    is shipped.

    \b
    Example:
      vtc recommend --flops 3e12 --q 50
      vtc recommend --flops 3T --q 50 --task ocr --family qwen2.5
    """
    from vtc import console
    from vtc import recommend as adviser
    from vtc.catalog import llms
    from vtc.errors import InputError
    from vtc.tables import specs, write
    from vtc.tables.read import title

    write.check_output(out, fmt, force)
    if law == models == "-":
        raise InputError("--law and --models cannot both be stdin; give one of them as a file")
    row = adviser.law_row(law, task)
    choices = adviser.read_models(models, family) if models else llms.family(family or "qwen1.5")
    question = adviser.Question(
        flops,
        text_tokens,
        title(law),
        row,
        choices,
        visual_tokens or adviser.default_visual_tokens(row),
        top,
    )
    answer = adviser.recommend(question)
    for line in adviser.explain(question, answer):
        console.say(line)
    footer = None
    if fmt == "parquet" or out.endswith(".parquet"):
        from vtc.tables import provenance

        inputs = [path for path in (law, models) if path]
        footer = provenance.footer(settings=click.get_current_context().params, inputs=inputs)
    options.emit(answer.rows, specs.RECOMMENDATION, out, fmt, force, footer=footer, columns=COLUMNS)
