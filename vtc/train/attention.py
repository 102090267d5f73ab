"""`--attention`: the kernel that the LLM's attention runs on in training."""

from typing import Any

import torch
from torch import nn
from transformers.utils.import_utils import is_flash_attn_2_available

from vtc.errors import InputError
from vtc.model import varlen
from vtc.train.settings import StageSettings

IMPLEMENTATIONS = {
    "sdpa": "sdpa",
    "flash": "flash_attention_2",
    "flex": "flex_attention",
    "eager": "eager",
}
"""`auto` leaves transformers' choice, SDPA: without a mask, as our batches are, it runs torch's own
flash kernel."""

PACKED = {"auto": varlen.NAME, "flash": "flash_attention_2"}
"""The same for packed rows, of the two that are told where a sample ends."""


def set_attention(model: nn.Module, settings: StageSettings) -> None:
    """Choose the attention of a model's LLM, inside a LoRA model too.

    Raises InputError where the kernel is not at hand, or cannot do what the settings ask, and for
    an LLM that cannot be packed if that is asked for.
    """
    asked = settings.attention
    if asked == "auto" and not settings.pack:
        return
    if asked == "flash" and not is_flash_attn_2_available():
        raise InputError(
            "--attention flash needs a GPU and the package flash-attn (pip install flash-attn); "
            "use sdpa, which has a flash kernel of its own"
        )
    if asked == "flex" and not torch.cuda.is_available():
        raise InputError("--attention flex has no backward pass on the CPU; use sdpa")
    if asked in ("flash", "flex") and settings.turns == "independent":
        raise InputError(f"--attention {asked} takes no mask, which independent turns need")
    for part in model.modules():
        if hasattr(part, "language_model") and hasattr(part, "multi_modal_projector"):
            chosen = (PACKED if settings.pack else IMPLEMENTATIONS)[asked]
            part.set_attn_implementation({"text_config": chosen})  # type: ignore[operator]
            if settings.pack:
                _check_packing(part.language_model)


def _check_packing(llm: Any) -> None:
    try:
        varlen.check_packing(llm)
    except (ValueError, TypeError) as error:
        name = llm.config.model_type
        raise InputError(
            f"an LLM of type {name} cannot be packed: {error}; leave out --pack"
        ) from None
