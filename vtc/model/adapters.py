"""LoRA on a vtc model: put on, saved, put back, merged. All through PEFT."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from vtc.errors import InputError
from vtc.model.config import VtcConfig
from vtc.model.manifest import run_folder
from vtc.model.modeling import VtcForConditionalGeneration

ADAPTER = "adapter"
_INSIDE = "model.language_model."


def lora_targets(model: VtcForConditionalGeneration, patterns: tuple[str, ...] = ()) -> list[str]:
    """Full names of the LLM's linear layers, without the head; those alone that a pattern matches.

    A pattern (`*` and `?` as in a shell) is held against a layer's name inside the LLM, such as
    layers.0.self_attn.q_proj, and against its last parts. Names are given in full, so that no
    layer of the encoder can match (LLaVA's suffixes hit one that is already attached).

    Raises InputError for a pattern that matches nothing, naming the layers that there are.
    """
    names = [
        name.removeprefix(_INSIDE)
        for name, module in model.named_modules()
        if name.startswith(_INSIDE) and isinstance(module, nn.Linear)
    ]
    if not names:
        raise InputError("this LLM has no linear layers for LoRA to adapt; use --method full")
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            known = ", ".join(sorted({name.split(".")[-1] for name in names}))
            raise InputError(
                f"--lora-targets: '{pattern}' matches no linear layer of the LLM; there are {known}"
            )
    chosen = [
        name for name in names if not patterns or any(_matches(name, one) for one in patterns)
    ]
    return [_INSIDE + name for name in chosen]


def check_targets(run: Path, patterns: tuple[str, ...]) -> None:
    """Raise InputError for a pattern that matches no layer of a run's LLM; loads no weights."""
    if not patterns:
        return
    config = VtcConfig.from_pretrained(run_folder(run))
    with torch.device("meta"):
        lora_targets(VtcForConditionalGeneration(config), patterns)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def wrap(
    model: VtcForConditionalGeneration, *, r: int, alpha: int, dropout: float, targets: list[str]
) -> Any:
    """The model with fresh LoRA weights (PEFT's `PeftModel`, fp32) on the layers named in full.

    Nothing else of the model is touched: no layer changes its type, norms included. Everything
    but the LoRA weights is frozen. Of several ways PEFT's quantised layers need, it takes the
    right one by itself.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with _quiet():
        return get_peft_model(model, config)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the screen what PEFT asks of transformers by an old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        yield


def save_adapter(wrapped: Any, run: Path) -> None:
    """Write the LoRA weights and their settings into `run`/adapter, as PEFT does."""
    folder = run / ADAPTER
    # The embedding never trains here; "auto" would look for the base model on the hub.
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def attach(model: VtcForConditionalGeneration, run: Path, merge: bool) -> Any:
    """The model with the LoRA weights of a run on it, or merged into its own.

    Raises InputError if they are damaged or made for another model.
    """
    from peft import PeftModel

    try:
        with _quiet():
            wrapped = PeftModel.from_pretrained(model, str(run / ADAPTER))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"run {run}: its LoRA weights do not load ({first})") from None
    return wrapped.merge_and_unload() if merge else wrapped.get_base_model()  # type: ignore[operator]
