"""Stage 1: train compressors between a frozen encoder and a frozen LLM."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vtc.errors import InputError
from vtc.model.assemble import Assembled, assemble
from vtc.model.backbones import load_encoder, load_llm
from vtc.model.run import save_run
from vtc.model.sources import fingerprint
from vtc.train.align import AlignTrainer
from vtc.train.fitting import fit_batch
from vtc.train.folders import locked
from vtc.train.inputs import Inputs, Say
from vtc.train.jobs import ProjectorJob
from vtc.train.log import Advance
from vtc.train.places import Place, identity
from vtc.train.processes import join, n_processes
from vtc.train.relay import Relay
from vtc.train.settings import StageSettings
from vtc.train.stages import freeze_all_but_compressor, weight_dtype, what_trains
from vtc.train.stopping import Stop, stop_signals
from vtc.train.trainer import fit_model


def train_projectors(
    job: ProjectorJob,
    inputs: Inputs,
    *,
    footer: dict[str, Any] | None = None,
    say: Say = lambda line: None,
    advance: Advance = lambda n, words="": None,
) -> list[Path]:
    """Train one compressor for each V and save each as a run folder; the folders, in order.

    Encoder and LLM are loaded once and shared; every V sees the same batches. Where the features do
    not fit in memory all V train side by side, so that a batch is encoded once. Resuming passes
    over the runs that are finished. Raises InputError before any training for a folder that exists
    or that another process trains, an unfit backbone, or a V that the compressor does not support.
    """
    job.refuse_existing()
    _check_images(inputs.samples.rows)
    join()
    with locked(job.folders):
        places = _places(job, inputs, footer, say)
        todo = {v: place for v, place in places.items() if not place.is_finished()}
        advance((len(places) - len(todo)) * inputs.settings.n_steps(len(inputs.samples.rows)))
        for place in todo.values():
            place.start()
        built = _assemble_all(job, inputs, list(todo)) if todo else []
        inputs.settings = _with_batch(built, inputs, todo, say)
        with stop_signals(say) as stop:
            works = [
                partial(
                    _make, one, todo[one.model.compressor.visual_tokens], job, inputs, footer,
                    say=say, advance=advance, stop=stop,
                )
                for one in built
            ]  # fmt: skip
            relay = Relay()
            if n_processes() == 1 and inputs.share_encoder(built, relay):
                relay.run(works)
            else:
                for work in works:
                    work()
    return job.folders


def _with_batch(
    built: Sequence[Assembled], inputs: Inputs, places: dict[int, Place], say: Say
) -> StageSettings:
    """The settings with the batch that fits the largest V: all V see the same batches."""
    settings = inputs.settings
    if not settings.auto_batch or not built:
        return settings
    one = max(built, key=lambda one: one.model.compressor.visual_tokens)
    if settings.objective == "align":
        raise InputError("--auto-batch is for --objective lm; align holds no LLM step")
    freeze_all_but_compressor(one.model)
    collator = inputs.lm_collator(one.model, one.processor, one.encoder)
    place = places[one.model.compressor.visual_tokens]
    return fit_batch(one.model, collator, settings, place.checkpoints, say)


def _make(
    one: Assembled,
    place: Place,
    job: ProjectorJob,
    inputs: Inputs,
    footer: dict[str, Any] | None,
    *,
    say: Say,
    advance: Advance,
    stop: Stop,
) -> None:
    """Train one compressor and save its run."""
    save = partial(_save, one, inputs.settings.seed, footer, job.force)
    place.try_save(save)
    freeze_all_but_compressor(one.model)
    say(f"V = {one.model.compressor.visual_tokens}: {what_trains(one.model)}")
    log = _train(one, inputs, place, job.report_to, advance, stop)
    place.finish(partial(save, log=log))
    last = log[-1]
    say(f"wrote {place.run} (loss {last['loss']:.4f} after {last['step']} steps)")


def _places(
    job: ProjectorJob, inputs: Inputs, footer: dict[str, Any] | None, say: Say
) -> dict[int, Place]:
    """The place of each V's run, with all that makes its training."""
    encoder, llm = fingerprint(job.encoder), fingerprint(job.llm)
    places = {}
    for visual_tokens in job.visual_tokens:
        about = identity(
            inputs.settings,
            inputs.samples.rows,
            footer,
            encoder=encoder,
            llm=llm,
            compressor=job.compressor,
            compressor_settings=job.compressor_settings,
            visual_tokens=visual_tokens,
        )
        places[visual_tokens] = Place(job.folder(visual_tokens), about, job.saving, job.force, say)
    return places


def _save(
    one: Assembled,
    seed: int,
    footer: dict[str, Any] | None,
    force: bool,
    folder: Path,
    log: Sequence[dict[str, Any]] = (),
) -> None:
    save_run(
        folder,
        one.model,
        one.processor,
        encoder=one.encoder,
        llm=one.llm,
        stage="projector",
        weights="compressor",
        seed=seed,
        train_log=log,
        footer=footer,
        force=force,
    )


def _assemble_all(
    job: ProjectorJob, inputs: Inputs, visual_token_counts: Sequence[int]
) -> list[Assembled]:
    settings = inputs.settings
    dtype = weight_dtype(settings)
    encoder = load_encoder(job.encoder, dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    llm = load_llm(
        job.llm,
        dtype,
        four_bit=settings.load_4bit,
        device=device,
        chat_template=settings.chat_template,
    )
    built = []
    for visual_tokens in visual_token_counts:
        one = assemble(
            encoder,
            llm,
            job.compressor,
            visual_tokens,
            settings=job.compressor_settings,
            seed=settings.seed,
        )
        one.processor.set_up(settings.image_mode, settings.query_position)
        one.model.compressor.float()
        one.model.to(device)  # type: ignore[arg-type]
        built.append(one)
    return built


def _train(
    one: Assembled,
    inputs: Inputs,
    place: Place,
    report_to: str | None,
    advance: Advance,
    stop: Stop,
) -> list[dict[str, Any]]:
    settings = inputs.settings
    how: dict[str, Any] = {
        "checkpoints": place.checkpoints,
        "report_to": report_to,
        "say": place.say,
        "advance": advance,
        "stop": stop,
    }
    if settings.objective == "align":
        collator = inputs.align_collator(one.model, one.processor, one.encoder)
        return fit_model(
            one.model,
            collator.dataset,
            collator,
            settings,
            place.run,
            **how,
            trainer_class=AlignTrainer,
            align=settings.align,
        )
    collator = inputs.lm_collator(one.model, one.processor, one.encoder)
    return fit_model(one.model, collator.dataset, collator, settings, place.run, **how)


def _check_images(samples: Sequence[dict[str, Any]]) -> None:
    without = next((s["sample_id"] for s in samples if not s["images"]), None)
    if without is not None:
        raise InputError(
            f"sample {without} has no image; stage 1 trains the compressor alone and needs one in "
            "every sample"
        )
