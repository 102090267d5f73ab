"""Batches, shared images and finished rows change nothing: the answers are those of `generate`."""

from typing import Any

import pytest
import torch
from conftest import TinyWorld
from PIL import Image

from vtc.compress.registry import COMPRESSORS
from vtc.data.queries import words
from vtc.data.templates import ConversationTemplate
from vtc.model import prompts, reading
from vtc.model.assemble import Assembled, assemble
from vtc.model.generation import generate_answers

GRID = (6, 6)
TEXTS = (
    "<image>\nHow many circles ?",
    "<image>\nWhat colour is the square on the left ?",
    "<image>\nHow many ?",
    "<image><image>\nRead the text .",
    "<image><image>\nRead 0 1 2 3 4 5 6 7 8 9 a b c d e f g .",
    "Read 0 1 2 3 .",
    "<image>\ntwo",
)
SHOWN = ((0,), (0,), (1,), (0, 1), (0, 1), (), (1,))


@pytest.fixture(scope="module")
def images(tiny_world: TinyWorld) -> list[Image.Image]:
    return [Image.open(tiny_world.images / name) for name in tiny_world.image_names]


def asked(built: Assembled, images: list[Any]) -> tuple[list[str], list[list[Any]]]:
    template = ConversationTemplate(built.processor.tokenizer)
    texts = [template.prompt([{"role": "user", "text": text}]) for text in TEXTS]
    return texts, [[images[number] for number in shown] for shown in SHOWN]


def by_generate(built: Assembled, text: str, shown: list[Image.Image], limit: int) -> list[int]:
    """The tokens of transformers' own generate, one prompt alone, up to and with the end."""
    image: dict[str, Any] = {"images": shown} if shown else {}
    if shown and built.processor.query_scope is not None:
        question = next(own for own in TEXTS if words(own) in text)
        image["query"] = [question] * len(shown)
    inputs = built.processor(text=text, return_tensors="pt", add_special_tokens=False, **image)
    new = built.model.generate(**inputs, max_new_tokens=limit)
    return new[0, inputs["input_ids"].shape[1] :].tolist()


def spoken(built: Assembled, ids: list[int]) -> str:
    return built.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("name", "llm"),
    [*((name, "qwen") for name in COMPRESSORS), ("tokenpacker", "llama"), ("quecc", "llama")],
)
def test_answers_are_those_of_generate_alone(tiny_world, images, monkeypatch, name, llm):
    visual_tokens = min(v for v in COMPRESSORS[name].supported(GRID) if v > 1)
    built = assemble(tiny_world.encoder, getattr(tiny_world, llm), name, visual_tokens)
    texts, shown = asked(built, images)
    limit = 7
    alone = [by_generate(built, *pair, limit) for pair in zip(texts, shown, strict=True)]
    expected = [(spoken(built, ids), len(ids)) for ids in alone]
    assert len(set(expected)) > 2
    given = (built.model, built.processor, texts)
    pixels = built.processor.image_processor(images, return_tensors="pt")["pixel_values"]
    cached = asked(built, list(built.model.model.encode(pixels)))[1]
    for spared, batch in ((1, 1), (1, 4), (10**9, 4)):
        monkeypatch.setattr(prompts, "SHARED_TOKENS", spared)
        for pictures in (shown, cached):
            assert generate_answers(*given, pictures, limit, batch, queries=TEXTS) == expected


def test_an_image_is_read_once_for_its_questions(tiny_world, images, monkeypatch):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "mlp", None)
    read = []

    def noted(model, ids, mask, *more, **named):
        read.append(int(mask.sum()))
        return forward(model, ids, mask, *more, **named)

    forward = reading._forward
    monkeypatch.setattr(reading, "_forward", noted)
    given = (built.model, built.processor, *asked(built, images))
    monkeypatch.setattr(prompts, "SHARED_TOKENS", 1)
    shared = generate_answers(*given, 1)
    n_shared = sum(read)
    monkeypatch.setattr(prompts, "SHARED_TOKENS", 10**9)
    read.clear()
    assert generate_answers(*given, 1) == shared
    # Two questions each about image 0, image 1 and both: three times images are spared.
    assert sum(read) - n_shared >= (1 + 1 + 2) * 36


def test_rows_that_have_ended_are_read_no_further(tiny_world, images, monkeypatch):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 4)
    texts, shown = asked(built, images)
    alone = [by_generate(built, *pair, 6) for pair in zip(texts, shown, strict=True)]
    config = built.model.generation_config
    # What one row writes second is made an end token: several end tokens, rows of unlike lengths.
    ends = [*config.eos_token_id, alone[1][1]]
    monkeypatch.setattr(config, "eos_token_id", ends)
    expected = [by_generate(built, *pair, 6) for pair in zip(texts, shown, strict=True)]
    assert len({len(ids) for ids in expected}) > 1
    answers = generate_answers(built.model, built.processor, texts, shown, 6)
    assert [answer.n_generated for answer in answers] == [len(ids) for ids in expected]


@pytest.mark.parametrize("pad", ["<|im_end|>", None])
def test_the_padding_token_does_not_matter(tiny_world, images, pad):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 4)
    texts, shown = asked(built, images)
    expected = generate_answers(built.model, built.processor, texts, shown, 6, 1)
    built.processor.tokenizer.pad_token = pad
    assert generate_answers(built.model, built.processor, texts, shown, 6, 4) == expected


def test_an_llm_with_windows_shares_nothing_and_answers_as_alone(tiny_world, images, tmp_path):
    from transformers import Qwen2ForCausalLM

    llm = Qwen2ForCausalLM.from_pretrained(tiny_world.qwen)
    sliding = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    llm.config.update({**sliding, "layer_types": ["full_attention", "sliding_attention"]})
    llm.save_pretrained(tmp_path)
    built = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 36)
    windowed = Qwen2ForCausalLM.from_pretrained(tmp_path)
    built.model.model.language_model = windowed.model
    built.model.config.text_config = windowed.config
    texts, shown = asked(built, images)
    assert not prompts._shares(built.model)
    alone = [by_generate(built, *pair, 6) for pair in zip(texts, shown, strict=True)]
    for batch in (1, 4):
        answers = generate_answers(built.model, built.processor, texts, shown, 6, batch)
        assert [answer.text for answer in answers] == [spoken(built, ids) for ids in alone]


def test_bf16_and_four_bits_answer(tiny_world, images):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "mlp", None, dtype=torch.bfloat16)
    texts, shown = asked(built, images)
    answers = generate_answers(built.model, built.processor, texts, shown, 4, 4)
    assert all(answer.n_generated for answer in answers)
