"""Questions answered by vLLM: vtc sees and compresses the images, vLLM reads and writes."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vtc.errors import InputError
from vtc.evaluate.answered import Answer
from vtc.evaluate.answering import GENERATION, Question, as_asked
from vtc.evaluate.vllm_engine.check import Vllm
from vtc.evaluate.vllm_engine.folder import write_folder
from vtc.evaluate.vllm_engine.process import Process
from vtc.evaluate.vllm_engine.prompts import chunks, collapsed
from vtc.model.generation import end_tokens
from vtc.model.prompts import compressed
from vtc.model.run import Run

PROMPTS = 1024
"""Prompts handed over at a time: several times what vLLM answers at once."""
BYTES = 1 << 30
"""Visual tokens handed over at a time."""


class VllmEngine:
    """A run whose LLM vLLM has."""

    def __init__(self, run: Run, process: Process, exchange: Path, batch_size: int) -> None:
        self.run = run
        self.process = process
        self.exchange = exchange
        self.batch_size = batch_size

    def answer(
        self, questions: Sequence[Question], max_new_tokens: int
    ) -> Iterator[dict[int, Answer]]:
        """The answers by the items' places, a chunk at a time.

        Texts are made of tokens as by vtc's own engine. Raises VtcError if vLLM fails.
        """
        asked = as_asked(questions)
        reads = self.run.model.compressor.needs_query
        shown = [[(id(v), one.query if reads else None) for v in one.shown] for one in asked]
        for places, images in chunks(shown, PROMPTS, self._images_a_chunk()):
            some = [asked[place] for place in places]
            rows = {image: row for row, image in enumerate(images)}
            tokens: dict[object, Tensor] = {
                key: found
                for place, own in zip(
                    places,
                    compressed(self.run.model, self.run.processor, some, self.batch_size),
                    strict=True,
                )
                for key, found in zip(shown[place], own, strict=True)
            }
            found = self.process.ask(
                prompts=[self._collapsed(one.ids, len(one.shown)) for one in some],
                shown=[[rows[key] for key in shown[place]] for place in places],
                images=self._written([tokens[image] for image in images]),
                max_tokens=max_new_tokens,
                ends=sorted(end_tokens(self.run.model)),
            )["tokens"]
            texts = self.run.processor.tokenizer.batch_decode(found, skip_special_tokens=True)
            yield {
                questions[place].place: Answer(
                    text.strip(), len(own), questions[place].prompt.n_text_tokens, GENERATION, None
                )
                for place, text, own in zip(places, texts, found, strict=True)
            }

    def _images_a_chunk(self) -> int:
        model = self.run.model
        width: Any = model.config.text_config.hidden_size  # type: ignore[union-attr]
        each = self._visual_tokens * width * model.dtype.itemsize
        return max(1, BYTES // each)

    def _collapsed(self, ids: list[int], n_images: int) -> list[int]:
        image_token, visual_tokens = self.run.processor.image_token_id, self._visual_tokens
        return collapsed(ids, image_token, visual_tokens, n_images)

    @property
    def _visual_tokens(self) -> int:
        return self.run.processor.visual_tokens

    def _written(self, images: Sequence[Tensor]) -> str | None:
        """The file that takes the visual tokens [n_images, V, D], if there are any."""
        if not images:
            return None
        file = self.exchange / "images.safetensors"
        save_file({"images": torch.stack(list(images)).cpu()}, file)
        return str(file)


@contextmanager
def answering_by_vllm(
    vllm: Vllm, run: Run, longest: int, fed: int, batch_size: int
) -> Iterator[VllmEngine]:
    """A run whose LLM answers in vLLM, for prompts and answers of `longest` tokens together.

    An image is at most `fed` of them.

    The LLM goes to a folder in the temporary directory, and out of the run's own memory unless its
    compressor reads questions with it. Raises InputError for prompts beyond the LLM's positions
    and for a vLLM that runs elsewhere, and VtcError if vLLM does not take the LLM.
    """
    positions: Any = getattr(run.model.config.text_config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise InputError(
            f"--engine vllm: a prompt and its answer may have {longest} tokens, and the LLM of "
            f"{run.manifest['run_id']} {positions} positions; leave out --engine, or lower "
            "--max-new-tokens"
        )
    with tempfile.TemporaryDirectory(prefix="vtc-vllm-", ignore_cleanup_errors=True) as name:
        process = Process(vllm, str(run.model.device))
        at_once = True
        try:
            folder = Path(name) / "llm"
            write_folder(run, folder, fed)
            dtype = str(run.model.dtype).removeprefix("torch.")
            if not run.model.compressor.needs_query:
                _forget_llm(run)
            process.ask(folder=str(folder), dtype=dtype, max_model_len=longest)
            # Read: what may be many gigabytes need not wait for the last answer.
            shutil.rmtree(folder)
            yield VllmEngine(run, process, Path(name), batch_size)
            at_once = False
        finally:
            process.end(at_once)


def _forget_llm(run: Run) -> None:
    core: Any = run.model.model
    core.language_model.to("meta")
    run.model.lm_head.to("meta")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
