"""Greedy answers to many prompts, in batches whose results do not depend on the batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.processor import VtcProcessor
from vtc.model.prompts import Asked, Visual, as_asked, readings
from vtc.model.reading import greedy

__all__ = ["Generated", "Visual", "answer_each", "end_tokens", "generate_answers"]


class Generated(NamedTuple):
    """One answer: its text, and the tokens generated for it, the end token included."""

    text: str
    n_generated: int


def generate_answers(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    prompts: Sequence[str | Sequence[int]],
    visuals: Sequence[Visual | Sequence[Visual] | None],
    max_new_tokens: int,
    batch_size: int = 16,
    advance: Callable[[int], object] | None = None,
    queries: Sequence[str | None] | None = None,
) -> list[Generated]:
    """Answer prompts greedily, each until its end token or `max_new_tokens`.

    A prompt is a text rendered through the chat template, with one `<image>` an image, or token
    ids in which each image already is V image tokens. `visuals` holds what each prompt shows: an
    image (PIL), cached features [n_levels, N, D] (the levels the compressor asks for), a list of
    either, or None; all of one call are of the same kind. Prompts of similar length share a
    batch, padded on the left; `advance` is told the number of answers as they come. `queries` are
    the questions in words that a compressor which reads them compresses the images for.

    Raises ValueError if there are not as many visuals as prompts, or such a query is missing.
    """
    asked = as_asked(processor, prompts, visuals, queries)
    answers: dict[int, Generated] = {}
    for found in answer_each(model, processor, asked, max_new_tokens, batch_size):
        answers.update(found)
        if advance is not None:
            advance(len(found))
    return [answers[index] for index in range(len(asked))]


def answer_each(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    asked: Sequence[Asked],
    max_new_tokens: int,
    batch_size: int = 16,
) -> Iterator[dict[int, Generated]]:
    """As `generate_answers`, a batch at a time: the answers by their place in `asked`."""
    ends = end_tokens(model)
    for places, read in readings(model, processor, asked, batch_size):
        tokens = greedy(model, read, max_new_tokens, ends)
        texts = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        yield {
            place: Generated(text.strip(), len(own))
            for place, text, own in zip(places, texts, tokens, strict=True)
        }


def end_tokens(model: VtcForConditionalGeneration) -> set[int]:
    """The tokens that end an answer, one or several, as the model's generation config has them."""
    ends: Any = model.generation_config.eos_token_id  # type: ignore[union-attr]
    if ends is None:
        return set()
    return set(ends) if isinstance(ends, list | tuple) else {int(ends)}
