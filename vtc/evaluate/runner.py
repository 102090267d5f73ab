"""Runs answer benchmarks: one row a run and item, whatever happens to an image."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vtc import __version__
from vtc.compress.serving import check_served
from vtc.data.features import FeatureStore
from vtc.errors import InputError
from vtc.evaluate import vision
from vtc.evaluate.answered import Answer, Answers
from vtc.evaluate.answering import GENERATION, LIKELIHOOD, Question
from vtc.evaluate.candidates import Candidate, candidates
from vtc.evaluate.engines import Engine, engine_of
from vtc.evaluate.exam import Exam
from vtc.evaluate.prediction_row import facts_of, prediction_row
from vtc.evaluate.prompts import Prompt, tokenise
from vtc.evaluate.vision import Look, Sight, sight_of
from vtc.evaluate.vllm_engine.check import Vllm, refuse_four_bits, refuse_fusing, refuse_pruning
from vtc.model.asking import serve_at
from vtc.model.manifest import MANIFEST, run_folder
from vtc.model.repeating import repeat_at
from vtc.model.run import Run, check_speaks, load_run, read_manifest
from vtc.tables.provenance import file_sha

Track = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""A progress bar: `with track(what, total) as advance`, then `advance(n)`."""


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

    Runs are loaded one at a time. Those with the same encoder share its pass over the images, as
    long as the features fit in memory; images in a feature cache are not encoded. An item whose
    image does not open has a `fault` and scores 0. `answers` takes them as they come; what it
    already has is not asked again.

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
    manifests = {folder: facts_of(folder) for folder in folders}
    turns = {folder: how.served(manifests[folder]) for folder in folders}
    for folder in folders:
        for v in turns[folder]:
            check_served(folder, manifests[folder], v)
    sights = {
        folder: sight_of(folder)
        for folder in folders
        if any(_open(manifests[folder], exam, answers, v) for v in turns[folder] for exam in exams)
    }
    by_encoder: dict[tuple, list[Path]] = {}
    for folder, sight in sights.items():
        by_encoder.setdefault(sight.passes, []).append(folder)
    store = FeatureStore.open(how.features) if how.features else None
    begun = len(answers) > 0
    for group in by_encoder.values():
        request = vision.union([sights[f] for f in group])
        look = Look(request, how.batch_size, track, store, how.workers, begun)
        for folder in group:
            run = load_run(
                folder, dtype=how.dtype, device=how.device, four_bit=how.four_bit or None
            )
            repeat_at(run.model, run.processor, how.repeat_visual_tokens)
            prompts = {v: _prompts(run, exams, v) for v in turns[folder]}
            longest = max(_longest(own, exams) for own in prompts.values())
            with engine_of(run, how.vllm, how.batch_size, longest) as engine:
                _sit(run, engine, sights[folder], look, exams, prompts, options, track, answers)
    return [
        prediction_row(manifests[folder], exam, item, found[place], v, how.repeat_visual_tokens)
        for folder in folders
        for v in turns[folder]
        for exam in exams
        for found in [_answered(manifests[folder], exam, answers, v)]
        for place, item in enumerate(exam.items)
    ]


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


def _apart(manifest: Mapping[str, Any], visual_tokens: int) -> int | None:
    """The V by which answers are kept apart from those at the run's own."""
    return None if visual_tokens == manifest["visual_tokens"] else visual_tokens


def _answered(
    manifest: Mapping[str, Any], exam: Exam, answers: Answers, visual_tokens: int
) -> Mapping[int, Answer]:
    """What a run has answered at a V, by the items' places."""
    at = _apart(manifest, visual_tokens)
    return answers.of(manifest["run_id"], exam.benchmark.name, at)


def _open(
    manifest: Mapping[str, Any], exam: Exam, answers: Answers, visual_tokens: int
) -> list[int]:
    """The places of the items that a run has not answered yet at a V."""
    done = _answered(manifest, exam, answers, visual_tokens)
    return [place for place in range(len(exam.items)) if place not in done]


def _prompts(run: Run, exams: Sequence[Exam], visual_tokens: int) -> list[list[Prompt]]:
    """The prompts of each exam's items, as this run has them at a V."""
    tokenizer = run.processor.tokenizer
    position = run.processor.query_position
    fed = visual_tokens * run.model.config.repeat_visual_tokens
    return [tokenise(exam.items, tokenizer, fed, position) for exam in exams]


def _longest(prompts: Sequence[Sequence[Prompt]], exams: Sequence[Exam]) -> int:
    """The most tokens that a prompt and its answer may have together."""
    return max(
        len(prompt.ids) + exam.benchmark.max_new_tokens
        for own, exam in zip(prompts, exams, strict=True)
        for prompt in own
    )


def _sit(
    run: Run,
    engine: Engine,
    sight: Sight,
    look: Look,
    exams: Sequence[Exam],
    prompts: Mapping[int, Sequence[Sequence[Prompt]]],
    options: Sequence[Sequence[tuple[Candidate, ...]]],
    track: Track,
    answers: Answers,
) -> None:
    """Ask one run whatever it has not answered, block by block of images, at each V in turn.

    `prompts` are those of each V, exam by exam.
    """
    run_id = run.manifest["run_id"]
    images = [exam.images() for exam in exams]
    todo = {
        (v, n): _open(run.manifest, exam, answers, v)
        for v in prompts
        for n, exam in enumerate(exams)
    }
    left = [sorted(set().union(*(todo[v, n] for v in prompts))) for n in range(len(exams))]
    for block in look.blocks(run, [[images[n][i] for i in own] for n, own in enumerate(left)]):
        seen = look.at(run, block)
        views = seen.of(sight)
        inside = set(block.images)
        for (v, number), due in todo.items():
            serve_at(run, v)
            exam, at = exams[number], _apart(run.manifest, v)
            here = [
                i
                for i in due
                for shown in [images[number][i]]
                if (shown and inside.issuperset(shown)) or (block.first and not shown)
            ]
            faults = {
                i: next(seen.faults[image] for image in images[number][i] if image in seen.faults)
                for i in here
                if any(image in seen.faults for image in images[number][i])
            }
            wrong = {
                i: Answer("", 0, prompts[v][number][i].n_text_tokens, None, fault)
                for i, fault in faults.items()
            }
            answers.add(run_id, exam.benchmark.name, wrong, at)
            questions = [
                Question(
                    place=i,
                    prompt=prompts[v][number][i],
                    shown=tuple(views[image] for image in images[number][i]),
                    options=options[number][i],
                )
                for i in here
                if i not in faults
            ]
            where = f" at V = {v}" if len(prompts) > 1 else ""
            with track(f"{run_id}{where} on {exam.benchmark.name}", len(questions)) as advance:
                limit = exam.benchmark.max_new_tokens
                for found in engine.answer(questions, limit):
                    answers.add(run_id, exam.benchmark.name, found, at)
                    advance(len(found))
