"""Greedy answers to many prompts, in batches whose results do not depend on the batch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vtc.model.backbones import module_dtype
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.processor import VtcProcessor

Visual = Any
"""The image or images of a prompt: PIL images, or cached features [n_levels, N, D]."""


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
) -> list[Generated]:
    """Answer prompts greedily, each until its end token or `max_new_tokens`.

    A prompt is a text rendered through the chat template, with one `<image>` an image, or token
    ids in which each image already is V image tokens. `visuals` holds what each prompt shows: an
    image (PIL), cached features [n_levels, N, D] (the levels the compressor asks for), a list of
    either, or None; all of one call are of the same kind. Prompts of similar length share a
    batch, padded on the left; `advance` is told the number of answers as they come.

    Raises ValueError if there are not as many visuals as prompts.
    """
    if len(prompts) != len(visuals):
        raise ValueError(f"{len(prompts)} prompts, but {len(visuals)} visuals")
    ids = [_token_ids(prompt, processor) for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
    answers: list[Generated | None] = [None] * len(ids)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = _left_padded([ids[index] for index in batch], processor.tokenizer.pad_token_id)
        shown = [item for index in batch for item in _as_list(visuals[index])]
        answered = _answer(model, processor, inputs, shown, max_new_tokens)
        for index, answer in zip(batch, answered, strict=True):
            answers[index] = answer
        if advance is not None:
            advance(len(batch))
    return [answer for answer in answers if answer is not None]


@torch.inference_mode()
def _answer(
    model: VtcForConditionalGeneration,
    processor: VtcProcessor,
    inputs: dict[str, Tensor],
    shown: list[Visual],
    max_new_tokens: int,
) -> list[Generated]:
    """One batch of prompts, padded on the left, answered."""
    device = model.device
    generated = model.generate(
        **{name: tensor.to(device) for name, tensor in inputs.items()},
        **_visual_inputs(model, processor, shown),
        max_new_tokens=max_new_tokens,
        do_sample=False,
    )
    new = generated[:, inputs["input_ids"].shape[1] :].cpu()
    ends = torch.tensor(model.generation_config.eos_token_id or [-1]).reshape(-1)  # type: ignore
    ended = torch.isin(new, ends)
    width = new.shape[1]
    # Tokens up to and with the first end token; all of them where there is none.
    lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, width).tolist()
    kept = [row[:length] for row, length in zip(new.tolist(), lengths, strict=True)]
    texts = processor.tokenizer.batch_decode(kept, skip_special_tokens=True)
    return [Generated(text.strip(), length) for text, length in zip(texts, lengths, strict=True)]


def _visual_inputs(
    model: VtcForConditionalGeneration, processor: VtcProcessor, shown: list[Visual]
) -> dict[str, Tensor]:
    """What `generate` takes for the images of a batch, in order of appearance."""
    if not shown:
        return {}
    if isinstance(shown[0], Tensor):
        return {"vision_levels": torch.stack(shown).to(model.device)}
    pixels = processor.image_processor(shown, return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixels.to(model.device, module_dtype(model))}


def _token_ids(prompt: str | Sequence[int], processor: VtcProcessor) -> list[int]:
    if not isinstance(prompt, str):
        return list(prompt)
    image = processor.image_token
    text = prompt.replace(image, image * processor.visual_tokens)
    return processor.tokenizer(text, add_special_tokens=False).input_ids


def _left_padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), pad)
    attention_mask = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        input_ids[number, longest - len(row) :] = torch.tensor(row)
        attention_mask[number, longest - len(row) :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def _as_list(visual: Any) -> list[Visual]:
    if visual is None:
        return []
    return list(visual) if isinstance(visual, list | tuple) else [visual]
