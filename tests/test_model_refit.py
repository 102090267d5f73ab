"""Finished mlp runs with a training-free compressor: the same weights, no training, any V."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from conftest import TinyWorld
from train_runs import STAGE_1, about, same_run, silent, stage_1, stage_2
from train_samples import read

from vtc.compress.choices import KNOWN, training_free
from vtc.compress.serving import trained_of
from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.evaluate import runner
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.items import read_items
from vtc.model.assemble import assemble
from vtc.model.export import merge, to_hf_llava
from vtc.model.importing import import_run
from vtc.model.refit import Refit, refitted
from vtc.model.run import load_run, read_manifest, save_run
from vtc.train.inputs import Inputs
from vtc.train.jobs import ProjectorJob
from vtc.train.projector import train_projectors


@pytest.fixture(scope="module")
def runs(tiny_world: TinyWorld, tmp_path_factory) -> dict[str, Path]:
    """An mlp run on its backbones, the same whole, and the same as an imported llava-hf model."""
    root = tmp_path_factory.mktemp("refit")
    built = assemble(tiny_world.encoder, tiny_world.llama, "mlp", seed=3)
    for name, weights in (("part", "compressor"), ("whole", "full")):
        save_run(
            root / name, built.model, built.processor, encoder=built.encoder, llm=built.llm,
            stage="projector", weights=weights, seed=3,
        )  # fmt: skip
    to_hf_llava(root / "part", root / "llava", dtype=torch.float32)
    import_run(str(root / "llava"), root / "imported")
    return {name: root / name for name in ("part", "whole", "imported")}


def logits(model, processor, image) -> torch.Tensor:
    tokens = [processor.image_token_id] * processor.visual_tokens
    ids = torch.tensor([[7, *tokens, 9, 11, 12]])
    pixels = processor.image_processor([image], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


BEFORE = [name for name in training_free() if KNOWN[name].schedule is None]


@pytest.mark.parametrize("name", BEFORE)
def test_it_is_the_runs_own_model_with_other_tokens(tiny_world, runs, name):
    """The same logits of a part, a whole and an imported run, and of a model put together."""
    image = open_image(tiny_world.images, tiny_world.image_names[0])
    own = load_run(runs["part"])
    built = assemble(tiny_world.encoder, tiny_world.llama, name, 7)
    built.model.compressor.load_state_dict(own.model.compressor.state_dict())
    expected = logits(built.model, built.processor, image)
    for run in runs.values():
        with refitted([run], Refit(name, (7,))) as (folder,):
            loaded = load_run(folder)
            assert loaded.manifest["run_id"].endswith(f"+{name}-v7")
            assert loaded.manifest["parent"] == read_manifest(run)["run_id"]
            assert loaded.model.compressor.visual_tokens == loaded.processor.visual_tokens == 7
            assert torch.equal(logits(loaded.model, loaded.processor, image), expected)
        assert not folder.exists()
    assert not torch.allclose(logits(own.model, own.processor, image)[:, -1], expected[:, -1])


@pytest.mark.parametrize("name", training_free())
def test_every_patch_kept_is_llava_or_not_trained(tiny_world, runs, name):
    """Where a token a patch gives the run as it was, and there alone, it counts as trained so."""
    image = open_image(tiny_world.images, tiny_world.image_names[1])
    own = load_run(runs["whole"])
    expected = logits(own.model, own.processor, image)
    with refitted([runs["whole"]], Refit(name, (36,))) as (folder,):
        loaded = load_run(folder)
        found = logits(loaded.model, loaded.processor, image)
        same = torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert same == (36 in trained_of(loaded.manifest)) == KNOWN[name].mlp_at_every_patch
        with refitted([folder], Refit("divprune", (36,))) as (again,):
            assert trained_of(read_manifest(again)) == (36,)
    elsewhere = (Refit(name, (36,), {"level": 1}), Refit(name, (20,)))
    for refit in elsewhere:
        with refitted([runs["whole"]], refit) as (folder,):
            assert trained_of(read_manifest(folder)) == ()
    with refitted([runs["whole"]], Refit(name, (36,), {"level": 3})) as (folder,):
        levels = load_run(folder).model.compressor.request.levels
        assert (trained_of(read_manifest(folder)) == (36,)) == (same and 3 in levels)


def test_a_run_of_a_training_free_compressor_was_trained_on_its_own_tokens(tiny_world, tmp_path):
    one = assemble(tiny_world.encoder, tiny_world.llama, "prumerge", 9)
    save_run(
        tmp_path / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    for refit, trained in (
        (Refit("prumerge", (9,)), (9,)),
        (Refit("prumerge", (9,), {"level": -2}), (9,)),
        (Refit("prumerge", (9,), {"normalise": True}), ()),
        (Refit("prumerge", (4,)), ()),
        (Refit("prumerge+", (9,)), ()),
        (Refit("divprune", (36,)), ()),
    ):
        with refitted([tmp_path / "run"], refit) as (folder,):
            assert trained_of(read_manifest(folder)) == trained, refit


def test_settings_stay_with_the_run(runs):
    settings = {"contextual": 3, "reference_behaviour": True}
    with refitted([runs["part"]], Refit("visionzip", (9, 4), settings)) as folders:
        ids = [read_manifest(folder)["run_id"] for folder in folders]
        assert ids[0].endswith("+visionzip-v9-contextual=3,reference_behaviour=true")
        assert len(set(ids)) == 2
        compressor = load_run(folders[0]).model.compressor
        assert (compressor.contextual, compressor.reference_behaviour) == (3, True)


def test_refusals_name_the_run(tiny_world, runs, tmp_path):
    built = assemble(tiny_world.siglip, tiny_world.qwen, "mlp")
    other = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4)
    for folder, one in (("siglip", built), ("packer", other)):
        save_run(
            tmp_path / folder, one.model, one.processor, encoder=one.encoder, llm=one.llm,
            stage="projector", weights="compressor", seed=0,
        )  # fmt: skip
    for run, refit, words in (
        (tmp_path / "siglip", Refit("prumerge", (4,)), "siglip: prumerge chooses patches by the"),
        (tmp_path / "packer", Refit("tome", (4,)), "tokenpacker has no projector of single"),
        (runs["part"], Refit("visionzip", (37,)), "part: visionzip cannot make 37 visual"),
        (runs["part"], Refit("mqt", (4,)), "a finished run can be given visionzip, prumerge"),
        (runs["part"], Refit("nope", (4,)), "no compressor is named 'nope'"),
    ):
        with pytest.raises(InputError, match=words), refitted([run], refit):
            pass
    with refitted([tmp_path / "siglip"], Refit("tome", (4,))) as (folder,):
        assert load_run(folder).model.compressor.visual_tokens == 4


def exam_of(world: TinyWorld, folder: Path) -> runner.Exam:
    rows = [
        {"id": n, "image": image, "question": "What colour is the square ?", "answer": "red"}
        for n, image in enumerate([*world.image_names, world.image_names[0]])
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "exact_match"\n'
        f'max_new_tokens = 4\nimages = "{world.images}"\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    benchmark = read_benchmark(folder / "b.toml")
    return runner.Exam.of(benchmark, read_items(benchmark))


@contextlib.contextmanager
def quiet(what: str, total: int):
    yield lambda n: None


def test_eval_encodes_once_for_several_v_and_batches_change_nothing(
    tiny_world, runs, tmp_path, monkeypatch
):
    exam, passes = exam_of(tiny_world, tmp_path), []
    encode = runner.vision.encode_states

    def counted(tower, pixels, levels, grid, tokens):
        passes.append((len(pixels), tuple(levels), tokens))
        return encode(tower, pixels, levels, grid, tokens)

    monkeypatch.setattr(runner.vision, "encode_states", counted)
    wanted = [runs["part"]]
    with contextlib.ExitStack() as stack:
        for name in ("visionzip", "prumerge+", "divprune"):
            wanted += stack.enter_context(refitted([runs["part"]], Refit(name, (4, 9))))
        found = {}
        for batch in (1, 5):
            passes.clear()
            rows = runner.evaluate(wanted, [exam], runner.settings(batch, "fp32", "cpu"), quiet)
            found[batch] = [(row["run_id"], row["item_id"], row["prediction"]) for row in rows]
            assert sum(count for count, *_ in passes) == len(tiny_world.image_names)
            assert {levels for _, levels, _ in passes} == {(2, 3)}
        assert found[1] == found[5]
        assert {(row["compressor"], row["visual_tokens"]) for row in rows} == {
            ("mlp", 36), *((n, v) for n in ("visionzip", "prumerge+", "divprune") for v in (4, 9))
        }  # fmt: skip
        for folder in wanted:
            own = read_manifest(folder)["run_id"]
            alone = runner.evaluate([folder], [exam], runner.settings(3, "fp32", "cpu"), quiet)
            assert [(own, row["item_id"], row["prediction"]) for row in alone] == [
                row for row in found[1] if row[0] == own
            ]


@pytest.mark.parametrize("name", ["visionzip", "tome"])
def test_a_training_of_its_own(tiny_world, tmp_path, name):
    """Both stages with LoRA, saved, loaded, exported whole, and shown at another V."""
    samples = read(tmp_path, tiny_world)
    (run,) = stage_1(tiny_world, samples, tmp_path / "one", compressor=name)
    manifest = read_manifest(run)
    assert (manifest["compressor"], manifest["visual_tokens"]) == (name, 4)
    (lora,) = stage_2(run, samples, tmp_path / "lora", "lora")
    image = open_image(tiny_world.images, tiny_world.image_names[0])
    loaded = load_run(lora)
    expected = logits(loaded.model, loaded.processor, image)
    merge(lora, tmp_path / "merged", dtype=torch.float32)
    whole = load_run(tmp_path / "merged")
    torch.testing.assert_close(logits(whole.model, whole.processor, image), expected)
    # One trained at V = 4 shows images at another V as well; LoRA comes along.
    with refitted([lora], Refit(name, (9,))) as (folder,):
        other = load_run(folder)
        assert logits(other.model, other.processor, image).shape[1] == 13


def test_lora_on_a_whole_run_takes_the_compressor_that_is_asked(tiny_world, runs, tmp_path):
    samples = read(tmp_path, tiny_world)
    (lora,) = stage_2(runs["whole"], samples, tmp_path, "lora")
    image = open_image(tiny_world.images, tiny_world.image_names[0])
    with refitted([lora], Refit("divprune", (36,))) as (folder,):
        loaded = load_run(folder)
    own = load_run(lora)
    expected = logits(own.model, own.processor, image)
    found = logits(loaded.model, loaded.processor, image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with refitted([lora], Refit("visionzip", (5,))) as (folder,):
        loaded = load_run(folder)
        assert loaded.processor.visual_tokens == loaded.model.compressor.visual_tokens == 5
        assert logits(loaded.model, loaded.processor, image).shape[1] == 9


def test_side_by_side_each_ends_as_alone(tiny_world, tmp_path, monkeypatch):
    """With and without features in memory, beside others that read other tokens of the encoder."""
    from vtc.train import inputs

    samples = read(tmp_path, tiny_world)
    names = ("visionzip", "tome")
    for limit, label in ((1 << 30, "memory"), (0, "pixels")):
        monkeypatch.setattr(inputs, "MEMORY_LIMIT", limit)
        for name in names:
            stage_1(tiny_world, samples, tmp_path / label / "alone", compressor=name)
        job = ProjectorJob(
            str(tiny_world.encoder), str(tiny_world.qwen), names, (4,), tmp_path / label
        )
        told: list[str] = []
        own = Inputs(samples, STAGE_1, say=told.append)
        train_projectors(job, own, footer=about(STAGE_1), say=silent)
        # Each pass says what it is of.
        passes = [line for line in told if line.startswith("encoding 6 images once: ")]
        words = ("the class token and the patches, 2 states", "patches merged to 4, 1 state of the")
        for part in words if limit else ():
            assert sum(part in line for line in passes) == 1, told
        assert len(passes) == (2 if limit else 0)
        for name in names:
            same_run(tmp_path / label / f"{name}-v4", tmp_path / label / "alone" / f"{name}-v4")
    for name in names:
        same_run(tmp_path / "memory" / f"{name}-v4", tmp_path / "pixels" / f"{name}-v4")
