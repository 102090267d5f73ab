"""Prompts that the LLM has read: their keys and values, from which any number of answers go on."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.pruned_cache import PrunedLayer


@dataclass
class Reading:
    """B token rows that have been read: cache, mask, and what may come next.

    Reading on makes `cache` longer in place: take rows with `of` first if they are needed again.
    """

    cache: DynamicCache
    mask: Int[Tensor, "B T"]
    logits: Float[Tensor, "B vocab"]

    @property
    def divides(self) -> bool:
        """Whether its rows may be taken apart: not where layers hold a window or a state."""
        return all(type(layer) in (DynamicLayer, PrunedLayer) for layer in self.cache.layers)

    def of(self, rows: Sequence[int]) -> "Reading":
        """Some rows, each as often as it is named, in a cache of their own."""
        index = torch.tensor(rows, device=self.mask.device)
        cache = DynamicCache()
        cache.layers = [copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(index)
        return Reading(cache, self.mask[index], self.logits[index])


def read(
    model: VtcForConditionalGeneration,
    rows: Sequence[Sequence[int]],
    visuals: Mapping[str, Tensor],
    before: Reading | None = None,
    padding: int = 0,
) -> Reading:
    """Read token rows, padded on the left, with the images they show; `before` them what is read.

    `visuals` are `pixel_values` or `vision_levels` of all images of the rows, in order of
    appearance. `before` has as many rows, and its cache grows.
    """
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[padding] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return _forward(model, ids, mask, visuals, before, keep=1)[0]


def read_on(
    model: VtcForConditionalGeneration, rows: Sequence[Sequence[int]], before: Reading
) -> Float[Tensor, "B T vocab"]:
    """The logits behind each token of rows that follow what is read; padding is on the right."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([list(row) + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return _forward(model, ids, mask, {}, before, keep=0)[1]


@torch.inference_mode()
def greedy(
    model: VtcForConditionalGeneration, before: Reading, max_new_tokens: int, ends: set[int]
) -> list[list[int]]:
    """Each row's likeliest next tokens: to the first of `ends`, or `max_new_tokens` of them.

    Rows that have ended are read no further.
    """
    answers: list[list[int]] = [[] for _ in before.mask]
    going = list(range(len(answers)))
    while True:
        tokens = before.logits.float().argmax(-1).tolist()
        for row, token in zip(going, tokens, strict=True):
            answers[row].append(token)
        stay = [place for place, token in enumerate(tokens) if token not in ends]
        if not stay or len(answers[going[0]]) >= max_new_tokens:
            return answers
        if len(stay) < len(going) and before.divides:
            before = before.of(stay)
            going = [going[place] for place in stay]
            tokens = [tokens[place] for place in stay]
        ids = torch.tensor(tokens)[:, None]
        before = _forward(model, ids, torch.ones_like(ids), {}, before, keep=1)[0]


@torch.inference_mode()
def _forward(
    model: VtcForConditionalGeneration,
    ids: Int[Tensor, "B T"],
    mask: Int[Tensor, "B T"],
    visuals: Mapping[str, Any],
    before: Reading | None,
    keep: int,
) -> tuple[Reading, Tensor]:
    """The rows read, and the logits behind their last `keep` tokens (all for 0)."""
    ids, mask = ids.to(model.device), mask.to(model.device)
    cache = DynamicCache(config=model.config) if before is None else before.cache
    whole = mask if before is None else torch.cat([before.mask, mask], dim=1)
    # Positions count tokens, not padding, which stands to the left or in a row's middle.
    positions = (whole.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    logits = model(
        input_ids=ids,
        attention_mask=whole,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
        **visuals,
    ).logits
    return Reading(cache, whole, logits[:, -1]), logits
