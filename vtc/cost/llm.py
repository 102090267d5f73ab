"""Exact FLOPs of an LLM: matrix products alone, a multiply-add counted as two."""

from typing import Literal

from vtc.catalog.shapes import LlmShape

Attention = Literal["dense", "causal"]
Trains = Literal["nothing", "lora", "full"]
"""What of the LLM trains; gradients pass through it to the compressor in any case."""


def prefill_flops(
    shape: LlmShape,
    tokens: float,
    head_tokens: float = 1,
    *,
    cached: float = 0,
    attention: Attention = "dense",
) -> float:
    """FLOPs of a forward pass over `tokens` tokens, the LM head at `head_tokens` of them.

    2 M tokens + attention + 2 d W head_tokens, with M the blocks' linear layers, d the width and W
    the vocabulary. `cached` tokens before these are attended to, not computed. Embeddings are
    look-ups. Rows of a batch add up; this is one row.
    """
    return (
        2.0 * shape.n_matmul * tokens
        + attention_flops(shape, tokens, cached=cached, attention=attention)
        + 2.0 * shape.n_head * head_tokens
    )


def attention_flops(
    shape: LlmShape, tokens: float, *, cached: float = 0, attention: Attention = "dense"
) -> float:
    """FLOPs of scores and weighted values of all layers: of the query heads, whatever the KV heads.

    dense: every pair, 4 T^2 a unit of query width (a matrix product or SDPA's math); causal: the
    pairs that count, 2 T (T + 1) (FlashAttention), in windowed layers those within the window. To
    `cached` tokens all pairs count.
    """
    pairs = tokens * tokens if attention == "dense" else tokens * (tokens + 1) / 2
    every = (pairs + tokens * cached) * shape.n_layers
    if attention == "causal" and shape.n_windowed:
        every = every - shape.n_windowed * _beyond(tokens, cached, shape.window)
    return 4.0 * every * shape.n_heads * shape.head_dim


def _beyond(tokens: float, cached: float, window: int) -> float:
    """Pairs of `tokens` queries behind `cached` tokens that a window leaves out."""
    last = _positive(cached + tokens - window)
    queries = tokens - _positive(tokens - last)
    return queries * last - queries * (queries - 1) / 2


def _positive(x: float) -> float:
    """max(x, 0), of NumPy's arrays as well."""
    return (x + abs(x)) / 2


def decode_flops(shape: LlmShape, generated: float, context: float) -> float:
    """FLOPs of generating `generated` tokens behind `context` ones; one row.

    The first comes out of the prefill's LM head. Each of the others is a pass over one token that
    attends to all before it and to itself: 2 M + 4 c h e L + 2 d W at c tokens.
    """
    steps = max(generated - 1, 0)
    linear = 2.0 * (shape.n_matmul + shape.n_head) * steps
    return linear + attention_flops(shape, steps, cached=context, attention="causal")


def kv_bytes(shape: LlmShape, tokens: float, element: float = 2.0) -> float:
    """Bytes of the keys and values of `tokens` tokens: 2 L k e an element each (2: bf16).

    Windowed layers keep no more than their window.
    """
    seen = shape.n_layers * tokens - shape.n_windowed * _positive(tokens - shape.window)
    return 2.0 * shape.n_kv_heads * shape.head_dim * element * seen


def training_flops(
    shape: LlmShape,
    tokens: float,
    supervised: float,
    trains: Trains,
    *,
    lora_rank: int = 0,
    attention: Attention = "causal",
) -> float:
    """FLOPs a training step truly needs for one row, forward and backward.

    A frozen weight needs its product twice (forward, gradient of the input: 4 N a token), one that
    trains three times (6 N); attention has two products forward and four backward. The LM head
    runs at the supervised positions. Recomputation (gradient checkpointing) is not counted.
    """
    times = 3 if trains == "full" else 2
    needed = times * 2.0 * (shape.n_matmul * tokens + shape.n_head * supervised)
    if trains == "lora":
        needed += 6.0 * shape.n_lora(lora_rank) * tokens
    return needed + 3 * attention_flops(shape, tokens, attention=attention)
