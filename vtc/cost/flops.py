"""Floating-point operations of an inference, counted as the published study counts them."""


def prefill_flops(n_params: float, visual_tokens: float, text_tokens: float) -> float:
    """2 N (Q + V) FLOP: the LLM's prefill of Q text and V visual tokens.

    Two operations a parameter and token (arXiv 2411.03312, section 3.1). It leaves out attention
    over the sequence (a few percent at 576 tokens), the vision encoder, the compressor and
    generated tokens, and counts embeddings, which are look-ups, as if they were multiplied.
    """
    return 2.0 * n_params * (text_tokens + visual_tokens)


def affordable_n_params(flops: float, visual_tokens: float, text_tokens: float) -> float:
    """The N that spends a budget of `flops` at V and Q: the inverse of `prefill_flops`."""
    return flops / (2.0 * (text_tokens + visual_tokens))
