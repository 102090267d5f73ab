"""LoRA and QLoRA runs: what is in 4 bits, what is saved, and that it all comes back."""

import json
import shutil
from pathlib import Path

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file
from train_samples import build, collator, read

from vtc.errors import InputError, VtcError
from vtc.model.adapters import lora_targets
from vtc.model.backbones import load_llm
from vtc.model.export import merge
from vtc.model.four_bit import nf4
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.run import load_run, read_manifest, save_run
from vtc.train.finetune import finetune_runs
from vtc.train.inputs import Inputs
from vtc.train.jobs import FinetuneJob, ProjectorJob
from vtc.train.projector import train_projectors
from vtc.train.settings import FINETUNE, PROJECTOR, LoraSettings

LORA = LoraSettings(r=4, alpha=8, dropout=0.0)


def save(one, folder: Path, weights: str, **more) -> Path:
    save_run(
        folder, one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights=weights, seed=0, **more,
    )  # fmt: skip
    return folder


def finetune(source: Path, out: Path, world, method: str, lora: LoraSettings = LORA) -> Path:
    settings = FINETUNE.with_(
        method=method, max_steps=3, batch_size=4, accumulate=1, learning_rate=1e-2, lora=lora
    )
    out.mkdir(exist_ok=True)
    samples = read(out, world)
    job = FinetuneJob((source,), out / "runs", method=method)
    return finetune_runs(job, Inputs(samples, settings))[0]


@pytest.fixture(scope="module")
def runs(tiny_world, tmp_path_factory) -> dict[str, Path]:
    """A stage-1 run, and LoRA and QLoRA trained on it."""
    root = tmp_path_factory.mktemp("adapters")
    made = {"projector": save(build(tiny_world), root / "stage1", "compressor")}
    for method in ("lora", "qlora"):
        made[method] = finetune(made["projector"], root / method, tiny_world, method)
    return made


@pytest.fixture(scope="module")
def batch(tiny_world, tmp_path_factory) -> dict[str, torch.Tensor]:
    one = build(tiny_world)
    samples = read(tmp_path_factory.mktemp("batch"), tiny_world)
    return collator(one, samples, FINETUNE)([0, 1, 2])


def logits(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch).logits


def quantised(model) -> set[str]:
    four = bitsandbytes.nn.Linear4bit
    return {n.removesuffix(".base_layer") for n, m in model.named_modules() if isinstance(m, four)}


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_run_is_its_small_trained_part(runs, method):
    folder = runs[method]
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert {"adapter/adapter_model.safetensors", "compressor.safetensors"} <= files
    assert not any(name.startswith("model") for name in files)
    manifest = read_manifest(folder)
    assert manifest["weights"] == "adapter"
    assert manifest["quantisation"] == ("nf4" if method == "qlora" else None)
    assert manifest["parent"] == read_manifest(runs["projector"])["run_id"]
    assert "quantization_config" not in (folder / "config.json").read_text()
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(".language_model." in name for name in adapter)
    assert len(adapter) == 2 * 7 * 2
    # LoRA's B starts at zero: what is saved has been trained.
    assert all(w.abs().max() > 0 for n, w in adapter.items() if "lora_B" in n)


def test_qlora_quantises_the_llms_linears_alone(runs, tiny_world):
    model = load_run(runs["qlora"]).model
    assert quantised(model) == set(lora_targets(build(tiny_world).model))
    weight = model.model.language_model.layers[0].mlp.up_proj.base_layer.weight
    assert (weight.quant_type, weight.compress_statistics) == ("nf4", True)
    floating = {p.dtype for n, p in model.named_parameters() if p.dtype != torch.uint8}
    assert floating == {torch.float32}


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_merged_and_unmerged_give_the_same_logits(runs, batch, method):
    beside = load_run(runs[method], merge=False).model
    merged = load_run(runs[method], merge=True).model
    assert any("lora_A" in name for name, _ in beside.named_parameters())
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    assert quantised(merged) == set()
    found, expected = logits(merged, batch), logits(beside, batch)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    before = logits(load_run(runs["projector"]).model, batch)
    assert (logits(merged, batch) - before).abs().max() > 1e-2


def test_what_was_trained_is_what_loads(tiny_world, tmp_path, batch, monkeypatch):
    """The logits at the end of a QLoRA training are those of the run that it saved."""
    import vtc.train.finetune as stage

    trained = []
    fit = stage.fit_model

    def keep(model, *args, **kwargs):
        trained.append(model)
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(stage, "fit_model", keep)
    source = save(build(tiny_world), tmp_path / "stage1", "compressor")
    folder = finetune(source, tmp_path / "out", tiny_world, "qlora")
    assert torch.equal(logits(load_run(folder).model, batch), logits(trained[0], batch))


def test_lora_on_a_whole_run_stands_on_that_run(tiny_world, tmp_path, batch):
    one = build(tiny_world)
    with torch.no_grad():
        one.model.lm_head.weight.mul_(2.0)
    whole = save(one, tmp_path / "whole", "full")
    folder = finetune(whole, tmp_path / "out", tiny_world, "lora")
    base = read_manifest(folder)["base"]
    assert Path(base["path"]) == whole
    loaded = load_run(folder).model
    assert torch.equal(loaded.lm_head.weight, one.model.lm_head.weight)
    shutil.move(whole, tmp_path / "gone")
    with pytest.raises(InputError, match="whole, which is gone"):
        load_run(folder)


@pytest.mark.parametrize("name", ["projector", "lora", "qlora"])
def test_any_run_loads_in_four_bits(runs, name, batch):
    """Its logits are those of a model whose LLM's weights went to nf4 and back."""
    found = load_run(runs[name], four_bit=True).model
    assert len(quantised(found)) == 14
    expected = load_run(runs[name], merge=False).model
    if name != "qlora":
        round_trip(expected)
    want = logits(expected, batch)
    assert (logits(found, batch) - want).abs().max() <= 1e-5 * want.abs().max()


@torch.no_grad()
def round_trip(model) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for name, module in model.named_modules():
        if ".language_model." in name and type(module) is torch.nn.Linear and "lora" not in name:
            packed, state = quantize_4bit(
                module.weight, quant_type="nf4", compress_statistics=True, blocksize=64
            )
            module.weight.copy_(dequantize_4bit(packed, state))


def test_a_whole_run_loads_in_four_bits_but_its_compressor_and_head(tiny_world, tmp_path, batch):
    one = build(tiny_world, llm="llama")
    folder = save(one, tmp_path / "run", "full")
    model = load_run(folder, four_bit=True).model
    assert quantised(model) == set(lora_targets(one.model))
    stock = VtcForConditionalGeneration.from_pretrained(
        folder, quantization_config=nf4(torch.float32)
    )
    assert quantised(stock) == quantised(model)
    with pytest.raises(VtcError, match="in 4 bits is not saved whole"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_stage_one_trains_on_an_llm_in_four_bits(tiny_world, tmp_path, batch):
    """What a 24 GB card needs for a 14B: the compressor alone trains, through 4-bit layers."""
    settings = PROJECTOR.with_(load_4bit=True, max_steps=3, batch_size=4, accumulate=1)
    samples = read(tmp_path, tiny_world)
    encoder, llm = str(tiny_world.encoder), str(tiny_world.qwen)
    job = ProjectorJob(encoder, llm, ("tokenpacker",), (4,), tmp_path / "runs")
    [folder] = train_projectors(job, Inputs(samples, settings))
    assert read_manifest(folder)["quantisation"] == "nf4"
    run = load_run(folder)
    assert len(quantised(run.model)) == 14
    fresh = build(tiny_world).model.compressor.state_dict()
    trained = run.model.compressor.state_dict()
    assert all(not torch.equal(trained[name], fresh[name]) for name in ("attn_out.weight",))
    assert quantised(load_run(folder, four_bit=False).model) == set()
    merge(folder, tmp_path / "whole", dtype=torch.float32)
    whole, expected = (logits(load_run(f).model, batch) for f in (tmp_path / "whole", folder))
    assert (whole - expected).abs().max() <= 1e-5 * expected.abs().max()
    tuned = finetune(folder, tmp_path / "tuned", tiny_world, "lora")
    assert read_manifest(tuned)["quantisation"] is None


def test_lora_upon_lora_is_refused(runs, tiny_world, tmp_path):
    with pytest.raises(InputError, match=r"vtc export .* --merge"):
        finetune(runs["lora"], tmp_path, tiny_world, "lora")


def test_full_finetuning_goes_on_from_a_lora_run(runs, tiny_world, tmp_path, batch):
    folder = finetune(runs["qlora"], tmp_path, tiny_world, "full")
    assert read_manifest(folder)["weights"] == "full"
    assert quantised(load_run(folder).model) == set()


def test_patterns_choose_the_layers(tiny_world):
    model = build(tiny_world).model
    names = lora_targets(model, ("q_proj", "layers.1.mlp.*"))
    inside = [name.removeprefix("model.language_model.layers.") for name in names]
    assert inside == [
        "0.self_attn.q_proj", "1.self_attn.q_proj",
        "1.mlp.gate_proj", "1.mlp.up_proj", "1.mlp.down_proj",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"'c_attn' matches no linear .* down_proj, gate_proj"):
        lora_targets(model, ("q_proj", "c_attn"))


def test_patterns_that_match_nothing_stop_before_any_training(runs, tiny_world, tmp_path):
    job = FinetuneJob((runs["projector"],), tmp_path / "out", method="lora", lora_targets=("c_fc",))
    with pytest.raises(InputError, match="'c_fc' matches no linear layer of the LLM"):
        finetune_runs(job, Inputs(read(tmp_path, tiny_world), FINETUNE.with_(method="lora")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"r": 0}, "--lora-r 0 must be above 0"),
        ({"alpha": -1}, "--lora-alpha -1 must be above 0"),
        ({"dropout": 1.0}, r"--lora-dropout 1.0 is a probability"),
    ],
)
def test_lora_settings_are_checked(given, fault):
    with pytest.raises(InputError, match=fault):
        LoraSettings(**given)


def test_a_base_that_is_quantised_already_is_refused(tiny_world, tmp_path):
    copy = shutil.copytree(tiny_world.qwen, tmp_path / "awq")
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"awq is quantised already \(awq\)"):
        load_llm(copy)


def test_lora_weights_of_another_model_are_refused(runs, tmp_path):
    copy = shutil.copytree(runs["lora"], tmp_path / "run")
    file = copy / "adapter" / "adapter_model.safetensors"
    other = {name: weight[:, :2] for name, weight in load_file(file).items()}
    save_file({n: w.contiguous() for n, w in other.items()}, file, metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"adapter_model\.safetensors is damaged, or of another run"
    ):
        load_run(copy)
    stated = read_manifest(copy)
    (copy / "manifest.json").write_text(json.dumps({**stated, "files": {}}))
    with pytest.raises(InputError, match="LoRA weights do not load"):
        load_run(copy)
