"""`vtc train-projector`: stage 1, the compressor alone."""

import click

from vtc.commands import options, preflight, training


@click.command("train-projector")
@click.argument("samples", nargs=-1, required=True, type=click.Path())
@click.option("--encoder", required=True, help="Vision encoder: a folder or a hub id.")
@click.option("--llm", required=True, help="LLM: a folder or a hub id.")
@click.option(
    "--compressor",
    "compressors",
    type=options.Names(),
    default="tokenpacker",
    show_default=True,
    help="Token compressor, one or several: avgpool,tokenpacker trains one run each.",
)
@click.option(
    "--compressor-setting",
    "compressor_settings",
    type=options.Setting(),
    multiple=True,
    help="A setting of the compressors, such as layers=2 or query=area (docs/compressors.md).",
)
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
@training.stage_options(lr=1e-3, batch_size=32, accumulate=8, template="plain", seed=options.seeds)
def train_projector(
    samples, encoder, llm, compressors, compressor_settings, visual_tokens, **flags
) -> None:
    """Train a compressor between a frozen encoder and a frozen LLM (LLaVA's stage 1).

    Only the compressor trains. Every compressor with every V gives a run folder OUT/COMPRESSOR-vV,
    such as OUT/tokenpacker-v16 (v4x4 of four tokens fed four times), of several seeds
    OUT/COMPRESSOR-vV-sSEED, with the compressor's weights; the backbones stay where they are. All
    runs of a command share the backbones, and those of one seed each batch's pass of the encoder;
    each ends as it would alone. SAMPLES are tables of check-data, LLaVA JSON, or Hugging Face
    datasets whose images are files (see docs/data.md).

    \b
    Example:
      vtc train-projector pretrain.parquet --encoder clip --llm qwen --visual-tokens 1,4,16 -o runs
    """
    from vtc.train.jobs import ProjectorJob
    from vtc.train.questions import check_fusing, check_questions
    from vtc.train.settings import PROJECTOR, AlignSettings

    align = AlignSettings(flags.pop("align_reduction"), flags.pop("align_scale"))
    objective = flags.pop("objective")
    if objective != "align":
        training.refuse_idle("--objective align", "align_reduction", "align_scale")
    where = training.take_job_flags(flags)
    turns = flags["train_visual_tokens"]
    preflight.check_trained(compressors)
    preflight.check_parts(encoder, llm, compressors, visual_tokens, turns=turns)
    preflight.check_features(flags["features"])
    preflight.check_cacheable(compressors if flags["features"] else ())
    own = preflight.check_settings(compressors, compressor_settings)
    seeds = flags["seed"]
    flags["seed"] = seeds[0]
    request = training.Request.of(samples, flags, PROJECTOR, objective=objective, align=align)
    job = ProjectorJob(
        encoder, llm, compressors, visual_tokens,
        seeds=seeds, repeats=flags["repeat_visual_tokens"], compressor_settings=own, **where,
    )  # fmt: skip
    job.check_turns(request.settings)
    job.refuse_mixture(request.settings.weights, request.settings.data_seed)
    job.check_samples(request.samples.rows)
    check_questions(compressors, request.settings)
    check_fusing(compressors, request.settings)
    if request.dry_run:
        models = {
            "encoder": encoder, "llm": llm, "settings": own, "repeats": job.repeats or 1
        }  # fmt: skip
        runs = [
            (
                job.folder(run),
                {**models, "compressor": run.compressor, "visual_tokens": run.visual_tokens},
            )
            for run in job.runs
        ]
        return request.describe(runs, job.saving.keep, seeds)
    job.refuse_existing()

    from vtc.train.projector import train_projectors

    return request.run(lambda **context: train_projectors(job, **context), len(job.runs))
