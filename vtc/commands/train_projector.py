"""`vtc train-projector`: stage 1, the compressor alone."""

import click

from vtc.commands import options, training


@click.command("train-projector")
@click.argument("samples", nargs=-1, required=True, type=click.Path())
@click.option("--encoder", required=True, help="Vision encoder: a folder or a hub id.")
@click.option("--llm", required=True, help="LLM: a folder or a hub id.")
@click.option("--compressor", default="tokenpacker", show_default=True, help="Token compressor.")
@click.option(
    "--visual-tokens",
    type=options.Numbers(),
    required=True,
    help="V, one or several: 1,4,16 trains one run each.",
)
@click.option(
    "--objective",
    type=click.Choice(["lm", "align"]),
    default="lm",
    show_default=True,
    help="lm: the LLM's loss, as LLaVA. align: match the words of its region, no LLM pass.",
)
@click.option(
    "--align-reduction",
    type=click.Choice(["sum", "mean", "sqrt"]),
    default="sum",
    show_default=True,
    help="How the embeddings of a region's words become the target of align.",
)
@click.option(
    "--align-scale", default=1.0, show_default=True, help="Factor on the target of align."
)
@click.option(
    "--load-4bit",
    is_flag=True,
    help="Load the LLM's linear layers in 4 bits (nf4), as finetune --method qlora does.",
)
@training.stage_options(lr=1e-3, batch_size=32, accumulate=8, template="plain")
def train_projector(samples, encoder, llm, compressor, visual_tokens, **flags) -> None:
    """Train a compressor between a frozen encoder and a frozen LLM (LLaVA's stage 1).

    Only the compressor trains. Every V gives a run folder OUT/COMPRESSOR-vV, such as
    OUT/tokenpacker-v16, with the compressor's weights; the backbones stay where they are.
    Encoder and LLM are loaded once. SAMPLES are tables of check-data, LLaVA JSON, or Hugging Face
    datasets whose images are files (see docs/data.md).

    \b
    Example:
      vtc train-projector pretrain.parquet --encoder clip --llm qwen --visual-tokens 1,4,16 -o runs
    """
    from vtc.train.jobs import ProjectorJob
    from vtc.train.settings import PROJECTOR, AlignSettings

    align = AlignSettings(flags.pop("align_reduction"), flags.pop("align_scale"))
    objective = flags.pop("objective")
    where = training.take_job_flags(flags)
    request = training.Request.of(samples, flags, PROJECTOR, objective=objective, align=align)
    job = ProjectorJob(encoder, llm, compressor, visual_tokens, **where)
    if request.dry_run:
        models = {"encoder": encoder, "llm": llm, "compressor": compressor}
        runs = [(job.folder(v), {**models, "visual_tokens": v}) for v in visual_tokens]
        return request.describe(runs, job.saving.keep)
    job.refuse_existing()

    from vtc.train.projector import train_projectors

    return request.run(lambda **context: train_projectors(job, **context), len(visual_tokens))
