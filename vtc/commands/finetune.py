"""`vtc finetune`: stage 2, LLM and compressor together."""

import click

from vtc.commands import preflight, training


@click.command("finetune")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option(
    "--samples",
    multiple=True,
    required=True,
    type=click.Path(),
    help="Samples: a table of check-data, LLaVA JSON, a dataset; may be given several times.",
)
@click.option(
    "--method",
    type=click.Choice(["full", "lora", "qlora"]),
    default="full",
    show_default=True,
    help="Train the whole LLM; or LoRA on its linear layers, for qlora upon 4-bit weights (nf4).",
)
@click.option("--lora-r", default=128, show_default=True, help="Rank of LoRA.")
@click.option("--lora-alpha", default=256, show_default=True, help="Scale of LoRA.")
@click.option("--lora-dropout", default=0.05, show_default=True, help="Dropout of LoRA.")
@click.option(
    "--lora-targets",
    help="Layers of the LLM that LoRA adapts, such as q_proj,v_proj or layers.0.*. [default: all]",
)
@click.option(
    "--compressor-lr",
    type=float,
    help="Peak learning rate of the compressor. [default: that of --lr]",
)
@click.option(
    "--turns",
    type=click.Choice(["dialogue", "independent"]),
    default="dialogue",
    show_default=True,
    help="independent: the questions of an image share its tokens, but do not see one another.",
)
@click.option(
    "--max-questions",
    type=int,
    help="With independent turns: questions of an image drawn each step. [default: all]",
)
@training.stage_options(lr=2e-5, batch_size=16, accumulate=8, template="chat")
def finetune(runs, samples, method, **flags) -> None:
    """Finetune stage-1 runs: the LLM (whole, or by LoRA) and the compressor (LLaVA's stage 2).

    The encoder stays frozen. Every run gives a run folder OUT/LLM-COMPRESSOR-vV, such as
    OUT/qwen-tokenpacker-v16, with the whole model; of LoRA and QLoRA with the small trained part,
    which 'vtc export --merge' makes a whole model of. The runs share one process: encoder, samples
    and image features are prepared once.

    \b
    Example:
      vtc finetune runs/tokenpacker-v1 runs/tokenpacker-v4 --samples mix.parquet -o finetuned
    """
    from pathlib import Path

    from vtc.train.jobs import FinetuneJob
    from vtc.train.settings import FINETUNE, LoraSettings

    if method == "full":
        names = ("r", "alpha", "dropout", "targets")
        training.refuse_idle("--method lora or qlora", *(f"lora_{name}" for name in names))
    for run in runs:
        preflight.check_run(run)
    preflight.check_features(flags["features"])
    r, alpha, dropout, targets = (
        flags.pop(f"lora_{name}") for name in ("r", "alpha", "dropout", "targets")
    )
    lora = LoraSettings(r, alpha, dropout, tuple(filter(None, (targets or "").split(","))))
    more = {name: flags.pop(name) for name in ("turns", "max_questions")}
    where = {**training.take_job_flags(flags), "repeats": flags["repeat_visual_tokens"]}
    request = training.Request.of(samples, flags, FINETUNE, method=method, lora=lora, **more)
    job = FinetuneJob(
        tuple(Path(run) for run in runs), method=method, lora_targets=lora.targets, **where
    )
    plan = job.plan()
    job.check_questions(plan, request.settings)
    job.check_turns(plan, request.settings)
    if request.dry_run:
        from vtc.commands.dry_run import models_of

        models = [(folder, models_of(run, job.repeats)) for run, folder in plan]
        return request.describe(models, job.saving.keep)

    from vtc.train.finetune import finetune_runs

    return request.run(lambda **context: finetune_runs(job, **context), len(runs))
