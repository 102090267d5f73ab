"""What trains in each stage, and only that."""

import pytest
import torch
from train_samples import build, collator, read

from vtc.errors import InputError
from vtc.train.inputs import Inputs
from vtc.train.settings import FINETUNE, PROJECTOR, LoraSettings
from vtc.train.stages import (
    add_lora,
    freeze_all_but_compressor,
    lora_targets,
    unfreeze_for_finetune,
    what_trains,
)
from vtc.train.trainer import fit_model


def before_and_after(one, samples, settings, tmp_path, model=None):
    batches = collator(one, samples, settings)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    fit_model(model or one.model, batches.dataset, batches, settings, tmp_path)
    after = (model.merge_and_unload() if model is not None else one.model).state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_stage_one_changes_the_compressor_alone(tiny_world, tmp_path):
    one = build(tiny_world)
    freeze_all_but_compressor(one.model)
    settings = PROJECTOR.with_(max_steps=2, batch_size=4, accumulate=1)
    changed = before_and_after(one, read(tmp_path, tiny_world), settings, tmp_path)
    assert changed == {
        f"model.multi_modal_projector.{n}" for n in one.model.compressor.state_dict()
    }
    assert all(p.grad is None for p in one.model.model.language_model.parameters())


def test_full_finetuning_leaves_the_encoder(tiny_world, tmp_path):
    one = build(tiny_world, llm="llama")
    unfreeze_for_finetune(one.model)
    settings = FINETUNE.with_(max_steps=2, batch_size=4, accumulate=1, learning_rate=1e-2)
    changed = before_and_after(one, read(tmp_path, tiny_world), settings, tmp_path)
    assert not any("vision_tower" in name for name in changed)
    weights = {name for name, _ in one.model.named_parameters() if "vision_tower" not in name}
    assert weights <= changed


def test_lora_adapts_the_llms_linears_only_and_merges(tiny_world, tmp_path):
    one = build(tiny_world)
    targets = lora_targets(one.model)
    assert all(name.startswith("model.language_model.layers.") for name in targets)
    assert len(targets) == 2 * 7
    wrapped = add_lora(one.model, LoraSettings(r=4, alpha=8, dropout=0.0))
    assert "LoRA" in what_trains(wrapped)
    settings = FINETUNE.with_(
        method="lora", max_steps=3, batch_size=4, accumulate=1, learning_rate=1e-2
    )
    samples = read(tmp_path, tiny_world)
    batches = collator(one, samples, settings)
    before = {n: p.clone() for n, p in one.model.named_parameters()}
    fit_model(wrapped, batches.dataset, batches, settings, tmp_path)
    wrapped.eval()
    batch = batches([0, 1])
    with torch.no_grad():
        adapted = wrapped(**batch).logits
        merged = wrapped.merge_and_unload()
        torch.testing.assert_close(merged(**batch).logits, adapted, atol=1e-5, rtol=1e-5)
    renamed = {name.replace(".base_layer", ""): value for name, value in before.items()}
    changed = {n for n, p in merged.named_parameters() if not torch.equal(p, renamed[n])}
    assert {f"{name}.weight" for name in targets} <= changed
    rest = changed - {f"{name}.weight" for name in targets}
    assert all("multi_modal_projector" in name for name in rest)


@pytest.mark.parametrize("name", ["max_steps", "max_length", "max_questions", "batch_size"])
def test_counts_below_one_are_refused(name):
    """Trainer takes zero steps for "no limit" and would train whole epochs."""
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} 0 must be above 0"):
        FINETUNE.with_(turns="independent", **{name: 0})


def test_samples_without_images_are_no_reason_to_warn(tiny_world, tmp_path):
    one, said = build(tiny_world), []
    samples = read(tmp_path, tiny_world)
    rows = [{**row, "images": []} for row in samples.rows]
    inputs = Inputs(samples._replace(rows=rows), FINETUNE, say=said.append)
    inputs.images(one.model, one.processor, one.encoder)
    assert said == []


def test_what_trains_counts_parameters(tiny_world):
    one = build(tiny_world)
    freeze_all_but_compressor(one.model)
    n_compressor = sum(p.numel() for p in one.model.compressor.parameters())
    total = sum(p.numel() for p in one.model.parameters())
    assert what_trains(one.model) == (
        f"training compressor {n_compressor:,} parameters; {total - n_compressor:,} frozen"
    )
