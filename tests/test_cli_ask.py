"""`vtc ask`: one question, its answer as it comes, and what it refuses before it loads a model."""

from pathlib import Path

import pytest
from conftest import TinyWorld
from PIL import Image
from shell import vtc

from vtc.cli import main
from vtc.data.templates import ConversationTemplate
from vtc.errors import InputError
from vtc.model.asking import ask, prompt_ids, serve_at
from vtc.model.assemble import assemble
from vtc.model.generation import generate_answers
from vtc.model.run import Run, load_run, save_run

QUESTION = "What colour is the square on the left ?"


@pytest.fixture(scope="module")
def folder(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4, seed=3)
    path = tmp_path_factory.mktemp("runs") / "v4"
    save_run(
        path, built.model, built.processor, encoder=built.encoder,
        llm=built.llm, stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder)


def pictures(world: TinyWorld, n: int) -> list[Image.Image]:
    return [Image.open(world.images / name).convert("RGB") for name in world.image_names[:n]]


@pytest.mark.parametrize("n_images", [0, 1, 2])
def test_the_streamed_answer_is_that_of_an_evaluation(tiny_world, run: Run, n_images):
    images = pictures(tiny_world, n_images)
    marks = "<image>\n" * n_images
    template = ConversationTemplate(run.processor.tokenizer)
    prompt = template.prompt([{"role": "user", "text": marks + QUESTION}])
    [expected] = generate_answers(run.model, run.processor, [prompt], [images], 12)
    pieces: list[str] = []
    assert ask(run, QUESTION, images, 12, pieces.append) == expected
    assert "".join(pieces).strip() == expected.text
    assert len(expected.text.split()) < 2 or len(pieces) > 1


def test_marks_place_the_images(run: Run):
    token = run.processor.image_token_id
    between = prompt_ids(run.processor, "left <image> right <image>", 2)
    before = prompt_ids(run.processor, "left right", 2)
    assert between.count(token) == before.count(token) == 2 * run.processor.visual_tokens
    assert between.index(token) > before.index(token)
    with pytest.raises(InputError, match="has 1 marks <image>, but 2 images"):
        prompt_ids(run.processor, "what is <image> ?", 2)


def test_another_number_of_visual_tokens_is_refused(run: Run):
    serve_at(run, None)
    serve_at(run, 4)
    with pytest.raises(
        InputError, match="tokenpacker cannot make 16 visual tokens of 4 at most; choose from 1, 4"
    ):
        serve_at(run, 16)


@pytest.mark.parametrize("compressor", ["m3", "mqt"])
def test_an_elastic_run_answers_at_another_v(tiny_world, tmp_path, compressor):
    built = assemble(tiny_world.encoder, tiny_world.qwen, compressor, 36, seed=3)
    save_run(
        tmp_path / "run", built.model, built.processor, encoder=built.encoder,
        llm=built.llm, stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    run = load_run(tmp_path / "run")
    [image] = pictures(tiny_world, 1)
    pixels = run.processor.image_processor([image], return_tensors="pt")["pixel_values"]
    before = len(prompt_ids(run.processor, QUESTION, 1))
    assert run.model.get_image_features(pixels).pooler_output[0].shape[0] == 36
    serve_at(run, 4)
    assert before - len(prompt_ids(run.processor, QUESTION, 1)) == 32
    assert run.model.get_image_features(pixels).pooler_output[0].shape[0] == 4
    assert ask(run, QUESTION, [image], 4, lambda piece: None).n_generated > 0
    with pytest.raises(InputError, match="cannot make 50 visual tokens"):
        serve_at(run, 50)


def test_the_command_answers_and_refuses(tiny_world, folder, run, tmp_path):
    image = tiny_world.images / tiny_world.image_names[0]
    done = vtc("ask", folder, image, QUESTION, "--max-new-tokens", 5)
    assert done.returncode == 0, done.stderr
    expected = ask(run, QUESTION, pictures(tiny_world, 1), 5, lambda piece: None)
    assert done.stdout.strip() == expected.text
    assert done.stderr.startswith(f"1 x 4 visual tokens, {expected.n_generated} tokens in ")
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:60])
    cases = {
        (tmp_path / "none", image, "q"): "none does not exist; train one",
        (folder, tmp_path / "none.png", "q"): "none.png: missing",
        (folder, broken, "q"): "broken.png: damaged or truncated",
        (folder, image, " "): "the question is empty",
        (folder, image): "is a file: the question is missing",
    }
    for arguments, message in cases.items():
        with pytest.raises(InputError, match=message):
            main.main(["ask", *map(str, arguments)], standalone_mode=False)
