"""Exact FLOPs of a vision transformer."""

from collections.abc import Sequence

from vtc.catalog.shapes import EncoderShape


def encoder_flops(
    shape: EncoderShape, level: int | None = None, patches_left: Sequence[int] = ()
) -> int:
    """FLOPs of one image up to hidden state `level`, default the last; two a multiply-add.

    Every layer: four projections and two feed-forward products on all tokens, and attention of
    all pairs; before them the patches' embedding. Layers past `level` are not run (LLaVA's
    penultimate state needs all but one), and the pooling head never is. Where patches merge behind
    a layer's attention, `patches_left` of them are left there; the matching is not counted.
    """
    depth = shape.n_layers if level is None else level
    d, f, tokens = shape.hidden_size, shape.intermediate_size, shape.n_tokens
    total, seen = 2 * shape.n_patches * shape.patch_values * d, tokens
    for layer in range(depth):
        left = patches_left[layer] + shape.class_token if patches_left else tokens
        total += 8 * seen * d * d + 4 * seen * seen * d + 4 * left * d * f
        seen = left
    return total
