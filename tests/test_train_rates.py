"""--compressor-lr: the compressor's own peak learning rate, schedule and decay shared."""

import pytest
import torch
from train_samples import build, collator, read

from vtc.errors import InputError
from vtc.train.settings import FINETUNE
from vtc.train.stages import add_lora, unfreeze_for_finetune
from vtc.train.trainer import VtcTrainer, fit_model

QUICK = FINETUNE.with_(
    batch_size=4, accumulate=1, max_steps=3, learning_rate=1e-2, warmup=0.0, log_every=1
)


class Watched(VtcTrainer):
    """Keeps its optimizer's groups, and what each step's rates were."""

    seen: list["Watched"] = []  # noqa: RUF012

    def create_optimizer(self, model=None):
        self.seen.append(self)
        self.rates = []
        return super().create_optimizer(model)

    def training_step(self, *args, **kwargs):
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        return super().training_step(*args, **kwargs)


def train(world, tmp_path, settings, lora=False):
    one = build(world)
    if lora:
        torch.manual_seed(0)
        model = add_lora(one.model, settings.lora)
    else:
        unfreeze_for_finetune(one.model)
        model = one.model
    before = {name: weight.clone() for name, weight in one.model.named_parameters()}
    batches = collator(one, read(tmp_path, world), settings)
    fit_model(model, batches.dataset, batches, settings, tmp_path, trainer_class=Watched)
    moved = {
        name
        for name, weight in one.model.named_parameters()
        if not torch.allclose(before[name], weight, rtol=0, atol=1e-9)
    }
    return Watched.seen.pop(), moved


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_compressor_has_its_own_rate(tiny_world, tmp_path, lora):
    settings = QUICK.with_(compressor_learning_rate=1e-12, weight_decay=0.1)
    trainer, moved = train(tiny_world, tmp_path, settings, lora)
    assert moved
    assert not any("multi_modal_projector" in name for name in moved)
    # Every weight that trains is in one group, decay or not, and once.
    groups = trainer.optimizer.param_groups
    grouped = [id(weight) for group in groups for weight in group["params"]]
    trained = [id(w) for w in trainer.model.parameters() if w.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    # Both follow one cosine.
    for rates in trainer.rates:
        assert set(rates) <= {max(rates), min(rates)}
        assert min(rates) == pytest.approx(1e-10 * max(rates))


def test_one_rate_is_the_default(tiny_world, tmp_path):
    trainer, moved = train(tiny_world, tmp_path, QUICK)
    assert any("multi_modal_projector" in name for name in moved)
    assert all(len(set(rates)) == 1 for rates in trainer.rates)


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(InputError, match="--compressor-lr 0 must be above 0"):
        FINETUNE.with_(compressor_learning_rate=0)
