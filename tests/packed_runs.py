"""Rows of very different kinds, as padded and as packed batches of one model."""

import json

import torch
from PIL import Image
from train_samples import build, collator, rows

from vtc.data.samples import Samples, read_samples
from vtc.model.generation import generate_answers
from vtc.train.settings import FINETUNE, LoraSettings
from vtc.train.stages import add_lora, freeze_all_but_compressor, unfreeze_for_finetune


def mixed(folder, world) -> Samples:
    """Rows of one image (0, 3, 4), of two (1), of none (2, 5), and of 1 to 6 questions."""
    made = [rows(1, questions=n)[0] | {"id": str(n)} for n in (1, 3, 2, 6, 1, 5)]
    for number, row in enumerate(made):
        row["image"] = f"{number}.png"
    made[1]["image"] = ["4.png", "1.png"]
    made[1]["conversations"][0]["value"] = "<image>\n<image>\nWhat is left of it ?"
    for number in (2, 5):
        del made[number]["image"]
        talk = made[number]["conversations"]
        talk[0]["value"] = talk[0]["value"].replace("<image>\n", "")
    file = folder / "mixed.json"
    file.write_text(json.dumps(made))
    return read_samples([file], world.images)


def model_of(world, llm, trains):
    """An assembled model and what is trained of it: the compressor, LoRA with it, or all."""
    one = build(world, llm=llm)
    if trains == "compressor":
        freeze_all_but_compressor(one.model)
        return one, one.model.train()
    if trains == "full":
        unfreeze_for_finetune(one.model)
        return one, one.model.train()
    torch.manual_seed(0)
    model = add_lora(one.model, LoraSettings(4, 8, dropout=0.0))
    for name, weight in model.named_parameters():
        # B begins as zeros, and then A has no gradient.
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return one, model.train()


def batches_of(one, samples, chosen):
    """The chosen rows as a padded batch and as a packed one."""
    return [
        collator(one, samples, FINETUNE.with_(pack=pack))(list(chosen)) for pack in (False, True)
    ]


def loss_and_gradients(model, batch):
    """The loss of a batch, and the gradients of all that trains."""
    model.zero_grad()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    gradients = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return loss.item(), gradients


def answers(one, world):
    """Greedy answers to prompts of unequal length, one of them without an image."""
    prompts = ["What colour is it ?", f"{one.processor.image_token}\nread the text on the left :"]
    with Image.open(world.images / "0.png") as image:
        shown = [None, image.convert("RGB")]
    return generate_answers(one.model, one.processor, prompts, shown, max_new_tokens=5)
