"""Stage 2: train LLM and compressor together, from stage-1 runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vtc.model.backbones import Encoder, load_encoder
from vtc.model.run import Run, load_run, read_manifest, save_run
from vtc.model.sources import locate
from vtc.train.inputs import Inputs, Say
from vtc.train.jobs import FinetuneJob
from vtc.train.settings import StageSettings
from vtc.train.stages import add_lora, unfreeze_for_finetune, weight_dtype, what_trains
from vtc.train.trainer import fit_model


def finetune_runs(
    job: FinetuneJob,
    inputs: Inputs,
    *,
    footer: dict[str, Any] | None = None,
    say: Say = lambda line: None,
    advance: Callable[[int], object] = lambda n: None,
) -> list[Path]:
    """Finetune each run and save it; the folders, in order.

    A full finetuning saves the whole model, LoRA and QLoRA the compressor and the LoRA weights,
    which stand on the backbones, or on a run that was itself finetuned in full. The encoder is
    loaded once, samples tokenised once and images encoded once, as long as the runs agree on
    them. Every run starts from its own folder and ends in its own; the order of the runs
    changes nothing. Raises InputError before any training for a run or folder at fault.
    """
    plan = job.plan()
    job.out.mkdir(parents=True, exist_ok=True)
    encoder: Encoder | None = None
    folders = []
    for source, folder in plan:
        encoder = _encoder_of(source, encoder, inputs.settings)
        run = _load(source, encoder, inputs.settings)
        model, log = _train(run, inputs, job.out, say, advance)
        lora = inputs.settings.method != "full"
        save_run(
            folder,
            model,
            run.processor,
            encoder=run.encoder,
            llm=run.llm,
            stage="finetune",
            weights="adapter" if lora else "full",
            base=source if lora and run.manifest["weights"] == "full" else None,
            seed=inputs.settings.seed,
            parent=run.manifest["run_id"],
            train_log=log,
            footer=footer,
            force=job.force,
        )
        say(f"wrote {folder} (loss {log[-1]['loss']:.4f} after {log[-1]['step']} steps)")
        folders.append(folder)
    return folders


def _train(
    run: Run,
    inputs: Inputs,
    scratch: Path,
    say: Say,
    advance: Callable[[int], object],
) -> tuple[Any, Sequence[dict[str, Any]]]:
    settings = inputs.settings
    collator = inputs.lm_collator(run.model, run.processor, run.encoder)
    if settings.method != "full":
        # LoRA's initial weights come from torch's generator.
        torch.manual_seed(settings.seed)
        model = add_lora(run.model, settings.lora)
    else:
        unfreeze_for_finetune(run.model)
        model = run.model
    say(f"{run.folder}: {what_trains(model)}")
    log = fit_model(model, collator.dataset, collator, settings, scratch, advance=advance)
    return model, log


def _encoder_of(source: Path, known: Encoder | None, settings: StageSettings) -> Encoder | None:
    """The encoder of a run, the one already loaded if it is the same."""
    entry = read_manifest(source)["encoder"]
    if known is not None and known.source.fingerprint == entry["fingerprint"]:
        return known
    return load_encoder(locate(entry, source), weight_dtype(settings))


def _load(source: Path, encoder: Encoder | None, settings: StageSettings) -> Run:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = load_run(
        source,
        dtype=weight_dtype(settings),
        device=device,
        encoder=encoder,
        four_bit=settings.method == "qlora",
        merge=True,
    )
    run.model.compressor.float()
    return run
