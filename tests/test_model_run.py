"""Assembling, saving and loading: the same logits come back, and faults are named."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TinyWorld
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor

from vtc.errors import InputError
from vtc.model.assemble import Assembled, assemble
from vtc.model.backbones import load_encoder, load_llm
from vtc.model.run import load_run, read_manifest, save_run
from vtc.tables import specs
from vtc.tables.read import read_rows

PROMPT = "<image>\nWhat colour is the square ?"


@pytest.fixture(scope="module")
def built(tiny_world: TinyWorld) -> Assembled:
    return assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4, seed=3)


def batch(built: Assembled) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = built.processor.image_token_id
    ids = torch.tensor([[7, image, image, image, image, 9, 11]] * 2)
    return {"input_ids": ids, "pixel_values": torch.randn(2, 3, 48, 48, generator=generator)}


def save(built: Assembled, folder: Path, weights: str, **kwargs) -> dict:
    return save_run(
        folder, built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights=weights, seed=3, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("weights", ["compressor", "full"])
def test_run_round_trip(built: Assembled, tmp_path: Path, weights: str):
    row = {
        "step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-3, "samples_seen": 8,
        "supervised_tokens": 30, "seconds": 0.1,
    }  # fmt: skip
    manifest = save(built, tmp_path / "run", weights, train_log=[row], footer={"seed": 3})
    run = load_run(tmp_path / "run")
    with torch.no_grad():
        expected = built.model(**batch(built)).logits
        found = run.model(**batch(built)).logits
    assert torch.equal(found, expected)
    assert run.manifest == manifest
    assert (run.encoder, run.llm) == (built.encoder, built.llm)
    assert run.processor.visual_tokens == 4
    assert run.model.generation_config.eos_token_id == built.model.generation_config.eos_token_id
    log = read_rows(tmp_path / "run" / "train_log.parquet", specs.TRAIN_LOG).rows
    assert log[0]["supervised_tokens"] == 30
    # The tied head is one tensor again.
    assert run.model.lm_head.weight is run.model.get_input_embeddings().weight
    assert not any(p.requires_grad for p in run.model.model.vision_tower.parameters())


def test_compressor_run_is_small_and_shares_backbones(
    built: Assembled, tiny_world: TinyWorld, tmp_path: Path
):
    save(built, tmp_path / "run", "compressor")
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert "compressor.safetensors" in names
    assert "model.safetensors" not in names
    encoder, llm = load_encoder(tiny_world.encoder), load_llm(tiny_world.qwen)
    run = load_run(tmp_path / "run", encoder=encoder, llm=llm)
    assert run.model.model.vision_tower is encoder.tower
    assert run.model.model.language_model is llm.model.base_model


def test_seed_alone_decides_the_compressor(tiny_world: TinyWorld):
    encoder, llm = load_encoder(tiny_world.encoder), load_llm(tiny_world.qwen)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = assemble(encoder, llm, "avgpool", 9, seed=1).model.compressor.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    again = assemble(encoder, llm, "avgpool", 9, seed=1).model.compressor.state_dict()
    other = assemble(encoder, llm, "avgpool", 9, seed=2).model.compressor.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["linear_1.weight"], other["linear_1.weight"])


def test_image_token_gets_a_row_only_where_none_is_free(tiny_world: TinyWorld):
    qwen, llama = load_llm(tiny_world.qwen), load_llm(tiny_world.llama)
    assert qwen.model.get_input_embeddings().num_embeddings == len(qwen.tokenizer) + 7
    assert llama.model.get_input_embeddings().num_embeddings == len(llama.tokenizer)
    # The new row is the same each time it is made.
    again = load_llm(tiny_world.llama).model
    assert torch.equal(again.lm_head.weight, llama.model.lm_head.weight)
    assert torch.equal(
        again.get_input_embeddings().weight[-1], again.get_input_embeddings().weight[:-1].mean(0)
    )
    # Counted before vtc added its row.
    assert (
        llama.source.n_params_total
        == sum(p.numel() for p in llama.model.parameters()) - 2 * llama.model.config.hidden_size
    )
    assert llama.tokenizer.pad_token == "</s>"


def test_parameter_counts_and_nominal_size(tiny_world: TinyWorld, tmp_path: Path):
    source = load_llm(tiny_world.qwen).source
    config = json.loads((tiny_world.qwen / "config.json").read_text())
    embedding = config["vocab_size"] * config["hidden_size"]
    assert source.n_params_total - source.n_params_nonembedding == embedding
    assert (source.family, source.n_params) == ("qwen2", source.n_params_total)
    untied = load_llm(tiny_world.llama).source
    assert untied.n_params_total - untied.n_params_nonembedding == 2 * embedding_size(tiny_world)
    copy = shutil.copytree(tiny_world.qwen, tmp_path / "Qwen1.5-0.5B-Chat")
    named = load_llm(copy).source
    assert (named.family, named.n_params) == ("qwen1.5", 500_000_000)
    copy = shutil.copytree(tiny_world.qwen, tmp_path / "mini-a")
    (copy / "config.json").write_text(
        json.dumps({**config, "n_params_nominal": 14000, "family": "mini"})
    )
    named = load_llm(copy).source
    assert (named.family, named.n_params) == ("mini", 14000)


def embedding_size(tiny_world: TinyWorld) -> int:
    config = json.loads((tiny_world.llama / "config.json").read_text())
    return config["vocab_size"] * config["hidden_size"]


def test_moved_study_still_loads_and_changed_backbone_is_refused(
    tiny_world: TinyWorld, tmp_path: Path
):
    old = tmp_path / "old"
    shutil.copytree(tiny_world.encoder, old / "encoder")
    shutil.copytree(tiny_world.qwen, old / "llm")
    built = assemble(old / "encoder", old / "llm", "avgpool", 1)
    save(built, old / "run", "compressor")
    (tmp_path / "old").rename(tmp_path / "new")
    new = tmp_path / "new"
    assert load_run(new / "run").manifest["visual_tokens"] == 1
    config = json.loads((new / "llm" / "config.json").read_text())
    (new / "llm" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    with pytest.raises(InputError, match="another model"):
        load_run(new / "run")
    shutil.rmtree(new / "llm")
    with pytest.raises(InputError, match="is gone"):
        load_run(new / "run")


def test_existing_run_is_kept_without_force(built: Assembled, tmp_path: Path):
    save(built, tmp_path / "run", "compressor", parent="first")
    with pytest.raises(InputError, match="exists"):
        save(built, tmp_path / "run", "compressor", parent="second")
    assert read_manifest(tmp_path / "run")["parent"] == "first"
    save(built, tmp_path / "run", "compressor", parent="second", force=True)
    assert read_manifest(tmp_path / "run")["parent"] == "second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_runs_that_differ_in_anything_have_their_own_id(built: Assembled, tmp_path: Path):
    settings = {"settings": {"objective": "lm"}, "inputs": [{"sha256": "a"}]}
    other_encoder = replace(built, encoder=replace(built.encoder, fingerprint="another"))
    made = [
        (built, {"footer": settings}),
        (built, {"footer": {**settings, "settings": {"objective": "align"}}}),
        (built, {"footer": {**settings, "inputs": [{"sha256": "b"}]}}),
        (built, {"footer": settings, "parent": "parent"}),
        (other_encoder, {"footer": settings}),
        (built, {"footer": settings}),
    ]
    ids = [
        save(one, tmp_path / str(number), "compressor", **given)["run_id"]
        for number, (one, given) in enumerate(made)
    ]
    assert len(set(ids)) == 5
    assert ids[-1] == ids[0]
    assert all(name.startswith("tiny-qwen-tokenpacker-v4-projector-s3-") for name in ids)


def test_a_manifest_says_what_a_run_is_made_of(built: Assembled, tmp_path: Path):
    manifest = save(built, tmp_path / "run", "compressor")
    assert manifest["shapes"] == {
        "grid": [6, 6], "levels": [2, 3], "vision_width": 32, "vision_layers": 4,
        "text_width": 48, "text_layers": 2, "vocabulary": 372,
    }  # fmt: skip
    content = (tmp_path / "run" / "compressor.safetensors").read_bytes()
    [(name, stated)] = manifest["files"].items()
    assert name == "compressor.safetensors"
    assert stated == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["encoder"]["revision"] is None


def test_the_compressor_of_another_run_is_refused(built: Assembled, tmp_path: Path):
    """Same shapes, same file name: only its hash tells that it is not this run's."""
    save(built, tmp_path / "one", "compressor")
    with torch.no_grad():
        built.model.compressor.attn_out.bias += 1
    save(built, tmp_path / "two", "compressor")
    with torch.no_grad():
        built.model.compressor.attn_out.bias -= 1
    shutil.copy(tmp_path / "two" / "compressor.safetensors", tmp_path / "one")
    with pytest.raises(InputError, match=r"compressor\.safetensors is damaged, or of another run"):
        load_run(tmp_path / "one")


def test_sizes_that_do_not_agree_are_named(built: Assembled, tmp_path: Path):
    manifest = save(built, tmp_path / "run", "compressor")
    manifest["shapes"]["text_width"] = 4096
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="made for text_width 4096, but what it stands on has 48"):
        load_run(tmp_path / "run")


def test_a_failed_save_leaves_nothing(built: Assembled, tmp_path: Path):
    with pytest.raises(ValueError, match="has no column"):
        save(built, tmp_path / "run", "compressor", train_log=[{"nonsense": 1}])
    assert list(tmp_path.iterdir()) == []


def test_unfinished_and_damaged_runs_are_named(built: Assembled, tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        load_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no finished run"):
        load_run(tmp_path / "empty")
    for weights, file in (("compressor", "compressor.safetensors"), ("full", "model.safetensors")):
        save(built, tmp_path / weights, weights)
        path = tmp_path / weights / file
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(InputError, match="damaged"):
            load_run(tmp_path / weights)
    save(built, tmp_path / "full", "full", force=True)
    state = load_file(path)
    del state["model.multi_modal_projector.attn_out.bias"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.safetensors is damaged, or of another run"):
        load_run(tmp_path / "full")
    # A run of an older vtc states no hashes.
    manifest = read_manifest(tmp_path / "full")
    (tmp_path / "full" / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))
    with pytest.raises(InputError, match=r"lacks .*attn_out\.bias"):
        load_run(tmp_path / "full")
    for broken in ("{}", "{", None):
        config = tmp_path / "full" / "config.json"
        config.write_text(broken) if broken else config.unlink()
        with pytest.raises(InputError, match=r"its config\.json is missing or damaged"):
            load_run(tmp_path / "full")
    (tmp_path / "full" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_run(tmp_path / "full")


@pytest.mark.parametrize(
    ("encoder", "llm", "fault"),
    [
        ("gone", "qwen", "neither a model folder"),
        ("encoder", "gone", "neither a model folder"),
        ("qwen", "qwen", "no vision encoder"),
        ("encoder", "encoder", "is a vision encoder .* no LLM"),
    ],
)
def test_unfit_backbones_are_named(
    tiny_world: TinyWorld, tmp_path: Path, encoder: str, llm: str, fault: str
):
    places = {"gone": tmp_path / "gone"}
    with pytest.raises(InputError, match=fault):
        assemble(
            places.get(encoder) or getattr(tiny_world, encoder),
            places.get(llm) or getattr(tiny_world, llm),
        )


def test_llm_without_chat_template_and_truncated_weights(tiny_world: TinyWorld, tmp_path: Path):
    copy = shutil.copytree(tiny_world.qwen, tmp_path / "llm")
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="llm"):
        load_llm(copy)
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        load_llm(copy)


def test_an_llm_with_sampling_settings_can_be_saved(tiny_world: TinyWorld, tmp_path: Path):
    """transformers refuses to save a temperature beside greedy decoding; Vicuna ships one."""
    copy = shutil.copytree(tiny_world.llama, tmp_path / "llm")
    settings = {"do_sample": False, "temperature": 0.9, "top_p": 0.6}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    built = assemble(tiny_world.encoder, copy, "avgpool", 1)
    save(built, tmp_path / "run", "full")
    config = load_run(tmp_path / "run").model.generation_config
    assert (config.do_sample, config.temperature) == (False, None)
    assert config.eos_token_id == [built.processor.tokenizer.eos_token_id]


def test_a_head_with_a_bias_is_refused(tiny_world: TinyWorld, tmp_path: Path):
    """Llava's head has none: a finetuned run would come back without it, and give other logits."""
    from transformers import PhiConfig, PhiForCausalLM

    copy = shutil.copytree(tiny_world.llama, tmp_path / "phi")
    vocabulary = len(load_llm(tiny_world.llama).tokenizer)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1}
    PhiForCausalLM(
        PhiConfig(**shape, num_attention_heads=4, vocab_size=vocabulary)
    ).save_pretrained(copy)
    with pytest.raises(InputError, match="phi: the head of a phi model has a bias"):
        load_llm(copy)


def test_a_whole_run_keeps_pillows_preprocessing(
    built: Assembled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where torchvision is installed, transformers would take its other resizing instead."""
    asked = []
    load = AutoImageProcessor.from_pretrained

    def spy(*args, **kwargs):
        asked.append(kwargs.get("backend"))
        return load(*args, **kwargs)

    save(built, tmp_path / "run", "full")
    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", spy)
    run = load_run(tmp_path / "run")
    assert asked[-1] == "pil"
    assert run.processor.image_processor.to_dict() == built.processor.image_processor.to_dict()


def test_weights_that_lack_a_part_are_refused(tiny_world: TinyWorld, tmp_path: Path):
    """transformers would fill them with random numbers and go on."""
    copy = shutil.copytree(tiny_world.encoder, tmp_path / "encoder")
    state = load_file(copy / "model.safetensors")
    lacking = {name: value for name, value in state.items() if "layers.1.mlp.fc1" not in name}
    save_file(lacking, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack .*layers\.1\.mlp\.fc1\.bias and 1 more"):
        load_encoder(copy)
    copy = shutil.copytree(tiny_world.llama, tmp_path / "llm")
    state = load_file(copy / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack lm_head\.weight"):
        load_llm(copy)
