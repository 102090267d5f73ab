"""PEFT, transformers' own Trainer and gradient checkpointing work on the model as it is."""

from pathlib import Path

import pytest
import torch
from conftest import TinyWorld
from torch.utils.data import Dataset

from vtc.model.assemble import Assembled, assemble
from vtc.model.modeling import VtcForConditionalGeneration


@pytest.fixture
def built(tiny_world: TinyWorld) -> Assembled:
    return assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4)


def row(built: Assembled, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([7, *[built.processor.image_token_id] * 4, 9, 11, 12])
    labels = torch.where(torch.arange(8) < 5, -100, ids)
    pixels = torch.randn(3, 48, 48, generator=generator)
    return {"input_ids": ids, "labels": labels, "pixel_values": pixels}


class Rows(Dataset):
    def __init__(self, built: Assembled):
        self.rows = [row(built, seed) for seed in range(8)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


def batch(built: Assembled) -> dict[str, torch.Tensor]:
    rows = [row(built, seed) for seed in range(2)]
    return {name: torch.stack([r[name] for r in rows]) for name in rows[0]}


def test_stock_trainer_trains_saves_and_loads(built: Assembled, tmp_path: Path):
    from transformers import Trainer, TrainingArguments

    before = {name: weight.clone() for name, weight in built.model.state_dict().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=4,
        learning_rate=1e-2, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(model=built.model, args=arguments, train_dataset=Rows(built))
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    after = built.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("language_model" in name for name in moved)
    assert any("multi_modal_projector" in name for name in moved)
    assert not any("vision_tower" in name for name in moved)
    loaded = VtcForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    inputs = batch(built)
    assert torch.equal(loaded(**inputs).logits, built.model.eval()(**inputs).logits)


def test_lora_on_the_llm_alone_merges_to_the_same_logits(built: Assembled, tmp_path: Path):
    from peft import LoraConfig, PeftModel, get_peft_model

    targets = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
    adapted = get_peft_model(
        built.model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    )
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained
    assert all("language_model" in name for name in trained)
    inputs = batch(built)
    adapted(**inputs).loss.backward()
    adapted.eval()
    expected = adapted(**inputs).logits
    generated = adapted.generate(
        input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"], max_new_tokens=3
    )
    assert generated.shape[0] == 2
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    loaded = VtcForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(loaded(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert isinstance(adapted, PeftModel)


def test_gradient_checkpointing_gives_the_same_gradients(built: Assembled):
    inputs = batch(built)
    built.model.train()
    built.model(**inputs).loss.backward()
    plain = {n: p.grad.clone() for n, p in built.model.named_parameters() if p.grad is not None}
    built.model.zero_grad()
    built.model.gradient_checkpointing_enable()
    built.model(**inputs).loss.backward()
    for name, weight in built.model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, plain[name])
