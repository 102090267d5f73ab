"""vtc recommend: a budget in, ranked choices out."""

import click

from vtc.commands import options

_OBJECTIVES = ("flops", "ttft", "latency", "throughput", "cost")
_STORED = ("bf16", "int8", "nf4")


@click.command()
@click.option(
    "--flops",
    type=options.Quantity(),
    help="Budget of one inference in FLOP, such as 3e12, 3T or 3TFLOP.",
)
@click.option(
    "--latency",
    type=options.Duration(),
    help="Budget of time, such as 30ms: to the last token, or with --objective ttft to the first.",
)
@click.option("--fps", type=options.Quantity(), help="Images a second that must be reached.")
@click.option(
    "--budget-usd-per-1k-images",
    "usd_per_1k",
    type=options.Finite(0, min_open=True),
    help="Price of 1000 images in USD that may be reached; needs --usd-per-hour.",
)
@click.option(
    "--objective",
    type=click.Choice(_OBJECTIVES),
    help="Budget that choices are compared by; all budgets given must hold. [default: the first]",
)
@options.text_tokens("Text tokens Q of the question, behind the images; 0 if they are cached.")
@click.option(
    "--q-cached",
    type=options.Quantity(zero=True),
    help="Text tokens before the images that are in the KV cache already. [default: 0]",
)
@click.option(
    "--g",
    "generated",
    type=options.Quantity(zero=True),
    help="Tokens generated; the first comes with the prefill. [default: 1]",
)
@click.option("--images", type=click.IntRange(1), help="Images an inference. [default: 1]")
@click.option("--batch", type=click.IntRange(1), help="Inferences at once. [default: 1]")
@click.option(
    "--gpu",
    type=options.Names(),
    help="GPU, such as rtx4090, several, or all: see `vtc catalog gpus`.",
)
@click.option(
    "--vram",
    type=options.Bytes(),
    help="Memory that may be filled, such as 16GB. [default: the GPU's]",
)
@click.option(
    "--usd-per-hour", type=options.Finite(0, min_open=True), help="Price of the GPU in USD."
)
@click.option(
    "--weights",
    type=click.Choice(_STORED),
    help="How the LLM's linear layers are kept; they compute in bf16. [default: bf16]",
)
@click.option("--kv", type=click.Choice(_STORED), help="How the KV cache is kept. [default: bf16]")
@click.option(
    "--encoder",
    help="Vision encoder: a name, folder or hub id, or none. "
    "[default: openai/clip-vit-large-patch14-336]",
)
@click.option(
    "--compressor",
    help="Token compressor, or none; quecc:query-cached if its questions are known before. "
    "[default: tokenpacker]",
)
@click.option("--costs", help="Table of measured costs, which replace the model where they exist.")
@click.option(
    "--compute-efficiency",
    type=options.Finite(0, 1, min_open=True),
    help="Share of the GPU's peak that is reached. [default: the catalog's, else 0.6]",
)
@click.option(
    "--bandwidth-efficiency",
    type=options.Finite(0, 1, min_open=True),
    help="Share of its bandwidth that is reached. [default: the catalog's, else 0.8]",
)
@click.option(
    "--cost-model",
    type=click.Choice(["paper", "exact"]),
    help="paper: 2 N (Q + V), the LLM's prefill alone; exact: every matrix product. "
    "[default: paper with --flops alone, else exact]",
)
@click.option(
    "--task",
    help="Task of the law, or a mix such as reasoning:0.7,ocr:0.3. "
    "[default: reasoning, or the law's only task]",
)
@click.option(
    "--law",
    default="published",
    show_default=True,
    help="published, paper (printed exponents), or a file from `vtc fit`.",
)
@click.option(
    "--group", help="Group of a law fitted with --by, such as a compressor. [default: all of them]"
)
@click.option(
    "--n",
    "convention",
    type=click.Choice(["nominal", "total", "non-embedding"]),
    help="How the law must count N; another law is refused. [default: as the law does]",
)
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
@click.option(
    "--models",
    help="Table of your own LLMs instead: model, n_params (or n_params_b, in billions) and, if "
    "wanted, family; for exact costs also their shapes, as in `vtc catalog llms`.",
)
@click.option(
    "--visual-tokens",
    type=options.Numbers(),
    help="V to choose from. [default: those of 1,4,16,36,64,144,576 that the law covers]",
)
@click.option(
    "--top", type=click.IntRange(1), help="Choices to show. [default: 5; 1 each of several GPUs]"
)
@options.output
@options.config
def recommend(law, task, group, convention, out, fmt, force, **flags):
    """Choose an LLM and a number of visual tokens for a budget of FLOPs, time or money.

    With --flops alone it answers the paper's question: prints the best continuous choice, V* =
    Q / (alpha/beta - 1), and ranks the real ones by the error that a law predicts. With a GPU,
    or anything else of a deployment, costs are exact (encoder, compressor, prefill, decoding),
    times a roofline model or measured, and memory is checked. Needs no training: the law of the
    published measurements is shipped. Exits with 3 if nothing fits. See docs/recommend.md.

    \b
    Example:
      vtc recommend --flops 3e12 --q 50
      vtc recommend --flops 3T --q 50 --task ocr --family qwen2.5
      vtc recommend --gpu rtx4090 --latency 60ms --g 8 --weights nf4
      vtc recommend --gpu a100-80gb --batch 64 --fps 100 --task reasoning:0.7,ocr:0.3
      vtc recommend --gpu l4 --usd-per-hour 0.8 --budget-usd-per-1k-images 0.02
    """
    from vtc import console
    from vtc import recommend as adviser
    from vtc.commands import advice, deploying
    from vtc.errors import InputError
    from vtc.tables import specs, write

    write.check_output(out, fmt, force)
    piped = [name for name in ("law", "models", "costs") if {**flags, "law": law}[name] == "-"]
    if len(piped) > 1:
        first, second = piped[:2]
        raise InputError(f"--{first} and --{second} cannot both be stdin; give one as a file")
    paper = deploying.is_paper(flags)
    mix = adviser.read_mix(law, task, convention, group)
    models = deploying.llms_of(flags)
    answer = advice.of_paper if paper else advice.of_deployment
    rows, lines, columns = answer(flags, mix, models)
    for line in lines:
        console.say(line)
    if write.resolve_format(out, fmt) == "table":
        console.print_table(advice.shown(rows, columns), [*columns], columns)
        return
    footer = None
    if write.resolve_format(out, fmt) == "parquet":
        from vtc.tables import provenance

        inputs = [path for path in (law, flags["models"], flags["costs"]) if path]
        footer = provenance.footer(settings=click.get_current_context().params, inputs=inputs)
    options.emit(rows, specs.RECOMMENDATION, out, fmt, force, footer=footer)
