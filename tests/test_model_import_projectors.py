"""Whole checkpoints of TokenPacker, QueCC, MQT and M3, and projectors alone, as runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import GRID, IMAGE_SIZE, PATCH, TinyWorld
from published_projectors import M3, Mqt, TokenPacker, drawn, quecc
from safetensors.torch import load_file, save_file
from shell import vtc
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from vtc.errors import InputError
from vtc.model.importing import import_run
from vtc.model.original_projector import Wish
from vtc.model.run import load_run, read_manifest

WIDTH, TEXT, N = 32, 48, GRID * GRID
QUESTION = [7, 9, 5, 11]


class Given(NamedTuple):
    """What a published projector is given: levels [B, N, D], all of them, the question's vector."""

    single: Tensor
    several: Tensor
    asked: Tensor


class Kind(NamedTuple):
    """A published projector: its class, its place, its config, its V, and how it is called."""

    make: Callable[[], nn.Module]
    prefix: str
    config: dict
    tokens: int
    run: Callable[[nn.Module, Given], Tensor]
    trained: tuple[int, ...] | None = None


LLAVA = {"mm_projector_type": "mlp2x_gelu"}
KINDS = {
    "tokenpacker": Kind(
        lambda: TokenPacker(WIDTH, TEXT, 3), "model.mm_projector.", {**LLAVA, "scale_factor": 3}, 4,
        lambda module, given: module((given.single, given.several)),
    ),
    "quecc": Kind(
        lambda: quecc(WIDTH, TEXT, 2), "model.mm_projector.",
        {**LLAVA, "mm_vision_token_compression_type": "quecc",
         "mm_vision_token_compression_kernel_size": 2, "mm_vision_token_compression_stride": 2}, 9,
        lambda module, given: module((given.several, given.asked.unsqueeze(1), given.single)),
    ),
    "mqt": Kind(
        lambda: Mqt(WIDTH, TEXT, GRID), "model.query_abstractor.",
        {"mm_projector_type": "linear", "query_abstractor_type": "matry_query",
         "num_visual_tokens": "second_stage"}, 36,
        lambda module, given: module(given.single, 36), tuple(range(2, 37, 2)),
    ),
    "m3": Kind(
        lambda: M3(WIDTH, TEXT), "model.mm_projector.",
        {**LLAVA, "matryoshka_vis_token_scale": [1, 9, 36], "unfreeze_mm_vision_tower": True}, 36,
        lambda module, given: module(given.single), (1, 9, 36),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    """A CLIP of 24 layers, of which some publications have the numbers as literals."""
    folder = shutil.copytree(tiny_world.encoder, tmp_path_factory.mktemp("deep") / "clip-24")
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=24, num_attention_heads=4,
        image_size=IMAGE_SIZE, patch_size=PATCH,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tiny_world: TinyWorld, encoder: Path, tmp_path_factory) -> dict[str, Path]:
    """Checkpoints as the original code writes them; of M3 with its own encoder, in two shards."""
    root, found = tmp_path_factory.mktemp("published"), {}
    llm = LlamaForCausalLM.from_pretrained(tiny_world.llama)
    for name, kind in KINDS.items():
        found[name] = shutil.copytree(tiny_world.llama, root / name)
        write_config(found[name], encoder, kind.config)
        state = {k: v.clone() for k, v in llm.state_dict().items()}
        for key, tensor in drawn(kind.make()).state_dict().items():
            state[kind.prefix + key] = tensor.half() if key == "pos_embed" else tensor
        if name == "m3":
            for key, tensor in tuned(encoder).state_dict().items():
                state[f"model.vision_tower.vision_tower.vision_model.{key}"] = tensor
        names = sorted(state)
        for number, part in enumerate((names[::2], names[1::2])):
            file = found[name] / f"model-0000{number + 1}-of-00002.safetensors"
            save_file({k: state[k] for k in part}, file, metadata={"format": "pt"})
        (found[name] / "model.safetensors").unlink()
    return found


def write_config(folder: Path, encoder: Path, more: dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava_llama",
        "mm_vision_tower": str(encoder), "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "image_aspect_ratio": "pad", "mm_hidden_size": WIDTH,
        "mm_patch_merge_type": "flat", **more,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def tuned(encoder: Path) -> CLIPVisionModel:
    """The encoder that M3 trained along."""
    tower = CLIPVisionModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        tower.get_parameter("encoder.layers.20.mlp.fc1.weight").mul_(3)
    return tower


def tokens_by_hand(name: str, encoder: Path, llama: Path, pixels: Tensor) -> Tensor:
    """The visual tokens that the publication's parts make of images."""
    tower = tuned(encoder) if name == "m3" else CLIPVisionModel.from_pretrained(encoder).eval()
    llm = LlamaForCausalLM.from_pretrained(llama).eval()
    kind = KINDS[name]
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True).hidden_states
        asked = llm.model(input_ids=torch.tensor([QUESTION])).last_hidden_state[:, -1]
        given = Given(
            states[-2][:, 1:], torch.cat([states[level][:, 1:] for level in (12, 16, 22, 23)], -1),
            asked.expand(len(pixels), -1),
        )  # fmt: skip
        return kind.run(drawn(kind.make()), given)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_whole_checkpoint_answers_as_its_parts(folders, encoder, tiny_world, tmp_path, name):
    kind = KINDS[name]
    manifest = import_run(str(folders[name]), tmp_path / "run")
    assert (manifest["compressor"], manifest["visual_tokens"]) == (name, kind.tokens)
    assert tuple(manifest["trained_visual_tokens"]) == (kind.trained or (kind.tokens,))
    loaded = load_run(tmp_path / "run")
    model, image = loaded.model, loaded.model.config.image_token_index
    pixels = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    expected = tokens_by_hand(name, encoder, tiny_world.llama, pixels)
    ids = torch.tensor([[7, *[image] * kind.tokens, 9, 11]] * 2)
    asked = {"query_ids": torch.tensor([QUESTION] * 2)} if name == "quecc" else {}
    llm = LlamaForCausalLM.from_pretrained(tiny_world.llama).eval()
    with torch.no_grad():
        found = model.model.compress(model.model.encode(pixels), **asked)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        embedded = llm.get_input_embeddings()(ids.clamp(max=llm.config.vocab_size - 1))
        embedded[:, 1 : kind.tokens + 1] = expected
        theirs = llm(inputs_embeds=embedded).logits
        ours = model(input_ids=ids, pixel_values=pixels, **asked).logits[..., : theirs.shape[-1]]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert loaded.processor.query_scope == ("latest" if name == "quecc" else None)
    assert loaded.processor.image_processor.do_pad


def test_one_checkpoint_at_other_v(folders, encoder, tiny_world, tmp_path):
    """Of weights that serve several V: TokenPacker's, the first of MQT's queries, m3's means."""
    pixels = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(2))
    for name, tokens in (("mqt", 5), ("m3", 1), ("tokenpacker", 9)):
        import_run(str(folders[name]), tmp_path / name, wish=Wish(visual_tokens=tokens))
        model = load_run(tmp_path / name).model.model
        with torch.no_grad():
            found = model.compress(model.encode(pixels))
        assert found.shape == (1, tokens, TEXT)
        if name != "tokenpacker":
            every = tokens_by_hand(name, encoder, tiny_world.llama, pixels)
            expected = every[:, :5] if name == "mqt" else every.mean(1, keepdim=True)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert read_manifest(tmp_path / "mqt")["trained_visual_tokens"] == [2, 4]
    with pytest.raises(InputError, match=r"quecc: weights .* of another shape: 0\.q_downsample"):
        import_run(str(folders["quecc"]), tmp_path / "no", wish=Wish(visual_tokens=4))
    with pytest.raises(InputError, match=r"tokenpacker cannot make 5 .*choose from 1, 4, 9, 36"):
        import_run(str(folders["tokenpacker"]), tmp_path / "no", wish=Wish(visual_tokens=5))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("tokenpacker", {"clip_attn.in_proj_bias": None, "ln_k_1.bias": None},
         r"missing: clip_attn\.in_proj_bias, ln_k_1\.bias"),
        ("quecc", {"0.q_downsample.bias": torch.zeros(3), "1.weight": torch.zeros(48, 16)},
         r"of another shape: 0\.q_downsample\.bias \[3\] instead of \[32\], 1\.weight \[48, 16\]"),
        ("mqt", {"ln_post.weight": torch.zeros(4)}, r"unknown: ln_post\.weight"),
        ("m3", {"2.bias": torch.zeros(7)}, r"of another shape: 2\.bias \[7\] instead of \[48\]"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_listed(folders, tmp_path, name, change, fault):
    copy = shutil.copytree(folders[name], tmp_path / "copy")
    for file in copy.glob("*.safetensors"):
        state = load_file(file)
        for key in change:
            state.pop(KINDS[name].prefix + key, None)
        save_file(state, file, metadata={"format": "pt"})
    more = {KINDS[name].prefix + k: v for k, v in change.items() if v is not None}
    save_file({**more, "model.norm.weight": torch.ones(TEXT)}, copy / "model-3.safetensors")
    with pytest.raises(InputError, match=fault) as caught:
        import_run(str(copy), tmp_path / "run")
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_encoder_or_llm_of_another_width_is_refused(folders, tiny_world, tmp_path):
    copy = shutil.copytree(folders["mqt"], tmp_path / "copy")
    for file in copy.glob("*.safetensors"):
        state = load_file(file)
        if "model.query_abstractor.proj" in state:
            state["model.query_abstractor.proj"] = torch.zeros(WIDTH, 40)
            save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"shape: proj \[32, 40\] instead of \[32, 48\]"):
        import_run(str(copy), tmp_path / "run")
    # Of four layers, where the publication reads hidden states 12, 16, 22 and 23.
    with pytest.raises(
        InputError, match="compressor tokenpacker: level 12 is outside an encoder of 4 layers"
    ):
        import_run(str(folders["tokenpacker"]), tmp_path / "run", encoder=str(tiny_world.encoder))


@pytest.mark.parametrize(
    ("name", "config", "wish", "fault"),
    [
        ("tokenpacker", {"scale_factor": 4}, {}, "scale_factor 4 does not divide .* grid, 6"),
        ("tokenpacker", {"image_aspect_ratio": "slice"}, {}, "image_aspect_ratio is slice"),
        ("m3", {"mm_projector_type": "linear"}, {}, "mm_projector_type is linear"),
        ("mqt", {}, {"compressor": "tokenpacker"}, "the checkpoint's projector is one of mqt"),
        ("m3", {}, {"compressor": "mlp", "visual_tokens": 9}, "import it as --compressor m3"),
        ("mqt", {}, {"settings": {"layers": 2}}, "mqt has no setting 'layers'"),
    ],
)
def test_what_cannot_be_asked_for_is_named(folders, tmp_path, name, config, wish, fault):
    copy = shutil.copytree(folders[name], tmp_path / "copy")
    own = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**own, **config}))
    with pytest.raises(InputError, match=fault):
        import_run(str(copy), tmp_path / "run", wish=Wish(**wish))
    assert not (tmp_path / "run").exists()


def test_a_projector_alone_from_the_shell(folders, encoder, tiny_world, tmp_path):
    """QueCC's first stage, a pickle: refused, then opened; its run answers."""
    folder = tmp_path / "stage-1"
    folder.mkdir()
    shutil.copy(folders["quecc"] / "config.json", folder)
    write_config(folder, encoder, {**KINDS["quecc"].config, "_name_or_path": "/nowhere/vicuna"})
    weights = drawn(KINDS["quecc"].make()).state_dict()
    named = {f"model.mm_projector.{key}": tensor for key, tensor in weights.items()}
    torch.save(named, folder / "mm_projector.bin")
    shut = vtc("import", "stage-1", "--llm", tiny_world.llama, "-o", "run", cwd=tmp_path)
    assert shut.returncode == 2
    assert "mm_projector.bin, a pickle, which may hold programs; --allow-bin opens" in shut.stderr
    with pytest.raises(InputError, match=r"stands on an LLM: .*; give its folder with --llm"):
        import_run(str(folder), tmp_path / "run", allow_bin=True)
    done = vtc(
        "import", "stage-1", "--llm", tiny_world.llama, "--allow-bin", "--reference-behaviour",
        "-o", "run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["weights"], manifest["stage"]) == ("compressor", "import")
    loaded = load_run(tmp_path / "run")
    assert loaded.processor.query_scope == "first"
    pixels = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(4))
    core = loaded.model.model
    with torch.no_grad():
        found = core.compress(core.encode(pixels), query_ids=torch.tensor([QUESTION]))
    expected = tokens_by_hand("quecc", encoder, tiny_world.llama, pixels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    picture = tiny_world.images / tiny_world.image_names[0]
    told = vtc("ask", "run", picture, "What colour is it ?", "--max-new-tokens", "3", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert not list((tmp_path / "run").rglob("*.bin"))


def test_llavas_own_projector_alone(encoder, tiny_world, tmp_path):
    """LLaVA-1.5's first stage in safetensors: a run of the mlp, or of m3, of the same weights."""
    folder = shutil.copytree(tiny_world.llama, tmp_path / "stage-1")
    (folder / "model.safetensors").unlink()
    write_config(folder, encoder, {**LLAVA, "_name_or_path": str(tiny_world.llama)})
    projector = drawn(M3(WIDTH, TEXT))
    named = {f"model.mm_projector.{key}": part for key, part in projector.state_dict().items()}
    save_file(named, folder / "mm_projector.safetensors")
    pixels = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(5))
    every = tokens_of(folder, tmp_path / "mlp", Wish(), pixels)
    tower = CLIPVisionModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        patches = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(every, projector(patches), rtol=1e-5, atol=1e-6)
    pooled = tokens_of(folder, tmp_path / "m3", Wish("m3", 4), pixels)
    with torch.no_grad():
        torch.testing.assert_close(pooled, projector.pooled(patches, 4), rtol=1e-5, atol=1e-6)
    save_file(
        {**named, "model.mm_projector.0.bias": torch.zeros(3)}, folder / "mm_projector.safetensors"
    )
    with pytest.raises(
        InputError, match=r"mm_projector\.safetensors: .*0\.bias \[3\] instead of \[48"
    ):
        import_run(str(folder), tmp_path / "no")
    with pytest.raises(InputError, match=r"--llm-name: .* has its own name"):
        import_run(str(folder), tmp_path / "no", llm_name="vicuna-7b-v1.5")
    assert not (tmp_path / "no").exists()


def test_a_projector_alone_that_no_run_can_be_made_of(encoder, tiny_world, tmp_path):
    """Numbers that are none, an LLM without a chat template, a wish of QueCC's alone."""
    folder, run = tmp_path / "stage-1", tmp_path / "run"
    folder.mkdir()
    shutil.copy(tiny_world.llama / "config.json", folder)
    write_config(folder, encoder, LLAVA)
    named = {f"model.mm_projector.{k}": v for k, v in drawn(M3(WIDTH, TEXT)).state_dict().items()}
    save_file(named, folder / "mm_projector.safetensors")
    dumb = {}
    for name in ("qwen", "llama"):
        dumb[name] = shutil.copytree(getattr(tiny_world, name), tmp_path / name)
        (dumb[name] / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"qwen: its tokenizer has no chat template; give one wi"):
        import_run(str(folder), run, llm=str(dumb["qwen"]))
    with pytest.raises(InputError, match="this checkpoint's projector reads none, leave the optio"):
        import_run(str(folder), run, llm=str(dumb["llama"]), wish=Wish(reference=True))
    assert not run.exists()
    wide = shutil.copytree(tiny_world.llama, tmp_path / "wide")
    config = LlamaConfig.from_pretrained(wide, hidden_size=96, head_dim=24)
    LlamaForCausalLM(config).save_pretrained(wide)
    fault = r"does not fit encoder clip-24 and llm .*wide; .*: 0\.weight \[48, 32\] instead of \[96"
    with pytest.raises(InputError, match=fault):
        import_run(str(folder), run, llm=str(wide))
    assert not run.exists()
    import_run(str(folder), run, llm=str(dumb["llama"]))
    assert "USER: " in load_run(run).processor.tokenizer.chat_template
    named["model.mm_projector.0.weight"][3, 5] = float("nan")
    save_file(named, folder / "mm_projector.safetensors")
    with pytest.raises(
        InputError, match=r"mm_projector\.safetensors: model\.mm_projector\.0\.weight"
    ):
        import_run(str(folder), tmp_path / "again", llm=str(tiny_world.llama))
    assert not (tmp_path / "again").exists()


def tokens_of(folder: Path, run: Path, wish: Wish, pixels: Tensor) -> Tensor:
    """The visual tokens of an imported run."""
    import_run(str(folder), run, wish=wish)
    core = load_run(run).model.model
    with torch.no_grad():
        return core.compress(core.encode(pixels))
