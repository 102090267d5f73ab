"""Attention over a packed row: samples one behind the other, none of which sees another.

transformers hands `cu_seq_lens_q` and `max_length_q` of a batch through to every attention layer;
a row that brings them is packed. On a GPU in 16 bits the kernel is torch's `varlen_attn`, elsewhere
SDPA, sample by sample: the same flash kernels as of unpadded rows, and no mask.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "vtc_varlen"
"""What transformers knows this attention by; a saved config never holds it."""

# What this attention would have to do and does not, as transformers calls it.
_FOREIGN = ("sliding_window", "softcap", "s_aux", "position_bias")


def varlen_attention(
    module: nn.Module,
    query: Float[Tensor, "B heads T head_dim"],
    key: Float[Tensor, "B kv_heads S head_dim"],
    value: Float[Tensor, "B kv_heads S head_dim"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Int[Tensor, " samples_and_1"] | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "B T heads head_dim"], None]:
    """Causal attention within each sample of a packed row (B = 1, S = T).

    `cu_seq_lens_q` are the places where samples begin, and the end of the row, `max_length_q` the
    longest sample. Without them the rows are not packed and this is transformers' SDPA. Raises
    ValueError for a packed row with a mask, or of a model whose attention is more than causal.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        how: dict[str, Any] = {"dropout": dropout, "scaling": scaling, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **how)
    _refuse_foreign(module, attention_mask, kwargs)
    kernel = _varlen_kernel(query, key, value, dropout)
    if kernel is not None:
        half = _computed_in(query)
        parts = query.to(half), key.to(half), value.to(half)
        return over_tokens(kernel, *parts, cu_seq_lens_q, max_length_q, scaling), None
    lengths = cu_seq_lens_q.diff().tolist()
    samples = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    attended = [
        sdpa_attention_forward(module, q, k, v, None, dropout, scaling, is_causal=True)[0]
        for q, k, v in samples
    ]
    return torch.cat(attended, dim=1), None


def over_tokens(
    kernel: Callable[..., Any],
    query: Float[Tensor, "1 heads T head_dim"],
    key: Float[Tensor, "1 kv_heads T head_dim"],
    value: Float[Tensor, "1 kv_heads T head_dim"],
    cu_seq_lens: Int[Tensor, " samples_and_1"],
    longest: int,
    scaling: float | None,
) -> Float[Tensor, "1 T heads head_dim"]:
    """The packed row by `kernel`, torch's `varlen_attn`, which takes [T, heads, head_dim]."""
    parts = [part[0].transpose(0, 1).contiguous() for part in (query, key, value)]
    attended = kernel(
        *parts, cu_seq_lens, cu_seq_lens, longest, longest,
        scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return attended[None]


def varlen_mask(
    *, attention_mask: Tensor | None = None, q_length: int, kv_length: int, **kwargs: Any
) -> Tensor | None:
    """The mask of rows that are not packed, as for SDPA; none for packed ones.

    A causal row without padding and without a cache needs no mask, and where samples end in a
    packed one its boundaries say. Windows and rules of the model's own stay masks.
    """
    plain = kwargs.get("local_size") is None and not kwargs.get("use_vmap")
    if attention_mask is None and q_length == kv_length and plain:
        return None
    return sdpa_mask(
        attention_mask=attention_mask, q_length=q_length, kv_length=kv_length, **kwargs
    )


@torch.no_grad()
def check_packing(llm: nn.Module) -> None:
    """Try on an LLM whether its samples in a packed row see one another.

    Two samples of a few tokens run twice, with another first sample: nothing of the second may
    change. Raises ValueError, saying why, for an LLM that cannot be packed. Its attention must be
    set already. Random generators stay as they are.
    """
    config: Any = llm.config
    if config._attn_implementation in ("sdpa", "eager"):
        raise ValueError("its attention cannot be replaced")
    others = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    if others:
        raise ValueError(f"it has layers of {', '.join(others)}")
    device = next(llm.parameters()).device
    ends = torch.tensor([0, 5, 9], dtype=torch.int32, device=device)
    row = {
        "position_ids": torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]], device=device),
        **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), ends),
        **dict.fromkeys(("max_length_q", "max_length_k"), 5),
        "use_cache": False,
    }
    tokens = torch.arange(1, 10, device=device)[None] % config.vocab_size
    other = torch.cat([tokens[:, :5].flip(1), tokens[:, 5:]], dim=1)
    was_training = llm.training
    # In training mode, as it will run; 4-bit layers are converted for good in the other.
    llm.train()
    try:
        seconds = [_second_sample(llm, ids, row) for ids in (tokens, other)]
    finally:
        llm.train(was_training)
    change = (seconds[0] - seconds[1]).abs().max() / seconds[0].abs().max()
    if change > 1e-3:
        raise ValueError("its samples see one another")


def _second_sample(llm: nn.Module, tokens: Tensor, row: dict[str, Any]) -> Tensor:
    half = tokens.device.type == "cuda"
    with torch.random.fork_rng(), torch.autocast(tokens.device.type, torch.bfloat16, enabled=half):
        # Dropout must be the same in both.
        torch.manual_seed(0)
        return llm(input_ids=tokens, **row).last_hidden_state[:, 5:].float()


def _refuse_foreign(module: nn.Module, mask: Tensor | None, kwargs: dict[str, Any]) -> None:
    foreign = [name for name in _FOREIGN if kwargs.get(name) is not None]
    if foreign:
        raise ValueError(f"its attention has {', '.join(foreign)}")
    if mask is not None:
        raise ValueError("its attention has a mask of its own")
    if not (kwargs.get("is_causal") or getattr(module, "is_causal", True)):
        raise ValueError("its attention is not causal")


def _computed_in(query: Tensor) -> torch.dtype:
    """The type that a product with `query` is computed in: autocast's, or its own."""
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype


def _varlen_kernel(
    query: Tensor, key: Tensor, value: Tensor, dropout: float
) -> Callable[..., Any] | None:
    """torch's kernel for packed rows, where it is there and fits; it knows no dropout."""
    width = query.shape[-1]
    fits = (
        query.device.type == "cuda"
        and not dropout
        and _computed_in(query) in (torch.float16, torch.bfloat16)
        and key.shape[-1] == value.shape[-1] == width
        and width % 8 == 0
        and width <= 256
    )
    return _kernel_of_torch() if fits and _is_ampere() else None


@cache
def _is_ampere() -> bool:
    """Whether this machine's GPU runs torch's flash kernels (NVIDIA, from compute capability 8)."""
    return torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)


@cache
def _kernel_of_torch() -> Callable[..., Any] | None:
    """torch's `varlen_attn`, of a version that takes grouped queries; None before."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= set(known) else None


AttentionInterface.register(NAME, varlen_attention)
AttentionMaskInterface.register(NAME, varlen_mask)
