"""Figures of what a law advises: nothing is read but the law."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import click

from vtc.commands import options, plotting

_Q = click.option(
    "--q",
    "text_tokens",
    type=options.Several(options.Quantity(zero=True)),
    default="0,10,50,200",
    show_default=True,
    help="Text tokens Q, a curve each.",
)
_FLOPS = click.option(
    "--flops",
    type=options.Quantity(),
    help="Budget of prefill. [default: the largest LLM's at the fewest V and the law's Q]",
)


@click.command(short_help="The best V as the text grows: Q against V at a fixed budget.")
@plotting.laws
@_Q
@_FLOPS
@plotting.output
def text(law, tasks, group, text_tokens, flops, out, force):
    """How the best V grows with the text Q, and the error of each V under one budget.

    LAW is a file of `vtc fit`, published (the default) or paper. A column a task. The published
    study's Figure 3 (a: reasoning, b: OCR).

    \b
    Example:
      vtc plot text -o text.png
      vtc plot text law.parquet --task ocr --q 0,12,100 --flops 20M -o text.svg
    """
    plotting.check(out, force)
    from vtc.figures.panel import law_mixes
    from vtc.figures.text import draw

    mixes = law_mixes(law, tasks, group)
    figure = draw(mixes, text_tokens, flops)
    plotting.save(figure, out, force, plotting.counted(len(mixes), "task"))


@click.command(short_help="What another V than the best wastes, in FLOPs and in error.")
@plotting.laws
@_Q
@_FLOPS
@plotting.output
def regret(law, tasks, group, text_tokens, flops, out, force):
    """FLOPs that another V than the best wastes at equal error, and its error at one budget.

    LAW is a file of `vtc fit`, published (the default) or paper. A column a task.

    \b
    Example:
      vtc plot regret --task reasoning -o regret.png
      vtc plot regret law.parquet --q 12,50 -o regret.pdf
    """
    plotting.check(out, force)
    from vtc.figures.panel import law_mixes
    from vtc.figures.regret import draw

    mixes = law_mixes(law, tasks, group)
    figure = draw(mixes, text_tokens, flops)
    plotting.save(figure, out, force, plotting.counted(len(mixes), "task"))


@click.command("map", short_help="The best LLM and V over budgets and lengths of text.")
@click.argument("law", metavar="[LAW]", default="published")
@click.option(
    "--task",
    help="Task of the law, or a mix such as reasoning:0.7,ocr:0.3. "
    "[default: reasoning, or the law's only task]",
)
@click.option("--group", help="Group of a law fitted with --by. [default: the whole task]")
@click.option(
    "--family",
    type=options.Names(),
    help="Families of LLMs to choose from, or all. [default: qwen1.5]",
)
@click.option(
    "--llm",
    type=options.Names(),
    help="LLMs to choose from instead: names of the catalog, folders or hub ids.",
)
@click.option("--models", help="Table of your own LLMs instead, as for `vtc recommend`.")
@click.option(
    "--visual-tokens",
    type=options.Numbers(),
    help="V to choose from. [default: those of 1,4,16,36,64,144,576 that the law covers]",
)
@click.option(
    "--q",
    "text_range",
    type=options.Several(options.Quantity(), count=2),
    default="1,1000",
    show_default=True,
    help="The least and the most text.",
)
@click.option(
    "--flops",
    "flops_range",
    type=options.Several(options.Quantity(), count=2),
    help="The least and the largest budget. [default: from the cheapest choice to all]",
)
@click.option(
    "--latency",
    "latency_range",
    type=options.Several(options.Duration(), count=2),
    help="With --gpu, budgets of time to the last token instead, such as 5ms,200ms.",
)
@click.option("--gpu", help="GPU whose time and memory count: see `vtc catalog gpus`.")
@click.option(
    "--batch", type=click.IntRange(1), help="With --gpu: inferences at once. [default: 1]"
)
@click.option(
    "--g",
    "generated",
    type=options.Quantity(),
    help="With --gpu: tokens generated. [default: 1]",
)
@click.option(
    "--weights",
    type=click.Choice(["bf16", "int8", "nf4"]),
    help="With --gpu: how the LLM's linear layers are kept. [default: bf16]",
)
@plotting.output
def choices(law, task, group, text_range, flops_range, latency_range, out, force, **flags):
    """The best LLM and the best V over budgets of FLOPs and lengths of text.

    Each place is what `vtc recommend --flops F --q Q` puts first; with --gpu what `vtc recommend
    --gpu NAME --latency T --q Q` does. LAW is a file of `vtc fit`, published (the default) or
    paper.

    \b
    Example:
      vtc plot map -o map.png
      vtc plot map --task ocr --family qwen2.5 --q 1,300 --flops 100G,20T -o map.svg
      vtc plot map --gpu rtx4090 --g 8 --weights nf4 -o rtx4090.png
      vtc plot map law.parquet --models world/llms.csv -o map.png
    """
    plotting.check(out, force)
    from vtc import recommend as adviser
    from vtc.errors import InputError
    from vtc.figures.choices import decide

    ranges = {"--q": text_range, "--flops": flops_range, "--latency": latency_range}
    for name, ends in ranges.items():
        if ends and ends[0] >= ends[1]:
            raise InputError(f"{name} {ends[0]:g},{ends[1]:g}: give the smaller number first")
    served = [name for name in ("latency_range", "batch", "generated", "weights")
              if {**flags, "latency_range": latency_range}[name] is not None]  # fmt: skip
    if served and not flags["gpu"]:
        flag = {"latency_range": "latency", "generated": "g"}.get(served[0], served[0])
        raise InputError(f"--{flag} is of a deployment: give --gpu (`vtc catalog gpus`)")
    if flags["gpu"] and flops_range:
        raise InputError("--flops and --gpu exclude each other: with a GPU the budget is --latency")
    asked = _choices(adviser.read_mix(law, task, None, group), flags)
    found = decide(asked, text_range, latency_range or flops_range)
    from vtc.figures.decision import draw

    plotting.save(draw(found), out, force, plotting.counted(len(asked.models), "LLM"))


def _choices(mix: Any, flags: Mapping[str, Any]) -> Any:
    """What the map chooses from: under the paper's cost, or under a GPU's time and memory."""
    from vtc import recommend as adviser
    from vtc.commands import deploying
    from vtc.figures.choices import Choices, Served

    models = deploying.llms_of(flags)
    if not flags["gpu"]:
        tokens = flags["visual_tokens"] or adviser.default_visual_tokens(mix.row)
        return Choices(mix, models, sorted(tokens))
    # Any budget: the map has its own.
    asked = defaultdict(lambda: None, flags, gpu=(flags["gpu"],), latency=1.0, text_tokens=0.0)
    question = deploying.deployment(asked, mix, models)
    return Served(mix, models, question.visual_tokens, question)
