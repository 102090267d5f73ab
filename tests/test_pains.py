"""What users of the peers complain about most, and that it cannot happen here: one test a pain.

Threads of haotian-liu/LLaVA and its relatives, named in each docstring.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_samples import build, collator, read

from vtc.data.batches import BatchOrder
from vtc.errors import InputError
from vtc.model.backbones import load_llm
from vtc.model.run import load_run, save_run
from vtc.train.settings import FINETUNE, LoraSettings
from vtc.train.stages import add_lora, unfreeze_for_finetune

SMALL = LoraSettings(r=2, alpha=4, dropout=0.0)


def keep(one, folder, weights="full", model=None):
    """Save what was built as a run; its folder."""
    save_run(
        folder, model or one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="finetune", weights=weights, seed=0,
    )  # fmt: skip
    return folder


def batch_for(world, folder):
    """Three samples as a batch for a model of 4 visual tokens."""
    return collator(build(world), read(folder, world), FINETUNE)([0, 1, 2])


def test_a_tied_head_survives_a_save(tiny_world, tmp_path):
    """Pain 2: `lm_head` missing after a save of Qwen 0.5B, whose head is its embedding (TinyLLaVA
    195, MoE-LLaVA 42)."""
    one = build(tiny_world)
    unfreeze_for_finetune(one.model)
    batch = batch_for(tiny_world, tmp_path)
    optimizer = torch.optim.SGD([p for p in one.model.parameters() if p.requires_grad], lr=0.1)
    one.model(**batch).loss.backward()
    optimizer.step()
    run = load_run(keep(one, tmp_path / "run"))
    head, table = run.model.lm_head.weight, run.model.get_input_embeddings().weight
    assert head is table
    assert torch.equal(head, one.model.get_input_embeddings().weight)
    with torch.no_grad():
        assert torch.equal(run.model(**batch).logits, one.model.eval()(**batch).logits)


def test_a_projector_keeps_its_shape_in_four_bits(tiny_world, tmp_path):
    """Pain 5: a projector quantised with the LLM has shape [2097152, 1] and fits no checkpoint
    (LLaVA 433, 1384)."""
    one = build(tiny_world, llm="llama")
    folder = keep(one, tmp_path / "run", "compressor")
    found = load_run(folder, four_bit=True).model
    shapes = {name: weight.shape for name, weight in one.model.compressor.state_dict().items()}
    assert {n: w.shape for n, w in found.compressor.state_dict().items()} == shapes
    assert all(weight.is_floating_point() for weight in found.compressor.parameters())
    assert found.lm_head.weight.is_floating_point()


def test_a_projector_of_another_encoder_is_named(tiny_world, tmp_path):
    """Pain 5: weights of a projector for another encoder's width (LLaVA 1161, 1554)."""
    folder = keep(build(tiny_world), tmp_path / "run", "compressor")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shapes"]["vision_width"] = 1024
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"made for vision_width 1024, but .* has 32"):
        load_run(folder)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_qlora_mixes_no_types(tiny_world, tmp_path, dtype, autocast):
    """Pain 9: "expected BFloat16 but found Float", from casting what is called norm (LLaVA 1712);
    LoRA on the output of a 4-bit load (LLaVA 1451)."""
    stage1 = keep(build(tiny_world), tmp_path / "stage1", "compressor")
    run = load_run(stage1, four_bit=True, dtype=dtype)
    run.model.compressor.float()
    model = add_lora(run.model, SMALL).train()
    towers = {w.dtype for w in run.model.model.vision_tower.parameters()}
    norms = {
        w.dtype for n, w in run.model.named_parameters() if "norm" in n and "language_model" in n
    }
    assert towers == norms == {dtype}
    batch = batch_for(tiny_world, tmp_path)
    images = torch.randn(3, 3, 48, 48).to(dtype)
    batch = {n: v for n, v in batch.items() if n != "vision_levels"} | {"pixel_values": images}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = model(**batch).loss
    loss.backward()
    trained = {n: w for n, w in model.named_parameters() if w.requires_grad}
    assert all(w.dtype == torch.float32 for w in trained.values())
    assert all(w.grad.isfinite().all() for w in trained.values() if w.grad is not None)
    assert sum(w.grad.abs().sum() for n, w in trained.items() if "lora_B" in n) > 0


def test_a_base_quantised_already_is_refused_in_one_line(tiny_world, tmp_path):
    """Pain 9: a pre-quantised base fails deep in a training (Video-LLaVA 99, LLaVA 829)."""
    folder = shutil.copytree(tiny_world.llama, tmp_path / "gptq")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"quantised already \(gptq\).*--method qlora"):
        load_llm(folder)


def test_a_folders_name_says_nothing(tiny_world, tmp_path):
    """Pain 10: whether LoRA is put on depended on "lora" in the folder's name (LLaVA 1021, 372)."""
    one = build(tiny_world)
    wrapped = add_lora(one.model, SMALL)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    named = keep(one, tmp_path / "vicuna-lora", "adapter", wrapped)
    plain = shutil.copytree(named, tmp_path / "model")
    whole = keep(build(tiny_world), tmp_path / "llava-lora-whole")
    batch = batch_for(tiny_world, tmp_path)
    with torch.no_grad():
        found = [load_run(f).model(**batch).logits for f in (named, plain, whole)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_lora_run_keeps_its_trained_projector(tiny_world, tmp_path):
    """Pain 10: a LoRA loaded without `non_lora_trainables` has a fresh projector, and answers
    nonsense without a word (LLaVA 1022, 1597)."""
    one = build(tiny_world, seed=1)
    wrapped = add_lora(one.model, SMALL)
    with torch.no_grad():
        for weight in one.model.compressor.parameters():
            weight.add_(0.25)
    folder = keep(one, tmp_path / "run", "adapter", wrapped)
    loaded = load_run(folder).model.compressor.state_dict()
    trained = one.model.compressor.state_dict()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)
    assert set(load_file(folder / "compressor.safetensors")) == set(trained)
    (folder / "compressor.safetensors").unlink()
    with pytest.raises(InputError, match=r"is damaged: it lacks compressor\.safetensors"):
        load_run(folder)


@pytest.mark.parametrize("llm", ["qwen", "llama"])
def test_no_answer_loses_its_labels(tiny_world, tmp_path, llm):
    """Pains 1 and 2: "tokenization mismatch", all labels masked, loss 0 (LLaVA 1166, 1153), for
    tokenizers with and without BOS and unk."""
    one = build(tiny_world, llm=llm)
    tokenizer = one.processor.tokenizer
    batch = collator(one, read(tmp_path, tiny_world), FINETUNE)(list(range(6)))
    said = tokenizer.decode(batch["labels"]).split(tokenizer.eos_token)
    colours = ["red", "green", "blue", "yellow", "red blue", "green green"]
    answers = [text for k, colour in enumerate(colours) for text in (colour, str(k))]
    assert [text.strip() for text in said] == [*answers, ""]
    assert one.model(**batch).loss > 0


def test_bad_images_are_set_aside_before_the_training(tiny_world, tmp_path):
    """Pain 8: missing, corrupt and wrongly named images kill a run after hours (LLaVA 1618, 601,
    TinyLLaVA 91)."""
    from PIL import Image
    from train_samples import rows

    from vtc import cli
    from vtc.data.samples import read_samples

    photos = tmp_path / "photos"
    shutil.copytree(tiny_world.images, photos)
    whole = (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(whole[: len(whole) // 2])
    (photos / "2.png").write_text("<html>404</html>")
    (photos / "3.png").unlink()
    Image.new("RGB", (9, 9)).save(photos / "4.png", "GIF")
    (tmp_path / "mix.json").write_text(json.dumps(rows(n=6)))
    command = (
        "check-data",
        tmp_path / "mix.json",
        "--images",
        photos,
        "-o",
        tmp_path / "s.parquet",
    )
    for max_bad, code in (("1%", 2), ("50%", 0)):
        with pytest.raises(SystemExit) as caught:
            cli.run([*map(str, command), "--max-bad", max_bad])
        assert caught.value.code == code
        assert (tmp_path / "s.parquet").exists() == (code == 0)
    samples = read_samples([tmp_path / "s.parquet"])
    assert [sample["images"][0] for sample in samples.rows] == ["0.png", "4.png", "5.png"]
    assert "pixel_values" in pixels_of(tiny_world, samples)


def pixels_of(world, samples):
    """What a model would read of all images of these samples."""
    from vtc.model.backbones import load_image_processor
    from vtc.train.image_sources import Pixels

    processor = load_image_processor(world.encoder)
    return Pixels(samples.image_root, processor)([row["images"][0] for row in samples.rows])


@pytest.mark.parametrize("visual_tokens", [1, 144, 576])
def test_too_little_memory_shows_at_once(visual_tokens):
    """Pain 3: out of memory only after tens of steps (LLaVA 697, 1499): no later batch is longer
    than the first two."""
    random = np.random.default_rng(0)
    images, text = random.integers(0, 5, 5000) > 0, random.integers(5, 900, 5000)
    sizes = list(zip(images.astype(int).tolist(), text.tolist(), strict=True))
    for bucket in (1, 8):
        batches = BatchOrder(sizes, 16, accumulate=8, bucket=bucket).batches()
        longest = [int((text[rows] + visual_tokens * images[rows]).max()) for rows in batches]
        assert max(longest[:2]) == max(longest)


def test_the_table_of_pains_names_tests_that_are_there():
    root = Path(__file__).parent.parent
    text = (root / "docs/training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+)\. (.*)$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 13))
    for number, row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, number
        for file, name in named:
            assert f"def {name}(" in (root / "tests" / file).read_text(encoding="utf-8")
