"""Models of others as runs: transformers' Llava and the original code's checkpoints."""

import io
import json
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from conftest import CORPUS, GRID, TinyWorld
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2ForCausalLM,
)

from vtc.data.templates import ConversationTemplate
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.backbones import load_encoder, load_llm
from vtc.model.export import to_hf_llava
from vtc.model.importing import import_run
from vtc.model.run import load_run, read_manifest, save_run

N_PATCHES = GRID * GRID
ASKED = [{"role": "user", "text": "<image>\nWhat colour is it ?"}]


@pytest.fixture(scope="module")
def hf(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    """A folder of transformers' Llava, as llava-hf's: a processor whose template takes parts."""
    root = tmp_path_factory.mktemp("hf")
    one = assemble(tiny_world.encoder, tiny_world.llama, "mlp", seed=5)
    save_run(
        root / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights="compressor", seed=5,
    )  # fmt: skip
    to_hf_llava(root / "run", root / "tiny-llava", dtype=torch.float32)
    return root / "tiny-llava"


@pytest.fixture(scope="module")
def original(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    """A folder as the original code writes it: LLM and projector, the encoder elsewhere."""
    folder = tmp_path_factory.mktemp("original") / "llava-v1.5-tiny"
    shutil.copytree(tiny_world.llama, folder)
    (folder / "chat_template.jinja").unlink()
    llm = LlamaForCausalLM.from_pretrained(tiny_world.llama)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava_llama",
        "mm_vision_tower": str(tiny_world.encoder), "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
        "image_aspect_ratio": "pad", "mm_hidden_size": 32, "use_mm_proj": True,
        "rope_parameters": None, "rope_theta": 5000.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    state = {**llm.state_dict(), **projector(generator)}
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def projector(generator: torch.Generator) -> dict[str, torch.Tensor]:
    shapes = {"0.weight": (48, 32), "0.bias": (48,), "2.weight": (48, 48), "2.bias": (48,)}
    return {
        f"model.mm_projector.{name}": torch.randn(shape, generator=generator) * 0.2
        for name, shape in shapes.items()
    }


def reference(folder: Path, encoder: Path) -> LlavaForConditionalGeneration:
    """transformers' Llava of an original checkpoint, put together part by part."""
    state = load_file(folder / "model.safetensors")
    llm = LlamaForCausalLM.from_pretrained(folder, config=llama_config(folder))
    tower = CLIPVisionModel.from_pretrained(encoder)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=tower.config, text_config=llm.config, image_token_index=0)
    )
    model.model.vision_tower, model.model.language_model = tower, llm.model
    model.lm_head = llm.lm_head
    layers = model.model.multi_modal_projector
    for number, layer in ((0, layers.linear_1), (2, layers.linear_2)):
        layer.weight.data = state[f"model.mm_projector.{number}.weight"]
        layer.bias.data = state[f"model.mm_projector.{number}.bias"]
    return model.eval()


def llama_config(folder: Path):
    from transformers import LlamaConfig

    raw = json.loads((folder / "config.json").read_text())
    kept = {k: v for k, v in raw.items() if not k.startswith(("mm_", "image_", "model_type"))}
    return LlamaConfig(**{k: v for k, v in kept.items() if k != "architectures"})


def same_logits(run: Path, theirs) -> None:
    """The run's logits are those of transformers' Llava, to 1e-5 of the largest."""
    ours = load_run(run).model
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    rows = []
    for image in (ours.config.image_token_index, theirs.config.image_token_index):
        shown = [image] * N_PATCHES
        rows.append(torch.tensor([[7, *shown, 9, 11, 12], [7, 8, *shown, 11, 12]]))
    with torch.no_grad():
        found = ours(input_ids=rows[0], pixel_values=pixels).logits
        expected = theirs(input_ids=rows[1], pixel_values=pixels).logits
    found = found[..., : expected.shape[-1]]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_llava_of_transformers(hf, tiny_world, tmp_path):
    manifest = import_run(str(hf), tmp_path / "run", llm_name="vicuna-7b-v1.5")
    same_logits(tmp_path / "run", LlavaForConditionalGeneration.from_pretrained(hf).eval())
    assert manifest["run_id"].startswith(f"vicuna-7b-v1.5-mlp-v{N_PATCHES}-import-")
    assert (manifest["weights"], manifest["seed"]) == ("full", None)
    llm, source = manifest["llm"], load_llm(tiny_world.llama).source
    assert (llm["family"], llm["n_params"]) == ("vicuna1.5", 7_000_000_000)
    # With the row of <image>, which the exported model has already.
    assert llm["n_params_total"] == source.n_params_total + 2 * 48
    assert llm["n_params_nonembedding"] == source.n_params_nonembedding
    # The template that took parts takes texts, as it did before the export.
    tokenizer = load_run(tmp_path / "run").processor.tokenizer
    before = ConversationTemplate(load_llm(tiny_world.llama).tokenizer).prompt(ASKED)
    assert ConversationTemplate(tokenizer).prompt(ASKED) == before


def test_an_original_checkpoint(original, tiny_world, tmp_path):
    manifest = import_run(str(original), tmp_path / "run")
    same_logits(tmp_path / "run", reference(original, tiny_world.encoder))
    run = load_run(tmp_path / "run")
    assert run.model.config.text_config.rope_parameters["rope_theta"] == 5000.0
    # Its encoder is the one it names: features of one serve the other.
    assert run.encoder == load_encoder(tiny_world.encoder).source
    assert manifest["llm"]["name"] == "llava-v1.5-tiny"
    prompt = ConversationTemplate(run.processor.tokenizer).prompt(ASKED)
    assert prompt.startswith("<s>A chat between a curious user and an artificial intelligence")
    assert prompt.endswith("USER: <image>\nWhat colour is it ? ASSISTANT:")
    assert run.processor.image_processor.do_pad


def test_an_encoder_that_was_trained_along_counts(original, tiny_world, tmp_path):
    copy = shutil.copytree(original, tmp_path / "llava")
    state = load_file(copy / "model.safetensors")
    tower = CLIPVisionModel.from_pretrained(tiny_world.encoder)
    with torch.no_grad():
        tower.get_parameter("encoder.layers.1.mlp.fc1.weight").mul_(1.5)
    for name, weight in tower.state_dict().items():
        state[f"model.vision_tower.vision_tower.vision_model.{name}"] = weight
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    manifest = import_run(str(copy), tmp_path / "run")
    expected = reference(original, tiny_world.encoder)
    expected.model.vision_tower = tower.eval()
    same_logits(tmp_path / "run", expected)
    assert manifest["encoder"]["path"] == str(copy)
    assert manifest["encoder"]["name"] == tiny_world.encoder.name


def test_pickles_open_only_if_allowed_and_leave_as_safetensors(original, tiny_world, tmp_path):
    copy = shutil.copytree(original, tmp_path / "llava")
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2])):
        torch.save({n: state[n] for n in part}, copy / f"pytorch_model-0000{number}-of-00002.bin")
    with pytest.raises(InputError, match=r"pytorch_model-00000.*a pickle.*--allow-bin"):
        import_run(str(copy), tmp_path / "run")
    import_run(str(copy), tmp_path / "run", allow_bin=True)
    same_logits(tmp_path / "run", reference(original, tiny_world.encoder))
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert not list((tmp_path / "run").rglob("*.bin"))
    trap = copy / "pytorch_model-00000-of-00002.bin"
    for protocol in (2, 4):
        trap.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match="holds more than tensors, or is damaged, and vtc"):
                import_run(str(copy), tmp_path / "again", allow_bin=True)
    whole = torch_bytes({name: state[name] for name in names[::2]})
    for size in (200, len(whole) // 2, len(whole) - 100):
        trap.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"00000-of-00002\.bin is damaged \(") as cut:
            import_run(str(copy), tmp_path / "again", allow_bin=True)
        assert len(str(cut.value).removeprefix(str(trap)).split()) < 20
    for junk in (
        b"hello world",
        b"\x00" * 64,
        b"",
        pickle.dumps([1]),
        torch_bytes([torch.ones(2)]),
    ):
        trap.write_bytes(junk)
        with pytest.raises(InputError, match=r"00000-of-00002\.bin (is damaged|holds)"):
            import_run(str(copy), tmp_path / "again", allow_bin=True)
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "again").exists()


def torch_bytes(thing) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


class Trap:
    """Makes a file where its pickle is opened without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_missing_and_misshaped_tensors_are_listed(original, hf, tmp_path):
    copy = shutil.copytree(original, tmp_path / "llava")
    state = load_file(copy / "model.safetensors")
    state["model.mm_projector.0.weight"] = torch.zeros(48, 16)
    state["model.mm_projector.4.bias"] = torch.zeros(4)
    del state["model.norm.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError) as fault:
        import_run(str(copy), tmp_path / "run")
    said = str(fault.value)
    assert "missing: model.norm.weight" in said
    assert "model.mm_projector.0.weight [48, 16] instead of [48, 32]" in said
    assert "unknown: model.mm_projector.4.bias" in said
    copy = shutil.copytree(hf, tmp_path / "hf")
    state = load_file(copy / "model.safetensors")
    name = next(n for n in state if n.endswith("linear_2.bias"))
    state[name] = torch.zeros(7)
    del state[next(n for n in state if n.endswith("layers.1.mlp.down_proj.weight"))]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing: .*layers\.1\.mlp\.down_proj\.weight") as fault:
        import_run(str(copy), tmp_path / "run")
    assert "linear_2.bias [7] instead of [48]" in str(fault.value)


def test_a_truncated_checkpoint_is_named(hf, tmp_path):
    copy = shutil.copytree(hf, tmp_path / "hf")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="hf does not load"):
        import_run(str(copy), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is linear, of LLaVA-1.5 it is mlp2x"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is anyres"),
        ({"model_type": "llava_mpt"}, "a llava_mpt model"),
        ({"mm_vision_tower": "/nowhere/clip"}, "give its folder with --encoder"),
        ({"mm_vision_tower": None}, "names no mm_vision_tower; give --encoder"),
    ],
)
def test_what_is_no_llava_of_1_5_is_named(original, tmp_path, change, fault):
    copy = shutil.copytree(original, tmp_path / "llava")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=fault):
        import_run(str(copy), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"vision_feature_layer": [-2, -5]}, "joins several layers"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act is relu; of LLaVA-1.5 it is gelu"),
        ({"vision_feature_select_strategy": "full"}, "1 tokens before the patches"),
        ({"model_type": "llava_next"}, "a llava_next model"),
    ],
)
def test_other_llavas_of_transformers_are_named(hf, tmp_path, change, fault):
    copy = shutil.copytree(hf, tmp_path / "llava")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=fault):
        import_run(str(copy), tmp_path / "run")


def test_a_qwen_without_template_names_the_flag(hf, tiny_world, tmp_path):
    copy = shutil.copytree(hf, tmp_path / "llava")
    (copy / "chat_template.jinja").unlink()
    manifest = import_run(str(copy), tmp_path / "llama")
    assert "USER: " in (tmp_path / "llama" / "chat_template.jinja").read_text()
    assert manifest["llm"]["family"] == "llama"
    one = assemble(tiny_world.encoder, tiny_world.qwen, "mlp")
    save_run(
        tmp_path / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights="full", seed=0,
    )  # fmt: skip
    to_hf_llava(tmp_path / "run", tmp_path / "qwen", dtype=torch.float32)
    (tmp_path / "qwen" / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="give --chat-template"):
        import_run(str(tmp_path / "qwen"), tmp_path / "again")
    import_run(str(tmp_path / "qwen"), tmp_path / "again", chat_template="chatml")
    model = load_run(tmp_path / "again").model
    # The tied head is the embedding, after export and import.
    assert model.lm_head.weight is model.get_input_embeddings().weight
    own = Qwen2ForCausalLM.from_pretrained(tiny_world.qwen).lm_head.weight
    assert torch.equal(model.lm_head.weight[: len(own)], own)


def test_an_imported_run_is_finetuned_on(hf, tiny_world, tmp_path):
    """As any stage-1 run, and without what it was imported from."""
    from train_samples import read

    from vtc.train.finetune import finetune_runs
    from vtc.train.inputs import Inputs
    from vtc.train.jobs import FinetuneJob
    from vtc.train.settings import FINETUNE, LoraSettings

    source = shutil.copytree(hf, tmp_path / "llava")
    import_run(str(source), tmp_path / "run")
    shutil.rmtree(source)
    settings = FINETUNE.with_(
        method="lora", max_steps=1, batch_size=2, accumulate=1, lora=LoraSettings(r=2)
    )
    job = FinetuneJob((tmp_path / "run",), tmp_path / "out", method="lora")
    [folder] = finetune_runs(job, Inputs(read(tmp_path, tiny_world), settings))
    assert read_manifest(folder)["parent"] == read_manifest(tmp_path / "run")["run_id"]
    assert load_run(folder).manifest["visual_tokens"] == N_PATCHES


def test_a_tokenizer_of_sentencepiece_alone(original, tmp_path):
    """As Vicuna's and LLaVA's checkpoints bring it: a tokenizer.model, no tokenizer.json."""
    import sentencepiece

    copy = shutil.copytree(original, tmp_path / "llava")
    (copy / "tokenizer.json").unlink()
    (tmp_path / "corpus.txt").write_text("\n".join(CORPUS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(copy / "tokenizer"), model_type="bpe",
        vocab_size=340, byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    stated = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, **named}
    (copy / "tokenizer_config.json").write_text(json.dumps(stated))
    import_run(str(copy), tmp_path / "run")
    tokenizer = load_run(tmp_path / "run").processor.tokenizer
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(copy / "tokenizer.model"))
    text = "What colour is the square on the left ?"
    assert tokenizer(text, add_special_tokens=False).input_ids == theirs.encode(text)
    assert tokenizer(text).input_ids[0] == theirs.bos_id()
    assert tokenizer.convert_tokens_to_ids("<image>") == theirs.vocab_size()
    assert (tmp_path / "run" / "tokenizer.json").is_file()
