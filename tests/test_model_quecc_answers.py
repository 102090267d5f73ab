"""quecc's answers hang on the question that its images are compressed for, and on the right one."""

import pytest
import torch
from conftest import TinyWorld
from PIL import Image
from test_model_reading import SHOWN, TEXTS, asked, by_generate, spoken

from vtc.data.queries import words
from vtc.evaluate.answering import Question, as_asked
from vtc.evaluate.items import Item
from vtc.evaluate.prompts import tokenise
from vtc.model import prompts
from vtc.model.assemble import Assembled, assemble
from vtc.model.generation import generate_answers


@pytest.fixture(scope="module", params=["qwen", "llama"])
def built(request, tiny_world: TinyWorld) -> Assembled:
    """A model of whose untrained weights the question's count for as much as the patches'."""
    one = assemble(tiny_world.encoder, getattr(tiny_world, request.param), "quecc", 4)
    compressor = one.model.compressor
    with torch.no_grad():
        compressor.text_norm.weight.mul_(20)
        compressor.attention.in_proj_weight.mul_(6)
        compressor.out_proj[2].weight.mul_(40)
    return one


@pytest.fixture(scope="module")
def images(tiny_world: TinyWorld) -> list[Image.Image]:
    return [Image.open(tiny_world.images / name) for name in tiny_world.image_names]


def test_batches_answer_as_one_by_one_and_other_questions_otherwise(built, images, monkeypatch):
    texts, shown = asked(built, images)
    pairs = zip(texts, shown, strict=True)
    expected = [spoken(built, by_generate(built, *pair, 7)) for pair in pairs]

    def answers(queries, batch: int) -> list[str]:
        given = (built.model, built.processor, texts, shown, 7, batch)
        return [answer.text for answer in generate_answers(*given, queries=queries)]

    for spared in (1, 10**9):
        monkeypatch.setattr(prompts, "SHARED_TOKENS", spared)
        for batch in (1, 3, 7):
            assert answers(TEXTS, batch) == expected
    others = answers([*TEXTS[1:], TEXTS[0]], 3)
    changed = [one != other for one, other in zip(expected, others, strict=True)]
    assert sum(changed) >= 4
    # A prompt without an image is compressed for nothing.
    assert not changed[SHOWN.index(())]


def test_the_order_of_prompts_changes_no_answer(built, images):
    texts, shown = asked(built, images)
    order = [3, 6, 0, 5, 2, 4, 1]
    given = (built.model, built.processor)
    straight = generate_answers(*given, texts, shown, 5, 2, queries=TEXTS)
    mixed = generate_answers(
        *given, [texts[k] for k in order], [shown[k] for k in order], 5, 2,
        queries=[TEXTS[k] for k in order],
    )  # fmt: skip
    assert [answer.text for answer in mixed] == [straight[k].text for k in order]


def test_evaluation_asks_the_items_own_words(built):
    """One, several and no images; what stands in the text as <image> is none."""
    items = [
        Item(str(number), images, prompt, prompt, ["red"])
        for number, (images, prompt) in enumerate(
            [
                (("1.png",), "What colour ?"),
                (("1.png", "2.png"), "Which <image> of both ?"),
                ((), "Read the text ."),
            ]
        )
    ]
    made = tokenise(items, built.processor.tokenizer, 4)
    assert [prompt.query for prompt in made] == [
        "What colour ?", words("Which  of both ?"), "Read the text .",
    ]  # fmt: skip
    image = built.processor.image_token_id
    assert [prompt.ids.count(image) for prompt in made] == [4, 8, 0]
    questions = [Question(0, prompt, ()) for prompt in made]
    assert [one.query for one in as_asked(questions)] == [prompt.query for prompt in made]
