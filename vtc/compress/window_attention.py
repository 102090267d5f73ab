"""Multi-head attention of one query a window, with no more products than it needs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

WIDE = 512
"""Encoders at least as wide spare memory, and TokenPacker's products: trainings of narrower ones
end as they always did."""
_PARTS = 8


class WindowAttention(nn.Module):
    """Each query attends to the S patches of its own window; parameters of nn.MultiheadAttention.

    Few queries need no key of every patch: q (W k) is (q W) k, and the sum of weighted W v is W
    times the weighted sum. So the input projections of keys and values move to the queries' side
    and to the result's, where there are S times fewer rows; the result differs by rounding alone.
    The key's bias adds the same to all scores of a query, which softmax takes away.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # One matrix for queries, keys and values: the key's bias then has a gradient, of zeros.
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "B V D"],
        keys: Float[Tensor, "B V S D"],
        values: Float[Tensor, "B V S D"],
    ) -> Float[Tensor, "B V D"]:
        """Attend from each query to its window, without a residual."""
        of_query, of_key, of_value = self.in_proj_weight.chunk(3)
        query_bias, key_bias, value_bias = self.in_proj_bias.chunk(3)
        query = F.linear(queries, of_query, query_bias).unflatten(-1, (self.heads, -1))
        query = query * query.shape[-1] ** -0.5
        if not self.absorbs(keys.shape[1], keys.shape[2]):
            return self._project_all(
                query, F.linear(keys, of_key, key_bias), F.linear(values, of_value, value_bias)
            )
        found = attend_unprojected(query, keys, values, of_key, of_value)
        return self.out_proj(found + value_bias)

    def _project_all(
        self,
        query: Float[Tensor, "B V H d"],
        keys: Float[Tensor, "B V S D"],
        values: Float[Tensor, "B V S D"],
    ) -> Float[Tensor, "B V D"]:
        key, value = (part.unflatten(-1, (self.heads, -1)) for part in (keys, values))
        # Windows are small here: products and sums of elements beat V * heads tiny matrices.
        weights = (query.unsqueeze(2) * key).sum(-1).softmax(dim=2)
        return self.out_proj((weights.unsqueeze(-1) * value).sum(2).flatten(-2))

    def absorbs(self, n_windows: int, n_patches: int) -> bool:
        """Whether fewer products are made if no patch is projected (`n_patches` a window)."""
        projected, absorbed = self._orders(n_windows, n_patches)
        return absorbed < projected

    def _orders(self, n_windows: int, n_patches: int) -> tuple[int, int]:
        """FLOPs of keys and values with every patch projected, and with none: matrix products."""
        width, patches = self.out_proj.in_features, n_windows * n_patches
        a_row = 2 * (2 * width * width)
        return patches * a_row, n_windows * a_row + self.heads * patches * 2 * (2 * width)

    def flops(self, n_windows: int, n_patches: int) -> int:
        """FLOPs of one image; two a multiply-add."""
        width = self.out_proj.in_features
        return n_windows * 2 * (2 * width * width) + min(self._orders(n_windows, n_patches))

    def reset_parameters(self) -> None:
        """As nn.MultiheadAttention: Xavier for the one input matrix, zero biases."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        self.out_proj.reset_parameters()
        nn.init.zeros_(self.out_proj.bias)


def attend_unprojected(
    query: Float[Tensor, "B V H d"],
    keys: Float[Tensor, "B V S D"],
    values: Float[Tensor, "B V S D"],
    of_key: Float[Tensor, "D D"],
    of_value: Float[Tensor, "D D"],
) -> Float[Tensor, "B V D"]:
    """Attention of one query a window over patches that no matrix has touched.

    `query` is projected and scaled; the biases of keys and values are left to the caller. What it
    makes of a window has a row a head, more than the window has patches where it is small: a
    training then makes it anew for its backward pass, some windows at a time.
    """
    heads, size, width = query.shape[-2], keys.shape[2], keys.shape[3]
    if heads <= size or width < WIDE or not torch.is_grad_enabled():
        return _attend(query, keys, values, of_key, of_value)
    rows = -(-query.shape[0] * query.shape[1] // _PARTS)
    cut = zip(*(part.flatten(0, 1).split(rows) for part in (query, keys, values)), strict=True)
    found = [
        checkpoint(
            _attend,
            *(part.unsqueeze(0) for part in parts),
            of_key,
            of_value,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for parts in cut
    ]
    return torch.cat(found, dim=1).view(*query.shape[:2], width)


def _attend(
    query: Float[Tensor, "B V H d"],
    keys: Float[Tensor, "B V S D"],
    values: Float[Tensor, "B V S D"],
    of_key: Float[Tensor, "D D"],
    of_value: Float[Tensor, "D D"],
) -> Float[Tensor, "B V D"]:
    heads = query.shape[-2]
    asked = torch.einsum("bvhd,hdk->bvhk", query, of_key.unflatten(0, (heads, -1)))
    weights = (asked @ keys.transpose(-1, -2)).softmax(-1)
    pooled = weights @ values
    return torch.einsum("bvhk,hdk->bvhd", pooled, of_value.unflatten(0, (heads, -1))).flatten(-2)
