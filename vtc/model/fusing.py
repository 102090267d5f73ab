"""Text fused with what the images show, before the LLM, where the compressor does that."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vtc.compress.choices import check_visual_tokens
from vtc.compress.fusing import Memory
from vtc.model.repeating import repeated


@dataclass
class SeenImages(BaseModelOutputWithPooling):
    """Visual tokens in `pooler_output`, and the memory of the images that text is fused with."""

    memory: Memory | None = None


def read_images(
    model: Any,
    vision_levels: Float[Tensor, "I L N D"],
    query_images: Int[Tensor, " P"] | None = None,
    visual_tokens: int | None = None,
) -> SeenImages:
    """What the LLM is fed of I images, and their memory; or of P places, each of one of these.

    Raises ValueError as `VtcModel.compress`, and InputError for another V than the compressor's.
    """
    own = model.compressor.visual_tokens
    if visual_tokens is not None:
        check_visual_tokens(model.config.compressor, model.grid, visual_tokens, [own])
    tokens, memory = model.compressor.read(model.features_of(vision_levels))
    if query_images is not None:
        tokens, memory = tokens[query_images], memory.of(query_images)
    fed = repeated(tokens, model.config.repeat_visual_tokens)
    return SeenImages(pooler_output=fed.unbind(0), memory=memory)  # type: ignore[arg-type]


def fused_embeddings(
    model: Any,
    input_ids: Int[Tensor, "B T"] | None,
    seen: SeenImages,
    attention_mask: Tensor | None,
    fused_mask: Int[Tensor, "B T"] | None,
) -> Float[Tensor, "B T text_width"]:
    """What the LLM is fed of rows of tokens: visual tokens, fused text, and plain embeddings.

    Fused are the tokens of rows with images where `fused_mask` is not 0 (default: all but image
    tokens and padding), in order, as if the others were not there. `attention_mask` is 0 at
    padding [B, T], or additive [B, 1, T, T] between the questions of a row that do not see one
    another. An answer must not be fused: training marks the prompts, and what is generated comes
    later, as it is. Raises ValueError without token ids, and for other images than they have.
    """
    if input_ids is None:
        raise ValueError(
            f"compressor {model.config.compressor} fuses text with images: pass input_ids"
        )
    embeds = model.language_model.get_input_embeddings()(input_ids)
    shown = input_ids == model.config.image_token_id
    tokens = torch.cat(seen.pooler_output, dim=0).to(embeds.device, embeds.dtype)  # type: ignore[arg-type]
    if int(shown.sum()) != len(tokens):
        raise ValueError(
            f"{int(shown.sum())} image tokens for {len(tokens)} visual tokens of images"
        )
    images = _images_of(shown, len(seen.pooler_output[0]))  # type: ignore[index]
    fused = ~shown & (images[:, :1] >= 0)
    if fused_mask is not None:
        fused &= fused_mask.bool()
    if attention_mask is not None and attention_mask.dim() == 2:
        fused &= attention_mask[:, -input_ids.shape[1] :].bool()
    embeds = embeds.masked_scatter(shown.unsqueeze(-1), tokens)
    rows = fused.any(1).nonzero().squeeze(1)
    if len(rows) == 0 or seen.memory is None:
        return embeds
    fused = fused[rows]
    # The fused tokens of each row, those of short rows before some that nothing is made of.
    n = int(fused.sum(1).max())
    places = fused.int().sort(dim=1, descending=True, stable=True).indices[:, :n]
    valid = fused.gather(1, places)
    picked = embeds[rows].gather(1, places.unsqueeze(-1).expand(-1, -1, embeds.shape[-1]))
    dtype = seen.memory.keys.dtype
    made = model.compressor.fuse(
        picked.to(dtype), seen.memory, images[rows], _seen(places, valid, attention_mask, rows)
    )
    return embeds.index_put(
        (rows[:, None].expand_as(places)[valid], places[valid]), made[valid].to(embeds.dtype)
    )


def _images_of(shown: Bool[Tensor, "B T"], each: int) -> Int[Tensor, "B M"]:
    """The images of each row, by number, then -1; `each` has so many tokens."""
    counts = shown.sum(1) // each
    most = max(int(counts.max()), 1)
    place = torch.arange(most, device=shown.device)
    numbers = (counts.cumsum(0) - counts)[:, None] + place
    return torch.where(place < counts[:, None], numbers, -1)


def _seen(
    places: Int[Tensor, "R Q"],
    valid: Bool[Tensor, "R Q"],
    attention_mask: Tensor | None,
    rows: Int[Tensor, " R"],
) -> Bool[Tensor, "R Q Q"]:
    """Which fused tokens of its row each sees: those up to itself, of its own question."""
    n = places.shape[1]
    seen = torch.ones(n, n, dtype=torch.bool, device=places.device).tril() & valid[:, None, :]
    if attention_mask is not None and attention_mask.dim() == 4:
        among = attention_mask[rows, 0] == 0
        among = among.gather(1, places[:, :, None].expand(-1, -1, among.shape[2]))
        seen &= among.gather(2, places[:, None, :].expand(-1, n, -1))
    # What nothing is made of sees itself, so that its position counts too.
    return seen | torch.eye(n, dtype=torch.bool, device=places.device)
