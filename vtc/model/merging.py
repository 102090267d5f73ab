"""Token merging inside a vision encoder (ToMe): its layers, with merges between their halves."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vtc.compress.interface import Tokens
from vtc.compress.schedule import merges
from vtc.compress.tome import match
from vtc.errors import InputError


def merged_state(
    layers: nn.ModuleList, state: Float[Tensor, "B T D"], n_patches: int, tokens: Tokens
) -> Float[Tensor, "B V D"]:
    """What `layers` make of their input, its N patches merged to V; the patches alone.

    Sums of merged tokens and their sizes are kept in fp32 at least. Raises InputError for layers
    of another build than CLIP's and SigLIP's, and for more than a class token before the patches.
    """
    assert tokens.merged is not None
    n_before = state.shape[1] - n_patches
    _check(layers, n_before)
    wide = torch.promote_types(state.dtype, torch.float32)
    batch = len(state)
    sizes = torch.ones(batch, state.shape[1], 1, device=state.device, dtype=wide)
    bias: Tensor | None = None
    # Where each token's patches are in the middle; the class token before them all.
    place = torch.arange(-n_before, n_patches, device=state.device, dtype=wide)
    place = place.expand(batch, -1).unsqueeze(-1)
    for layer, counts in zip(layers, merges(n_patches, tokens.merged, len(layers)), strict=True):
        attended, keys = _attend(layer, state, bias)
        state = state + attended
        for r in counts:
            matching = match(keys, r, n_before == 1)
            stacked = torch.cat([state.to(wide), keys.to(wide), place], dim=-1)
            parts = [state.shape[-1], keys.shape[-1], 1]
            total = matching.summed(sizes)
            mean = matching.summed(stacked * sizes) / total
            merged, metric, place = mean.split(parts, dim=-1)
            state, keys, sizes = merged.to(state.dtype), metric.to(keys.dtype), total
            bias = sizes.log().to(state.dtype).transpose(1, 2).unsqueeze(1)
        state = state + layer.mlp(layer.layer_norm2(state))  # type: ignore[operator]
    state = state[:, n_before:]
    if tokens.in_order:
        order = place[:, n_before:].argsort(dim=1, stable=True)
        state = state.gather(1, order.expand(-1, -1, state.shape[-1]))
    return state


def _attend(
    layer: Any, state: Float[Tensor, "B T D"], bias: Float[Tensor, "B 1 1 T"] | None
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T E"]]:
    """A layer's attention, with a bias by key: log of how many patches each is; and mean keys."""
    attention, normed = layer.self_attn, layer.layer_norm1(state)
    query, key, value = (
        project(normed).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    found = F.scaled_dot_product_attention(query, key, value, bias, scale=attention.scale)
    return attention.out_proj(found.transpose(1, 2).flatten(2)), key.mean(1)


def _check(layers: nn.ModuleList, n_before: int) -> None:
    parts = ("layer_norm1", "layer_norm2", "mlp", "self_attn")
    known = all(hasattr(layer, part) for layer in layers for part in parts)
    if not known or n_before > 1:
        name = type(layers[0]).__name__ if len(layers) else "none"
        raise InputError(
            f"tome merges tokens inside CLIP's and SigLIP's encoders; this one has layers {name} "
            f"and {n_before} tokens before the patches: use another compressor"
        )
