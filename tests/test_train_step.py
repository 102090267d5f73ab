"""What makes a step fast or small changes nothing of what is learnt."""

import json
from functools import partial
from multiprocessing import get_context

import pytest
import torch
from train_samples import build, collator, read, write

from vtc import cli
from vtc.errors import InputError, NoAnswerError
from vtc.tables.read import read_rows
from vtc.train.checkpoints import Checkpoints, Saving
from vtc.train.fitting import _longest_first, _ProcessMemory, _step, fit_batch
from vtc.train.settings import FINETUNE
from vtc.train.stages import unfreeze_for_finetune
from vtc.train.trainer import VtcTrainer, fit_model

QUICK = FINETUNE.with_(
    batch_size=4, accumulate=1, max_steps=3, learning_rate=1e-3, warmup=0.0, log_every=1
)


def train(world, tmp_path, settings=QUICK, trainer_class=VtcTrainer, **changes):
    one = build(world)
    unfreeze_for_finetune(one.model)
    settings = settings.with_(**changes)
    batches = collator(one, read(tmp_path, world), settings)
    log = fit_model(
        one.model, batches.dataset, batches, settings, tmp_path / "run", trainer_class=trainer_class
    )
    return one.model, [row["loss"] for row in log]


class Watched(VtcTrainer):
    """Remembers in what types its optimizer keeps its moments."""

    kept: set

    def training_step(self, *args, **kwargs):
        for state in self.optimizer.optimizer.state.values():
            type(self).kept |= {state[name].dtype for name in ("state1", "state2")}
        return super().training_step(*args, **kwargs)


@pytest.mark.parametrize(
    "changes",
    [{"gradient_checkpointing": True}, {"attention": "eager"}, {"length_bucket": 1}],
    ids=str,
)
def test_the_same_is_learnt(tiny_world, tmp_path, changes):
    # One global batch of all samples: buckets only change how it is cut.
    settings = QUICK.with_(batch_size=6, accumulate=4)
    plain, losses = train(tiny_world, tmp_path, settings)
    other, other_losses = train(tiny_world, tmp_path, settings, **changes)
    assert losses == pytest.approx(other_losses, abs=1e-5)
    for (name, left), right in zip(
        plain.named_parameters(), dict(other.named_parameters()).values(), strict=True
    ):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-3, msg=name)


def test_eight_bit_adamw_learns(tiny_world, tmp_path):
    Watched.kept = set()
    _, losses = train(
        tiny_world, tmp_path, trainer_class=Watched, optimizer="adamw-8bit", max_steps=20,
        learning_rate=1e-2,
    )  # fmt: skip
    # bitsandbytes leaves small tensors in fp32.
    assert torch.uint8 in Watched.kept
    assert losses[-1] < 0.7 * losses[0]


def test_no_key_or_value_is_cached_in_training(tiny_world, tmp_path, monkeypatch):
    from transformers.cache_utils import DynamicCache

    def refuse(*args, **kwargs):
        raise AssertionError("a KV cache in training")

    monkeypatch.setattr(DynamicCache, "update", refuse)
    train(tiny_world, tmp_path, max_steps=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "flash"}, "--attention flash needs a GPU and the package flash-attn"),
        ({"attention": "flex"}, "--attention flex has no backward pass on the CPU"),
        ({"max_memory": 10}, "--max-memory needs --auto-batch"),
    ],
)
def test_what_cannot_be_is_refused(tiny_world, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(tiny_world, tmp_path, **changes)


def long_rows(world, tmp_path):
    """A model and batches whose samples take some megabytes each."""
    one = build(world, visual_tokens=36)
    unfreeze_for_finetune(one.model)
    settings = QUICK.with_(batch_size=16, accumulate=4, max_steps=1, auto_batch=True)
    return one, collator(one, read(tmp_path, world, n=64, questions=20), settings), settings


def test_the_batch_that_fits_is_found_and_does_fit(tiny_world, tmp_path):
    # In a process of its own: what other tests left in this one's heap would be measured too.
    alone = get_context("spawn").Process(target=batch_that_fits, args=(tiny_world, tmp_path))
    alone.start()
    alone.join()
    assert alone.exitcode == 0


def batch_that_fits(world, tmp_path):
    one, batches, settings = long_rows(world, tmp_path)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    chance = torch.get_rng_state()
    loose = fit_batch(one.model, batches, settings)
    assert (loose.batch_size, loose.accumulate) == (64, 1)
    held = _ProcessMemory(1).peak_of(lambda: None)
    limit = held + 40_000_000
    said = []
    tight = fit_batch(one.model, batches, settings.with_(max_memory=limit), say=said.append)
    assert 1 <= tight.batch_size < 64
    assert tight.batch_size * tight.accumulate == 64
    assert said[0].startswith(f"batches of {tight.batch_size}, {tight.accumulate} a step")
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(weight.grad is None for weight in one.model.parameters())
    assert torch.equal(torch.get_rng_state(), chance)
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size >= tight.batch_size][:2]
    longest = _longest_first(batches)
    meter = _ProcessMemory(1)
    # Three times each: what the allocator gives back, and when, is its own affair.
    fits, passes = (
        [
            meter.peak_of(partial(_step, one.model, batches(longest[:size]), settings))
            for _ in range(3)
        ]
        for size in sizes
    )
    slack = 15_000_000
    # What was kept since the search is no part of the step.
    kept = max(meter.peak_of(lambda: None) - held, 0)
    assert min(fits) < limit + kept + slack, (fits, limit, kept)
    assert max(passes) > limit - slack, (passes, limit)


def test_one_sample_too_much_is_no_answer(tiny_world, tmp_path):
    one, batches, settings = long_rows(tiny_world, tmp_path)
    with pytest.raises(NoAnswerError, match=r"one sample at a time takes .* --gradient-check"):
        fit_batch(one.model, batches, settings.with_(max_memory=1_000_000))


def test_a_resumed_training_keeps_its_batch(tiny_world, tmp_path):
    one, batches, settings = long_rows(tiny_world, tmp_path)
    (tmp_path / "training").mkdir()
    place = Checkpoints(tmp_path / "training", Saving(every=1), {"a": 1})
    begun = settings.with_(batch_size=8, accumulate=8)
    fit_model(one.model, batches.dataset, batches, begun, tmp_path / "run", checkpoints=place)
    again = Checkpoints(tmp_path / "training", Saving(every=1, resume=True), {"a": 1})
    assert fit_batch(one.model, batches, settings, again).batch_size == 8


def test_the_flags_reach_the_run(tiny_world, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run([
            *("train-projector", str(write(tmp_path)), "--images", str(tiny_world.images)),
            *("--encoder", str(tiny_world.encoder), "--llm", str(tiny_world.qwen)),
            *("--visual-tokens", "1,4", "--batch-size", "6", "--accumulate", "2"),
            *("--max-steps", "2", "--auto-batch", "--max-memory", "100GB", "--length-bucket", "4"),
            *("--gradient-checkpointing", "--optimizer", "adamw-8bit", "--attention", "eager"),
            *("-o", str(tmp_path / "runs")),
        ])  # fmt: skip
    said = capsys.readouterr().err
    assert caught.value.code == 0, said
    assert "batches of 12, 1 a step" in said
    for visual_tokens in (1, 4):
        run = tmp_path / "runs" / f"tokenpacker-v{visual_tokens}"
        settings = json.loads((run / "manifest.json").read_text())["footer"]["settings"]
        assert settings["max_memory"] == 100 * 10**9
        assert settings["optimizer"] == "adamw-8bit"
        assert settings["attention"] == "eager"
        log = read_rows(run / "train_log.parquet").rows
        assert log[-1]["samples_seen"] == 24
