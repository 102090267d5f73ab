"""What trains and what is frozen in each stage."""

from typing import Any

import torch
from torch import nn

from vtc.errors import InputError
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.train.settings import LoraSettings, StageSettings


def freeze_all_but_compressor(model: VtcForConditionalGeneration) -> None:
    """Stage 1: the compressor alone trains; encoder and LLM get no gradients and no states."""
    model.requires_grad_(False)
    model.compressor.requires_grad_(True)


def unfreeze_for_finetune(model: VtcForConditionalGeneration) -> None:
    """Stage 2, full: LLM, its head and the compressor train; the encoder stays frozen."""
    model.requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)


def add_lora(model: VtcForConditionalGeneration, lora: LoraSettings) -> Any:
    """Stage 2, LoRA: adapters on the LLM's linear layers, and the compressor itself, train.

    Modules are named in full, so that no layer of the encoder, the compressor or the head can
    match (LLaVA matches suffixes, which hit the encoder if it is already attached).
    """
    from peft import LoraConfig, get_peft_model

    targets = lora_targets(model)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    model.compressor.requires_grad_(True)
    return wrapped


def lora_targets(model: VtcForConditionalGeneration) -> list[str]:
    """Full names of the LLM's linear layers, without the head.

    Raises InputError if it has none.
    """
    inside = "model.language_model."
    names = [
        name
        for name, module in model.named_modules()
        if name.startswith(inside) and isinstance(module, nn.Linear)
    ]
    if not names:
        raise InputError("--method lora: this LLM has no linear layers to adapt; use --method full")
    return names


def weight_dtype(settings: StageSettings) -> torch.dtype:
    """What the backbones' weights are kept in; the compressor's are fp32 always.

    bf16 if asked, or on a GPU where the LLM is frozen (stage 1, LoRA); else fp32, as weights that
    train need it. On a GPU `auto` computes in bf16 by autocast.
    """
    frozen = settings.stage == "projector" or settings.method == "lora"
    spared = settings.dtype == "auto" and frozen and torch.cuda.is_available()
    return torch.bfloat16 if settings.dtype == "bf16" or spared else torch.float32


def what_trains(model: nn.Module) -> str:
    """One line for people: trainable parameters, by part, of all."""
    counts: dict[str, int] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            counts[_part(name)] = counts.get(_part(name), 0) + weight.numel()
    total = sum(weight.numel() for weight in model.parameters())
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    frozen = total - sum(counts.values())
    return f"training {parts} parameters; {frozen:,} frozen"


def _part(name: str) -> str:
    if "lora_" in name:
        return "LoRA"
    if "multi_modal_projector" in name:
        return "compressor"
    return "encoder" if "vision_tower" in name else "LLM"
