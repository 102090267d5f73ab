"""Runs answer benchmarks: one row a run and item, whatever happens to an image."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.data.features import FeatureStore
from vtc.errors import InputError
from vtc.evaluate import vision
from vtc.evaluate.aggregate import score_item
from vtc.evaluate.benchmark import Benchmark
from vtc.evaluate.chance import chance
from vtc.evaluate.items import Item
from vtc.evaluate.prompts import Prompt, tokenise
from vtc.evaluate.vision import Image, Look, Sight, sight_of
from vtc.model.generation import Generated, generate_answers
from vtc.model.run import Run, check_speaks, load_run, read_manifest

Track = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""A progress bar: `with track(what, total) as advance`, then `advance(n)`."""


@dataclass(frozen=True)
class Exam:
    """A benchmark, its items, and its chance level in [0, 1]."""

    benchmark: Benchmark
    items: list[Item]
    chance: float

    @classmethod
    def of(cls, benchmark: Benchmark, items: list[Item]) -> "Exam":
        """The exam of a benchmark; its chance is what its file says, else the blind baseline."""
        level = benchmark.chance
        return cls(benchmark, items, chance(items, benchmark.metric) if level is None else level)

    def images(self) -> list[tuple[Image, ...]]:
        """The images of each item, none for text alone."""
        root = self.benchmark.images
        return [tuple((root, image) for image in item.images) for item in self.items]


@dataclass(frozen=True)
class Settings:
    """How runs answer: prompts a batch, floating type, device, and a feature cache's folder.

    `four_bit`: the LLM's linear layers are quantised (nf4) as they are read.
    """

    batch_size: int = 16
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    features: Path | None = None
    four_bit: bool = False

    def described(self) -> dict[str, Any]:
        """The settings in plain words, for a footer."""
        return {
            "batch_size": self.batch_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device,
            "features": str(self.features) if self.features else None,
            "load_4bit": self.four_bit,
        }


def settings(
    batch_size: int,
    dtype: str | None,
    device: str | None,
    features: str | Path | None = None,
    four_bit: bool = False,
) -> Settings:
    """Settings from names: dtype fp32, bf16 or fp16, device as torch writes it.

    Without a device, a GPU if there is one; without a dtype, bf16 there and fp32 on the CPU.
    Raises InputError for a device that is not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--device {device}: {first}") from None
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    kind = names[dtype or ("fp32" if device == "cpu" else "bf16")]
    return Settings(batch_size, kind, device, Path(features) if features else None, four_bit)


def evaluate(
    folders: Sequence[Path], exams: Sequence[Exam], how: Settings, track: Track
) -> list[dict[str, Any]]:
    """Rows of the predictions table, by run, exam and item, in the order given.

    Runs are loaded one at a time. Those with the same encoder share its pass over the images, as
    long as the features fit in memory; images in a feature cache are not encoded. An item whose
    image does not open has a `fault` and scores 0.

    Raises InputError for a folder that is no finished run, two runs of one run_id, and for images
    of which not one opens.
    """
    _refuse_equal_ids(folders)
    for folder in folders:
        check_speaks(folder)
    sights = {folder: sight_of(folder) for folder in folders}
    by_encoder: dict[str, list[Path]] = {}
    for folder, sight in sights.items():
        by_encoder.setdefault(sight.encoder, []).append(folder)
    store = FeatureStore.open(how.features) if how.features else None
    rows: dict[Path, list[dict[str, Any]]] = {}
    for group in by_encoder.values():
        look = Look(vision.union([sights[f] for f in group]), how.batch_size, track, store)
        for folder in group:
            run = load_run(
                folder, dtype=how.dtype, device=how.device, four_bit=how.four_bit or None
            )
            rows[folder] = _sit(run, sights[folder], look, exams, how, track)
    return [row for folder in folders for row in rows[folder]]


def _refuse_equal_ids(folders: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for folder in folders:
        run_id = read_manifest(folder)["run_id"]
        if run_id in seen:
            raise InputError(
                f"{folder} and {seen[run_id]} are both run '{run_id}'; evaluate them apart"
            )
        seen[run_id] = folder


def _sit(
    run: Run,
    sight: Sight,
    look: Look,
    exams: Sequence[Exam],
    how: Settings,
    track: Track,
) -> list[dict[str, Any]]:
    """All rows of one run, block by block of images."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    tokenizer, visual_tokens = run.processor.tokenizer, run.manifest["visual_tokens"]
    images = [exam.images() for exam in exams]
    position = run.processor.query_position
    prompts = [tokenise(exam.items, tokenizer, visual_tokens, position) for exam in exams]
    for block in look.blocks(run, images):
        seen = look.at(run, block)
        views = seen.of(sight.levels)
        inside = set(block.images)
        for number, exam in enumerate(exams):
            here = [
                i
                for i, shown in enumerate(images[number])
                if (shown and inside.issuperset(shown)) or (block.first and not shown)
            ]
            able = [i for i in here if all(image in views for image in images[number][i])]
            asked = [
                (prompts[number][i], [views[image] for image in images[number][i]]) for i in able
            ]
            what = f"{run.manifest['run_id']} on {exam.benchmark.name}"
            with track(what, len(able)) as advance:
                found = _answer(run, asked, exam.benchmark.max_new_tokens, how, advance)
            answers = dict(zip(able, found, strict=True))
            for i in here:
                faults = [seen.faults[image] for image in images[number][i] if image in seen.faults]
                fault = faults[0] if faults else None
                answer = answers.get(i, Generated("", 0))
                rows[number, i] = _row(run, exam, exam.items[i], prompts[number][i], answer, fault)
    return [rows[key] for key in sorted(rows)]


def _answer(
    run: Run,
    asked: Sequence[tuple[Prompt, list[Tensor]]],
    max_new_tokens: int,
    how: Settings,
    advance: Callable[[int], object],
) -> list[Generated]:
    if not asked:
        return []
    return generate_answers(
        run.model,
        run.processor,
        [prompt.ids for prompt, _ in asked],
        [features for _, features in asked],
        max_new_tokens,
        how.batch_size,
        advance,
    )


def _row(
    run: Run, exam: Exam, item: Item, prompt: Prompt, answer: Generated, fault: str | None
) -> dict[str, Any]:
    manifest, llm, benchmark = run.manifest, run.manifest["llm"], exam.benchmark
    return score_item(
        {
            "run_id": manifest["run_id"],
            "backbone": llm["name"],
            "family": llm["family"],
            "n_params": llm["n_params"],
            "n_params_total": llm["n_params_total"],
            "n_params_nonembedding": llm["n_params_nonembedding"],
            "compressor": manifest["compressor"],
            "visual_tokens": manifest["visual_tokens"],
            "encoder": manifest["encoder"]["name"],
            "seed": manifest.get("seed"),
            "benchmark": benchmark.name,
            "task": benchmark.task,
            "metric": benchmark.metric,
            "chance": exam.chance,
            "item_id": item.item_id,
            "image_id": item.image_id,
            "question": item.question,
            "references": item.references,
            "choices": list(item.choices) or None,
            "category": item.category,
            "group": item.group,
            "about": json.dumps(item.about, ensure_ascii=False) if item.about else None,
            "prediction": answer.text,
            "n_text_tokens": prompt.n_text_tokens,
            "n_generated": answer.n_generated,
            "prompt_sha": benchmark.prompt_sha,
            "fault": fault,
        }
    )
