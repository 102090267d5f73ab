"""Elastic trainings: which V a step has, what it learns there, and that nothing disturbs it."""

import json
import signal
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.modules.module import register_module_forward_pre_hook
from train_kills import end_when_killed
from train_runs import STAGE_1, about, same_run, stage_1
from train_samples import read
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from vtc.compress.serving import trained_of
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.turns import train_at
from vtc.tables.read import read_rows
from vtc.train import inputs as inputs_module
from vtc.train.finetune import finetune_runs
from vtc.train.inputs import Inputs
from vtc.train.jobs import FinetuneJob, ProjectorJob
from vtc.train.log import FACTS
from vtc.train.projector import train_projectors
from vtc.train.settings import FINETUNE, PROJECTOR, LoraSettings
from vtc.train.turns import PARTS, drawn, turns_of

SET = (1, 4, 9)
ELASTIC = ("mqt", "m3")
STEPS = {"batch_size": 4, "accumulate": 2, "max_steps": 4, "log_every": 1, "learning_rate": 1e-2}
QUICK = PROJECTOR.with_(**STEPS, warmup=0.0, train_visual_tokens=SET)


class Passes:
    """Counts the images that the encoder's embeddings see."""

    def __enter__(self):
        self.images = 0

        def count(module, args):
            if isinstance(module, CLIPVisionEmbeddings):
                self.images += len(args[0])

        self.handle = register_module_forward_pre_hook(count)
        return self

    def __exit__(self, *_):
        self.handle.remove()


@pytest.fixture(scope="module")
def samples(tiny_world, tmp_path_factory):
    return read(tmp_path_factory.mktemp("samples"), tiny_world)


def train(world, samples, out, compressor, settings=QUICK, **more):
    """One elastic run of stage 1 of V = 9."""
    return stage_1(world, samples, out, settings, (9,), compressor=compressor, **more)[0]


def losses(run):
    log = read_rows(run / "train_log.parquet").rows
    return [row["loss"] for row in log]


def model_and_turns(world, samples, compressor, settings=QUICK):
    one = assemble(world.encoder, world.qwen, compressor, 9, seed=settings.seed)
    train_at(one.model, SET)
    collator = Inputs(samples, settings).lm_collator(one.model, one.processor, one.encoder)
    return one.model.train(), turns_of(one.model, collator, settings.seed)


def visual(batch, model):
    """Image tokens of each image of a batch, which its V is."""
    n_tokens = int((batch["input_ids"] == model.config.image_token_index).sum())
    return n_tokens / len(batch["vision_levels"])


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6))
def test_a_draw_follows_from_seed_and_step_alone(seed, step):
    first = drawn(SET, seed, step)
    torch.rand(3)
    assert drawn(SET, seed, step) == first
    assert first in SET


@pytest.mark.parametrize("trained", [SET, (1, 36), tuple(range(1, 130))])
def test_draws_are_uniform_and_seeds_differ(trained):
    n = 4000
    found = [drawn(trained, 7, step) for step in range(n)]
    expected = n / len(trained)
    # Chi-squared with k - 1 degrees of freedom: five standard deviations above its mean.
    k = len(trained) - 1
    chi = sum((found.count(v) - expected) ** 2 / expected for v in trained)
    assert chi < k + 5 * (2 * k) ** 0.5
    again = sum(one == other for one, other in pairwise(found))
    assert abs(again / n - 1 / len(trained)) < 0.04
    other = sum(one == drawn(trained, 8, step) for step, one in enumerate(found))
    assert abs(other / n - 1 / len(trained)) < 0.04


def test_all_batches_of_a_step_have_its_v(tiny_world, samples):
    model, turns = model_and_turns(tiny_world, samples, "mqt")
    rows = [turns([0, 1]), turns([2, 3]), turns([4])]
    seen = set()
    for step in range(12):
        batches = list(turns.batches(rows, step))
        own = drawn(SET, 0, step)
        seen.add(own)
        assert [batch["visual_tokens"] for batch in batches] == [own] * 3
        assert [visual(batch, model) for batch in batches] == [own] * 3
        assert [batch[FACTS].rows for batch in batches] == [(0, 1), (2, 3), (4,)]
    assert seen == set(SET)


def test_a_step_of_m3_has_every_v(tiny_world, samples):
    model, turns = model_and_turns(tiny_world, samples, "m3")
    [batch] = turns.batches([turns([0, 1])], 5)
    assert [part["visual_tokens"] for part in batch[PARTS]] == list(SET)
    assert [visual(part, model) for part in batch[PARTS]] == list(SET)
    levels = [part["vision_levels"] for part in batch[PARTS]]
    assert levels[0] is levels[1] is levels[2]
    assert len(batch["labels"]) == sum(len(part["labels"]) for part in batch[PARTS])
    facts = batch[FACTS]
    assert (facts.rows, facts.n_images) == ((0, 1), 2)
    n_text = sum(row.size[1] for row in turns.collator.dataset.rows[:2])
    assert facts.n_tokens == 3 * n_text + 2 * sum(SET)


@pytest.mark.parametrize("compressor", [*ELASTIC, "tokenpacker"])
def test_the_first_step_learns_what_the_papers_say(tiny_world, samples, tmp_path, compressor):
    # A global batch of all samples: its order does not matter.
    settings = QUICK.with_(batch_size=6, accumulate=4, max_steps=1)
    run = train(tiny_world, samples, tmp_path, compressor, settings)
    model, _ = model_and_turns(tiny_world, samples, compressor, settings)
    collators = {}
    for v in SET:
        one = assemble(tiny_world.encoder, tiny_world.qwen, compressor, v)
        inputs = Inputs(samples, settings)
        collators[v] = inputs.lm_collator(one.model, one.processor, one.encoder)
    every = list(range(len(samples.rows)))
    taken = SET if compressor == "m3" else (drawn(SET, 0, 0),)
    found = [model(**collators[v](every), visual_tokens=v, use_cache=False).loss for v in taken]
    loss = sum(found) / len(found)
    loss.backward()
    weights = list(model.compressor.parameters())
    norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
    [row] = read_rows(run / "train_log.parquet").rows
    assert row["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert row["samples_seen"] == len(every)


@pytest.mark.parametrize("compressor", ELASTIC)
def test_features_pixels_and_packs_train_alike(
    tiny_world, samples, tmp_path, compressor, monkeypatch
):
    settings = QUICK.with_(template="chat")
    kept = train(tiny_world, samples, tmp_path / "kept", compressor, settings)
    packed = train(tiny_world, samples, tmp_path / "packed", compressor, settings.with_(pack=True))
    monkeypatch.setattr(inputs_module, "MEMORY_LIMIT", 0)
    live = train(tiny_world, samples, tmp_path / "live", compressor, settings)
    assert len(set(losses(kept))) == 4
    assert losses(live) == pytest.approx(losses(kept), abs=1e-5)
    assert losses(packed) == pytest.approx(losses(kept), abs=1e-4)


@pytest.mark.parametrize("compressor", ELASTIC)
def test_killed_twice_it_ends_the_same(tiny_world, samples, tmp_path, compressor):
    settings = STAGE_1.with_(train_visual_tokens=SET, max_steps=6)
    whole = train(tiny_world, samples, tmp_path / "whole", compressor, settings, every=0)
    cut = tmp_path / "cut"

    def work(resume):
        return lambda: train(tiny_world, samples, cut, compressor, settings, every=1, resume=resume)

    assert end_when_killed(work(False), "batch", 4) == -signal.SIGKILL
    assert end_when_killed(work(True), "batch", 2) == -signal.SIGKILL
    again = work(True)()
    same_run(whole, again)
    other = settings.with_(train_visual_tokens=(1, 9))
    with pytest.raises(InputError, match=r"is finished, with .*train_visual_tokens"):
        train(tiny_world, samples, cut, compressor, other, resume=True)


@pytest.mark.parametrize("kept", [True, False])
def test_runs_and_seeds_side_by_side_end_as_each_alone(
    tiny_world, samples, tmp_path, kept, monkeypatch
):
    if not kept:
        monkeypatch.setattr(inputs_module, "MEMORY_LIMIT", 0)

    def job(compressors, seeds, out, settings=QUICK):
        where = (str(tiny_world.encoder), str(tiny_world.qwen), compressors, (9,), tmp_path / out)
        inputs = Inputs(samples, settings)
        return train_projectors(ProjectorJob(*where, seeds=seeds), inputs, footer=about(settings))

    together = job(ELASTIC, (0, 5), "a")
    assert [run.name for run in together] == ["mqt-v9-s0", "m3-v9-s0", "mqt-v9-s5", "m3-v9-s5"]
    for run, seed in ((together[0], 0), (together[3], 5)):
        name = run.name.split("-")[0]
        [alone] = job((name,), (), f"b{seed}", QUICK.with_(seed=seed))
        same_run(run, alone)


@pytest.mark.parametrize("compressor", ELASTIC)
def test_its_own_v_alone_is_what_it_was_without_turns(tiny_world, samples, tmp_path, compressor):
    plain = PROJECTOR.with_(**STEPS)
    one = train(tiny_world, samples, tmp_path / "a", compressor, plain)
    settings = plain.with_(train_visual_tokens=(9,))
    other = train(tiny_world, samples, tmp_path / "b", compressor, settings)
    same_run(one, other)
    assert trained_of(json.loads((one / "manifest.json").read_text())) == (9,)


def test_stage_2_goes_on_at_the_set_of_its_run_or_another(tiny_world, samples, tmp_path):
    elastic = train(tiny_world, samples, tmp_path / "e", "mqt")
    plain = train(tiny_world, samples, tmp_path / "p", "mqt", PROJECTOR.with_(**STEPS))

    def finetune(run, out, **changes):
        settings = FINETUNE.with_(**STEPS, lora=LoraSettings(4, 8, 0.0), **changes)
        job = FinetuneJob((run,), tmp_path / out, method=settings.method)
        [made] = finetune_runs(job, Inputs(samples, settings), footer=about(settings))
        manifest = json.loads((made / "manifest.json").read_text())
        config = json.loads((made / "config.json").read_text())
        return trained_of(manifest), config["compressor_settings"], losses(made)

    trained, settings, inherited = finetune(elastic, "a", method="lora")
    assert (trained, settings) == (SET, {"trained": list(SET)})
    stated = finetune(elastic, "b", method="lora", train_visual_tokens=SET)
    assert stated == (trained, settings, inherited)
    alone = finetune(elastic, "c", method="lora", train_visual_tokens=(9,))
    assert alone[:2] == ((9,), None)
    assert alone[2] != inherited
    assert finetune(plain, "d")[:2] == ((9,), None)
    published = finetune(plain, "e", train_visual_tokens="published")
    assert published[:2] == ((1, 2, 4, 6, 8, 9), {"trained": [1, 2, 4, 6, 8, 9]})


def test_every_v_of_a_step_shares_one_pass_of_the_encoder(
    tiny_world, samples, tmp_path, monkeypatch
):
    run = train(tiny_world, samples, tmp_path / "e", "m3", QUICK.with_(max_steps=1))
    settings = FINETUNE.with_(**STEPS, lora=LoraSettings(4, 8, 0.0), method="lora")

    def finetune(out):
        job = FinetuneJob((run,), tmp_path / out, method="lora")
        with Passes() as passes:
            [made] = finetune_runs(job, Inputs(samples, settings), footer=about(settings))
        return losses(made), passes.images

    kept, _ = finetune("kept")
    monkeypatch.setattr(inputs_module, "MEMORY_LIMIT", 0)
    live, images = finetune("live")
    assert live == pytest.approx(kept, abs=1e-5)
    # Four steps of two batches of four, and the blank image that every load looks at.
    assert images == 4 * 2 * 4 + 1


def test_what_cannot_be_trained_in_turns_is_refused_before_anything_is_written(
    tiny_world, samples, tmp_path
):
    cases = [
        ("resampler", {}, QUICK, "resampler is trained at one V"),
        ("m3", {}, QUICK.with_(train_visual_tokens=(4, 9)), "1, the cheapest V, must be"),
        ("m3", {}, QUICK.with_(train_visual_tokens=(1, 36)), "36 is above the run's own V, 9"),
        ("m3", {}, QUICK.with_(objective="align"), "--objective align matches the cells of one V"),
        ("m3", {}, QUICK.with_(compile=True), "--compile compiles for shapes that stay"),
        ("m3", {"trained": [1, 4]}, QUICK, "say the same; give one"),
        ("m3", {"trained": [1, 4]}, PROJECTOR.with_(objective="align"), "cells of one V"),
    ]
    where = (str(tiny_world.encoder), str(tiny_world.qwen))
    for compressor, own, settings, words in cases:
        job = ProjectorJob(*where, (compressor,), (9,), tmp_path / "no", compressor_settings=own)
        with pytest.raises(InputError, match=words):
            train_projectors(job, Inputs(samples, settings))
    run = train(tiny_world, samples, tmp_path / "runs", "m3", QUICK.with_(max_steps=1))
    for settings, words in (
        (FINETUNE.with_(train_visual_tokens=(1, 36)), "above the run's own V, 9"),
        (FINETUNE.with_(train_visual_tokens=(1, 5)), "m3 cannot make 5 visual tokens"),
        (FINETUNE.with_(compile=True), "an elastic training has several V"),
    ):
        with pytest.raises(InputError, match=words):
            finetune_runs(FinetuneJob((run,), tmp_path / "no"), Inputs(samples, settings))
    assert not (tmp_path / "no").exists()
