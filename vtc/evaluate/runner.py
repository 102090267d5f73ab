"""Runs answer benchmarks: one row a run and item, whatever happens to an image."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vtc import __version__
from vtc.compress.serving import check_served
from vtc.data.features import FeatureStore
from vtc.errors import InputError
from vtc.evaluate import vision
from vtc.evaluate.answered import Answers
from vtc.evaluate.answering import GENERATION, LIKELIHOOD
from vtc.evaluate.candidates import Candidate, candidates
from vtc.evaluate.engines import engine_of
from vtc.evaluate.exam import Exam
from vtc.evaluate.prediction_row import facts_of, prediction_row
from vtc.evaluate.sitting import Questions, Seated, Sitting, Track
from vtc.evaluate.vision import Sight, sight_of
from vtc.evaluate.vllm_engine.check import Vllm, refuse_four_bits, refuse_fusing, refuse_pruning
from vtc.model.manifest import MANIFEST, run_folder
from vtc.model.refit import origin
from vtc.model.repeating import repeat_at
from vtc.model.run import check_speaks, load_run, read_manifest
from vtc.tables.provenance import file_sha


@dataclass(frozen=True)
class Settings:
    """How runs answer: prompts a batch, floating type, device, and a feature cache's folder.

    `four_bit`: the LLM's linear layers are quantised (nf4) as they are read. `answer_by` is
    GENERATION or LIKELIHOOD. `workers` processes open images ahead; with 0 this one does. Without
    `vllm` vtc itself answers. `visual_tokens` are the V that each run answers at; none is its own.
    `repeat_visual_tokens` is how often it is fed them, None as often as it was trained.
    """

    batch_size: int = 16
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    features: Path | None = None
    four_bit: bool = False
    answer_by: str = GENERATION
    workers: int = 0
    vllm: Vllm | None = None
    visual_tokens: tuple[int, ...] = ()
    repeat_visual_tokens: int | None = None

    @property
    def engine(self) -> str:
        """What answers, in words."""
        return f"vllm {self.vllm.version}" if self.vllm else "vtc"

    def described(self) -> dict[str, Any]:
        """The settings in plain words, for a footer."""
        return {
            "batch_size": self.batch_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device,
            "features": str(self.features) if self.features else None,
            "load_4bit": self.four_bit,
            "answer_by": self.answer_by,
            "engine": self.engine,
            "visual_tokens": list(self.visual_tokens) or None,
            "repeat_visual_tokens": self.repeat_visual_tokens,
        }

    def served(self, manifest: Mapping[str, Any]) -> tuple[int, ...]:
        """The V that a run answers at."""
        return self.visual_tokens or (manifest["visual_tokens"],)


def settings(
    batch_size: int,
    dtype: str | None,
    device: str | None,
    features: str | Path | None = None,
    four_bit: bool = False,
    answer_by: str = GENERATION,
    workers: int | None = None,
    vllm: Vllm | None = None,
    visual_tokens: Sequence[int] | None = None,
    repeat_visual_tokens: int | None = None,
) -> Settings:
    """Settings from names: dtype fp32, bf16 or fp16, device as torch writes it.

    Without a device, a GPU if there is one; without a dtype, bf16 there and fp32 on the CPU.
    Without `workers`, as many as half the cores (up to 8) beside a GPU, which would wait for
    images; none on the CPU, whose cores the models take. Raises InputError for a device that is
    not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--device {device}: {first}") from None
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    kind = names[dtype or ("fp32" if device == "cpu" else "bf16")]
    if workers is None:
        workers = 0 if device == "cpu" else min(8, (os.cpu_count() or 1) // 2)
    cache = Path(features) if features else None
    turns = tuple(visual_tokens or ())
    return Settings(
        batch_size, kind, device, cache, four_bit, answer_by, workers, vllm, turns,
        repeat_visual_tokens,
    )  # fmt: skip


def identity(folders: Sequence[Path], exams: Sequence[Exam], how: Settings) -> dict[str, Any]:
    """What answers depend on, as JSON has it: the runs, what they are asked, and how they answer.

    Batch size and workers are no part of it. Raises InputError for a folder that is no finished
    run, and for two runs of one run_id.
    """
    _refuse_equal_ids(folders)
    features = how.features and file_sha(how.features / MANIFEST)
    repeats = how.repeat_visual_tokens
    return {
        "runs": {
            read_manifest(folder)["run_id"]: file_sha(run_folder(folder) / MANIFEST)
            for folder in folders
        },
        "benchmarks": {exam.benchmark.name: exam.fingerprint() for exam in exams},
        "images": {exam.benchmark.name: exam.shown() for exam in exams},
        "settings": {
            "vtc": __version__,
            "dtype": str(how.dtype).removeprefix("torch."),
            "device": torch.device(how.device).type,
            "load_4bit": how.four_bit,
            "answer_by": how.answer_by,
            "engine": how.engine,
            "features": features and f"features {features[:12]}",
            "visual_tokens": list(how.visual_tokens) or None,
            **({"repeat_visual_tokens": repeats} if repeats else {}),
        },
    }


def evaluate(
    folders: Sequence[Path],
    exams: Sequence[Exam],
    how: Settings,
    track: Track,
    answers: Answers | None = None,
) -> list[dict[str, Any]]:
    """Rows of the predictions table, by run, V, exam and item, in the order given.

    Runs are loaded one at a time, refits of one run together, once. Those with the same encoder
    share its pass over the images, as long as the features fit in memory; images in a feature
    cache are not encoded. An item whose image does not open has a `fault` and scores 0. `answers`
    takes them as they come; what it already has is not asked again.

    Raises InputError for a folder that is no finished run, two runs of one run_id, for images
    of which not one opens, for free answers where likelihood is to decide, for a V that a run
    cannot answer at, and for what vLLM cannot do where it is to answer.
    """
    answers = Answers() if answers is None else answers
    _refuse_equal_ids(folders)
    for folder in folders:
        check_speaks(folder)
        if how.vllm:
            refuse_four_bits(read_manifest(folder), folder)
            refuse_pruning(read_manifest(folder), folder)
            refuse_fusing(read_manifest(folder), folder)
    options = [options_of(exam, how.answer_by) for exam in exams]
    questions = Questions(exams, options, how.repeat_visual_tokens, track, answers)
    sittings = [
        Sitting(folder, manifest, v, len(turns) > 1)
        for folder in folders
        for manifest in [facts_of(folder)]
        for turns in [how.served(manifest)]
        for v in turns
    ]
    for sitting in sittings:
        check_served(sitting.folder, sitting.manifest, sitting.visual_tokens)
    open_ones = [sitting for sitting in sittings if any(questions.left(sitting))]
    sights = {folder: sight_of(folder) for folder in dict.fromkeys(s.folder for s in open_ones)}
    by_encoder: dict[str, list[Sitting]] = {}
    for sitting in open_ones:
        by_encoder.setdefault(sights[sitting.folder].encoder, []).append(sitting)
    store = FeatureStore.open(how.features) if how.features else None
    begun = len(answers) > 0
    for group in by_encoder.values():
        seeing = [sights[sitting.folder] for sitting in group]
        looks = vision.looks_of(seeing, how.batch_size, track, store, how.workers, begun)
        by_weights: dict[Path, list[tuple[Sitting, Sight]]] = {}
        for pair in zip(group, seeing, strict=True):
            by_weights.setdefault(origin(pair[0].folder), []).append(pair)
        for together in by_weights.values():
            _seat(together, looks, questions, how)
    return [
        prediction_row(sitting.manifest, exam, item, found[place], sitting.visual_tokens,
                       how.repeat_visual_tokens)
        for sitting in sittings
        for exam in exams
        for found in [sitting.answered(exam, answers)]
        for place, item in enumerate(exam.items)
    ]  # fmt: skip


def _seat(
    sittings: Sequence[tuple[Sitting, Sight]],
    looks: Mapping[tuple, vision.Look],
    questions: Questions,
    how: Settings,
) -> None:
    """Load a run, and ask what is left of its sittings, whose weights it has."""
    run = load_run(
        sittings[0][0].folder, dtype=how.dtype, device=how.device, four_bit=how.four_bit or None
    )
    repeat_at(run.model, run.processor, how.repeat_visual_tokens)
    prompts = questions.prompts(run)
    fed = max(sitting.fed(how.repeat_visual_tokens) for sitting, _ in sittings)
    longest = questions.longest(prompts, fed)
    with engine_of(run, how.vllm, how.batch_size, longest, fed) as engine:
        seated = Seated(run, engine, prompts)
        for passes in dict.fromkeys(sight.passes for _, sight in sittings):
            some = [pair for pair in sittings if pair[1].passes == passes]
            questions.ask(seated, some, looks[passes])


def options_of(exam: Exam, answer_by: str) -> list[tuple[Candidate, ...]]:
    """The candidates of each item, none where its answer is written by the run.

    Raises InputError, naming the benchmark, if likelihood is to decide and nothing is given.
    """
    if answer_by == LIKELIHOOD:
        return candidates(exam.items, exam.benchmark.name)
    return [() for _ in exam.items]


def _refuse_equal_ids(folders: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for folder in folders:
        run_id = read_manifest(folder)["run_id"]
        if run_id in seen:
            raise InputError(
                f"{folder} and {seen[run_id]} are both run '{run_id}'; evaluate them apart"
            )
        seen[run_id] = folder
