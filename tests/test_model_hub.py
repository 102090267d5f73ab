"""Runs and backbones of the hub, from a cache as its client leaves it; nothing is fetched."""

import shutil
from pathlib import Path

import pytest
import torch
from train_samples import collator, read
from transformers import AutoModelForImageTextToText, AutoProcessor

from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.hub import push_folder
from vtc.model.run import load_run, save_run
from vtc.train.settings import FINETUNE

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, name: str, folder: Path) -> None:
    """A repository as a download would leave it."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(REVISION)
    shutil.copytree(folder, place / "snapshots" / REVISION)


def test_a_small_run_of_the_hub_finds_its_backbones_there(tiny_world, cache, tmp_path):
    put(cache, "me/eye", tiny_world.encoder)
    put(cache, "me/tiny-qwen", tiny_world.qwen)
    one = assemble("me/eye", "me/tiny-qwen", "tokenpacker", 4, seed=2)
    manifest = save_run(
        tmp_path / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights="compressor", seed=2,
    )  # fmt: skip
    assert (manifest["llm"]["path"], manifest["llm"]["revision"]) == ("me/tiny-qwen", REVISION)
    assert manifest["encoder"]["relative_path"] is None
    put(cache, "me/run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    batch = collator(one, read(tmp_path, tiny_world), FINETUNE)([0, 1])
    with torch.no_grad():
        expected = one.model(**batch).logits
        for where in ("hf://me/run", Path("hf://me/run")):
            assert torch.equal(load_run(where).model(**batch).logits, expected)
    # The branch moves on: the run asks for the commit that it was trained on.
    moved = "f" * 40
    place = cache / "models--me--tiny-qwen"
    shutil.copytree(tiny_world.llama, place / "snapshots" / moved)
    (place / "refs" / "main").write_text(moved)
    with torch.no_grad():
        assert torch.equal(load_run("hf://me/run").model(**batch).logits, expected)


def test_what_the_hub_has_not_is_one_line(cache):
    with pytest.raises(InputError, match="model me/nothing: neither a model folder nor"):
        load_run("hf://me/nothing")
    with pytest.raises(InputError, match="run me/nothing does not exist"):
        load_run("me/nothing")


@pytest.mark.parametrize("weights", ["compressor", "full"])
def test_auto_classes_load_any_run(tiny_world, tmp_path, weights):
    one = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4, seed=2)
    save_run(
        tmp_path / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights=weights, seed=2,
    )  # fmt: skip
    batch = collator(one, read(tmp_path, tiny_world), FINETUNE)([0, 1])
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "run").eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, one.model(**batch).logits)
    half = AutoModelForImageTextToText.from_pretrained(tmp_path / "run", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert AutoProcessor.from_pretrained(tmp_path / "run").visual_tokens == 4
    # As a user saves and shares it: transformers' own way round.
    loaded.save_pretrained(tmp_path / "saved")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, loaded(**batch).logits)


def test_a_part_that_stands_on_the_hub_may_be_shared(tiny_world, cache, tmp_path, monkeypatch):
    import huggingface_hub

    put(cache, "me/eye", tiny_world.encoder)
    put(cache, "me/tiny-qwen", tiny_world.qwen)
    one = assemble("me/eye", "me/tiny-qwen", "avgpool", 1)
    save_run(
        tmp_path / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights="compressor", seed=0,
    )  # fmt: skip
    uploaded = []
    hub = huggingface_hub.HfApi
    monkeypatch.setattr(hub, "create_repo", lambda self, name, **how: name)
    monkeypatch.setattr(hub, "upload_folder", lambda self, **what: uploaded.append(what))
    push_folder(tmp_path / "run", "me/run")
    assert uploaded == [{"repo_id": "me/run", "folder_path": tmp_path / "run"}]
