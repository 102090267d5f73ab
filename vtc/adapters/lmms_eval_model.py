"""A vtc run as a model of lmms-eval: its tasks ask, the run answers in batches.

Prompts are lmms-eval's own texts, put through the run's chat template as in training, each image
on a line before the text. Answers are greedy and do not depend on the batch. Facts about the
interface are of lmms-eval 0.7 (`api/model.py`, `api/task.py`, `evaluator.py`).
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lmms_eval.api.instance import (  # pyright: ignore[reportMissingImports]
    GenerationResult,
    TokenCounts,
)
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from loguru import logger  # pyright: ignore[reportMissingImports]
from PIL import Image
from tqdm import tqdm

from vtc.adapters.likelihood import answer_loss
from vtc.compress.serving import untrained
from vtc.evaluate.runner import settings
from vtc.model.asking import prompt_ids, serve_at
from vtc.model.generation import generate_answers
from vtc.model.refit import Refit, refitted
from vtc.model.run import load_run

MAX_NEW_TOKENS = 1024
"""Longest answer where a task names no limit, as in lmms-eval's wrapper of LLaVA."""

_BATCHES_AT_ONCE = 8  # Images of that many batches are held in memory.


class _Request(NamedTuple):
    """A request of a task: what it asks, how the answer ends, and where the images are."""

    number: int
    context: str
    until: tuple[str, ...]
    doc_to_visual: Any
    doc_id: int
    task: str
    split: str
    settings: dict[str, Any]


class VtcModel(lmms):
    """A finished run under lmms-eval; `run` (or `pretrained`) is its folder or hf://ORG/NAME."""

    is_simple = True

    def __init__(
        self,
        run: str | None = None,
        pretrained: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str | None = None,
        load_4bit: bool = False,
        visual_tokens: int | None = None,
        compressor: str | None = None,
        max_batch_size: int | str | None = None,
        **unknown: Any,
    ) -> None:
        """Load the run; raises ValueError for an unknown argument or a batch size in words.

        `compressor` is one that needs no training, in place of the one of an mlp run.
        """
        super().__init__()
        if unknown:
            raise ValueError(f"model vtc takes no argument '{min(unknown)}'")
        folder = run or pretrained
        if not folder:
            raise ValueError("model vtc needs the folder of a run: --model_args run=RUN")
        if not str(batch_size).isdigit():
            raise ValueError(f"model vtc takes a number for --batch_size, not '{batch_size}'")
        how = settings(int(batch_size), dtype, device or _own_gpu(), four_bit=load_4bit)
        place = folder if str(folder).startswith("hf:/") else Path(folder)
        self.batch_size = how.batch_size
        refit = None
        if compressor is not None:
            if visual_tokens is None:
                raise ValueError(f"compressor={compressor} takes visual_tokens, how many it makes")
            refit = Refit(compressor, (visual_tokens,))
        with refitted([place], refit) as (found,):
            self.run = load_run(
                found, dtype=how.dtype, device=how.device, four_bit=load_4bit or None
            )
        # A refitted run has its own V.
        serve_at(self.run, None if refit else visual_tokens)
        words = untrained(folder, self.run.manifest, [self.run.model.compressor.turn(None)])
        if words:
            logger.warning(words.removeprefix("warning: "))
        self.device = torch.device(how.device)

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """The answers to requests (context, settings, doc_to_visual, doc_id, task, split)."""
        asked = [_request(number, request.args) for number, request in enumerate(requests)]
        by_limit: dict[int, list[_Request]] = defaultdict(list)
        for request in asked:
            by_limit[_limit(request.settings)].append(request)
        answers: dict[int, Any] = {}
        with tqdm(total=len(asked), disable=self.rank != 0, desc="Model Responding") as bar:
            for limit, group in by_limit.items():
                # Long prompts first: batches of equal length, and a lack of memory shows at once.
                group.sort(key=lambda request: -len(request.context))
                size = self.batch_size * _BATCHES_AT_ONCE
                for start in range(0, len(group), size):
                    answers.update(self._answer(group[start : start + size], limit, bar.update))
        return [answers[number] for number in range(len(asked))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """The answers of all rounds of each request; its task makes a round of those before."""
        return [self._rounds(*request.args) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The loss of each continuation, and whether it is the greedy answer.

        The loss is the mean negative log-likelihood a token, as lmms-eval's own wrappers give it
        and its tasks take it: they choose the option with the smallest.
        """
        found = []
        for request in tqdm(requests, disable=self.rank != 0, desc="Model Scoring"):
            context, continuation, *place = request.args
            images: list[Image.Image] = []
            if place:
                doc_to_visual, doc_id, task, split = place
                doc = self.task_dict[task][split][doc_id]
                images = _pictures(doc_to_visual(doc), f"task {task}, document {doc_id}")
                if callable(continuation):
                    continuation = continuation(doc)
            found.append(answer_loss(self.run, context, images, str(continuation).strip()))
        return found

    def _answer(self, chunk: Sequence[_Request], limit: int, advance: Any) -> dict[int, Any]:
        images = [self._images(request) for request in chunk]
        processor = self.run.processor
        prompts = [
            prompt_ids(processor, request.context, len(shown))
            for request, shown in zip(chunk, images, strict=True)
        ]
        answers = generate_answers(
            self.run.model,
            processor,
            prompts,
            images,
            limit,
            self.batch_size,
            advance,
            queries=[request.context for request in chunk],
        )
        found = {}
        for request, prompt, answer in zip(chunk, prompts, answers, strict=True):
            text = _cut(answer.text, request.until)
            self.cache_hook.add_partial("generate_until", (request.context, request.settings), text)
            counts = TokenCounts(input_tokens=len(prompt), output_tokens=answer.n_generated)
            found[request.number] = GenerationResult(text, counts)
        return found

    def _rounds(
        self,
        context: str,
        asked: dict[str, Any],
        doc_to_visual: Any,
        doc_to_text: Any,
        doc_id: int,
        task: str,
        split: str,
    ) -> list[str]:
        doc = self.task_dict[task][split][doc_id]
        where = f"task {task}, document {doc_id}"
        visuals, known = doc_to_visual(doc), None
        answers: list[str] = []
        while True:
            images = _pictures(visuals, where)
            prompt = prompt_ids(self.run.processor, context, len(images))
            limit = _limit(asked)
            [answer] = generate_answers(
                self.run.model,
                self.run.processor,
                [prompt],
                [images],
                limit,
                1,
                queries=[context],
            )
            answers.append(_cut(answer.text, _ends(asked)))
            visuals, context, finished, so_far, known = doc_to_text(
                doc, previous_output=answers, round_idx=len(answers), previous_round_info=known
            )
            answers = list(so_far)
            if finished:
                return answers

    def _images(self, request: _Request) -> list[Image.Image]:
        doc = self.task_dict[request.task][request.split][request.doc_id]
        where = f"task {request.task}, document {request.doc_id}"
        return _pictures(request.doc_to_visual(doc), where)


def _own_gpu() -> str | None:
    """The GPU of this process where several are launched, else None: settings choose."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None


def _request(number: int, arguments: tuple) -> _Request:
    context, asked, doc_to_visual, doc_id, task, split = arguments
    return _Request(number, context, _ends(asked), doc_to_visual, doc_id, task, split, asked)


def _ends(asked: dict[str, Any]) -> tuple[str, ...]:
    until = asked.get("until") or ()
    return (until,) if isinstance(until, str) else tuple(until)


def _limit(asked: dict[str, Any]) -> int:
    """The longest answer asked for; sampling and beams are said to be left out."""
    if asked.get("do_sample") or (asked.get("temperature") or 0) > 0:
        _say_once("model vtc answers greedily: temperature and do_sample are left out")
    if (asked.get("num_beams") or 1) > 1:
        _say_once("model vtc answers greedily: num_beams is left out")
    return int(asked.get("max_new_tokens") or asked.get("max_gen_toks") or MAX_NEW_TOKENS)


_said: set[str] = set()


def _say_once(words: str) -> None:
    if words not in _said:
        _said.add(words)
        logger.warning(words)


def _cut(answer: str, until: Sequence[str]) -> str:
    """An answer up to the first of the texts that end it."""
    for end in filter(None, until):
        answer = answer.split(end)[0]
    return answer.strip()


def _pictures(visuals: Any, where: str) -> list[Image.Image]:
    """The pictures of a document, RGB; raises TypeError for video and sound."""
    for visual in visuals or ():
        if not isinstance(visual, Image.Image):
            raise TypeError(f"{where}: model vtc sees images, not {type(visual).__name__}")
    return [visual.convert("RGB") for visual in visuals or ()]
