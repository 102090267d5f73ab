"""What one token of each row looks at in a layer of the LLM, without a map of all attention.

The layer's own attention module makes queries and keys, whatever norms and positions it puts on
them; it is stopped before it attends to anything.
"""

import copy
from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from vtc.errors import InputError

_NAME = "vtc_looking"
Angles = tuple[Float[Tensor, "B T E"], Float[Tensor, "B T E"]]
"""Cosines and sines of tokens' positions, as transformers hands them to layers."""


class _Made(Exception):
    """Queries [B, H, T, E] and keys [B, K, T, E] are there, and no more is wanted."""

    def __init__(self, query: Tensor, key: Tensor) -> None:
        super().__init__()
        self.query, self.key = query, key


def _stop(module: nn.Module, query: Tensor, key: Tensor, *_: Any, **__: Any) -> NoReturn:
    raise _Made(query, key)


AttentionInterface.register(_NAME, _stop)


@torch.no_grad()
def queries_and_keys(
    layer: Any, states: Float[Tensor, "B T D"], angles: Angles
) -> tuple[Float[Tensor, "B H T E"], Float[Tensor, "B K T E"]]:
    """Queries and keys that a layer makes of its input `states`, at the positions of `angles`.

    Raises InputError for a layer of another kind than Llama's and Qwen's.
    """
    attention, norm = getattr(layer, "self_attn", None), getattr(layer, "input_layernorm", None)
    own = getattr(attention, "config", None)
    if attention is None or norm is None or own is None or not hasattr(attention, "scaling"):
        raise InputError(
            f"layers of type {type(layer).__name__} cannot be asked what a token looks at, by "
            "which visual tokens are dropped; use a compressor before the LLM, such as divprune"
        )
    attention.config = copy.copy(own)
    attention.config._attn_implementation_internal = _NAME
    try:
        attention(
            hidden_states=norm(states),
            position_embeddings=angles,
            attention_mask=None,
            past_key_values=None,
        )
    except _Made as made:
        return made.query, made.key
    finally:
        attention.config = own
    raise InputError(f"{type(attention).__name__} does not attend the way transformers' layers do")


def last_places(here: Bool[Tensor, "B T"]) -> Int[Tensor, "B 1"]:
    """The place of each row's last token; the very last where a row has none."""
    return here.shape[1] - 1 - here.flip(1).int().argmax(1, keepdim=True)


def looked_at(
    query: Float[Tensor, "B H 1 E"],
    keys: Float[Tensor, "B K T E"],
    valid: Bool[Tensor, "B T"],
    scaling: float,
) -> Float[Tensor, "B T"]:
    """How much a token of each row attends to each of T tokens: the mean over heads, in fp32.

    Softmax over those that are `valid`; H query heads share K heads of keys.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    grouped = query.squeeze(2).unflatten(1, (keys.shape[1], -1))
    scores = (grouped @ keys.transpose(2, 3)).to(wide) * scaling
    scores = scores.masked_fill(~valid[:, None, None], torch.finfo(wide).min)
    return scores.softmax(-1).mean((1, 2))


def picked(tokens: Float[Tensor, "B T D"], places: Int[Tensor, "B R"]) -> Float[Tensor, "B R D"]:
    """The tokens at some places of each row."""
    batch = len(places)
    index = places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    return tokens.expand(batch, -1, -1).gather(1, index)
