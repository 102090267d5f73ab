"""Stage 1: train compressors between a frozen encoder and a frozen LLM."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vtc.errors import InputError
from vtc.model.assemble import Assembled, assemble
from vtc.model.backbones import Encoder, Llm, load_encoder, load_llm
from vtc.model.repeating import repeat_at
from vtc.model.run import save_run
from vtc.model.sources import fingerprint
from vtc.model.turns import train_at
from vtc.train.align import AlignTrainer
from vtc.train.fitting import fit_batch
from vtc.train.folders import locked
from vtc.train.inputs import Inputs, Say
from vtc.train.jobs import ProjectorJob, ProjectorRun
from vtc.train.log import Advance
from vtc.train.places import Place, identity
from vtc.train.processes import is_sharded, join, n_processes, refuse_unshardable
from vtc.train.questions import check_fusing, check_questions
from vtc.train.relay import Relay
from vtc.train.settings import StageSettings
from vtc.train.sharding import loading_device, place
from vtc.train.stages import freeze_all_but_compressor, weight_dtype, what_trains
from vtc.train.stopping import Stop, stop_signals
from vtc.train.trainer import fit_model
from vtc.train.turns import turns_of


def train_projectors(
    job: ProjectorJob,
    inputs: Inputs,
    *,
    footer: dict[str, Any] | None = None,
    say: Say = lambda line: None,
    advance: Advance = lambda n, words="": None,
) -> list[Path]:
    """Train the runs of a job and save each as a run folder; the folders, in order.

    Encoder, LLM, tokens and what is kept of the images in memory are shared by all. The runs of one
    seed see the same batches: where the features do not fit in memory they train side by side, so
    that a batch is encoded once. Seeds draw other batches and train one after the other, unless
    the settings' `data_seed` draws for all. Resuming passes over the runs that are finished.

    Raises InputError before any training for a folder that exists or that another process trains,
    an unfit backbone, a V that a compressor does not support or cannot be trained at in turns, or
    a mixture with several seeds.
    """
    job.refuse_existing()
    job.refuse_mixture(inputs.settings.weights, inputs.settings.data_seed)
    job.check_samples(inputs.samples.rows)
    check_questions(job.compressors, inputs.settings)
    check_fusing(job.compressors, inputs.settings)
    job.check_turns(inputs.settings)
    _check_auto_batch(inputs.settings)
    refuse_unshardable(inputs.settings)
    join()
    with locked(job.folders):
        places = _places(job, inputs, footer, say)
        todo = {run: place for run, place in places.items() if not place.is_finished()}
        advance((len(places) - len(todo)) * inputs.settings.n_steps(len(inputs.samples.rows)))
        for place in todo.values():
            place.start()
        if not todo:
            return job.folders
        backbones = None
        groups = _groups(todo, inputs.settings.data_seed is not None)
        for runs in groups:
            if backbones is None or is_sharded():
                backbones = _load(job, inputs.settings)
            seed = runs[0].seed
            settings = inputs.settings.with_(seed=seed)
            together = {run: todo[run] for run in runs}
            stop = _train_together(
                together, backbones, job, replace(inputs, settings=settings), footer,
                say=say, advance=advance,
            )  # fmt: skip
            # One that came as the last step was done has stopped nothing yet.
            if stop.signal is not None and runs is not groups[-1]:
                behind = f"seed {seed}" if seed is not None else todo[runs[-1]].run.name
                raise stop.interrupted(f"behind {behind}; --resume goes on with the others")
    return job.folders


def _groups(runs: Iterable[ProjectorRun], same_data: bool) -> list[list[ProjectorRun]]:
    """The runs that train together: those that see the same data, be it of all seeds or of one.

    A model that is shared out is of one run.
    """
    if is_sharded():
        return [[run] for run in runs]
    seeds: dict[int | None, list[ProjectorRun]] = {}
    for run in runs:
        seeds.setdefault(None if same_data else run.seed, []).append(run)
    return list(seeds.values())


def _train_together(
    places: dict[ProjectorRun, Place],
    backbones: tuple[Encoder, Llm],
    job: ProjectorJob,
    inputs: Inputs,
    footer: dict[str, Any] | None,
    *,
    say: Say,
    advance: Advance,
) -> Stop:
    """Train runs that see the same batches; whether they were told to stop."""
    built = {run: _assemble(run, backbones, job, inputs.settings) for run in places}
    footers = {run: _footer_of(run, footer, inputs.settings) for run in places}
    inputs.prepare(list(built.values()))
    inputs.settings = _with_batch(built, inputs, places, say)
    with stop_signals(say) as stop:
        works = [
            partial(
                _make, one, inputs.settings.with_(seed=run.seed), places[run], job, inputs,
                footers[run], say=say, advance=advance, stop=stop,
            )
            for run, one in built.items()
        ]  # fmt: skip
        relay = Relay()
        if n_processes() == 1 and inputs.share_encoder(list(built.values()), relay):
            relay.run(works)
        else:
            for work in works:
                work()
    return stop


def _with_batch(
    built: dict[ProjectorRun, Assembled],
    inputs: Inputs,
    places: dict[ProjectorRun, Place],
    say: Say,
) -> StageSettings:
    """The settings with the batch that fits the largest V: all of the runs share batches."""
    settings = inputs.settings
    if not settings.auto_batch:
        return settings
    largest = max(built, key=lambda run: (run.visual_tokens, _n_params(built[run])))
    one = built[largest]
    freeze_all_but_compressor(one.model)
    collator = inputs.lm_collator(one.model, one.processor, one.encoder)
    return fit_batch(one.model, collator, settings, places[largest].checkpoints, say)


def _n_params(one: Assembled) -> int:
    return sum(weight.numel() for weight in one.model.compressor.parameters())


def _footer_of(
    run: ProjectorRun, footer: dict[str, Any] | None, settings: StageSettings
) -> dict[str, Any] | None:
    """The footer of a run, which may be of one of the job's seeds."""
    if footer is None or run.seed is None:
        return footer
    settings = settings.with_(seed=run.seed)
    return {**footer, "settings": settings.as_dict(), "seed": settings.seed}


def _make(
    one: Assembled,
    settings: StageSettings,
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
    save = partial(_save, one, settings.seed, footer, job.force)
    place.try_save(save)
    freeze_all_but_compressor(one.model)
    say(f"{place.run.name}: {what_trains(one.model)}")
    log = _train(one, settings, inputs, place, job.report_to, advance, stop)
    place.finish(partial(save, log=log))
    last = log[-1]
    say(f"wrote {place.run} (loss {last['loss']:.4f} after {last['step']} steps)")


def _places(
    job: ProjectorJob, inputs: Inputs, footer: dict[str, Any] | None, say: Say
) -> dict[ProjectorRun, Place]:
    """The place of each run, with all that makes its training."""
    encoder, llm = fingerprint(job.encoder), fingerprint(job.llm)
    places = {}
    for run in job.runs:
        about = identity(
            inputs.settings.with_(seed=run.seed),
            inputs.samples.rows,
            footer,
            encoder=encoder,
            llm=llm,
            compressor=run.compressor,
            compressor_settings=job.compressor_settings,
            visual_tokens=run.visual_tokens,
        )
        places[run] = Place(job.folder(run), about, job.saving, job.force, say)
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


def _load(job: ProjectorJob, settings: StageSettings) -> tuple[Encoder, Llm]:
    """The two backbones, of which there is one each in the process."""
    dtype = weight_dtype(settings)
    encoder = load_encoder(job.encoder, dtype)
    llm = load_llm(
        job.llm,
        dtype,
        four_bit=settings.load_4bit,
        device=loading_device(),
        chat_template=settings.chat_template,
        speaks=settings.template == "chat" and settings.objective == "lm",
    )
    return encoder, llm


def _assemble(
    run: ProjectorRun,
    backbones: tuple[Encoder, Llm],
    job: ProjectorJob,
    settings: StageSettings,
) -> Assembled:
    one = assemble(
        *backbones,
        run.compressor,
        run.visual_tokens,
        settings=job.compressor_settings,
        seed=settings.seed if run.seed is None else run.seed,
    )
    one.processor.set_up(
        settings.image_mode, settings.query_position, query_scope=settings.query_scope
    )
    train_at(one.model, settings.train_visual_tokens)
    repeat_at(one.model, one.processor, settings.repeat_visual_tokens)
    one.model.compressor.float()
    place(one.model)
    return one


def _train(
    one: Assembled,
    settings: StageSettings,
    inputs: Inputs,
    place: Place,
    report_to: str | None,
    advance: Advance,
    stop: Stop,
) -> list[dict[str, Any]]:
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
    how["turns"] = turns_of(one.model, collator, settings.seed)
    return fit_model(one.model, collator.dataset, collator, settings, place.run, **how)


def _check_auto_batch(settings: StageSettings) -> None:
    if settings.auto_batch and settings.objective == "align":
        raise InputError("--auto-batch is for --objective lm; align holds no LLM step")
