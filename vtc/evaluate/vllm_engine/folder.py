"""A run's LLM as a model folder for vLLM, to which images come as visual tokens."""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from transformers import CLIPImageProcessor, CLIPVisionConfig, LlavaConfig, LlavaProcessor

from vtc.model.run import Run

_PATCH = 14


def write_folder(run: Run, folder: Path, fed: int) -> None:
    """Write a run's LLM as a Llava without encoder and projector, in the run's floating type.

    vLLM builds neither, as it is given visual tokens, but sizes buffers by the config's encoder:
    here a nominal one, of at least the `fed` patches that an image has visual tokens at most. So
    every compressor and every encoder does.
    """
    config = run.model.config
    side = math.ceil(math.sqrt(fed))
    size = side * _PATCH
    described = LlavaConfig(
        architectures=["LlavaForConditionalGeneration"],
        vision_config=CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=1,
            image_size=size,
            patch_size=_PATCH,
        ),
        # A copy: LlavaConfig changes what it is given.
        text_config=_text_config(config),
        image_token_index=config.image_token_index,
        image_seq_length=side * side,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=config.tie_word_embeddings,
        dtype=run.model.dtype,
    )
    described.save_pretrained(folder)
    square = {"height": size, "width": size}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size=square, crop_size=square),
        tokenizer=run.processor.tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    core: Any = run.model.model
    named = core.language_model.state_dict()
    weights = {f"model.language_model.{name}": weight for name, weight in named.items()}
    if not config.tie_word_embeddings:
        weights["lm_head.weight"] = run.model.lm_head.weight
    save_torch_state_dict(weights, folder, metadata={"format": "pt"})


def _text_config(config: Any) -> dict[str, Any]:
    return config.text_config.to_dict()
