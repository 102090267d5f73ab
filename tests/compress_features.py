"""Random features of just the kind that a compressor asks for."""

import torch
from torch import nn

from vtc.compress.interface import AttentionLayer, Compressor, VisionFeatures


def attention_layer(
    width: int, heads: int = 1, dtype: torch.dtype = torch.float32, seed: int = 7
) -> AttentionLayer:
    """A frozen layer of random weights, norm and biases too."""
    generator = torch.Generator().manual_seed(seed)
    parts = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
    with torch.no_grad():
        for weight in (weight for part in parts for weight in part.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=generator))
    norm, query, key = (part.to(dtype).requires_grad_(False) for part in parts)
    return AttentionLayer(norm, query, key, heads)


def features_of(
    compressor: Compressor,
    width: int,
    text_width: int,
    *,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    heads: int = 1,
    before: int = 1,
) -> VisionFeatures:
    """Features of `batch` images of the encoder's width; `before` the patches so many tokens."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    request = compressor.request
    rows, columns = compressor.grid
    n_patches = request.tokens.merged or rows * columns
    found = VisionFeatures(
        {level: drawn(batch, n_patches, width) for level in request.levels}, compressor.grid
    )
    if compressor.needs_query:
        found.query = drawn(batch, text_width)
    if request.tokens.class_token:
        found.before = {level: drawn(batch, before, width) for level in request.levels}
    if request.attention is not None:
        found.attention = attention_layer(width, heads, dtype)
    return found


def rows_of(features: VisionFeatures, rows: slice) -> VisionFeatures:
    """Some images of a batch."""
    return VisionFeatures(
        {level: state[rows] for level, state in features.levels.items()},
        features.grid,
        None if features.query is None else features.query[rows],
        before={level: state[rows] for level, state in features.before.items()},
        attention=features.attention,
    )
