"""Loading the two backbones, a vision encoder and an LLM, with what belongs to them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_MAPPING,
)

from vtc.catalog.folders import Kind, check_company, check_folder
from vtc.data.chat_templates import give_template
from vtc.data.tokenizers import load_tokenizer
from vtc.errors import InputError
from vtc.model import four_bit as bits
from vtc.model.sources import (
    EncoderSource,
    LlmSource,
    encoder_source,
    llm_source,
    missing,
    model_folder,
)
from vtc.model.tower import class_tokens, grid_of


@dataclass
class Encoder:
    """A vision encoder, frozen, and its image processor."""

    source: EncoderSource
    tower: Any
    image_processor: Any


@dataclass
class Llm:
    """A causal LLM and its tokenizer, which has `<image>` as one token and a pad token."""

    source: LlmSource
    model: Any
    tokenizer: Any


def load_encoder(source: str | Path, dtype: torch.dtype = torch.float32) -> Encoder:
    """Load a vision encoder from a folder or hub id; of a CLIP-like pair, the vision half.

    Raises InputError if there is none, it is no vision encoder, or its images are not square where
    its class needs them to be.
    """
    _check_files(source, "encoder")
    config = _load(source, AutoConfig)
    vision_config = getattr(config, "vision_config", config)
    if type(vision_config) not in MODEL_MAPPING or not hasattr(vision_config, "patch_size"):
        raise InputError(f"encoder {source}: a {config.model_type} model is no vision encoder")
    if Path(source).is_dir():
        check_company(source, "encoder")
    kind = MODEL_MAPPING[type(vision_config)]
    # A pooling head may be missing: vtc reads the patches' states alone.
    try:
        tower = _load_whole(source, kind, r"embed|layer", config=vision_config, dtype=dtype)
    except TypeError:
        # CLIP's and SigLIP's classes divide image_size as a number; ViT's take a pair.
        if isinstance(vision_config.image_size, int):
            raise
        raise _not_square(source, vision_config) from None
    if _is_oblong(vision_config):
        try:
            class_tokens(tower, grid_of(vision_config))
        except RuntimeError:
            # DINOv2's embeddings take the positions for a square's.
            raise _not_square(source, vision_config) from None
    processor = load_image_processor(source)
    return Encoder(encoder_source(source), tower.requires_grad_(False).eval(), processor)


def _is_oblong(vision_config: Any) -> bool:
    """Whether the images of an encoder are stated by two sides that differ."""
    size = getattr(vision_config, "image_size", None)
    return isinstance(size, list | tuple) and len(set(size)) > 1


def _not_square(source: str | Path, vision_config: Any) -> InputError:
    return InputError(
        f"encoder {source}: its config.json has image_size {list(vision_config.image_size)}, and "
        f"{vision_config.model_type} encoders take square images alone, a whole number"
    )


def load_image_processor(source: str | Path) -> Any:
    """The image processor of a folder or hub id; raises InputError if there is none.

    Always Pillow's: it gives the same pixels on every machine, torchvision or not.
    """
    return _load(source, AutoImageProcessor, backend="pil")


def load_llm(
    source: str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    four_bit: bool = False,
    device: str | torch.device = "cpu",
    chat_template: str | None = None,
    speaks: bool = True,
) -> Llm:
    """Load a causal LLM and its tokenizer from a folder or hub id.

    `chat_template` (a name of `data.chat_templates`, or a file) takes the place of its own. With
    `speaks` False it may have none: what needs no conversations does not ask for one.

    With `four_bit` its linear layers come in 4 bits (nf4), quantised on `device` as they are read.

    Embedding rows are added only if the id of `<image>` has none. Raises InputError if there is
    none, it is not causal, its weights are quantised already, its tokenizer has no chat template,
    or its parts do not fit Llava's classes.
    """
    _check_files(source, "llm")
    config = _load(source, AutoConfig)
    _check_causal(source, config)
    refuse_quantised(source, config)
    if Path(source).is_dir():
        check_company(source, "llm")
    tokenizer = load_tokenizer(source)
    give_template(tokenizer, chat_template)
    if speaks and not tokenizer.chat_template:
        raise InputError(
            f"llm {source}: its tokenizer has no chat template; give one with --chat-template, "
            "such as vicuna"
        )
    ensure_pad(source, tokenizer)
    how = bits.loading(dtype, device) if four_bit else {}
    model = bits.settle(_load_whole(source, AutoModelForCausalLM, dtype=dtype, **how))
    if not hasattr(model.base_model, "embed_tokens"):
        raise InputError(
            f"llm {source}: a {model.config.model_type} model keeps its embedding under another "
            "name than embed_tokens; use a Llama, Qwen, Mistral, Gemma or similar model"
        )
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        # Llava's head has none: a saved model would come back without it.
        raise InputError(
            f"llm {source}: the head of a {model.config.model_type} model has a bias, for which "
            "Llava has no place; use a Llama, Qwen, Mistral, Gemma or similar model"
        )
    described = llm_source(source, model)
    ensure_rows(model, len(tokenizer))
    return Llm(described, model, tokenizer)


def _check_files(source: str | Path, kind: Kind) -> None:
    """Raise InputError for a model that is nowhere, or a folder that lacks or damaged a file."""
    if Path(source).is_dir():
        check_folder(source, kind)
    else:
        model_folder(source)


def _load(source: str | Path, loader: Any, **kwargs: Any) -> Any:
    """`loader.from_pretrained`, its failures as InputError naming the model."""
    try:
        return loader.from_pretrained(str(source), **kwargs)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(missing(source, error)) from None
    except Exception as error:
        # safetensors' own error derives from Exception alone.
        if type(error).__name__ != "SafetensorError":
            raise
        raise InputError(f"model {source}: damaged or truncated weights ({error})") from None


def _load_whole(source: str | Path, kind: Any, needed: str = "", **kwargs: Any) -> Any:
    """Load a model, none of whose weights that match `needed` may be missing.

    transformers fills what a checkpoint lacks with random numbers.
    """
    model, found = _load(source, kind, output_loading_info=True, **kwargs)
    lacking = sorted(key for key in found["missing_keys"] if re.search(needed, key))
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise InputError(
            f"model {source}: its weights lack {lacking[0]}{more}; "
            f"it is no whole {type(model).__name__}"
        )
    return model


def ensure_rows(model: Any, n_tokens: int) -> None:
    """Give every token an embedding row; new ones are the mean of the old, the same each time."""
    n_rows = model.get_input_embeddings().num_embeddings
    if n_tokens <= n_rows:
        return
    model.resize_token_embeddings(n_tokens, mean_resizing=False)
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[n_rows:] = table.weight[:n_rows].mean(0)


def _check_causal(source: str | Path, config: Any) -> None:
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    names = config.architectures or []
    if causal is None or (names and causal not in names):
        what = names[0] if names else config.model_type
        raise InputError(f"llm {source}: a {what} is no causal language model")


def refuse_quantised(source: str | Path, config: Any) -> None:
    """Raise InputError for a checkpoint whose weights are quantised already (GPTQ, AWQ, ...)."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return
    method = found.get("quant_method") if isinstance(found, dict) else None
    raise InputError(
        f"model {source} is quantised already ({method or 'see its config.json'}), which cannot be "
        "trained or merged; give the one it was made from: --method qlora and --load-4bit quantise"
    )


def ensure_pad(source: str | Path, tokenizer: Any) -> None:
    """Padding is always masked, so the end token may stand in where there is no pad token.

    Raises InputError if there is neither.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(f"llm {source}: its tokenizer has neither a pad nor an end token")
        tokenizer.pad_token = tokenizer.eos_token


def module_dtype(module: nn.Module) -> torch.dtype:
    """The floating type of a module's weights."""
    return next(module.parameters()).dtype
