"""FastV and PyramidDrop from their definitions: whole sequences, whole attention maps, and masks.

Nothing is dropped, cached, padded or batched here. A token that is gone is hidden from all others
in the layers behind its drop, and everything is computed anew for each token of an answer.
"""

from typing import Any

import torch
from torch import Tensor


def visible(attention: Any, states: Tensor, angles: Any, mask: Tensor) -> Tensor:
    """The map [heads, T, T] of a layer's attention, of eager attention."""
    return attention(hidden_states=states, position_embeddings=angles, attention_mask=mask)[1][0]


class ByMasks:
    """The logits behind each token of one row, with a compressor's drops as masks."""

    def __init__(self, model: Any) -> None:
        self.core, self.llm = model.model, model.model.language_model
        self.head, self.image_token = model.lm_head, model.config.image_token_id
        self.compressor = model.compressor
        schedule = self.compressor.schedule(len(self.llm.layers))
        self.kept, self.n = dict(schedule.drops), schedule.n_tokens

    @torch.no_grad()
    def logits(self, ids: list[int], n_prompt: int, pixels: Tensor | None) -> Tensor:
        """[T, vocab]; tokens are dropped by what the prompt's last one looks at, never that one."""
        row = torch.tensor([ids])
        states = self.llm.get_input_embeddings()(row)
        here = [place for place, token in enumerate(ids) if token == self.image_token]
        if pixels is not None:
            states[0, here] = self.core.compress(self.core.encode(pixels)).flatten(0, 1)
        images = [here[start : start + self.n] for start in range(0, len(here), self.n)]
        total = len(ids)
        causal = torch.ones(total, total).tril().bool()
        gone: set[int] = set()
        map_before = torch.empty(0)
        positions = torch.arange(total)[None]
        for number, layer in enumerate(self.llm.layers):
            normed = layer.input_layernorm(states)
            angles = self.llm.rotary_emb(states, positions)
            if number in self.kept:
                seen = map_before
                if self.compressor.ranked_by_next:
                    seen = visible(layer.self_attn, normed, angles, self.mask(causal, gone))
                scores = seen.mean(0)[n_prompt - 1]
                for image in images:
                    left = [place for place in image if place not in gone]
                    best = sorted(left, key=lambda p: (p != n_prompt - 1, -scores[p].item()))
                    gone |= set(best[self.kept[number] :]) - {n_prompt - 1}
                if self.compressor.packs:
                    stay = torch.tensor([place not in gone for place in range(total)])
                    positions = (stay.cumsum(0) - 1).clamp(min=0)[None]
                    angles = self.llm.rotary_emb(states, positions)
            mask = self.mask(causal, gone)
            map_before = visible(layer.self_attn, normed, angles, mask)
            states = layer(states, attention_mask=mask, position_embeddings=angles)
        self.gone = gone
        return self.head(self.llm.norm(states))[0]

    def mask(self, causal: Tensor, gone: set[int]) -> Tensor:
        """Minus infinity, as far as numbers go, where a token sees none."""
        may = causal.clone()
        may[:, sorted(gone)] = False
        may |= torch.eye(len(causal), dtype=torch.bool)
        return torch.where(may, 0.0, torch.finfo(torch.float32).min)[None, None]
