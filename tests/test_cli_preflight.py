"""What is told of models and folders before torch is loaded."""

import json
import shutil

import pytest
from test_rooms import HEAVY

from vtc.commands.preflight import check_features, check_model, check_parts, check_run
from vtc.compress.choices import CHOICES, KNOWN, POOLING, listed
from vtc.compress.elastic import Elastic
from vtc.compress.registry import COMPRESSORS
from vtc.errors import InputError


def test_the_light_choices_are_the_compressors_own():
    assert list(CHOICES) == list(COMPRESSORS)
    assert {name for name, kind in COMPRESSORS.items() if kind.pools} == set(POOLING)
    for name, kind in COMPRESSORS.items():
        known = KNOWN[name]
        flags = (known.pools, known.elastic, known.needs_query, known.needs_cls)
        assert flags == (kind.pools, kind.elastic, kind.needs_query, kind.needs_cls), name
        assert known.training_free is not kind.trained, name
        own = issubclass(kind, Elastic) and kind.published_turns is not Elastic.published_turns
        assert known.publishes_turns is own, name
    for grid in ((1, 1), (6, 6), (24, 24), (2, 3)):
        for name, kind in COMPRESSORS.items():
            assert CHOICES[name](grid) == kind.supported(grid)


def test_runs_of_numbers_are_said_in_short():
    assert listed([1, 4, 9, 36]) == "1, 4, 9, 36"
    assert listed([*range(1, 257), 300, 301]) == "1 to 256, 300, 301"
    assert listed([]) == ""


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"compressors": ("nope",)}, "no compressor is named 'nope'; choose from mlp, avgpool"),
        (
            {"compressors": ("avgpool", "mlp"), "visual_tokens": (4, 36)},
            "mlp cannot make 4 visual tokens of a 6x6 grid; choose from 36",
        ),
        ({"pool": 9}, "--pool 9: name the --compressor it is for"),
        ({"pool": 9, "compressors": ("tokenpacker",)}, "tokenpacker needs every patch"),
        ({"pool": 5, "compressors": ("avgpool",)}, "the grid has windows for 1, 4, 9, 36"),
        ({"llm": "/no/such/llm"}, "llm /no/such/llm: there is no such folder, nor is it a hub"),
        ({"llm": "a/b/c"}, "llm a/b/c: there is no such folder"),
    ],
)
def test_parts_that_cannot_be(tiny_world, more, fault):
    with pytest.raises(InputError, match=fault):
        check_parts(str(tiny_world.encoder), **more)


def test_patches_are_merged_in_layers_of_clips_build_alone(tmp_path):
    vit = {
        "model_type": "vit", "architectures": ["ViTModel"], "hidden_size": 32,
        "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
        "image_size": [32, 64], "patch_size": 8,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(vit))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    check_parts(str(tmp_path), None, ("mlp", "divprune"), (32,))
    with pytest.raises(InputError, match="tome merges tokens inside CLIP's and SigLIP's encoders"):
        check_parts(str(tmp_path), None, ("mlp", "tome"), (32,))
    with pytest.raises(InputError, match="avgpool needs a square grid of patches, this encoder's"):
        check_parts(str(tmp_path), None, ("avgpool",), (4,))


def test_parts_that_may_be_are_left_to_their_loaders(tiny_world):
    check_parts(str(tiny_world.encoder), str(tiny_world.qwen), ("avgpool",), (4, 9))
    # A V that no grid has: nothing is known of the grid of a model of the hub.
    check_parts("nobody/knows", "nobody/knows-either", ("avgpool",), (5,))
    with pytest.raises(InputError, match="of a 24x24 grid; choose from 1, 4"):
        check_parts("openai/clip-vit-large-patch14-336", None, ("avgpool",), (5,))


@pytest.mark.parametrize(
    ("kind", "name", "content", "fault"),
    [
        (
            "llm",
            "tokenizer.json",
            '{"version": "1.0", ',
            r"llm: .*tokenizer\.json is damaged or trunc",
        ),
        ("llm", "tokenizer.json", None, r"llm .* holds no tokenizer \(none of tokenizer\.json"),
        ("llm", "config.json", "[]", r"config\.json holds no JSON object; copy the file again"),
        ("llm", "config.json", None, "is no model folder: it has no config.json"),
        ("encoder", "config.json", '{"a"', r"encoder: .*config\.json is damaged or truncated"),
        ("encoder", "preprocessor_config.json", None, "holds no image processor .none of preproc"),
    ],
)
def test_a_model_folder_names_the_file_at_fault(tiny_world, tmp_path, kind, name, content, fault):
    from vtc.model.backbones import load_encoder, load_llm

    folder = tmp_path / "model"
    shutil.copytree(tiny_world.encoder if kind == "encoder" else tiny_world.qwen, folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    load = {"encoder": load_encoder, "llm": load_llm}[kind]
    for check in (lambda: check_model(str(folder), kind), lambda: load(folder)):
        with pytest.raises(InputError, match=fault):
            check()


@pytest.mark.parametrize("swap", ["encoder", "siglip", "llm"])
def test_an_encoder_is_no_llm_nor_an_llm_an_encoder(tiny_world, swap):
    from vtc.catalog import encoders, llms
    from vtc.model.backbones import load_encoder, load_llm

    if swap == "llm":
        given, kind, fault = tiny_world.qwen, "encoder", r"is an LLM \(model_type qwen2\), no"
        ways = (encoders.shape, load_encoder)
    else:
        given, kind = getattr(tiny_world, swap), "llm"
        fault = r"is a vision encoder \(model_type (clip|siglip)_vision_model\), no LLM; give"
        ways = (llms.shape, load_llm)
    for way in (lambda source: check_model(str(source), kind), *ways):
        with pytest.raises(InputError, match=f"{kind} .* {fault}"):
            way(given)
    check_model(str(tiny_world.clip_pair), "encoder")


def test_folders_that_are_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give the folder"):
        check_model(str(tmp_path / "file"), "llm")
    for check in (check_run, check_features):
        with pytest.raises(InputError, match=r"has no manifest\.json"):
            check(str(tmp_path))
    with pytest.raises(InputError, match="does not exist; make them with 'vtc encode'"):
        check_features(str(tmp_path / "f"))
    (tmp_path / "f.encoding").mkdir()
    with pytest.raises(InputError, match="end its encoding with 'vtc encode --resume'"):
        check_features(str(tmp_path / "f"))
    check_features(None)
    check_run("hf://org/name")


def test_refusals_load_nothing_heavy(tiny_world, tmp_path):
    import subprocess
    import sys

    (tmp_path / "s.json").write_text(json.dumps([]))
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(set(sys.modules) & set({list(HEAVY)!r})))\n"
        "from vtc.cli import run\nrun(sys.argv[1:])"
    )
    words = ("train-projector", "s.json", "--encoder", tiny_world.encoder, "--llm", tiny_world.qwen)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--visual-tokens", "5", "-o", "o"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "set()\n")
    assert done.stderr.startswith("Error: tokenpacker cannot make 5 visual tokens")
