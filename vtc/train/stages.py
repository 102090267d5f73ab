"""What trains and what is frozen in each stage."""

import math
from typing import Any

import torch
from torch import nn

from vtc.model.adapters import lora_targets, wrap
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
    """Stage 2, LoRA or QLoRA: adapters on the LLM's linear layers, and the compressor, train.

    Never the encoder or the head. Raises InputError for patterns of layers that match nothing.
    """
    targets = lora_targets(model, lora.targets)
    wrapped = wrap(model, r=lora.r, alpha=lora.alpha, dropout=lora.dropout, targets=targets)
    model.compressor.requires_grad_(True)
    return wrapped


def weight_dtype(settings: StageSettings) -> torch.dtype:
    """What the backbones' weights are kept in; the compressor's are fp32 always.

    bf16 if asked, or on a GPU where the LLM is frozen (stage 1, LoRA, QLoRA); else fp32, as weights
    that train need it. On a GPU `auto` computes in bf16 by autocast. QLoRA's 4-bit weights are
    multiplied in this type. No module is cast for its name (LLaVA's QLoRA makes all that is called
    norm fp32, the encoder's too, which then fails: haotian-liu/LLaVA#1712).
    """
    frozen = settings.stage == "projector" or settings.method != "full"
    spared = settings.dtype == "auto" and frozen and torch.cuda.is_available()
    return torch.bfloat16 if settings.dtype == "bf16" or spared else torch.float32


def what_trains(model: nn.Module) -> str:
    """One line for people: trainable parameters, by part, of all."""
    counts: dict[str, int] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            counts[_part(name)] = counts.get(_part(name), 0) + weight.numel()
    total = sum(map(_n_weights, model.parameters()))
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    frozen = total - sum(counts.values())
    return f"training {parts} parameters; {frozen:,} frozen"


def _n_weights(parameter: nn.Parameter) -> int:
    """The weights that a parameter stands for: of 4-bit ones, two a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def _part(name: str) -> str:
    if "lora_" in name:
        return "LoRA"
    if "multi_modal_projector" in name:
        return "compressor"
    return "encoder" if "vision_tower" in name else "LLM"
