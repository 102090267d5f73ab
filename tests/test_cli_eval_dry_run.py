"""`vtc eval --dry-run`: what would be asked and its cost; no weight is read, no file written."""

import base64
import json
import re
from pathlib import Path

import pytest
from benchmark_rows import picture
from click.testing import CliRunner
from conftest import TinyWorld

from vtc.catalog import llms
from vtc.cli import main
from vtc.cost.llm import decode_flops, prefill_flops
from vtc.model.assemble import assemble
from vtc.model.run import COMPRESSOR_WEIGHTS, save_run

N_IMAGES = 3


@pytest.fixture(scope="module")
def study(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    """Two runs without their weights, and two benchmarks: images in files, and in the rows."""
    root = tmp_path_factory.mktemp("dry")
    for tokens in (1, 4):
        built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", tokens, seed=3)
        save_run(
            root / f"v{tokens}", built.model, built.processor, encoder=built.encoder,
            llm=built.llm, stage="projector", weights="compressor", seed=3,
        )  # fmt: skip
        (root / f"v{tokens}" / COMPRESSOR_WEIGHTS).unlink()
    names = tiny_world.image_names
    files = [
        {"image": [names[0], names[1]], "question": "Equal ?", "answer": "no"},
        {"image": names[1], "question": "What colour ?", "answer": "red"},
        {"image": "gone.png", "question": "What colour ?", "answer": "red"},
        {"image": None, "question": "How many circles are there ?", "answer": "two"},
    ]
    inside = [{"image": base64.b64encode(picture(0)["bytes"]).decode(), "question": "?"}]
    for name, rows in (("files", files), ("inside", [{**inside[0], "answer": "red"}])):
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (root / f"{name}.toml").write_text(
            f'name = "{name}"\ntask = "ocr"\nrows = "{name}.jsonl"\nmetric = "anls"\n'
            f'images = "{tiny_world.images}"\nmax_new_tokens = 5\n'
            '[columns]\nimage = "image"\nanswers = "answer"\n'
        )
    return root


def dry(study: Path, *more: object, benchmarks=("files", "inside"), runs=("v1", "v4")):
    named = [part for name in benchmarks for part in ("--benchmark", study / f"{name}.toml")]
    given = ["eval", *(study / run for run in runs), *named, "--dry-run", *more]
    return CliRunner().invoke(main, list(map(str, given)))


def flops(text: str) -> float:
    number, scale = re.fullmatch(r"([\d.]+) ([KMG]?)FLOP", text).groups()
    return float(number) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[scale]


def test_it_says_what_would_be_asked_and_writes_nothing(study, tmp_path):
    (tmp_path / "s.csv").touch()
    pictures, out = tmp_path / "pictures", tmp_path / "p.parquet"
    given = ("-o", out, "--scores", tmp_path / "s.csv", "--save-images", pictures)
    done = dry(study, *given)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert any(
        re.match(r"benchmark = files: 4 items, 3 images \(1 of them not t", s) for s in lines
    )
    assert any(re.match(r"benchmark = inside: 1 item, 1 image in its rows", s) for s in lines)
    assert f"output = {out}" in lines
    assert f"output = {tmp_path / 's.csv'} (exists)" in lines
    assert "batch_size = 16" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    estimates = [line for line in lines if line.startswith("estimate = ")]
    assert len(estimates) == 2 * 2 + 1
    assert "(1 pass over 4 images)" in estimates[-1]


def test_its_flops_are_those_of_the_prompts(study, tiny_world):
    from vtc.data.tokenizers import load_tokenizer

    shape, tokenizer = llms.shape(tiny_world.qwen), load_tokenizer(study / "v4")
    texts = (("\nEqual ?", 2), ("\nWhat colour ?", 1), ("\nWhat colour ?", 1),
             ("How many circles are there ?", 0))  # fmt: skip
    prefill = decode = longest = 0
    for text, n_images in texts:
        # Two images stand a line each.
        content = "\n" * (n_images - 1) + text
        turns = [{"role": "user", "content": content}]
        whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # Behind an anchor: a piece is tokenised in its place.
        n_text = len(tokenizer(whole, add_special_tokens=False).input_ids)
        longest = max(longest, n_text)
        prefill += prefill_flops(shape, n_text + 4 * n_images, attention="causal")
        decode += decode_flops(shape, 5, n_text + 4 * n_images)
    done = dry(study, benchmarks=("files",), runs=("v4",))
    found = re.search(
        r"up to (\d+) text and (\d+) visual tokens, prefill (.*?) \(.*compressor (.*?), decoding"
        r" at most (.*)",
        done.stdout,
    )
    assert found, done.output
    assert int(found[2]) == 8
    assert int(found[1]) == pytest.approx(longest, abs=2)
    assert flops(found[3]) == pytest.approx(prefill, rel=0.05)
    assert flops(found[5]) == pytest.approx(decode, rel=0.05)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--answer-by", "likelihood"), "files"),
        (("--device", "nowhere"), "--device nowhere"),
        (("--features", "none"), "features none: does not exist"),
    ],
)
def test_it_refuses_what_an_evaluation_would(study, more, message):
    done = dry(study, *more)
    assert done.exit_code != 0
    assert message in str(done.exception) + done.output
