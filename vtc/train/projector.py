"""Stage 1: train compressors between a frozen encoder and a frozen LLM."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vtc.errors import InputError
from vtc.model.assemble import Assembled, assemble
from vtc.model.backbones import load_encoder, load_llm
from vtc.model.run import save_run
from vtc.train.align import AlignTrainer
from vtc.train.inputs import Inputs, Say
from vtc.train.jobs import ProjectorJob
from vtc.train.stages import freeze_all_but_compressor, weight_dtype, what_trains
from vtc.train.trainer import fit_model


def train_projectors(
    job: ProjectorJob,
    inputs: Inputs,
    *,
    footer: dict[str, Any] | None = None,
    say: Say = lambda line: None,
    advance: Callable[[int], object] = lambda n: None,
) -> list[Path]:
    """Train one compressor for each V and save each as a run folder; the folders, in order.

    Encoder and LLM are loaded once and shared; every V sees the same batches. Raises InputError
    before any training for a folder that exists, an unfit backbone, or a V that the compressor
    does not support.
    """
    job.refuse_existing()
    _check_images(inputs.samples.rows)
    built = _assemble_all(job, inputs)
    job.out.mkdir(parents=True, exist_ok=True)
    folders = []
    for one in built:
        freeze_all_but_compressor(one.model)
        say(f"V = {one.model.compressor.visual_tokens}: {what_trains(one.model)}")
        log = _train(one, inputs, job.out, advance)
        folder = job.folder(one.model.compressor.visual_tokens)
        save_run(
            folder,
            one.model,
            one.processor,
            encoder=one.encoder,
            llm=one.llm,
            stage="projector",
            weights="compressor",
            seed=inputs.settings.seed,
            train_log=log,
            footer=footer,
            force=job.force,
        )
        say(f"wrote {folder} (loss {log[-1]['loss']:.4f} after {log[-1]['step']} steps)")
        folders.append(folder)
    return folders


def _assemble_all(job: ProjectorJob, inputs: Inputs) -> list[Assembled]:
    settings = inputs.settings
    dtype = weight_dtype(settings)
    encoder, llm = load_encoder(job.encoder, dtype), load_llm(job.llm, dtype)
    built = []
    for visual_tokens in job.visual_tokens:
        one = assemble(
            encoder,
            llm,
            job.compressor,
            visual_tokens,
            settings=job.compressor_settings,
            seed=settings.seed,
        )
        one.model.compressor.float()
        one.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
        built.append(one)
    return built


def _train(
    one: Assembled, inputs: Inputs, scratch: Path, advance: Callable[[int], object]
) -> list[dict[str, Any]]:
    settings = inputs.settings
    if settings.objective == "align":
        collator = inputs.align_collator(one.model, one.processor, one.encoder)
        return fit_model(
            one.model,
            collator.dataset,
            collator,
            settings,
            scratch,
            advance=advance,
            trainer_class=AlignTrainer,
            align=settings.align,
        )
    collator = inputs.lm_collator(one.model, one.processor, one.encoder)
    return fit_model(one.model, collator.dataset, collator, settings, scratch, advance=advance)


def _check_images(samples: Sequence[dict[str, Any]]) -> None:
    without = next((s["sample_id"] for s in samples if not s["images"]), None)
    if without is not None:
        raise InputError(
            f"sample {without} has no image; stage 1 trains the compressor alone and needs one in "
            "every sample"
        )
