"""Visual tokens fed k times: what enters the LLM, what is counted, and what is said of it."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_runs import STEPS, about, same_run, silent, stage_1
from train_samples import read

from vtc.commands.dry_run import models_of
from vtc.commands.eval_dry_run import cost, sittings_of
from vtc.commands.evaluate import warn_untrained
from vtc.commands.parts import parts_of, turns_of
from vtc.errors import InputError
from vtc.evaluate import runner
from vtc.evaluate.aggregate import aggregate
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.items import read_items
from vtc.law.points import read_points, without_repeated
from vtc.model.assemble import assemble
from vtc.model.export import to_hf_llava
from vtc.model.prompts import Asked, compressed
from vtc.model.refit import Refit, refitted
from vtc.model.repeating import repeat_at, repeated
from vtc.model.run import load_run, read_manifest
from vtc.train.checkpoints import Saving
from vtc.train.finetune import finetune_runs
from vtc.train.inputs import Inputs
from vtc.train.jobs import FinetuneJob, ProjectorJob
from vtc.train.projector import train_projectors
from vtc.train.settings import FINETUNE, PROJECTOR

QUICK = {**STEPS, "max_steps": 2, "log_every": 1}
V, K = 4, 3


@pytest.fixture(scope="module")
def samples(tiny_world, tmp_path_factory):
    return read(tmp_path_factory.mktemp("samples"), tiny_world)


def train(world, samples, out: Path, repeats: int | None, compressor="tokenpacker", v=V, **more):
    """A run of stage 1 whose tokens are repeated."""
    how = {name: more.pop(name) for name in ("resume", "force") if name in more}
    settings = PROJECTOR.with_(**QUICK, repeat_visual_tokens=repeats, **more)
    job = ProjectorJob(
        str(world.encoder), str(world.qwen), (compressor,), (v,), out, how.pop("force", False),
        repeats=repeats, saving=Saving(**how),
    )  # fmt: skip
    job.check_turns(settings)
    [run] = train_projectors(job, Inputs(samples, settings), footer=about(settings))
    return run


def finetune(run: Path, samples, out: Path, repeats: int | None = None, **more) -> Path:
    settings = FINETUNE.with_(**QUICK, repeat_visual_tokens=repeats, **more)
    job = FinetuneJob((run,), out, repeats=repeats, method=settings.method)
    [made] = finetune_runs(job, Inputs(samples, settings), footer=about(settings))
    return made


@pytest.fixture(scope="module")
def stage1(tiny_world, samples, tmp_path_factory) -> Path:
    return train(tiny_world, samples, tmp_path_factory.mktemp("stage1"), K)


@pytest.fixture(scope="module")
def stage2(stage1, samples, tmp_path_factory) -> Path:
    return finetune(stage1, samples, tmp_path_factory.mktemp("stage2"))


@pytest.fixture(scope="module")
def exam(tiny_world, tmp_path_factory) -> runner.Exam:
    folder = tmp_path_factory.mktemp("exam")
    asked = [
        {"id": n, "image": f"{n % 6}.png", "question": f"{n} ?", "answer": "red"} for n in range(8)
    ]
    (folder / "rows.json").write_text(json.dumps(asked))
    (folder / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "anls"\nmax_new_tokens = 3\n'
        f'images = "{tiny_world.images}"\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    benchmark = read_benchmark(folder / "b.toml")
    return runner.Exam.of(benchmark, read_items(benchmark))


def evaluate(run: Path, exam, **how) -> list[dict]:
    track = lambda what, total: contextlib.nullcontext(silent)  # noqa: E731
    return runner.evaluate([run], [exam], runner.Settings(batch_size=3, **how), track)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_the_whole_sequence_stands_k_times_in_a_row(v, times, images):
    tokens = torch.arange(images * v * 2).reshape(images, v, 2)
    fed = repeated(tokens, times)
    assert fed.shape == (images, v * times, 2)
    for place in range(v * times):
        assert torch.equal(fed[:, place], tokens[:, place % v])


@pytest.mark.parametrize("elastic", [False, True])
def test_the_llm_reads_them_as_if_they_were_so_many_tokens(tiny_world, elastic):
    one = assemble(tiny_world.encoder, tiny_world.qwen, "mqt" if elastic else "avgpool", V)
    model, processor = one.model, one.processor
    core: Any = model.model
    repeat_at(model, processor, K)
    assert processor.visual_tokens == model.config.image_seq_length == K * V
    levels = torch.rand(2, 1, 36, 32)
    image = processor.image_token_id
    asked: Any = {"visual_tokens": 1} if elastic else {}
    fed = K * (1 if elastic else V)
    ids = torch.tensor([[5, *[image] * fed, 7, 8]] * 2)
    got = model(input_ids=ids, vision_levels=levels, **asked).logits
    tokens = core.compress(levels, **asked)
    words = model.get_input_embeddings()(ids)
    by_hand = torch.cat([words[:, :1], *[tokens] * K, words[:, -2:]], dim=1)
    torch.testing.assert_close(got, model(inputs_embeds=by_hand).logits)
    new = model.generate(input_ids=ids, vision_levels=levels, max_new_tokens=3, **asked)
    assert new.shape[1] > ids.shape[1]
    if not elastic:
        [[shown], _] = compressed(
            model, processor, [Asked([], (levels[0],)), Asked([], (levels[1],))], 2
        )
        torch.testing.assert_close(shown, tokens[0].repeat(K, 1))


def test_less_than_once_is_refused(tiny_world):
    one = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", V)
    with pytest.raises(InputError, match="cannot be repeated 0 times"):
        repeat_at(one.model, one.processor, 0)


def test_once_is_what_there_was_before(tiny_world, samples, tmp_path):
    [plain] = stage_1(tiny_world, samples, tmp_path / "plain", PROJECTOR.with_(**QUICK))
    once = train(tiny_world, samples, tmp_path / "once", 1)
    assert once.name == plain.name == "tokenpacker-v4"
    same_run(plain, once)
    configs = [(run / "config.json").read_text() for run in (plain, once)]
    assert configs[0] == configs[1]
    # The hash in run_id is of the settings: they do not name what is not asked for.
    assert "repeat_visual_tokens" not in PROJECTOR.as_dict()


def test_a_run_says_it_and_comes_back_so(stage1, stage2):
    for run, name in ((stage1, "tokenpacker-v4x3"), (stage2, "tiny-qwen-tokenpacker-v4x3")):
        manifest = read_manifest(run)
        assert run.name == name
        assert "-v4x3-" in manifest["run_id"]
        assert (manifest["visual_tokens"], manifest["repeat_visual_tokens"]) == (V, K)
        loaded = load_run(run)
        assert loaded.model.config.repeat_visual_tokens == K
        assert loaded.processor.visual_tokens == K * V


def test_finetuning_may_repeat_otherwise_than_stage_1(stage1, samples, tmp_path):
    once = finetune(stage1, samples, tmp_path, 1)
    assert once.name == "tiny-qwen-tokenpacker-v4"
    assert load_run(once).processor.visual_tokens == V
    lora = finetune(stage1, samples, tmp_path / "lora", 2, method="lora")
    assert lora.name == "tiny-qwen-tokenpacker-v4x2"
    assert load_run(lora).processor.visual_tokens == 2 * V


def test_repeating_is_trained_for(tiny_world, samples, stage1, tmp_path):
    plain = train(tiny_world, samples, tmp_path, None)
    one, other = (load_run(run).model.compressor.state_dict() for run in (plain, stage1))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_an_elastic_training_repeats_each_v(tiny_world, samples, tmp_path):
    run = train(tiny_world, samples, tmp_path, 2, "mqt", train_visual_tokens=(1, 4))
    assert run.name == "mqt-v4x2"
    assert read_manifest(run)["trained_visual_tokens"] == [1, 4]


def test_resuming_a_finished_run_with_another_k_is_refused(tiny_world, samples, tmp_path):
    run = train(tiny_world, samples, tmp_path, 2)
    assert train(tiny_world, samples, tmp_path, 2, resume=True) == run
    run.rename(tmp_path / "tokenpacker-v4x3")
    with pytest.raises(InputError, match="repeat_visual_tokens = 2, not 3"):
        train(tiny_world, samples, tmp_path, 3, resume=True)


def test_align_feeds_no_llm(tiny_world, samples, tmp_path):
    with pytest.raises(InputError, match="give --repeat-visual-tokens to finetune"):
        train(tiny_world, samples, tmp_path, 2, objective="align")


def test_answers_count_what_enters_the_llm(stage2, exam):
    rows = evaluate(stage2, exam)
    assert {(r["visual_tokens"], r["visual_tokens_repeated"]) for r in rows} == {(K * V, K)}
    assert {row["visual_tokens_trained"] for row in rows} == {True}
    [score] = aggregate(rows)
    assert (score["visual_tokens"], score["visual_tokens_repeated"]) == (K * V, K)
    once = evaluate(stage2, exam, repeat_visual_tokens=1)
    assert {(r["visual_tokens"], r["visual_tokens_repeated"]) for r in once} == {(V, None)}
    assert {row["visual_tokens_trained"] for row in once} == {False}
    # V = 12 fed once would be another row of the same run.
    plain = [{**row, "visual_tokens_repeated": None} for row in rows]
    assert len(aggregate([*rows, *plain])) == 2


def test_evaluating_otherwise_than_trained_is_said_and_another_evaluation(stage2, exam, capsys):
    warn_untrained([stage2], (), K)
    assert capsys.readouterr().err == ""
    warn_untrained([stage2], (), 1)
    said = " ".join(capsys.readouterr().err.split())
    assert "was trained to be fed its visual tokens 3 times, not once" in said
    asked = [
        runner.identity([stage2], [exam], runner.Settings(repeat_visual_tokens=k))
        for k in (None, 1)
    ]
    assert asked[0] != asked[1]


def test_a_training_free_compressor_in_its_place_repeats_too(tiny_world, samples, exam, tmp_path):
    run = finetune(
        train(tiny_world, samples, tmp_path / "1", 2, "mlp", 36), samples, tmp_path / "2"
    )
    with pytest.raises(InputError, match="feeds its LLM each visual token 2 times"):
        to_hf_llava(run, tmp_path / "llava", dtype=torch.float32)
    with refitted([run], Refit("divprune", (4,))) as [folder]:
        rows = evaluate(folder, exam)
    assert {(r["visual_tokens"], r["visual_tokens_repeated"]) for r in rows} == {(8, 2)}


def test_costs_count_k_v_in_the_llm_and_v_in_the_compressor(stage1, stage2, exam):
    models = models_of(stage1)
    parts = parts_of(**models)
    once = parts_of(**{**models, "repeats": 1})
    assert (parts.visual_tokens, once.visual_tokens) == (K * V, V)
    assert parts.compressor == once.compressor
    assert models_of(stage1, 5)["repeats"] == 5
    elastic = turns_of({**models, "compressor": "mqt", "settings": None}, (1, 4))
    assert [each.visual_tokens for each in elastic["turns"]] == [K, K * V]
    of_k, of_1 = (
        cost(sittings_of(stage2, how)[0], exam, how)
        for how in (runner.Settings(), runner.Settings(repeat_visual_tokens=1))
    )
    assert (of_k.visual_tokens, of_1.visual_tokens) == (K * V, V)
    assert of_k.prefill > of_1.prefill
    assert of_k.compressor == of_1.compressor


@pytest.mark.parametrize("mark", [4, "4", 4.0])
def test_no_law_has_them_for_points(mark):
    rows = [
        {"n_params_b": n, "visual_tokens": v, "error": 0.5, "visual_tokens_repeated": k}
        for n in (1, 2, 4)
        for v, k in ((1, None), (4, ""), (16, 1), (4, mark))
    ]
    [points] = read_points(rows, "t")
    assert len(points.points) == 9
    said = without_repeated(rows)
    assert said is not None
    assert said.startswith("3 of 12 rows are left out")
    assert without_repeated(rows[:3]) is None
