"""vLLM as the engine: it is handed what vtc's own engine reads; what it cannot do is refused.

The last test runs a real vLLM, where VTC_TEST_VLLM names the Python of an environment that has one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlavaForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

from vtc.errors import InputError, VtcError
from vtc.evaluate.item import Item
from vtc.evaluate.prompts import tokenise
from vtc.evaluate.vllm_engine.check import (
    Vllm,
    check_age,
    check_wishes,
    find_vllm,
    refuse_four_bits,
)
from vtc.evaluate.vllm_engine.folder import write_folder
from vtc.evaluate.vllm_engine.process import Process
from vtc.evaluate.vllm_engine.prompts import chunks, collapsed, expanded
from vtc.model.assemble import Assembled, assemble
from vtc.model.prompts import Asked, compressed
from vtc.model.run import Run, save_run
from vtc.tables import specs
from vtc.tables.read import read_rows

IMAGE = 7
QUESTIONS = ("What colour is the square ?", "How many circles are there ?")


def as_run(built: Assembled, folder: Path = Path("run")) -> Run:
    about = {"run_id": "r", "visual_tokens": built.model.compressor.visual_tokens}
    return Run(folder, about, built.model, built.processor, built.encoder, built.llm)


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.integers(8, 20)), max_size=30), st.integers(1, 9))
def test_a_prompt_comes_back_as_vllm_expands_it(parts, visual_tokens):
    """None is an image; images may touch, and stand at either end."""
    short = [IMAGE if part is None else part for part in parts]
    long = [t for t in short for t in [t] * (visual_tokens if t == IMAGE else 1)]
    n_images = parts.count(None)
    assert collapsed(long, IMAGE, visual_tokens, n_images) == short
    assert expanded(short, IMAGE, visual_tokens) == long
    with pytest.raises(VtcError, match=f"image tokens, not {visual_tokens} for each"):
        collapsed([*long, IMAGE], IMAGE, visual_tokens, n_images)


@pytest.mark.parametrize(("llm", "position"), [("qwen", "after"), ("llama", "before")])
def test_prompts_of_items_come_back(tiny_world, llm, position):
    built = assemble(tiny_world.encoder, getattr(tiny_world, llm), "tokenpacker", 4)
    token = built.processor.image_token_id
    shown = [(), ("a.png",), ("a.png", "b.png")]
    items = [Item(str(n), images, q, q, []) for n, images in enumerate(shown) for q in QUESTIONS]
    prompts = tokenise(items, built.processor.tokenizer, 4, position)
    for item, prompt in zip(items, prompts, strict=True):
        short = collapsed(prompt.ids, token, 4, len(item.images))
        assert short.count(token) == len(item.images)
        assert len(short) == prompt.n_text_tokens + len(item.images)
        assert expanded(short, token, 4) == prompt.ids


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=40),
    st.integers(1, 8),
    st.integers(1, 5),
)
def test_chunks_hold_all_in_order_and_no_more_than_asked(shown, prompts, images):
    found = list(chunks(shown, prompts, images))
    assert [place for chunk in found for place in chunk.places] == list(range(len(shown)))
    for places, own in found:
        assert set(own) == {image for place in places for image in shown[place]}
        assert len(set(own)) == len(own)
        assert len(places) <= prompts
        assert len(own) <= images or len(places) == 1


@pytest.mark.parametrize(
    ("llm", "encoder", "compressor", "visual_tokens"),
    [("qwen", "encoder", "tokenpacker", 4), ("llama", "siglip", "avgpool", 9)],
)
def test_the_folder_is_the_llm_for_transformers_too(
    tiny_world, tmp_path, llm, encoder, compressor, visual_tokens
):
    """With visual tokens in the places of its image tokens it gives the run's own logits."""
    built = assemble(
        getattr(tiny_world, encoder), getattr(tiny_world, llm), compressor, visual_tokens
    )
    model, token = built.model, built.processor.image_token_id
    write_folder(as_run(built), tmp_path / "llm", visual_tokens)
    stock, found = LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "llm", output_loading_info=True
    )
    kept = ("model.vision_tower.", "model.multi_modal_projector.")
    assert all(name.startswith(kept) for name in found["missing_keys"])
    assert not found["unexpected_keys"]
    vision = stock.config.vision_config
    assert (vision.image_size // vision.patch_size) ** 2 >= visual_tokens
    item = Item("0", ("a.png", "b.png"), QUESTIONS[0], QUESTIONS[0], [])
    ids = torch.tensor([tokenise([item], built.processor.tokenizer, visual_tokens)[0].ids])
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=pixels).logits
        embedded = stock.get_input_embeddings()(ids)
        embedded[ids == token] = model.model.compress(model.model.encode(pixels)).flatten(0, 1)
        logits = stock(inputs_embeds=embedded).logits
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("compressor", ["avgpool", "quecc"])
def test_each_image_is_compressed_once_or_for_each_question(tiny_world, compressor):
    built = assemble(tiny_world.encoder, tiny_world.qwen, compressor, 4)
    model, reads = built.model, compressor == "quecc"
    pixels = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        levels = model.model.encode(pixels)
    one, two, three = levels.unbind(0)
    asked = [
        Asked([], (one,), QUESTIONS[0]),
        Asked([], (two, one), QUESTIONS[1]),
        Asked([], (), QUESTIONS[1]),
        Asked([], (one, three), QUESTIONS[0]),
    ]
    found = compressed(model, built.processor, asked, batch_size=2)
    assert [len(own) for own in found] == [1, 2, 0, 2]
    assert found[0][0] is found[3][0]
    assert (found[1][1] is found[0][0]) is not reads
    for prompt, own in zip(asked, found, strict=True):
        for visual, tokens in zip(prompt.shown, own, strict=True):
            about = built.processor.query_inputs([prompt.query]) if reads else {}
            with torch.no_grad():
                alone = model.model.compress(visual[None], **about)[0]
            torch.testing.assert_close(tokens, alone)


def test_what_vllm_cannot_do_is_refused(tmp_path):
    with pytest.raises(InputError, match="--answer-by likelihood works without --engine"):
        check_wishes("likelihood", False)
    with pytest.raises(InputError, match="--load-4bit works without --engine"):
        check_wishes("generation", True)
    with pytest.raises(InputError, match="run q answers in 4 bits; make it whole with 'vtc export"):
        refuse_four_bits({"quantisation": "nf4", "weights": "adapter"}, Path("q"))
    refuse_four_bits({"quantisation": None, "weights": "full"}, Path("q"))
    with pytest.raises(InputError, match=r"has vLLM 0.9.2; vtc needs 0.32 or later"):
        check_age(Vllm("python", "0.9.2"))
    for version in ("0.32.0", "0.33.0rc1+cpu", "1.0"):
        check_age(Vllm("python", version))
    with pytest.raises(InputError, match="No such file or directory; name the Python of vLLM"):
        find_vllm(str(tmp_path / "none"))
    with pytest.raises(InputError, match="true has no vLLM, which needs an environment"):
        find_vllm("true")


def test_a_process_that_fails_says_why_and_keeps_its_log(tmp_path, monkeypatch):
    """A Python without vLLM: the worker is started, and cannot import it."""
    if _has_vllm(sys.executable):
        pytest.skip("this Python has vLLM")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(VtcError, match=r"vLLM 0\.32 failed: No module named 'vllm'; what it"):
        Process(Vllm(sys.executable, "0.32"), "cpu")
    [log] = tmp_path.iterdir()
    assert "ModuleNotFoundError" in log.read_text()


def test_refused_on_the_command_line(tmp_path):
    """Before any run or benchmark is looked at."""
    words = ("eval", "r", "--benchmark", "b.toml", "-o", "p.parquet", "--vllm-python")
    for more, fault in (
        (["x"], "Error: --vllm-python is for --engine vllm; give both\n"),
        (["x", "--engine", "vllm"], "Error: --vllm-python x: No such file or directory; name the"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vtc", *words, *more],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith(fault)
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def _has_vllm(python: str) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return subprocess.run([python, "-P", "-c", code]).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["mlp", "quecc"])
def test_vllm_answers_as_the_own_engine(tiny_world, tmp_path, compressor):
    """To the token in fp32: images, their faults, two questions an image, text alone."""
    python = os.environ.get("VTC_TEST_VLLM")
    if not python:
        pytest.skip("no vLLM: VTC_TEST_VLLM names no Python of an environment that has it")
    llm = tmp_path / "llm"
    llm.mkdir()
    for file in tiny_world.qwen.iterdir():
        (llm / file.name).write_bytes(file.read_bytes())
    # vLLM's attention takes heads of 32 and more.
    config = Qwen2Config.from_pretrained(tiny_world.qwen)
    config.update({"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2})
    torch.manual_seed(3)
    Qwen2ForCausalLM(config).save_pretrained(llm)
    built = assemble(tiny_world.encoder, llm, compressor, 36 if compressor == "mlp" else 4)
    save_run(
        tmp_path / "run", built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="finetune", weights="full", seed=0,
    )  # fmt: skip
    images = [*tiny_world.image_names[:3], "missing.png", None]
    pairs = [(image, question) for image in images for question in QUESTIONS]
    rows = [
        {"id": n, "image": image, "question": question, "answer": "red"}
        for n, (image, question) in enumerate(pairs)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "b.toml").write_text(
        f'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "anls"\nmax_new_tokens = 8\n'
        f'images = "{tiny_world.images}"\n[columns]\nid = "id"\nimage = "image"\n'
        'answers = "answer"\n'
    )
    found = {}
    for engine, more in {"vtc": [], "vllm": ["--vllm-python", python]}.items():
        out = tmp_path / f"{engine}.parquet"
        command = ["eval", tmp_path / "run", "--benchmark", tmp_path / "b.toml", "--dtype", "fp32"]
        command += ["--engine", engine, *more, "-o", out]
        done = subprocess.run(
            [sys.executable, "-m", "vtc", *map(str, command)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found[engine] = read_rows(out, specs.PREDICTIONS)
    assert found["vllm"].rows == found["vtc"].rows
    assert len({row["prediction"] for row in found["vllm"].rows}) > 3
    assert found["vllm"].footer["settings"]["engine"] == f"vllm {find_vllm(python).version}"
