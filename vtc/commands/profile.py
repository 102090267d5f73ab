"""`vtc profile`: what an inference costs on this machine, measured."""

from typing import Any

import click

from vtc.commands import options

_COLUMNS = (
    *("subject", "device", "dtype", "batch", "visual_tokens", "text_tokens", "encoder_ms"),
    *("projector_ms", "prefill_ms", "decode_ms_per_token", "peak_gb", "spread"),
)


@click.command("profile")
@click.argument("subject")
@click.option(
    "--encoder",
    default="openai/clip-vit-large-patch14-336",
    show_default=True,
    help="Vision encoder, a name or folder; a run has its own.",
)
@click.option(
    "--compressor",
    default="tokenpacker",
    show_default=True,
    help="Token compressor; a run has its own.",
)
@click.option(
    "--visual-tokens",
    type=options.Numbers(),
    help="V, one or several. [default: 1,16,144; a run's own]",
)
@click.option(
    "--q",
    "text_tokens",
    type=options.Numbers(0),
    default="50",
    show_default=True,
    help="Text tokens behind the images, one or several.",
)
@click.option(
    "--q-cached",
    type=options.Numbers(0),
    default="0",
    show_default=True,
    help="Tokens before them in the KV cache, one or several.",
)
@click.option(
    "--batch", type=options.Numbers(), default="1", show_default=True, help="Inferences at once."
)
@click.option(
    "--g",
    "generated",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Tokens generated.",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16"]),
    help="Type of all weights. [default: bf16 on a GPU, else fp32]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Measurements of each setting; their median counts.",
)
@click.option(
    "--gpu-row",
    help="Also write what the roofline fits as a gpus.csv that VTC_CATALOG's folder may hold.",
)
@options.output
@options.config
def profile(
    subject, encoder, compressor, visual_tokens, text_tokens, q_cached, batch, generated, dtype,
    device, repeats, gpu_row, out, fmt, force,
) -> None:  # fmt: skip
    """Measure encoder, compressor, prefill, decoding and memory of SUBJECT on this machine.

    SUBJECT is a run, or an LLM of the catalog or a folder, whose shape is given random weights: no
    checkpoint is needed. Every V, text, cached prefix and batch is measured; `recommend --costs`
    takes the table. The two rates of the roofline that fit the times are said, and of a GPU that
    the catalog knows their shares of its peaks.

    \b
    Example:
      vtc profile SmolLM2-135M --visual-tokens 1,16,144 --batch 1,8 -o costs.csv
      vtc recommend --costs costs.csv --latency 2s --g 8 --llm SmolLM2-135M
    """
    from vtc.commands import profiling
    from vtc.tables import specs, write

    chosen = write.check_output(out, fmt, force)
    if gpu_row:
        write.check_output(gpu_row, "csv", force)
    setting = profiling.Setting(
        subject, encoder, compressor, visual_tokens, text_tokens, q_cached, batch, generated,
        dtype, device, repeats,
    )  # fmt: skip
    rows, machine = profiling.measured(setting)
    if chosen == "table" and out == "-":
        from vtc import console

        console.print_table([_shown(row) for row in rows], _COLUMNS)
    else:
        footer: dict[str, Any] | None = None
        if chosen == "parquet":
            from vtc.tables import provenance

            footer = provenance.footer(settings=click.get_current_context().params, inputs=[])
        options.emit(rows, specs.COSTS, out, fmt, force, footer=footer)
    profiling.say_machine(rows[0]["device"], machine, gpu_row, force)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a person reads it."""
    return {**row, "peak_gb": row["peak_bytes"] and row["peak_bytes"] / 1e9}
