"""Putting a model together: an encoder, an LLM, and a fresh compressor between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from vtc.catalog.shapes import is_mergeable
from vtc.compress.choices import check_mergeable
from vtc.data.templates import ConversationTemplate, special_tokens
from vtc.model.backbones import Encoder, Llm, load_encoder, load_llm, module_dtype
from vtc.model.config import VtcConfig
from vtc.model.four_bit import mark_as
from vtc.model.modeling import VtcForConditionalGeneration, build_compressor
from vtc.model.processor import VtcProcessor
from vtc.model.sources import EncoderSource, LlmSource
from vtc.model.tower import class_tokens, grid_of


@dataclass
class Assembled:
    """A model, its processor, and where its backbones come from."""

    model: VtcForConditionalGeneration
    processor: VtcProcessor
    encoder: EncoderSource
    llm: LlmSource


def assemble(
    encoder: str | Path | Encoder,
    llm: str | Path | Llm,
    compressor: str = "mlp",
    visual_tokens: int | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Assembled:
    """Build a model with a fresh compressor from folders, hub ids, or backbones already loaded.

    Backbones given as objects are not copied: several models may share them, as long as only
    their compressors train. `visual_tokens` None is one token a patch. `seed` draws the
    compressor's weights, whatever the state of torch's generator, which it leaves as it was.

    Raises InputError for a missing or unfit backbone, or a V, level or setting that the
    compressor does not support, and for one that merges patches where the encoder cannot.
    """
    vision = encoder if isinstance(encoder, Encoder) else load_encoder(encoder, dtype)
    text = llm if isinstance(llm, Llm) else load_llm(llm, dtype)
    config = _config(vision, text, compressor, visual_tokens, settings)
    model = _join(config, vision, text, seed)
    check_mergeable(compressor, is_mergeable(vision.tower.config.model_type))
    processor = VtcProcessor(
        image_processor=vision.image_processor,
        tokenizer=text.tokenizer,
        visual_tokens=model.compressor.visual_tokens,
        query_scope="latest" if model.compressor.needs_query else None,
    )
    return Assembled(model, processor, vision.source, text.source)


def _config(
    vision: Encoder,
    text: Llm,
    compressor: str,
    visual_tokens: int | None,
    settings: Mapping[str, Any] | None,
) -> VtcConfig:
    grid = grid_of(vision.tower.config)
    return VtcConfig(
        vision_config=vision.tower.config,
        text_config=text.model.config,
        image_token_index=text.tokenizer.convert_tokens_to_ids("<image>"),
        compressor=compressor,
        compressor_settings=dict(settings) if settings else None,
        visual_tokens=grid[0] * grid[1] if visual_tokens is None else visual_tokens,
        vision_feature_select_strategy=("default" if class_tokens(vision.tower, grid) else "full"),
        tie_word_embeddings=text.model.config.tie_word_embeddings,
        dtype=module_dtype(text.model),
    )


def _join(config: VtcConfig, vision: Encoder, text: Llm, seed: int) -> VtcForConditionalGeneration:
    """The model around the loaded backbones; nothing of their size is allocated twice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        compressor = build_compressor(config)
    with torch.device("meta"):
        model = VtcForConditionalGeneration(config)
    weight = text.model.get_input_embeddings().weight
    model.model.vision_tower = vision.tower
    model.model.multi_modal_projector = compressor.to(weight.device, weight.dtype)
    model.model.language_model = text.model.base_model
    model.lm_head = text.model.get_output_embeddings()
    model.generation_config = generation_config(text.tokenizer)
    mark_as(model, text.model)
    model.freeze_vision()
    return model.eval()


def generation_config(tokenizer: Any) -> GenerationConfig:
    """Greedy decoding that stops at the end of an answer as the chat template writes it.

    It takes the place of the LLM's own, whose sampling settings may be ones that transformers
    refuses to save beside greedy decoding.
    """
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_token_ids(tokenizer) or None,
        pad_token_id=tokenizer.pad_token_id,
    )


def end_token_ids(tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the chat template's end of turn, and the tokenizer's end."""
    if not tokenizer.chat_template:
        return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    turns = [{"role": "user", "text": "?"}, {"role": "assistant", "text": "!"}]
    answer = ConversationTemplate(tokenizer).spans(turns)[-1].text
    last = tokenizer(answer, add_special_tokens=False).input_ids[-1]
    ends = {tokenizer.eos_token_id} - {None}
    if tokenizer.convert_ids_to_tokens(last) in special_tokens(tokenizer):
        ends.add(last)
    return sorted(ends)
