"""The loss of a given answer: that of the tokens behind the prompt, and greedy where it is."""

import pytest
import torch
from conftest import TinyWorld
from PIL import Image

from vtc.adapters.likelihood import answer_loss
from vtc.model.asking import prompt_ids
from vtc.model.assemble import assemble
from vtc.model.run import Run, load_run, save_run

QUESTION = "What colour is the square on the left ?"


@pytest.fixture(scope="module")
def run(tiny_world: TinyWorld, tmp_path_factory) -> Run:
    built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4, seed=3)
    folder = tmp_path_factory.mktemp("runs") / "v4"
    save_run(
        folder, built.model, built.processor, encoder=built.encoder,
        llm=built.llm, stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    return load_run(folder)


@pytest.mark.parametrize("n_images", [0, 2])
def test_the_loss_is_the_models_own(tiny_world, run: Run, n_images):
    images = [
        Image.open(tiny_world.images / name).convert("RGB")
        for name in tiny_world.image_names[:n_images]
    ]
    loss, greedy = answer_loss(run, QUESTION, images, "red green")
    prompt = prompt_ids(run.processor, QUESTION, n_images)
    tokens = run.processor.tokenizer("red green", add_special_tokens=False).input_ids
    ids = torch.tensor([[*prompt, *tokens]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    pixels = {}
    if images:
        values = run.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        pixels["pixel_values"] = values
    with torch.inference_mode():
        expected = run.model(input_ids=ids, labels=labels, **pixels).loss
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert not greedy


def test_the_greedy_answer_is_found_greedy(run: Run):
    tokenizer = run.processor.tokenizer
    for question in (QUESTION, "two", "How many circles ?", "Read the text ."):
        prompt = torch.tensor([prompt_ids(run.processor, question, 0)])
        with torch.inference_mode():
            best = int(run.model(input_ids=prompt).logits[0, -1].argmax())
        text = tokenizer.decode([best])
        # Half a letter, which an untrained model may well prefer, is no text of its own.
        if tokenizer(text, add_special_tokens=False).input_ids == [best]:
            break
    assert answer_loss(run, question, [], text)[1]
    other = "green" if text == "red" else "red"
    assert not answer_loss(run, question, [], other)[1]
    with pytest.raises(ValueError, match="empty answer"):
        answer_loss(run, question, [], "")
