"""Layers of a KV cache that hold fewer tokens than were read."""

from typing import Any

from jaxtyping import Bool
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class PrunedLayer(DynamicLayer):
    """Keys and values of the tokens that are left, rows padded where they keep fewer.

    `valid` [B, T] says which of the T places are tokens.
    """

    _layer_type = None
    valid: Bool[Tensor, "B T"]

    @classmethod
    def of(cls, layer: DynamicLayer, valid: Bool[Tensor, "B T"]) -> "PrunedLayer":
        """A layer with the keys and values of another."""
        made = cls()
        vars(made).update(vars(layer))
        made.valid = valid
        return made

    def crop(self, tokens_to_remove: int) -> None:
        """Without its last tokens; for text alone, which all layers have as much of."""
        super().crop(tokens_to_remove)
        if tokens_to_remove:
            self.valid = self.valid[:, : -abs(tokens_to_remove)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row so many times."""
        super().batch_repeat_interleave(repeats)
        self.valid = self.valid.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Some rows."""
        super().batch_select_indices(indices)
        self.valid = self.valid[indices]

    def reorder_cache(self, beam_idx: Any) -> None:
        """The rows in another order."""
        super().reorder_cache(beam_idx)
        self.valid = self.valid[beam_idx.to(self.valid.device)]


def layer_of(cache: Any, number: int) -> DynamicLayer | None:
    """A layer of a growing cache, made if it is not there yet; None without a cache.

    Raises ValueError for a layer of another kind, of which no tokens can be left out.
    """
    if cache is None:
        return None
    while len(cache.layers) <= number:
        cache.layers.append(DynamicLayer())
    layer = cache.layers[number]
    if type(layer) not in (DynamicLayer, PrunedLayer):
        raise ValueError(
            f"visual tokens are dropped from a DynamicCache, not from one of {type(layer).__name__}"
        )
    return layer
