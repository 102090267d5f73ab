"""Stage 2: train LLM and compressor together, from stage-1 runs."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vtc.compress.choices import KNOWN
from vtc.compress.interface import PATCHES
from vtc.data.features import preprocessing_hash
from vtc.data.image_modes import with_mode
from vtc.model.assemble import generation_config
from vtc.model.backbones import Encoder, load_encoder, load_image_processor
from vtc.model.manifest import run_folder
from vtc.model.repeating import repeat_at
from vtc.model.run import Run, check_speaks, load_run, read_manifest, save_run
from vtc.model.sources import locate
from vtc.model.turns import train_at
from vtc.train.fitting import fit_batch
from vtc.train.folders import locked
from vtc.train.inputs import ImageKey, Inputs, Say
from vtc.train.jobs import FinetuneJob
from vtc.train.log import Advance
from vtc.train.places import Place, identity
from vtc.train.processes import join, refuse_unshardable
from vtc.train.settings import StageSettings
from vtc.train.sharding import loading_device, place
from vtc.train.stages import add_lora, unfreeze_for_finetune, weight_dtype, what_trains
from vtc.train.trainer import fit_model
from vtc.train.turns import turns_of


def finetune_runs(
    job: FinetuneJob,
    inputs: Inputs,
    *,
    footer: dict[str, Any] | None = None,
    say: Say = lambda line: None,
    advance: Advance = lambda n, words="": None,
) -> list[Path]:
    """Finetune each run and save it; the folders, in order.

    A full finetuning saves the whole model, LoRA and QLoRA the compressor and the LoRA weights,
    which stand on the backbones, or on a run that was itself finetuned in full. The encoder is
    loaded once, samples tokenised once and images encoded once, as long as the runs agree on
    them. Every run starts from its own folder and ends in its own; the order of the runs
    changes nothing. Resuming passes over the runs that are finished. Raises InputError before any
    training for a run or folder at fault, or one that another process trains.
    """
    plan = job.plan()
    job.check_questions(plan, inputs.settings)
    job.check_turns(plan, inputs.settings)
    if inputs.settings.template == "chat" and inputs.settings.chat_template is None:
        for source, _ in plan:
            check_speaks(source)
    refuse_unshardable(inputs.settings)
    join()
    with locked([folder for _, folder in plan]):
        places = [
            (source, _place(source, folder, job, inputs, footer, say)) for source, folder in plan
        ]
        todo = [(source, place) for source, place in places if not place.is_finished()]
        advance((len(places) - len(todo)) * inputs.settings.n_steps(len(inputs.samples.rows)))
        for _, place in todo:
            place.start()
        encoder: Encoder | None = None
        inputs.expect(_image_keys([source for source, _ in todo], inputs.settings))
        for source, place in todo:
            encoder = _encoder_of(source, encoder, inputs.settings)
            run = _load(source, encoder, inputs.settings)
            model = _unfreeze(run, inputs.settings)
            save = partial(_save, run, model, inputs.settings, footer, job.force)
            place.try_save(save)
            say(f"{run.folder}: {what_trains(model)}")
            collator = inputs.lm_collator(run.model, run.processor, run.encoder)
            log = fit_model(
                model,
                collator.dataset,
                collator,
                fit_batch(model, collator, inputs.settings, place.checkpoints, say),
                place.run,
                checkpoints=place.checkpoints,
                report_to=job.report_to,
                say=say,
                advance=advance,
                turns=turns_of(run.model, collator, inputs.settings.seed),
            )
            place.finish(partial(save, log=log))
            say(f"wrote {place.run} (loss {log[-1]['loss']:.4f} after {log[-1]['step']} steps)")
    return [place.run for _, place in places]


def _place(
    source: Path,
    folder: Path,
    job: FinetuneJob,
    inputs: Inputs,
    footer: dict[str, Any] | None,
    say: Say,
) -> Place:
    """The place of one run, with all that makes its training."""
    begun = read_manifest(source)
    about = identity(
        inputs.settings,
        inputs.samples.rows,
        footer,
        encoder=begun["encoder"]["fingerprint"],
        llm=begun["llm"]["fingerprint"],
        compressor=begun["compressor"],
        visual_tokens=begun["visual_tokens"],
        parent=begun["run_id"],
    )
    return Place(folder, about, job.saving, job.force, say)


def _save(
    run: Run,
    model: Any,
    settings: StageSettings,
    footer: dict[str, Any] | None,
    force: bool,
    folder: Path,
    log: Sequence[dict[str, Any]] = (),
) -> None:
    lora = settings.method != "full"
    save_run(
        folder,
        model,
        run.processor,
        encoder=run.encoder,
        llm=run.llm,
        stage="finetune",
        weights="adapter" if lora else "full",
        base=run.folder if lora and run.manifest["weights"] == "full" else None,
        seed=settings.seed,
        parent=run.manifest["run_id"],
        train_log=log,
        footer=footer,
        force=force,
    )


def _unfreeze(run: Run, settings: StageSettings) -> Any:
    """The model with what trains in it: LoRA's new weights and the compressor, or the LLM too."""
    if settings.method != "full":
        # LoRA's initial weights come from torch's generator.
        torch.manual_seed(settings.seed)
        return add_lora(run.model, settings.lora)
    unfreeze_for_finetune(run.model)
    return run.model


def _image_keys(sources: Sequence[Path], settings: StageSettings) -> Iterator[ImageKey]:
    """What images each run will ask for, read from its folder without loading weights.

    Of those that read the encoder's patches alone; the others encode for themselves.
    """
    for source in sources:
        manifest = read_manifest(source)
        processor = with_mode(load_image_processor(run_folder(source)), settings.image_mode)
        levels = tuple(manifest.get("shapes", {}).get("levels", ()))
        if levels and not KNOWN[manifest["compressor"]].reads_more:
            fingerprint = manifest["encoder"]["fingerprint"]
            yield fingerprint, preprocessing_hash(processor), PATCHES, levels


def _encoder_of(source: Path, known: Encoder | None, settings: StageSettings) -> Encoder | None:
    """The encoder of a run, the one already loaded if it is the same; a whole run has its own."""
    manifest = read_manifest(source)
    if manifest["weights"] == "full" or manifest.get("base"):
        return known
    entry = manifest["encoder"]
    if known is not None and known.source.fingerprint == entry["fingerprint"]:
        return known
    return load_encoder(locate(entry, source), weight_dtype(settings))


def _load(source: Path, encoder: Encoder | None, settings: StageSettings) -> Run:
    run = load_run(
        source,
        dtype=weight_dtype(settings),
        device=loading_device(),
        encoder=encoder,
        four_bit=settings.method == "qlora",
        merge=settings.method == "full" or None,
    )
    train_at(run.model, settings.train_visual_tokens)
    repeat_at(run.model, run.processor, settings.repeat_visual_tokens)
    place(run.model)
    run.model.compressor.float()
    run.processor.set_up(
        settings.image_mode, settings.query_position, settings.chat_template, settings.query_scope
    )
    run.model.generation_config = generation_config(run.processor.tokenizer)
    return run
