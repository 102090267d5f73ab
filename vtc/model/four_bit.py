"""4-bit weights (bitsandbytes): the LLM's linear layers alone, never compressor, head or encoder.

Dettmers et al., QLoRA (2305.14314), section 3: NormalFloat4, its scales quantised again.
"""

import logging
from typing import Any

import torch

# It warns on a CPU that an optional package of kernels is absent; PEFT and Trainer load it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

KEPT = tuple(rf"(?:.*\.)?{name}" for name in ("vision_tower", "multi_modal_projector", "lm_head"))
"""Patterns of the modules of a vtc model that keep their floating type (a projector in 4 bits
cannot be loaded from its own checkpoint: haotian-liu/LLaVA#433, #1384)."""

# Not is_quantized: Trainer takes it to mean that nothing but LoRA can train, and stage 1 can.
_MARKS = ("is_loaded_in_4bit", "quantization_method", "hf_quantizer")


def nf4(compute: torch.dtype) -> Any:
    """transformers' settings of nf4 with double quantisation, products in `compute`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(KEPT),
    )


def loading(compute: torch.dtype, device: str | torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantise each weight as it is read, on `device`."""
    return {"quantization_config": nf4(compute), "device_map": {"": torch.device(device)}}


def is_four_bit(model: Any) -> bool:
    """Whether a model's linear layers are in 4 bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def settle(model: Any) -> Any:
    """A model as it was loaded, in 4 bits or not, ready to be trained, run and saved.

    The quantisation leaves its config: it is a way of loading and not its shape, and a run's
    config.json would else load as a checkpoint that was written in 4 bits. bitsandbytes' own
    kernel for some CPUs goes: in eval mode it repacks the weights for good, rounds their scales to
    bf16, and fails where a width is no multiple of 32; without it all CPUs agree.
    """
    if is_four_bit(model):
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return model


def mark_as(model: Any, llm: Any) -> None:
    """Tell PEFT and Trainer that `model`, which was built around `llm`, is quantised as it is."""
    for name in _MARKS:
        if hasattr(llm, name):
            setattr(model, name, getattr(llm, name))


def dequantise(model: Any, dtype: torch.dtype) -> Any:
    """The model with floating weights in place of its 4-bit ones; each takes what its bits say."""
    from transformers.integrations.bitsandbytes import dequantize_and_replace

    # It warns that it does what it is asked to do.
    logging.getLogger("transformers.integrations.bitsandbytes").setLevel(logging.ERROR)
    dequantize_and_replace(model, model.hf_quantizer.quantization_config, dtype)
    for name in (*_MARKS, "is_quantized"):
        if name in vars(model):
            delattr(model, name)
    return model
