"""Multi-head attention of a few queries over many patches, with no more products than it needs."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.layers import linear_flops
from vtc.errors import InputError


class CrossAttention(nn.Module):
    """Queries [.., Q, D] over keys and values [.., N, K]; the result is [B, Q, D].

    The four projections are those of nn.MultiheadAttention. Few queries need no key of every
    patch: q (W k) is (q W) k, and the sum of weighted W v is W times the weighted sum. Each side
    takes the order with fewer FLOPs; the result differs by rounding alone.

    Queries without a batch dimension serve every image, and are projected once a batch.
    """

    def __init__(self, width: int, heads: int, key_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(key_width or width, width)
        self.value = nn.Linear(key_width or width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "*A Q D"],
        keys: Float[Tensor, "B N K"],
        values: Float[Tensor, "B N K"],
    ) -> Float[Tensor, "B Q D"]:
        """Attend over all patches."""
        return self.gather(self.weights(queries, keys), values)

    def weights(
        self, queries: Float[Tensor, "*A Q D"], keys: Float[Tensor, "*C N K"]
    ) -> Float[Tensor, "*F H Q N"]:
        """The attention weights, of each head."""
        heads, (n_keys, key_width) = self.heads, keys.shape[-2:]
        query = self.query(queries).unflatten(-1, (heads, -1)).transpose(-3, -2)
        query = query * query.shape[-1] ** -0.5
        if not self._absorbs(query.shape[-2], n_keys, key_width):
            key = self.key(keys).unflatten(-1, (heads, -1)).transpose(-3, -2)
            return (query @ key.transpose(-1, -2)).softmax(-1)
        asked = query @ self.key.weight.unflatten(0, (heads, -1))
        scores = asked.flatten(-3, -2) @ keys.transpose(-1, -2)
        scores = scores.unflatten(-2, (heads, -1))
        shift = (query * self.key.bias.unflatten(0, (heads, 1, -1))).sum(-1, keepdim=True)
        return (scores + shift).softmax(-1)

    def gather(
        self, weights: Float[Tensor, "*A H Q N"], values: Float[Tensor, "B N K"]
    ) -> Float[Tensor, "B Q D"]:
        """The weighted sums of the projected values of each head, through the output layer."""
        heads, n_queries, n_keys = weights.shape[-3:]
        bias = self.value.bias.unflatten(0, (heads, 1, -1))
        if self._absorbs(n_queries, n_keys, values.shape[-1]):
            pooled = (weights.flatten(-3, -2) @ values).unflatten(-2, (heads, -1))
            found = pooled @ self.value.weight.unflatten(0, (heads, -1)).transpose(-1, -2) + bias
        else:
            value = self.value(values).unflatten(-1, (heads, -1)).transpose(-3, -2)
            found = weights @ value
        return self.out(found.transpose(-3, -2).flatten(-2))

    def _absorbs(self, n_queries: int, n_keys: int, key_width: int) -> bool:
        projected, absorbed = self._orders(n_queries, n_keys, key_width)
        return absorbed < projected

    def _orders(self, n_queries: int, n_keys: int, key_width: int) -> tuple[int, int]:
        """FLOPs of one side, keys or values, with every patch projected and with none."""
        width = self.query.in_features
        projected = 2 * n_keys * key_width * width + 2 * n_queries * n_keys * width
        absorbed = (
            2 * n_queries * width * key_width + 2 * self.heads * n_queries * n_keys * key_width
        )
        return projected, absorbed

    def flops(self, n_queries: int, n_keys: int) -> int:
        """FLOPs of one image."""
        return self.weights_flops(n_queries, n_keys) + self.gather_flops(n_queries, n_keys)

    def weights_flops(self, n_queries: int, n_keys: int) -> int:
        """FLOPs of `weights` for one image."""
        side = min(self._orders(n_queries, n_keys, self.key.in_features))
        return n_queries * linear_flops(self.query) + side

    def gather_flops(self, n_queries: int, n_keys: int) -> int:
        """FLOPs of `gather` for one image."""
        side = min(self._orders(n_queries, n_keys, self.value.in_features))
        return n_queries * linear_flops(self.out) + side

    def reset_parameters(self) -> None:
        """Xavier for the three inputs as if one matrix, as nn.MultiheadAttention; zero biases."""
        for layer in (self.query, self.key, self.value):
            bound = math.sqrt(6 / (layer.in_features + 3 * layer.out_features))
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
        self.out.reset_parameters()
        nn.init.zeros_(self.out.bias)


def resolve_heads(name: str, heads: int | None, width: int, most: int) -> int:
    """The heads asked for, or the largest number up to `most` that divides the width.

    Raises InputError, naming the compressor, for a number that does not divide it.
    """
    if heads is None:
        return next(count for count in range(most, 0, -1) if width % count == 0)
    if heads < 1 or width % heads:
        divisors = ", ".join(str(count) for count in range(1, width + 1) if width % count == 0)
        raise InputError(
            f"{name}: {heads} heads do not divide the width {width}; choose from {divisors}"
        )
    return heads
