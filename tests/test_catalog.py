"""The shipped facts: every row has a source, and the shipped laws are what a refit gives."""

import csv
import json

import pytest

from vtc.catalog import encoders, gpus, laws, llms
from vtc.catalog.measurements import PUBLISHED
from vtc.catalog.shapes import llm_from_config
from vtc.errors import InputError
from vtc.law.run import Request, fit_table
from vtc.tables import specs
from vtc.tables.read import read_rows


def test_every_llm_has_its_sizes_and_source():
    every = llms.catalog()
    assert len({llm.model for llm in every}) == len(every) == 34
    for llm in every:
        assert llm.source
        assert llm.n_params_nonembedding < llm.n_params_total
        # The nominal count is a name: it may be off by a quarter, not by a factor.
        assert 0.75 < llm.n_params_total / llm.n_params < 1.27
    assert "qwen1.5" in llms.families()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("qwen1.5-0.5b-chat", "Qwen1.5-0.5B"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B"),
        ("/models/vicuna-7b-v1.5/", "Vicuna-7B-v1.5"),
        ("google/gemma-3-4b-it", "Gemma-3-4B"),
    ],
)
def test_names_are_found(name, model):
    assert llms.find(name).model == model


def test_unknown_names_are_not_found():
    assert llms.find("my-llm") is None
    with pytest.raises(InputError, match="--family x is unknown"):
        llms.family("x")


def test_every_shape_adds_up_to_its_parameters():
    for llm in llms.catalog():
        shape = llm.shape
        assert shape.n_params == llm.n_params_total
        assert shape.n_params - shape.n_embedding == llm.n_params_nonembedding
        # Norms and biases: a few thousand a layer.
        assert 0 < shape.n_vectors / shape.n_layers < 2e5
        assert shape.n_heads % shape.n_kv_heads == 0


def test_a_config_folder_is_as_good_as_a_name(tmp_path):
    config = {
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "hidden_act": "silu",
        "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
        "vocab_size": 151936, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert llms.shape(tmp_path) == llms.shape("Qwen/Qwen2.5-0.5B-Instruct")
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 1024, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 4096, "image_size": 336, "patch_size": 14,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": vision}))
    found, known = encoders.shape(tmp_path), encoders.shape("clip-vit-large-patch14-336")
    assert (found.grid, found.n_tokens) == (known.grid, known.n_tokens) == ((24, 24), 577)
    assert found.n_params == pytest.approx(known.n_params, rel=1e-4)
    (tmp_path / "config.json").write_text(json.dumps({**vision, "image_size": [336, 224]}))
    with pytest.raises(
        InputError, match=r"has image_size \[336, 224\] .* clip_vision_model encoders take square"
    ):
        encoders.shape(tmp_path)


def test_an_encoder_may_see_rectangles(tmp_path):
    vision = {
        "model_type": "vit", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 64, "image_size": [32, 96], "patch_size": [8, 16],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(vision))
    found = encoders.shape(tmp_path)
    assert (found.grid, found.n_patches, found.n_tokens) == ((4, 6), 24, 25)
    assert (found.image_values, found.patch_values) == (3 * 32 * 96, 3 * 8 * 16)
    assert not found.mergeable
    (tmp_path / "config.json").write_text(json.dumps({**vision, "image_size": [32, 32, 3]}))
    with pytest.raises(InputError, match=r"image_size \[32, 32, 3\]; need height and width"):
        encoders.shape(tmp_path)
    square = {**vision, "image_size": [32, 32], "patch_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(square))
    assert encoders.shape(tmp_path).image_size == 32


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_act": "gelu"}, "feed-forward layers with gelu"),
        ({"hidden_act": "silu", "num_experts": 8}, "mixture of experts"),
        ({"hidden_act": "silu"}, "states no hidden_size"),
    ],
)
def test_a_config_of_unknown_costs_is_refused(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        llms.shape(tmp_path)


def test_unknown_shapes_name_the_choices(tmp_path):
    with pytest.raises(InputError, match=r"llm x/y is neither .* Qwen1.5-0.5B"):
        llms.shape("x/y")
    with pytest.raises(InputError, match=r"encoder vit is neither .*clip-vit-large-patch14-336"):
        encoders.shape("vit")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        llms.shape(tmp_path)


def test_every_encoder_and_gpu_has_its_source():
    folder = llms.__file__.rsplit("/", 1)[0]
    for name in ("encoders", "gpus"):
        with open(f"{folder}/{name}.csv") as file:
            assert all(row["source"] for row in csv.DictReader(file))
    assert [shape.n_patches for shape in encoders.catalog().values()] == [
        576, 256, 196, 729, 576, 576, 576,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("rtx4090", "rtx4090"),
        ("RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_gpus_are_found_by_label_and_by_driver_name(name, gpu):
    assert gpus.find(name).gpu == gpu


def test_gpus_are_as_large_as_their_label_says():
    assert 23e9 < gpus.find("rtx4090").usable_bytes < 25.8e9
    assert len({gpu.gpu for gpu in gpus.catalog()}) == len(gpus.catalog())
    with pytest.raises(InputError, match="--gpu tpu is unknown; choose from rtx3090"):
        gpus.find("tpu")


OWN = {
    "llms": "model,family,n_params,n_layers,hidden_size,n_heads,n_kv_heads,head_dim,"
    "intermediate_size,vocab_size,tied,source\nMini-1B,mini,1e9,12,1024,8,8,128,4096,32000,yes,me\n",
    "encoders": "encoder,n_layers,hidden_size,n_heads,intermediate_size,image_size,patch_size,"
    "class_token,source\nme/vit,24,1024,16,4096,336,14,yes,me\n",
    "gpus": "gpu,name,memory_gb,bandwidth_gb_s,bf16_tflops,compute_efficiency,source\n"
    "b200,NVIDIA B200,180,8000,2250,.7,me\n",
}


@pytest.fixture
def own_catalog(tmp_path, monkeypatch):
    for name, text in OWN.items():
        (tmp_path / f"{name}.csv").write_text(text)
    monkeypatch.setenv("VTC_CATALOG", str(tmp_path))
    cached = (llms.catalog, llms._by_key, encoders.catalog, encoders.entries, gpus.catalog)
    for function in cached:
        function.cache_clear()
    yield tmp_path
    for function in cached:
        function.cache_clear()


def test_own_rows_stand_beside_the_shipped_ones(own_catalog):
    mini, known = llms.find("Mini-1B"), llms.find("Qwen1.5-0.5B")
    assert (mini.family, mini.n_params, mini.source) == ("mini", 10**9, "me")
    assert mini.n_params_total == mini.shape.n_params == 12 * 16 * 1024**2 + 32000 * 1024 + 0
    assert known is not None
    clip = encoders.catalog()["openai/clip-vit-large-patch14-336"]
    assert encoders.shape("me/vit").n_params == pytest.approx(clip.n_params, rel=1e-4)
    b200 = gpus.find("NVIDIA B200")
    assert (b200.bf16_flops, b200.compute_efficiency, b200.bandwidth_efficiency) == (
        2250e12, 0.7, 0.8,
    )  # fmt: skip
    assert len(gpus.catalog()) == 15


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",me\n", ",\n", "row 0: column 'source' is missing or empty"),
        ("b200,", "l4,", "row 0: 'l4' is in the catalog already"),
        ("8000", "fast", "bandwidth_gb_s is 'fast', no number above zero"),
        (",.7,", ",7,", "compute_efficiency is 7; it is a share"),
    ],
)
def test_faults_of_own_rows_are_named(own_catalog, old, new, message):
    (own_catalog / "gpus.csv").write_text(OWN["gpus"].replace(old, new))
    with pytest.raises(InputError, match=message):
        gpus.catalog()


def test_a_catalog_that_is_nowhere_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("VTC_CATALOG", str(tmp_path / "gone"))
    llms.catalog.cache_clear()
    with pytest.raises(InputError, match=r"VTC_CATALOG is .*gone, which is no folder"):
        llms.catalog()


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({"sliding_window": 512, "layer_types": ["sliding_attention"] * 5 + ["full"]}, (512, 5)),
        ({"sliding_window": 512, "sliding_window_pattern": 6}, (512, 10)),
        ({"sliding_window": 4096}, (4096, 12)),
        ({"sliding_window": 4096, "use_sliding_window": False}, (0, 0)),
        ({"sliding_window": None}, (0, 0)),
    ],
)
def test_windows_are_read_from_a_config(config, windows):
    sizes = {"hidden_size": 64, "num_hidden_layers": 12, "num_attention_heads": 4,
             "intermediate_size": 96, "vocab_size": 500, "hidden_act": "silu"}  # fmt: skip
    shape = llm_from_config({**sizes, **config}, "llm")
    assert (shape.window, shape.n_windowed) == windows


def test_published_measurements_carry_source_and_notes():
    rows = list(csv.DictReader(PUBLISHED.open()))
    assert len(rows) == 56
    assert all(row["source"] for row in rows)
    assert [row["task"] for row in rows if row["note"].startswith("suspect")] == ["ocr", "ocr"]


def test_the_published_law_is_what_a_refit_gives():
    shipped = read_rows(laws.path("published"), specs.LAW).rows
    refitted = fit_table(Request(str(PUBLISHED), drop_suspect=True))
    assert len(shipped) == len(refitted) == 2
    for old, (new, _) in zip(shipped, refitted, strict=True):
        compare(old, specs.LAW.complete(new))


@pytest.mark.parametrize(("task", "exponents"), [("reasoning", ".077/.015"), ("ocr", ".029/.048")])
def test_the_papers_law_is_what_a_refit_gives(task, exponents):
    shipped = {row["task"]: row for row in read_rows(laws.path("paper"), specs.LAW).rows}
    request = Request(str(PUBLISHED), (task,), exponents=exponents, drop_suspect=task == "ocr")
    [(new, _)] = fit_table(request)
    compare(shipped[task], specs.LAW.complete(new))


def compare(old, new):
    """Estimates to seven digits; draws, which a last bit may push over a bound, by their spread."""
    for name, value in new.items():
        if name.startswith("draw_"):
            assert len(old[name]) == len(value)
            same = sum(a == pytest.approx(b, rel=1e-3, abs=1e-6)
                       for a, b in zip(old[name], value, strict=True))  # fmt: skip
            assert same >= 0.97 * len(value)
        elif isinstance(value, float):
            assert old[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
        else:
            assert old[name] == value, name


def test_shipped_laws_are_strict_json():
    for name in laws.SHIPPED:
        for line in laws.path(name).read_text().splitlines():
            json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
