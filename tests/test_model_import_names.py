"""What original checkpoints are called and say: names behind wrappers, fields of config.json."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import IMAGE_SIZE, TinyWorld
from hypothesis import given
from hypothesis import strategies as st
from published_checkpoints import (
    KINDS,
    LLAVA,
    TEXT,
    WIDTH,
    checkpoints,
    deep_encoder,
    write_config,
)
from published_projectors import Mqt, drawn
from safetensors.torch import load_file, save_file

from vtc.errors import InputError
from vtc.model.importing import import_run
from vtc.model.original_config import check_fields, level_of, scale_of, scales_of
from vtc.model.original_names import Names
from vtc.model.run import load_run, read_manifest

WRAPPERS = ("module.", "base_model.model.", "_orig_mod.", "_fsdp_wrapped_module.", "model.")


@pytest.fixture(scope="module")
def encoder(tiny_world: TinyWorld, tmp_path_factory) -> Path:
    return deep_encoder(tiny_world, tmp_path_factory.mktemp("deep") / "clip-24")


@pytest.fixture(scope="module")
def folders(tiny_world: TinyWorld, encoder: Path, tmp_path_factory) -> dict[str, Path]:
    return checkpoints(tiny_world, encoder, tmp_path_factory.mktemp("published"))


def remade(source: Path, out: Path, outer: str = "", add: dict | None = None, **config) -> Path:
    """A copy of a checkpoint with other names, more tensors and other settings."""
    shutil.copytree(source, out)
    state = {}
    for file in out.glob("model-*.safetensors"):
        state |= load_file(file)
        file.unlink()
    state = {outer + key: tensor for key, tensor in {**state, **(add or {})}.items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    own = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**own, **config}))
    return out


@pytest.mark.parametrize(("name", "outer"), list(zip(KINDS, WRAPPERS, strict=False)))
def test_a_whole_checkpoint_behind_a_wrapper(folders, tmp_path, name, outer):
    """DDP's, PEFT's, FSDP's and torch.compile's names: the run is that of the plain checkpoint."""
    import_run(str(folders[name]), tmp_path / "plain")
    import_run(str(remade(folders[name], tmp_path / "wrapped", outer)), tmp_path / "run")
    plain, found = (load_file(tmp_path / run / "model.safetensors") for run in ("plain", "run"))
    assert found.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[key]) for key, tensor in found.items())


def test_llavas_own_behind_a_wrapper_and_what_it_lacks_is_named_so(folders, tmp_path):
    folder = remade(folders["m3"], tmp_path / "ddp", "module.", matryoshka_vis_token_scale=None)
    assert import_run(str(folder), tmp_path / "run")["compressor"] == "mlp"
    state = load_file(folder / "model.safetensors")
    state["module.model.mm_projector.4.bias"] = state.pop("module.model.norm.weight")
    state["module.model.mm_projector.0.bias"] = torch.zeros(3)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError) as fault:
        import_run(str(folder), tmp_path / "again")
    said = str(fault.value)
    assert "missing: module.model.norm.weight; of another shape" in said
    assert "shape: module.model.mm_projector.0.bias [3] instead of [48]; unknown" in said
    assert said.endswith("unknown: module.model.mm_projector.4.bias")


def test_one_tensor_under_two_names_is_refused(folders, tmp_path):
    twice = "model._orig_mod.norm.weight"
    folder = remade(folders["mqt"], tmp_path / "mqt", add={twice: torch.ones(TEXT)})
    with pytest.raises(InputError, match=r"norm\.weight and model\.\S*norm\.weight are the same"):
        import_run(str(folder), tmp_path / "run")


@given(st.sampled_from(["", *WRAPPERS, "module.model.", "foo_model."]), st.booleans())
def test_names_go_there_and_back(outer, mqt):
    place = "query_abstractor." if mqt else "mm_projector."
    names = Names(f"{outer}model.{place}")
    assert names.outer == outer
    for own in ("lm_head.weight", "model.language_model.layers.3.mlp.up_proj.weight",
                "model.vision_tower.encoder.layers.2.mlp.fc1.bias",
                "model.multi_modal_projector.linear_2.weight"):  # fmt: skip
        assert names.own(names.theirs(own)) == own
    assert (
        names.theirs("model.multi_modal_projector.linear_1.bias") == f"{outer}model.{place}0.bias"
    )


def test_a_newline_of_crops_is_left_out_and_said(folders, tmp_path):
    """image_newline of LLaVA-1.6's code, which no config without anyres makes use of."""
    said: list[str] = []
    newline = {"model.image_newline": torch.zeros(TEXT)}
    folder = remade(folders["tokenpacker"], tmp_path / "with", add=newline)
    import_run(str(folder), tmp_path / "run", say=said.append)
    [words] = said
    assert words.startswith(f"warning: {folder}: model.image_newline is left out; it is of images")
    anyres = remade(
        folders["tokenpacker"], tmp_path / "any", add=newline, image_aspect_ratio="anyres"
    )
    with pytest.raises(InputError, match="image_aspect_ratio is anyres, of LLaVA"):
        import_run(str(anyres), tmp_path / "no")


def test_a_projector_beside_mqts_queries_is_named_as_in_the_file(folders, tmp_path):
    left = {"model.mm_projector.0.weight": torch.zeros(TEXT, WIDTH)}
    folder = remade(folders["mqt"], tmp_path / "mqt", add=left)
    with pytest.raises(InputError, match=r"; unknown: model\.mm_projector\.0\.weight$"):
        import_run(str(folder), tmp_path / "run")


def test_an_mqt_of_another_number_of_queries(folders, tmp_path):
    """A grid of 4 x 4 of them on 6 x 6 patches: the run knows, its user need not."""
    queries = drawn(Mqt(WIDTH, TEXT, 4))
    own = {f"model.query_abstractor.{key}": part for key, part in queries.state_dict().items()}
    manifest = import_run(str(remade(folders["mqt"], tmp_path / "mqt", add=own)), tmp_path / "run")
    assert (manifest["visual_tokens"], manifest["trained_visual_tokens"][-1]) == (16, 16)
    model = load_run(tmp_path / "run").model
    assert model.config.compressor_settings == {"static_keys": True, "queries": 16}
    pixels = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        levels = model.model.encode(pixels)
        for count in (3, 16):
            found = model.model.compress(levels, visual_tokens=count)
            expected = queries(levels[:, 0], count)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def lora_folder(encoder: Path, world: TinyWorld, folder: Path, add: dict | None = None) -> Path:
    """What LLaVA's LoRA training leaves of the projector."""
    folder.mkdir()
    shutil.copy(world.llama / "config.json", folder)
    write_config(folder, encoder, {**LLAVA, "_name_or_path": str(world.llama)})
    weights = KINDS["m3"].make().state_dict()
    named = {f"base_model.model.model.mm_projector.{key}": part for key, part in weights.items()}
    torch.save({**named, **(add or {})}, folder / "non_lora_trainables.bin")
    return folder


def test_the_projector_of_a_training_with_lora(encoder, tiny_world, tmp_path):
    said: list[str] = []
    folder = lora_folder(encoder, tiny_world, tmp_path / "lora")
    import_run(str(folder), tmp_path / "run", allow_bin=True, say=said.append)
    assert read_manifest(tmp_path / "run")["compressor"] == "mlp"
    assert "non_lora_trainables.bin is of an LLM with LoRA weights" in said[0]
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"merge_lora_weights\.py, and import the folder that it"):
        import_run(str(folder), tmp_path / "no", allow_bin=True)
    trained = {"base_model.model.model.embed_tokens.weight": torch.zeros(4, TEXT)}
    more = lora_folder(encoder, tiny_world, tmp_path / "more", trained)
    with pytest.raises(InputError, match=r"holds more than a projector, such as base_model\.\S*em"):
        import_run(str(more), tmp_path / "no", allow_bin=True)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("scales", "trained"),
    [([1, 9, 36], [1, 9, 36]), ("1,9,36", [1, 9, 36]), (" 36, 9", [9, 36]), (36, [36]),
     ("36", [36]), (["1", 9], [1, 9]), (None, []), ([], []), ("", [])],
)  # fmt: skip
def test_m3s_scales_however_written(scales, trained):
    assert scales_of({"matryoshka_vis_token_scale": scales}) == trained


FAULTS = [
    *(({"matryoshka_vis_token_scale": bad}, "numbers of visual tokens, as")
      for bad in ("a,b", "1,,9", [0, 9], [-1], 1.5, True, {}, [[1]], [None])),
    *(({"mm_vision_select_layer": bad}, "a hidden state, as -2")
      for bad in (None, "last", [1], 1.0, True)),
    *(({name: bad}, "a text") for name in ("mm_vision_tower", "mm_projector_type", "model_type")
      for bad in (3, ["x"], {})),
]  # fmt: skip


@pytest.mark.parametrize(("config", "what"), FAULTS)
def test_fields_that_hold_what_they_cannot_are_named(config, what):
    [(name, value)] = config.items()
    with pytest.raises(InputError) as fault:
        check_fields(config)
    assert str(fault.value).startswith(f"config.json: {name} is {json.dumps(value)}, not {what}")


def test_levels_and_windows_that_an_encoder_has_not():
    assert [level_of({"mm_vision_select_layer": n}, 24) for n in (-25, "-1", 24)] == [-25, -1, 24]
    assert level_of({}, 24) == -2
    with pytest.raises(InputError, match="select_layer is 25, not a hidden state of an encoder of"):
        level_of({"mm_vision_select_layer": 25}, 24)
    assert (scale_of({"scale_factor": "3"}, (24, 24)), scale_of({}, (24, 24))) == (3, None)
    for bad in (5, 0, -2, None, "x", 2.0, [2]):
        with pytest.raises(InputError, match=r"scale_factor is .*, not a number that divides"):
            scale_of({"scale_factor": bad}, (24, 24))


def test_no_config_makes_a_traceback(folders, tmp_path):
    faults = [
        ("hidden_size", "wide"),
        ("num_attention_heads", None),
        ("scale_factor", None),
        ("matryoshka_vis_token_scale", "1,nine"),
    ]
    for number, (name, value) in enumerate(faults):
        folder = remade(folders["tokenpacker"], tmp_path / str(number), **{name: value})
        with pytest.raises(InputError, match=r"config\.json") as fault:
            import_run(str(folder), tmp_path / "run")
        assert "\n" not in str(fault.value)
    (tmp_path / "0" / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config\.json holds no object of settings"):
        import_run(str(tmp_path / "0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
