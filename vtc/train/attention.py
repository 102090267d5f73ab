"""`--attention`: the kernel that the LLM's attention runs on in training."""

import torch
from torch import nn
from transformers.utils.import_utils import is_flash_attn_2_available

from vtc.errors import InputError
from vtc.train.settings import StageSettings

IMPLEMENTATIONS = {
    "sdpa": "sdpa",
    "flash": "flash_attention_2",
    "flex": "flex_attention",
    "eager": "eager",
}
"""`auto` leaves transformers' choice, SDPA: without a mask, as our batches are, it runs torch's own
flash kernel."""


def set_attention(model: nn.Module, settings: StageSettings) -> None:
    """Choose the attention of a model's LLM, inside a LoRA model too.

    Raises InputError where the kernel is not at hand, or cannot do what the settings ask.
    """
    asked = settings.attention
    if asked == "auto":
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
            part.set_attn_implementation({"text_config": IMPLEMENTATIONS[asked]})  # type: ignore[operator]
