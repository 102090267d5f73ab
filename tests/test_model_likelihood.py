"""Likelihoods of answers: each is what the whole row says, scored alone; the likeliest wins."""

import math

import pytest
import torch
from conftest import TinyWorld
from PIL import Image

from vtc.compress.registry import COMPRESSORS
from vtc.data.labels import IGNORE, TurnEncoder, expand_images
from vtc.errors import InputError
from vtc.evaluate.answering import Question, answer
from vtc.evaluate.candidates import Candidate, candidates, likeliest
from vtc.evaluate.item import Item
from vtc.evaluate.prompts import tokenise
from vtc.model import prompts
from vtc.model.assemble import Assembled, assemble
from vtc.model.likelihood import AnswerTokens, likelihoods
from vtc.model.prompts import Asked
from vtc.model.run import Run

GRID = (6, 6)
ANSWERS = ("A", "B", "Yes", "red", "the square on the left", "one two")
QUESTIONS = ("How many ?", "Read the text .", "What colour is the square on the left ?", "two")


@pytest.fixture(scope="module")
def images(tiny_world: TinyWorld) -> list[Image.Image]:
    return [Image.open(tiny_world.images / name) for name in tiny_world.image_names]


def items(shown: list[tuple[str, ...]]) -> list[Item]:
    return [
        Item(str(n), own, text, text, ["yes"])
        for n, (own, text) in enumerate(zip(shown, QUESTIONS, strict=True))
    ]


def alone(built: Assembled, question: str, shown: list[Image.Image], said: str) -> float:
    """The log-likelihood of an answer, from one plain forward of prompt and answer."""
    encoder = TurnEncoder(built.processor.tokenizer, "chat")
    turns = [
        {"role": "user", "text": "<image>\n" * len(shown) + question},
        {"role": "assistant", "text": said},
    ]
    v = built.processor.visual_tokens
    ids, labels = expand_images(*encoder.tokens(turns), encoder.image_token_id, v)
    ends = set(built.model.generation_config.eos_token_id)
    pixels = {}
    if shown:
        pixels = dict(built.processor.image_processor(shown, return_tensors="pt"))
        pixels.update(built.processor.query_inputs([question] * len(shown)))
    if built.model.model.compressor.fuses:
        pixels["fused_mask"] = torch.tensor([label == IGNORE for label in labels])[None].long()
    with torch.no_grad():
        logits = built.model(input_ids=torch.tensor(ids)[None], **pixels).logits[0]
    chances = logits.log_softmax(-1)
    total = 0.0
    for place in range(1, len(ids)):
        if labels[place] != IGNORE:
            if int(ids[place]) in ends:
                break
            total += float(chances[place - 1, ids[place]])
    return total


# Tokens dropped inside the LLM are those that the prompt drops; in a pass over prompt and answer
# they are others (tests/test_pruning.py).
ALONE = [name for name, kind in COMPRESSORS.items() if not kind.prunes]


@pytest.mark.parametrize(
    ("name", "llm"), [*((name, "qwen") for name in ALONE), ("tokenpacker", "llama")]
)
def test_candidates_over_a_shared_prompt_score_as_each_alone(
    tiny_world, images, monkeypatch, name, llm
):
    visual_tokens = min(v for v in COMPRESSORS[name].supported(GRID) if v > 1)
    built = assemble(tiny_world.encoder, getattr(tiny_world, llm), name, visual_tokens)
    shown = [(0,), (0,), (0, 1), ()]
    asked = [
        Asked(prompt.ids, tuple(images[i] for i in own), prompt.query)
        for prompt, own in zip(
            tokenise(items([("x",) * len(own) for own in shown]), built.processor.tokenizer,
                     visual_tokens),
            shown, strict=True,
        )
    ]  # fmt: skip
    tokens = AnswerTokens(built.model, built.processor)
    own = [tokens.of(said) for said in ANSWERS]
    assert len({len(one) for one in own}) > 1
    expected = [
        [alone(built, question, [images[i] for i in some], said) for said in ANSWERS]
        for question, some in zip(QUESTIONS, shown, strict=True)
    ]
    for spared, batch in ((1, 3), (10**9, 16)):
        monkeypatch.setattr(prompts, "SHARED_TOKENS", spared)
        found: dict[int, list[float]] = {}
        for some in likelihoods(built.model, built.processor, asked, [own] * 4, batch):
            found |= some
        assert [found[place] for place in range(4)] == [
            pytest.approx(scores, abs=1e-5) for scores in expected
        ]


def test_a_run_answers_by_likelihood_what_is_closed_and_writes_the_rest(tiny_world, images):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 4)
    run = Run(tiny_world.qwen, {}, built.model, built.processor, built.encoder, built.llm)
    pixels = built.processor.image_processor(images[:1], return_tensors="pt")["pixel_values"]
    [level] = built.model.model.encode(pixels)
    asked = tokenise(items([("x",)] * 4), built.processor.tokenizer, 4)
    letters = tuple(Candidate(one, (one,)) for one in "ABC")
    words = tuple(Candidate(w.capitalize(), (w.capitalize(), w)) for w in ("yes", "no"))
    options = [letters, (), words, letters]
    questions = [
        Question(place, prompt, (level,), own)
        for place, (prompt, own) in enumerate(zip(asked, options, strict=True))
    ]
    answers = {}
    for some in answer(run, questions, 3, 2):
        answers |= some
    assert [answers[place].answered_by for place in range(4)] == [
        "likelihood", "generation", "likelihood", "likelihood",
    ]  # fmt: skip
    for place, own in ((0, letters), (2, words), (3, letters)):
        scores = [
            [alone(built, QUESTIONS[place], images[:1], said) for said in option.spellings]
            for option in own
        ]
        sums = [math.log(sum(math.exp(s) for s in some)) for some in scores]
        assert answers[place].text == own[sums.index(max(sums))].answer
        assert answers[place].n_generated == 0
    assert answers[1].n_generated > 0


def test_the_spellings_of_an_answer_add_up():
    options = (Candidate("Yes", ("Yes", "yes")), Candidate("No", ("No", "no")))
    # 0.2 + 0.2 against 0.3 + 0: neither spelling of the winner is the likeliest.
    assert likeliest(options, [[math.log(0.2)] * 2, [math.log(0.3), -math.inf]]) == "Yes"
    assert likeliest(options, [[-1e4, -1e4 - 1], [-1e4 + 1, -math.inf]]) == "No"
    assert likeliest(options, [[-math.inf] * 2] * 2) == "Yes"


def test_candidates_of_items():
    def item(references, choices=()):
        return Item("1", (), "?", "?", references, choices)

    [first, second] = candidates([item(["B"], ("cat", "", "dog")), item(["3"])], "mmmu")
    assert [one.answer for one in first] == ["A", "C"]
    assert second == ()
    [both, _] = candidates([item(["Yes"]), item(["no"])], "pope")
    assert [one.spellings for one in both] == [("Yes", "yes"), ("No", "no")]
    # One answer that is free: which questions take yes or no is then not known beforehand.
    with pytest.raises(InputError, match="benchmark gqa has free answers"):
        candidates([item(["yes"]), item(["red"])], "gqa")


def test_an_answer_without_tokens_is_refused(tiny_world):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 4)
    with pytest.raises(ValueError, match="has no tokens"):
        AnswerTokens(built.model, built.processor).of("")
