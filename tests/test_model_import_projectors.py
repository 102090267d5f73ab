"""Whole checkpoints of TokenPacker, QueCC, MQT and M3, and projectors alone, as runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import IMAGE_SIZE, TinyWorld
from published_checkpoints import (
    KINDS,
    LLAVA,
    QUESTION,
    TEXT,
    WIDTH,
    checkpoints,
    deep_encoder,
    tokens_by_hand,
    write_config,
)
from published_projectors import M3, drawn
from safetensors.torch import load_file, save_file
from shell import vtc
from torch import Tensor
from transformers import CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from vtc.commands.evaluate import warn_untrained
from vtc.errors import InputError
from vtc.model.importing import import_run
from vtc.model.original_projector import Wish, load_projector
from vtc.model.run import load_run, read_manifest


@pytest.fixture(scope="module")
def encoder(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    return deep_encoder(tiny_world, tmp_path_factory.mktemp("deep") / "clip-24")


@pytest.fixture(scope="module")
def folders(tiny_world: TinyWorld, encoder: Path, tmp_path_factory) -> dict[str, Path]:
    return checkpoints(tiny_world, encoder, tmp_path_factory.mktemp("published"))


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


def test_one_checkpoint_at_other_v(folders, encoder, tiny_world, tmp_path, capsys):
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
    for name, trained in (
        ("mqt", [*range(2, 37, 2)]),
        ("m3", [1, 9, 36]),
        ("tokenpacker", [4]),
    ):
        assert read_manifest(tmp_path / name)["trained_visual_tokens"] == trained
        warn_untrained([tmp_path / name], ())
        warned = f"run {tmp_path / name} was trained at V = " in capsys.readouterr().err
        assert warned == (name != "m3")  # Of m3's V = 1 is one.
    with pytest.raises(InputError, match=r"quecc: weights .* of another shape: 0\.q_downsample"):
        import_run(str(folders["quecc"]), tmp_path / "no", wish=Wish(visual_tokens=4))
    with pytest.raises(InputError, match=r"tokenpacker cannot make 5 .*choose from 1, 4, 9, 36"):
        import_run(str(folders["tokenpacker"]), tmp_path / "no", wish=Wish(visual_tokens=5))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("name", "field", "value", "trained"),
    [
        ("tokenpacker", "scale_factor", None, (9,)),
        ("mqt", "num_visual_tokens", None, tuple(range(2, 37, 2))),
        ("mqt", "num_visual_tokens", "first_stage", (36,)),
        ("mqt", "num_visual_tokens", 16, (16,)),
        ("m3", "matryoshka_vis_token_scale", None, (36,)),
        ("m3", "matryoshka_vis_token_scale", "9", (9,)),
    ],
)
@pytest.mark.parametrize("tokens", [None, 1])
def test_what_a_checkpoint_was_trained_at(name, field, value, trained, tokens):
    """As its config says, else as the release does; whatever V is asked of it."""
    kind = KINDS[name]
    config = {**kind.config, field: value}
    config = {key: value for key, value in config.items() if value is not None}
    state = {kind.prefix + key: weight for key, weight in drawn(kind.make()).state_dict().items()}
    wish = Wish(visual_tokens=tokens, compressor=name)
    found = load_projector(name, state, config, grid=(6, 6), depth=24, wish=wish)
    assert found.trained == trained
    own = {"tokenpacker": 9}.get(name, 36)
    assert found.compressor.visual_tokens == (tokens or own)


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
    with pytest.raises(InputError, match="tokenpacker reads hidden states 12, 16, 22 and 23 of it"):
        import_run(str(folders["tokenpacker"]), tmp_path / "run", encoder=str(tiny_world.encoder))


@pytest.mark.parametrize(
    ("name", "config", "wish", "fault"),
    [
        (
            "tokenpacker",
            {"scale_factor": 4},
            {},
            "scale_factor is 4, not a number that div",
        ),
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
