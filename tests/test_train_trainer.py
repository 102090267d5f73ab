"""The step: the loss of the whole model, accumulated as one batch, the same every time."""

import shutil
from dataclasses import replace

import pytest
import torch
from train_samples import build, collator, read

from vtc.errors import InputError, VtcError
from vtc.model.backbones import load_image_processor
from vtc.train.image_sources import Pixels
from vtc.train.settings import FINETUNE, PROJECTOR
from vtc.train.stages import freeze_all_but_compressor, unfreeze_for_finetune
from vtc.train.trainer import VtcTrainer, fit_model

QUICK = FINETUNE.with_(
    batch_size=4, accumulate=1, max_steps=3, learning_rate=1e-2, warmup=0.0, log_every=1
)


class PlainDescent(VtcTrainer):
    """Steps along the gradient itself: Adam would scale rounding noise up to full steps."""

    def create_optimizer(self, model=None):
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(weights, lr=self.args.learning_rate)
        return self.optimizer


def train(world, tmp_path, settings, samples, trainer_class=VtcTrainer, **changes):
    one = build(world)
    unfreeze_for_finetune(one.model)
    settings = settings.with_(**changes)
    batches = collator(one, samples, settings)
    log = fit_model(
        one.model, batches.dataset, batches, settings, tmp_path, trainer_class=trainer_class
    )
    return one.model, log


def same_weights(one, other):
    for (name, left), (_, right) in zip(
        one.state_dict().items(), other.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("turns", ["dialogue", "independent"])
def test_loss_at_supervised_positions_is_the_plain_loss(tiny_world, tmp_path, turns):
    one = build(tiny_world)
    samples = read(tmp_path, tiny_world)
    batches = collator(one, samples, QUICK.with_(turns=turns))
    batch = batches([0, 1, 2, 3])
    keep, targets = batch.pop("logits_to_keep"), batch.pop("labels")
    batch.pop("shift_labels")
    with torch.no_grad():
        logits = one.model(**batch).logits
        labels = torch.full(keep.shape, -100)
        labels[keep] = targets
        plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        ours = one.model(**batch, logits_to_keep=keep, labels=targets, shift_labels=targets).loss
    assert abs(float(plain - ours)) < 1e-6


def test_loss_equals_transformers_own_on_whole_labels(tiny_world, tmp_path):
    one = build(tiny_world)
    batches = collator(one, read(tmp_path, tiny_world), QUICK)
    batch = batches([0])
    tokens = batches.dataset.rows[0].tokens.encode(4)
    with torch.no_grad():
        ours = one.model(**batch).loss
        whole = one.model(
            input_ids=batch["input_ids"],
            vision_levels=batch["vision_levels"],
            labels=torch.from_numpy(tokens.labels)[None],
        ).loss
    assert abs(float(whole - ours)) < 1e-6


def test_accumulated_batches_are_one_big_batch(tiny_world, tmp_path):
    # Rows with 1, 2 or 3 questions: batches differ in supervised tokens.
    samples = read(tmp_path, tiny_world, n=12, questions=3)
    for number, row in enumerate(samples.rows):
        row["conversations"] = row["conversations"][: 2 * (1 + number % 3)]
    step = {"max_steps": 1, "learning_rate": 1.0, "trainer_class": PlainDescent}
    whole, log = train(tiny_world, tmp_path, QUICK, samples, batch_size=12, **step)
    parts, parts_log = train(
        tiny_world, tmp_path, QUICK, samples, batch_size=2, accumulate=6, **step
    )
    same_weights(whole, parts)
    assert log[0]["loss"] == pytest.approx(parts_log[0]["loss"], abs=1e-5)
    assert log[0]["supervised_tokens"] == parts_log[0]["supervised_tokens"]
    assert log[0]["samples_seen"] == parts_log[0]["samples_seen"] == 12


def test_training_depends_on_the_seed_alone(tiny_world, tmp_path):
    samples = read(tmp_path, tiny_world)
    settings = QUICK.with_(turns="independent", max_questions=1)
    first, log = train(tiny_world, tmp_path, settings, samples)
    torch.rand(17)
    again, again_log = train(tiny_world, tmp_path, settings, samples)
    other, _ = train(tiny_world, tmp_path, settings, samples, seed=1)
    same = [row["loss"] for row in log] == [row["loss"] for row in again_log]
    assert same
    for left, right in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_log_has_a_row_a_step_and_the_loss_falls(tiny_world, tmp_path):
    samples = read(tmp_path, tiny_world)
    _, log = train(tiny_world, tmp_path, QUICK, samples, max_steps=25)
    assert [row["step"] for row in log] == list(range(1, 26))
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert log[-1]["samples_seen"] == 25 * 4
    seconds = [row["seconds"] for row in log]
    assert seconds == sorted(seconds)
    assert all(row["grad_norm"] > 0 for row in log)


def test_first_and_last_step_are_always_logged(tiny_world, tmp_path):
    samples = read(tmp_path, tiny_world)
    _, log = train(tiny_world, tmp_path, QUICK, samples, max_steps=5, log_every=3)
    assert [row["step"] for row in log] == [1, 3, 5]


def test_number_of_steps_is_trainers(tiny_world, tmp_path):
    samples = read(tmp_path, tiny_world, n=10)
    settings = replace(QUICK, batch_size=3, accumulate=2, epochs=2.0, max_steps=None)
    _, log = train(tiny_world, tmp_path, settings, samples)
    assert log[-1]["step"] == settings.n_steps(10) == 4
    assert log[-1]["samples_seen"] == 20


def test_loss_that_is_no_number_stops_with_a_sentence(tiny_world, tmp_path):
    one = build(tiny_world)
    freeze_all_but_compressor(one.model)
    with torch.no_grad():
        next(one.model.compressor.parameters()).fill_(float("nan"))
    settings = PROJECTOR.with_(max_steps=2, batch_size=4, accumulate=1, log_every=1)
    batches = collator(one, read(tmp_path, tiny_world), settings)
    with pytest.raises(VtcError, match=r"loss is nan at step 1; lower --lr"):
        fit_model(one.model, batches.dataset, batches, settings, tmp_path)


def test_pixels_and_features_give_the_same_batches_loss(tiny_world, tmp_path):
    from vtc.train.image_sources import Pixels

    one = build(tiny_world)
    samples = read(tmp_path, tiny_world)
    batches = collator(one, samples, QUICK)
    with torch.no_grad():
        cached = one.model(**batches([0, 1])).loss
        batches.images = Pixels(tiny_world.images, one.processor.image_processor)
        batch = batches([0, 1])
        assert "pixel_values" in batch
        assert abs(float(one.model(**batch).loss - cached)) < 1e-6


def test_an_image_that_does_not_open_names_its_sample_and_the_way_out(tiny_world, tmp_path):
    shutil.copytree(tiny_world.images, tmp_path / "photos/deep")
    (tmp_path / "photos/deep/3.png").write_bytes(b"\x89PNG\r\n")
    processor = load_image_processor(tiny_world.encoder)

    def pixels(root):
        rows = read(tmp_path, tiny_world).rows
        return Pixels(root, processor, rows)

    with pytest.raises(
        InputError, match=r"sample 3 \(and 3 more\): image 3\.png .*'vtc check-data"
    ):
        pixels(tmp_path / "photos/deep")(["0.png", "3.png"])
    with pytest.raises(
        InputError, match=r"sample 0 .*: missing; it stands in .*: give --images .*deep"
    ):
        pixels(tmp_path / "photos")(["0.png"])
