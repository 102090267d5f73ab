"""Exports: whole models out of LoRA runs, and folders that transformers alone loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_samples import build, collator, read
from transformers import AutoModelForImageTextToText

from vtc.data.templates import ConversationTemplate
from vtc.errors import InputError, VtcError
from vtc.model.adapters import lora_targets, wrap
from vtc.model.assemble import Assembled, assemble
from vtc.model.export import merge, to_hf_llava
from vtc.model.run import load_run, read_manifest, save_run
from vtc.train.settings import FINETUNE

QUESTION = "What colour is the square ?"

# Runs without vtc: transformers' classes alone.
ALONE = """
import sys
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration
image, question, *folders = sys.argv[1:]
parts = [{"type": "image"}, {"type": "text", "text": question}]
for folder in folders:
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert type(model) is LlavaForConditionalGeneration
    processor = AutoProcessor.from_pretrained(folder)
    texts = [
        processor.apply_chat_template([{"role": "user", "content": c}], add_generation_prompt=True)
        for c in (parts, "<image>\\n" + question)
    ]
    assert texts[0] == texts[1]
    picture = Image.open(image).convert("RGB")
    batch = processor(
        images=picture, text=texts[0], add_special_tokens=False, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**batch).logits
    found = {
        "ids": batch["input_ids"], "pixels": batch["pixel_values"], "logits": logits,
        "generated": model.generate(**batch, max_new_tokens=5),
    }
    torch.save(found, folder + ".pt")
assert "vtc" not in sys.modules
"""


def save(one: Assembled, folder: Path, weights: str = "full", model=None) -> Path:
    save_run(
        folder, model or one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="finetune", weights=weights, seed=0,
    )  # fmt: skip
    return folder


def lora(one: Assembled):
    """LoRA weights that do something."""
    torch.manual_seed(0)
    wrapped = wrap(one.model, r=4, alpha=8, dropout=0.0, targets=lora_targets(one.model))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return wrapped


@pytest.mark.parametrize("four_bit", [False, True])
def test_a_merged_run_gives_the_unmerged_logits(tiny_world, tmp_path, four_bit):
    one = build(tiny_world)
    run = save(one, tmp_path / "run", "adapter", lora(one))
    if four_bit:
        stated = read_manifest(run)
        (run / "manifest.json").write_text(json.dumps({**stated, "quantisation": "nf4"}))
    batch = collator(build(tiny_world), read(tmp_path, tiny_world), FINETUNE)([0, 1, 2])
    merge(run, tmp_path / "whole", dtype=torch.float32)
    with torch.no_grad():
        expected = load_run(run, merge=False).model(**batch).logits
        found = load_run(tmp_path / "whole").model(**batch).logits
        stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")(**batch).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    torch.testing.assert_close(stock, found)
    manifest = read_manifest(tmp_path / "whole")
    assert manifest["run_id"] == f"{read_manifest(run)['run_id']}-whole"
    assert (manifest["weights"], manifest["quantisation"]) == ("full", None)
    assert load_run(tmp_path / "whole").processor.visual_tokens == 4


def test_an_export_in_half_the_bytes(tiny_world, tmp_path):
    run = save(build(tiny_world), tmp_path / "run", "compressor")
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        merge(run, tmp_path / name, dtype=dtype)
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("fp32", "bf16")]
    assert 1.8 < sizes[0] / sizes[1] < 2.1
    with pytest.raises(InputError, match="bf16 exists"):
        merge(run, tmp_path / "bf16", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def llavas(tiny_world, tmp_path_factory) -> list[tuple[Path, dict[str, torch.Tensor]]]:
    """LoRA runs, and what transformers alone makes of them in a process that never sees vtc."""
    root = tmp_path_factory.mktemp("llavas")
    pairs = [("qwen", "encoder"), ("llama", "siglip")]
    for llm, encoder in pairs:
        one = assemble(getattr(tiny_world, encoder), getattr(tiny_world, llm), "mlp", seed=3)
        run = save(one, root / llm, "adapter", lora(one))
        to_hf_llava(run, root / f"{llm}-llava", dtype=torch.float32)
    folders = [root / f"{llm}-llava" for llm, _ in pairs]
    image = tiny_world.images / tiny_world.image_names[0]
    command = [sys.executable, "-c", ALONE, image, QUESTION, *folders]
    subprocess.run(command, check=True, cwd=root)
    return [(root / llm, torch.load(root / f"{llm}-llava.pt")) for llm, _ in pairs]


@pytest.mark.parametrize("number", [0, 1], ids=["qwen-clip", "llama-siglip"])
def test_transformers_alone_loads_a_llava(tiny_world, llavas, number):
    """Same prompt ids, pixels, logits and greedy answer."""
    from PIL import Image

    folder, found = llavas[number]
    run = load_run(folder)
    processor, n_visual = run.processor, run.manifest["visual_tokens"]
    turns = [{"role": "user", "text": f"<image>\n{QUESTION}"}]
    prompt = ConversationTemplate(processor.tokenizer).prompt(turns)
    prompt = prompt.replace("<image>", "<image>" * n_visual)
    ids = processor.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    assert torch.equal(found["ids"], ids)
    with Image.open(tiny_world.images / tiny_world.image_names[0]) as picture:
        pixels = processor.image_processor(picture.convert("RGB"), return_tensors="pt")
    torch.testing.assert_close(found["pixels"], pixels["pixel_values"])
    inputs = {"input_ids": ids, "pixel_values": pixels["pixel_values"]}
    with torch.no_grad():
        expected = run.model(**inputs).logits
    assert (found["logits"] - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(found["generated"], run.model.generate(**inputs, max_new_tokens=5))


def test_only_llavas_become_llava(tiny_world, tmp_path):
    run = save(build(tiny_world), tmp_path / "run")
    with pytest.raises(InputError, match="has no tokenpacker compressor; only runs of the mlp"):
        to_hf_llava(run, tmp_path / "llava", dtype=torch.float32)
    assert not (tmp_path / "llava").exists()


def test_uploads_are_the_folder_as_it_stands(tiny_world, tmp_path, monkeypatch):
    """Up to the hub's client, which is told what to upload; a part that stands here is refused."""
    import huggingface_hub

    from vtc.model.hub import push_folder

    asked = []
    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda self, name, **how: asked.append(how) or name
    )
    monkeypatch.setattr(
        huggingface_hub.HfApi, "upload_folder", lambda self, **what: asked.append(what)
    )
    run = save(build(tiny_world), tmp_path / "run", "compressor")
    with pytest.raises(InputError, match=r"stands on .*encoder, which only this machine has"):
        push_folder(run, "me/run")
    assert asked == []
    whole = save(build(tiny_world), tmp_path / "whole")
    assert push_folder(whole, "me/run", private=True) == "me/run"
    assert asked == [
        {"private": True, "exist_ok": True},
        {"repo_id": "me/run", "folder_path": whole},
    ]
    with pytest.raises(InputError, match="no run and no model"):
        push_folder(tmp_path, "me/run")


def test_an_upload_without_a_hub_is_one_line(tiny_world, tmp_path):
    from vtc.model.hub import push_folder

    whole = save(build(tiny_world), tmp_path / "whole")
    with pytest.raises(VtcError, match="--push no/good/name: the hub did not take it"):
        push_folder(whole, "no/good/name")
