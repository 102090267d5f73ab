"""Exact FLOPs of a vision transformer."""

from vtc.catalog.shapes import EncoderShape


def encoder_flops(shape: EncoderShape, level: int | None = None) -> int:
    """FLOPs of one image up to hidden state `level`, default the last; two a multiply-add.

    Every layer: four projections and two feed-forward products on all tokens, and attention of
    all pairs; before them the patches' embedding. Layers past `level` are not run (LLaVA's
    penultimate state needs all but one), and the pooling head never is.
    """
    depth = shape.n_layers if level is None else level
    d, f, tokens = shape.hidden_size, shape.intermediate_size, shape.n_tokens
    a_layer = 2 * tokens * (4 * d * d + 2 * d * f) + 4 * tokens * tokens * d
    pixels = shape.n_channels * shape.patch_size**2
    return depth * a_layer + 2 * shape.n_patches * pixels * d
