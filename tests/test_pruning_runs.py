"""Finished runs whose LLM drops visual tokens: eval, ask, what tables say, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TinyWorld
from shell import vtc

from vtc.commands.compressors import compressors
from vtc.commands.deploying import _compressor_of, _supported
from vtc.commands.train_projector import train_projector
from vtc.compress.choices import refuse_pruning
from vtc.cost.inference import Service
from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.evaluate.vllm_engine.check import refuse_pruning as refuse_vllm
from vtc.law.points import read_points, without_repeated
from vtc.model.assemble import assemble
from vtc.model.export import to_hf_llava
from vtc.model.generation import generate_answers
from vtc.model.importing import import_run
from vtc.model.refit import Refit, dropped, refitted
from vtc.model.run import load_run, read_manifest, save_run
from vtc.recommend.models import of_families
from vtc.tables.read import read_rows


@pytest.fixture(scope="module")
def runs(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An mlp run on its backbones, and the same as an imported llava-hf model."""
    root = tmp_path_factory.mktemp("pruned")
    built = assemble(tiny_world.encoder, tiny_world.qwen, "mlp", seed=3)
    save_run(
        root / "part", built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    to_hf_llava(root / "part", root / "llava", dtype=torch.float32)
    import_run(str(root / "llava"), root / "imported")
    return {name: root / name for name in ("part", "imported")}


@pytest.mark.parametrize("name", ["fastv", "pyramiddrop"])
def test_a_finished_run_drops_tokens_as_a_model_put_together(tiny_world, runs, name):
    """Part or imported: the answers of a model with the same weights and schedule."""
    image = open_image(tiny_world.images, tiny_world.image_names[0])
    own = load_run(runs["part"])
    built = assemble(tiny_world.encoder, tiny_world.qwen, name, settings={"average": 20})
    built.model.compressor.load_state_dict(own.model.compressor.state_dict())
    text = "<image>\nWhat colour is the square on the left ?"
    expected = generate_answers(built.model.eval(), built.processor, [text], [image], 6)
    for run in runs.values():
        with refitted([run], Refit(name, (20,))) as (folder,):
            loaded = load_run(folder)
            manifest = loaded.manifest
            assert manifest["run_id"].endswith(f"+{name}-v20")
            assert manifest["visual_tokens"] == loaded.processor.visual_tokens == 36
            assert (manifest["visual_tokens_mean"], manifest["visual_tokens_kept"]) == (20, 4)
            assert "36 visual tokens enter the LLM, 4 reach its last" in (dropped(folder) or "")
            found = generate_answers(loaded.model, loaded.processor, [text], [image], 6)
            assert found == expected


def test_settings_and_shares_stay_with_the_run(runs):
    with refitted([runs["part"]], Refit("fastv", (None,), {"ratio": 0.25})) as (folder,):
        manifest = read_manifest(folder)
        assert manifest["run_id"].endswith("+fastv-ratio=0.25")
        assert (manifest["visual_tokens_mean"], manifest["visual_tokens_kept"]) == (22.5, 9)
        with refitted([folder], Refit("divprune", (9,))) as (other,):
            assert "visual_tokens_mean" not in read_manifest(other)


@pytest.mark.parametrize("name", ["fastv", "pyramiddrop"])
def test_where_nothing_is_left_it_says_so(runs, name):
    with refitted([runs["part"]], Refit(name, (18,))) as (folder,):
        assert read_manifest(folder)["visual_tokens_kept"] == 0
        assert dropped(folder) == (
            f"{name}: of an image 36 visual tokens enter the LLM, none is left behind layer 1: "
            "deeper ones see nothing of it but what the text took from it before; 18 a layer on "
            "average"
        )


def test_eval_says_in_columns_what_is_left(tiny_world, runs, tmp_path):
    rows = [{"id": n, "image": image, "question": "What colour is it ?", "answer": "red"}
            for n, image in enumerate(tiny_world.image_names)]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "exact_match"\n'
        f'max_new_tokens = 3\nimages = "{tiny_world.images}"\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    asked = ("eval", runs["part"], "--benchmark", tmp_path / "b.toml", "--compressor", "fastv")
    done = vtc(*asked, "--visual-tokens", "19,36", "-o", tmp_path / "p.parquet",
               "--scores", tmp_path / "s.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "36 visual tokens enter the LLM, 2 reach its last layer; 19 a layer" in done.stderr
    scores = read_rows(tmp_path / "s.parquet").rows
    assert [row["visual_tokens"] for row in scores] == [36, 36]
    assert [row["visual_tokens_mean"] for row in scores] == [19, 36]
    assert [row["visual_tokens_kept"] for row in scores] == [2, 36]
    assert [row["visual_tokens_trained"] for row in scores] == [False, True]
    assert "2 of 2 rows are left out: their visual tokens are dropped" in str(
        without_repeated(scores)
    )
    with pytest.raises(InputError, match="has 0 points"):
        read_points(scores, "scores")
    # A dry run counts each layer at its own length.
    said = [vtc(*asked, "--visual-tokens", v, "--dry-run").stdout for v in ("19", "36")]
    assert "(a layer 19.0 on average)" in said[0]
    prefills = [text.split("MFLOP (")[1].split(" ")[0] for text in said]
    assert float(prefills[0]) < 0.7 * float(prefills[1])
    for more, says in (
        (("--visual-tokens", "17"), "the first 1 of 2 layers have all 36; choose from 18 to 36"),
        (("--visual-tokens", "20", "--compressor-setting", "ratio=0.5"), "give one"),
        (("--visual-tokens", "20", "--compressor-setting", "average=19"), "is --visual-tokens"),
        (
            ("--compressor-setting", "layer=1"),
            "a layer has on average, with --visual-tokens, or which share stays",
        ),
        (("--visual-tokens", "20", "--repeat-visual-tokens", "2"), "are there once"),
    ):
        done = vtc(*asked, *more)
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_what_does_not_drop_tokens_says_so():
    for what in (" and is not trained", ", which 'vtc profile' does not time"):
        with pytest.raises(InputError, match=f"layers of the LLM{what}; give it to a finished"):
            refuse_pruning(["mlp", "pyramiddrop"], what)
    models = ["--encoder", "openai/clip-vit-large-patch14-336", "--llm", "any/llm"]
    wish = ["--compressor", "fastv", "--visual-tokens", "72", "-o", "runs"]
    done = CliRunner().invoke(train_projector, ["none.json", *models, *wish])
    assert "and is not trained; give it to a finished mlp run" in str(done.exception)
    refuse_pruning(["mlp", "visionzip"], "")
    with pytest.raises(InputError, match="vLLM's layers cannot drop visual tokens, as fastv does"):
        refuse_vllm({"compressor": "fastv"}, Path("run"))
    refuse_vllm({"compressor": "divprune"}, Path("run"))
    done = CliRunner().invoke(compressors, ["fastv", "--visual-tokens", "40"])
    assert isinstance(done.exception, InputError)
    assert "the first 2 of 24 layers have all 576; choose from 48 to 576" in str(done.exception)


def test_recommend_costs_every_llm_at_its_own_layers():
    """V is what all of the LLMs can have; a deep LLM and a shallow one have other stages."""
    from vtc.catalog import encoders
    from vtc.cost.inference import work

    clip, models = encoders.shape("openai/clip-vit-large-patch14-336"), of_families(("qwen1.5",))
    supported = _supported("fastv", clip, models)
    assert (supported[0], supported[-1]) == (48, 576)
    cost_of = _compressor_of("fastv", clip)
    for llm in models:
        shape = llm.shape
        assert shape is not None
        cost = cost_of(shape, (64, 576))
        assert cost.dropping is not None
        (full, entering), (deep, kept) = cost.dropping.stages
        assert (full, full + deep) == (2, shape.n_layers)
        assert entering.tolist() == [576, 576]
        assert kept.tolist() == [(64 * shape.n_layers - 2 * 576) // deep, 576]
        works = work(shape, clip, cost, torch.tensor([64.0, 576.0]).numpy(), Service(50))
        plain = 2 * shape.n_matmul * (50 + 64) + 2 * shape.n_head
        # But for attention, and a token that may be missing, an average's FLOPs are V's own.
        assert 0.97 * plain < works["prefill"].flops[0] < 1.15 * plain
