"""Pre-training of the miniature LLMs and encoder: renderings, masks, and that they learn."""

import math

import numpy as np
import pytest
import torch

from vtc.lab import documents, encoder, facts, language, questions, scenes, words
from vtc.lab.presets import SIZES, EncoderTraining, LanguageTraining
from vtc.lab.rendering import Camera

FACTS = facts.make(0, colour_zipf=0.5, role_zipf=1.0, colour_share=0.25)


@pytest.mark.parametrize("visual_tokens", [1, 4, 36, 144])
@pytest.mark.parametrize("kind", ["document", "scene"])
def test_renderings_are_sums_over_regions(visual_tokens, kind):
    rng = np.random.default_rng(0)
    pages = {
        "document": lambda: documents.sample(rng, 3, most=20),
        "scene": lambda: scenes.sample(rng, 3, FACTS, most=4),
    }[kind]()
    embedding = torch.randn(len(words.WORDS), 5)
    rendered = language.render_as_vectors(embedding, pages, visual_tokens)
    side = math.isqrt(visual_tokens)
    for image in range(3):
        told = {token: [] for token in range(visual_tokens)}
        for thing in range(pages.counts[image]):
            row, column = divmod(int(pages.cells[image, thing]), 12)
            token = (row * side // 12) * side + column * side // 12
            told[token] += [words.ID[w] for w in pages.region_text(image, thing).split()]
        for token, ids in told.items():
            expected = embedding[ids].sum(0) / math.sqrt(max(len(ids), 1))
            torch.testing.assert_close(rendered[image, token], expected)


def test_recited_facts_are_those_asked_of_scenes():
    told = questions.about_kinds(np.random.default_rng(0), FACTS, 5000)
    kind = told[:, 2] - words.span("kind").start
    role = told[:, 0] - words.span("role").start
    assert (told[:, 3] == FACTS.answers[kind, role]).all()
    share = np.bincount(role, minlength=words.span("role").size) / len(role)
    assert np.abs(share - FACTS.role_weights).max() < 0.02


def test_a_question_among_others_reads_as_it_does_alone():
    model = language.build(SIZES[0], seed=0).eval()
    rng = np.random.default_rng(0)
    pages = scenes.sample(rng, 2, FACTS)
    asked = questions.about_scenes(rng, pages, FACTS, 3)
    with torch.no_grad():
        prefix = language.render_as_vectors(model.model.embed_tokens.weight, pages, 4)
        together, targets = language.answer_logits(model, prefix, asked)
        for question in range(3):
            alone, _ = language.answer_logits(model, prefix, asked[:, question : question + 1])
            torch.testing.assert_close(together[:, question], alone[:, 0], atol=1e-5, rtol=1e-4)
    assert (targets[..., 0].numpy() == asked[..., 3]).all()
    assert (targets[..., 1] == words.ID["<eos>"]).all()


def test_captions_tell_of_things_in_reading_order():
    pages = documents.sample(np.random.default_rng(0), 20, fewest=3)
    told = questions.captions(np.random.default_rng(1), pages)
    cells = told[:, ::2] - words.span("cell").start
    assert (np.diff(cells, axis=1) > 0).all()
    for image in range(20):
        shown = {pages.region_text(image, thing) for thing in range(pages.counts[image])}
        spoken = [words.WORDS[word] for word in told[image]]
        assert {" ".join(spoken[i : i + 2]) for i in (0, 2, 4)} <= shown


def test_an_llm_learns_from_text_alone():
    model = language.build(SIZES[0], seed=0)
    settings = LanguageTraining(steps=60, images=8, visual_tokens=(4,), shares=(1.0,))
    loss = language.train(model, FACTS, settings, 6e-3, seed=0)
    at_chance = 2 * math.log(len(words.WORDS))  # of what is read and of what is recited
    assert loss < 0.7 * at_chance


@pytest.mark.parametrize("objective", ["both", "local", "caption"])
def test_an_encoder_learns_what_its_objective_asks(objective):
    settings = EncoderTraining(steps=12, images=8, objective=objective)
    early = encoder.train(
        encoder.build(settings, 0), EncoderTraining(1, 8, objective=objective), 0, Camera()
    )
    late = encoder.train(encoder.build(settings, 0), settings, 0, Camera())
    names = {"both": {"local", "place", "caption"}, "local": {"local", "place"}}
    assert set(late) == names.get(objective, {"caption"})
    assert sum(late.values()) < sum(early.values())


def test_the_rate_warms_up_and_decays():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = []
    for step in range(200):
        language.set_rate(optimizer, 2.0, step, 200)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] < 0.05
    assert max(rates) > 1.6
    assert rates[-1] < 0.05
