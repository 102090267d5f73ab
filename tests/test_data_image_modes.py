"""Image modes against their definitions, and their way through a training into an evaluation."""

import json

import numpy as np
import pytest
from PIL import Image
from train_samples import read

from vtc.data.features import preprocessing_hash
from vtc.data.image_modes import with_mode
from vtc.errors import InputError
from vtc.model.backbones import load_image_processor

SIDE = 48
SHAPES = [(31, 77), (77, 31), (48, 48), (9, 100)]


@pytest.fixture(params=["encoder", "siglip"])
def own(request, tiny_world):
    """The image processors of the tiny CLIP and SigLIP."""
    return load_image_processor(getattr(tiny_world, request.param))


def clip_with_shortest_edge():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)


def picture(height, width):
    generator = np.random.default_rng(height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(processor, image):
    return np.asarray(processor(image, return_tensors="np")["pixel_values"])[0]


def normalised(image, processor):
    """Pixels [3, H, W] of an image of the final size."""
    values = np.asarray(image, dtype=np.float32) / 255
    values = (values - np.array(processor.image_mean)) / np.array(processor.image_std)
    return values.transpose(2, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_pad_is_llavas(own, shape):
    image = picture(*shape)
    height, width = shape
    side = max(shape)
    canvas = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in own.image_mean))
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    padded = pixels(with_mode(own, "pad"), image)
    np.testing.assert_array_equal(padded, pixels(own, canvas))
    resized = canvas.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(padded, normalised(resized, own), atol=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_square_stretches_the_whole_picture(own, shape):
    image = picture(*shape)
    resized = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    found = pixels(with_mode(own, "square"), image)
    np.testing.assert_allclose(found, normalised(resized, own), atol=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_is_clips_own(own, shape):
    image = picture(*shape)
    found = pixels(with_mode(own, "crop"), image)
    scale = SIDE / min(shape)
    height, width = (int(round(length * scale, 6)) for length in shape)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    middle = resized.crop((left, top, left + SIDE, top + SIDE))
    np.testing.assert_allclose(found, normalised(middle, own), atol=0.02)


def test_crop_changes_nothing_about_clip():
    clip = clip_with_shortest_edge()
    assert preprocessing_hash(with_mode(clip, "crop")) == preprocessing_hash(clip)
    assert with_mode(clip, None) is clip


def test_modes_are_other_preprocessings_and_are_saved(own, tmp_path):
    image = picture(31, 77)
    hashes = {preprocessing_hash(own)}
    for mode in ("pad", "crop", "square"):
        processor = with_mode(own, mode)
        processor.save_pretrained(tmp_path / mode)
        loaded = load_image_processor(tmp_path / mode)
        np.testing.assert_array_equal(pixels(loaded, image), pixels(processor, image))
        assert preprocessing_hash(loaded) == preprocessing_hash(processor)
        hashes.add(preprocessing_hash(processor))
    # One of the four is what the encoder does by itself.
    assert len(hashes) >= 3
    assert preprocessing_hash(with_mode(own, "pad")) != preprocessing_hash(own)


def test_a_mode_can_be_changed_again(own):
    image = picture(31, 77)
    for first in ("pad", "crop", "square"):
        for then in ("pad", "crop", "square"):
            again = pixels(with_mode(with_mode(own, first), then), image)
            np.testing.assert_array_equal(again, pixels(with_mode(own, then), image))


def test_a_processor_without_one_size_is_refused(own):
    own.size = {"shortest_edge": 40, "longest_edge": 60}
    own.do_center_crop = False
    with pytest.raises(InputError, match="--image-mode"):
        with_mode(own, "square")


@pytest.fixture(scope="module")
def trained(tiny_world, tmp_path_factory):
    """Stage 1 and stage 2 runs with padded images, and the question before them."""
    from vtc.train.finetune import finetune_runs
    from vtc.train.inputs import Inputs
    from vtc.train.jobs import FinetuneJob, ProjectorJob
    from vtc.train.projector import train_projectors
    from vtc.train.settings import FINETUNE, PROJECTOR

    folder = tmp_path_factory.mktemp("modes")
    samples = read(folder, tiny_world, n=4)
    short = {"batch_size": 4, "accumulate": 1, "max_steps": 1, "log_every": 1}
    settings = PROJECTOR.with_(
        **short, template="chat", image_mode="pad", query_position="before", chat_template="vicuna"
    )
    job = ProjectorJob(str(tiny_world.encoder), str(tiny_world.llama), ("avgpool",), (4,), folder)
    first = train_projectors(job, Inputs(samples, settings))[0]
    second = finetune_runs(
        FinetuneJob((first,), folder / "tuned"), Inputs(samples, FINETUNE.with_(**short))
    )[0]
    return first, second


def test_runs_keep_how_images_and_prompts_were_made(trained, tiny_world):
    from vtc.data.chat_templates import NAMED
    from vtc.model.run import load_run

    expected = preprocessing_hash(with_mode(load_image_processor(tiny_world.encoder), "pad"))
    for folder in trained:
        run = load_run(folder)
        assert preprocessing_hash(run.processor.image_processor) == expected
        assert run.processor.query_position == "before"
        assert run.processor.tokenizer.chat_template == NAMED["vicuna"]
        assert run.processor.chat_template == NAMED["vicuna"]


def test_evaluation_asks_as_training_did(trained, tiny_world):
    from vtc.evaluate.items import Item
    from vtc.evaluate.prompts import tokenise
    from vtc.model.run import load_run
    from vtc.train.inputs import Inputs
    from vtc.train.settings import FINETUNE

    run = load_run(trained[1])
    question = "What colour is it 0 ?"
    samples = read(trained[0].parent, tiny_world, n=1, questions=1)
    inputs = Inputs(samples, FINETUNE)
    row = inputs.dataset(run.processor).rows[0].tokens.encode(4)
    item = Item("0", ("0.png",), question, question, ["red"])
    prompt = tokenise([item], run.processor.tokenizer, 4, run.processor.query_position)[0]
    start = int(np.argmax(row.labels != -100))
    assert prompt.ids == row.input_ids[:start].tolist()
    text = run.processor.tokenizer.decode(prompt.ids)
    assert text.index(question) < text.index("<image>")


def test_runs_that_see_images_otherwise_do_not_share_features(trained, tiny_world, tmp_path):
    from vtc.evaluate.vision import sight_of
    from vtc.model.run import load_run, save_run

    run = load_run(trained[0])
    run.processor.set_up(image_mode="square")
    save_run(
        tmp_path / "other", run.model, run.processor, encoder=run.encoder, llm=run.llm,
        stage="projector", weights="compressor", seed=0,
    )  # fmt: skip
    assert sight_of(tmp_path / "other").encoder != sight_of(trained[0]).encoder
    assert sight_of(trained[1]).encoder == sight_of(trained[0]).encoder


def test_independent_questions_need_the_image_first(trained, tiny_world):
    from vtc.model.run import load_run
    from vtc.train.inputs import Inputs
    from vtc.train.settings import FINETUNE

    samples = read(trained[0].parent, tiny_world, n=1)
    inputs = Inputs(samples, FINETUNE.with_(turns="independent"))
    with pytest.raises(InputError, match="--query-position after"):
        inputs.dataset(load_run(trained[0]).processor)


@pytest.fixture
def bare(tiny_world, tmp_path):
    """An LLM whose tokenizer has no chat template."""
    import shutil

    folder = shutil.copytree(tiny_world.llama, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_an_llm_without_a_chat_template_is_given_one(bare):
    from vtc.model.backbones import load_llm

    with pytest.raises(InputError, match="give one with --chat-template, such as vicuna"):
        load_llm(bare)
    assert "USER:" in load_llm(bare, chat_template="vicuna").tokenizer.chat_template


def test_plain_captions_need_no_chat_template_and_questions_name_the_flag(
    bare, tiny_world, tmp_path, monkeypatch, capsys
):
    from train_samples import write

    from vtc import cli
    from vtc.model.run import check_speaks, load_run

    def run(*words):
        with pytest.raises(SystemExit) as caught:
            cli.run([str(word) for word in words])
        return caught.value.code, capsys.readouterr().err

    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    short = ("--images", tiny_world.images, "--max-steps", 1, "--batch-size", 2, "--accumulate", 1)
    first = ("train-projector", "samples.json", "--encoder", tiny_world.encoder, "--llm", bare,
             "--visual-tokens", 4, *short)  # fmt: skip
    second = ("finetune", "stage1/tokenpacker-v4", "--samples", "samples.json", *short, "-o", "2")
    code, said = run(*first, "--template", "chat", "-o", "none")
    assert code == 2
    assert "give one with --chat-template, such as vicuna" in said
    assert run(*first, "-o", "stage1")[0] == 0
    run_folder = tmp_path / "stage1/tokenpacker-v4"
    assert load_run(run_folder).model.generation_config.eos_token_id == [2]
    code, said = run(*second)
    assert code == 2
    assert "stage1/tokenpacker-v4: its LLM has no chat template" in said
    assert "'vtc finetune' with --chat-template, such as vicuna" in said
    with pytest.raises(InputError, match="has no chat template"):
        check_speaks(run_folder)
    assert run(*second, "--chat-template", "vicuna")[0] == 0
    check_speaks(tmp_path / "2/bare-tokenpacker-v4")
