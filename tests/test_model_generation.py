"""Answers to many prompts: the batch does not matter, the end token does."""

import pytest
import torch
from conftest import TinyWorld
from PIL import Image

from vtc.data.templates import ConversationTemplate
from vtc.model.assemble import Assembled, assemble, end_token_ids
from vtc.model.generation import generate_answers

QUESTIONS = (
    "What colour is the square on the left ?",
    "How many circles ?",
    "Read the text .",
    "Read 0 1 2 3 4 5 6 7 8 9 a b c d e f g .",
    "two",
)


@pytest.fixture(scope="module", params=["qwen", "llama"])
def built(tiny_world: TinyWorld, request: pytest.FixtureRequest) -> Assembled:
    return assemble(tiny_world.encoder, getattr(tiny_world, request.param), "tokenpacker", 4)


@pytest.fixture(scope="module")
def images(tiny_world: TinyWorld) -> list[Image.Image]:
    return [Image.open(tiny_world.images / name) for name in tiny_world.image_names]


def prompts(built: Assembled) -> list[str]:
    template = ConversationTemplate(built.processor.tokenizer)
    return [template.prompt([{"role": "user", "text": f"<image>\n{q}"}]) for q in QUESTIONS]


def test_batches_give_the_answers_of_one_by_one(built: Assembled, images: list[Image.Image]):
    given = (built.model, built.processor, prompts(built), images[: len(QUESTIONS)], 12)
    alone = generate_answers(*given, batch_size=1)
    told = []
    together = generate_answers(*given, batch_size=4, advance=told.append)
    assert together == alone
    assert told == [4, 1]
    assert len({answer.text for answer in alone}) > 1


def test_prompts_as_ids_and_features_in_place_of_images(
    built: Assembled, images: list[Image.Image]
):
    chosen = images[: len(QUESTIONS)]
    texts = generate_answers(built.model, built.processor, prompts(built), chosen, 8)
    tokenizer = built.processor.tokenizer
    spread = [text.replace("<image>", "<image>" * 4) for text in prompts(built)]
    ids = tokenizer(spread, add_special_tokens=False).input_ids
    pixels = built.processor.image_processor(chosen, return_tensors="pt")["pixel_values"]
    levels = list(built.model.model.encode(pixels))
    assert generate_answers(built.model, built.processor, ids, levels, 8) == texts
    nested = [[level] for level in levels]
    assert generate_answers(built.model, built.processor, ids, nested, 8) == texts


def test_answer_stops_at_the_end_token(
    built: Assembled, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
):
    """A token that the model writes is made an end token: the answer ends with its first."""
    given = (built.model, built.processor, prompts(built)[:1], images[:1])
    inputs = built.processor(
        images=images[0], text=given[2][0], return_tensors="pt", add_special_tokens=False
    )
    written = built.model.generate(**inputs, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
    config = built.model.generation_config
    monkeypatch.setattr(config, "eos_token_id", [*config.eos_token_id, int(written[3])])
    answer = generate_answers(*given, 6)[0]
    expected = written[: written.tolist().index(int(written[3])) + 1]
    assert answer.n_generated == len(expected) < 6
    text = built.processor.tokenizer.decode(expected, skip_special_tokens=True)
    assert answer.text == text.strip()


def test_end_tokens_come_from_template_and_tokenizer(tiny_world: TinyWorld):
    from vtc.data.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(tiny_world.qwen)
    tokenizer.eos_token = "<|endoftext|>"
    names = tokenizer.convert_ids_to_tokens(end_token_ids(tokenizer))
    assert set(names) == {"<|endoftext|>", "<|im_end|>"}
    assert load_tokenizer(tiny_world.llama).convert_ids_to_tokens(
        end_token_ids(load_tokenizer(tiny_world.llama))
    ) == ["</s>"]


def test_several_images_and_none(built: Assembled, images: list[Image.Image]):
    template = ConversationTemplate(built.processor.tokenizer)
    texts = ["<image><image>\nRead .", "Read ."]
    asked = [template.prompt([{"role": "user", "text": text}]) for text in texts]
    given = (built.model, built.processor)
    both = generate_answers(*given, asked, [images[:2], None], 5)
    assert both[0] == generate_answers(*given, asked[:1], [images[:2]], 5)[0]
    assert both[1] == generate_answers(*given, asked[1:], [None], 5)[0]
    with pytest.raises(ValueError, match="2 prompts, but 1 visuals"):
        generate_answers(*given, asked, [None], 5)


def test_processor_feeds_generate(built: Assembled, images: list[Image.Image]):
    text = prompts(built)[0]
    inputs = built.processor(
        images=images[0], text=text, return_tensors="pt", add_special_tokens=False
    )
    assert (inputs["input_ids"] == built.processor.image_token_id).sum() == 4
    new = built.model.generate(**inputs, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :]
    decoded = built.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    expected = generate_answers(built.model, built.processor, [text], images[:1], 8)[0]
    assert decoded == expected.text


def test_a_model_in_training_mode_answers_as_in_eval(built: Assembled, images: list[Image.Image]):
    expected = generate_answers(built.model, built.processor, prompts(built)[:2], images[:2], 4)
    with torch.no_grad():
        built.model.train()
    again = generate_answers(built.model, built.processor, prompts(built)[:2], images[:2], 4)
    built.model.eval()
    assert again == expected
