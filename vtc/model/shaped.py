"""A model of given shapes with random weights, to measure what they cost."""

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, SiglipVisionConfig

from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.errors import InputError
from vtc.model.config import VtcConfig
from vtc.model.modeling import VtcForConditionalGeneration, build_compressor


def random_model(
    encoder: EncoderShape,
    llm: LlmShape,
    compressor: str,
    visual_tokens: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> VtcForConditionalGeneration:
    """A vtc model of the shapes, Llama's layers and CLIP's or SigLIP's, ready to be timed.

    Raises InputError for a V that the compressor does not support, and images that are not square.
    """
    if not (isinstance(encoder.image_size, int) and isinstance(encoder.patch_size, int)):
        raise InputError(
            "an encoder of images that are not square is timed in a run alone; give 'vtc profile' "
            "the folder of one"
        )
    text = LlamaConfig(
        hidden_size=llm.hidden_size,
        num_hidden_layers=llm.n_layers,
        num_attention_heads=llm.n_heads,
        num_key_value_heads=llm.n_kv_heads,
        head_dim=llm.head_dim,
        intermediate_size=llm.intermediate_size,
        vocab_size=llm.vocab_size,
        tie_word_embeddings=llm.tied,
        max_position_embeddings=32768,
    )
    vision: Any = CLIPVisionConfig if encoder.class_token else SiglipVisionConfig
    seeing = vision(
        hidden_size=encoder.hidden_size,
        num_hidden_layers=encoder.n_layers,
        num_attention_heads=encoder.n_heads,
        intermediate_size=encoder.intermediate_size,
        image_size=encoder.image_size,
        patch_size=encoder.patch_size,
    )
    config = VtcConfig(
        vision_config=seeing,
        text_config=text,
        image_token_index=0,
        compressor=compressor,
        visual_tokens=visual_tokens,
        vision_feature_select_strategy="default" if encoder.class_token else "full",
        tie_word_embeddings=llm.tied,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = VtcForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    return model.to(dtype).eval()


def give_compressor(model: VtcForConditionalGeneration, visual_tokens: int) -> None:
    """Put another fresh compressor of the same name for `visual_tokens` into a random model."""
    weight = next(model.parameters())
    model.config.visual_tokens = visual_tokens
    compressor = build_compressor(model.config)
    model.model.multi_modal_projector = compressor.to(weight.device, weight.dtype).eval()
