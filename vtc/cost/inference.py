"""What one inference takes, by its parts: FLOPs, bytes moved, memory. Numbers or NumPy's arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.cost import dropping as pruned
from vtc.cost.dropping import Dropping
from vtc.cost.encoder import encoder_flops
from vtc.cost.llm import Attention, decode_flops, kv_bytes, prefill_flops
from vtc.cost.memory import NF4_BYTES, encoder_bytes, overhead_bytes
from vtc.cost.query import query_flops

Stored = Literal["bf16", "int8", "nf4"]
"""How an LLM's linear layers are kept; they compute in bf16, and all else is bf16."""

STORED: tuple[Stored, ...] = ("bf16", "int8", "nf4")
PHASES = ("encoder", "compressor", "prefill", "decode")

_BF16 = 2
_KV_ELEMENT = {"bf16": 2.0, "int8": 1.0, "nf4": 0.5}


@dataclass(frozen=True)
class Service:
    """What is asked of a model: the tokens of one inference, how many at once, and how it is kept.

    `cached_tokens` stand before the images and are in the KV cache already; `text_tokens` follow
    the images and are computed; the first of `generated_tokens` comes out of the prefill. With
    `question_known` a compressor that reads the question has its vector already.
    """

    text_tokens: float = 50
    cached_tokens: float = 0
    generated_tokens: float = 1
    images: int = 1
    batch: int = 1
    weights: Stored = "bf16"
    kv: Stored = "bf16"
    attention: Attention = "causal"
    question_known: bool = False


class Compressing(NamedTuple):
    """A compressor's costs of one image at each V: see `cost.compressor.InferenceCost`.

    `dropping` are the LLM's stages, where that drops visual tokens: they count, whatever V is.
    `encoder` are the FLOPs of the encoder at each V, where patches merge inside it.
    """

    n_params: Any
    flops: Any
    level: int | None = None
    levels: int = 1
    needs_query: bool = False
    dropping: Dropping | None = None
    encoder: Any = None


class Work(NamedTuple):
    """FLOPs of one inference, and bytes that a batch of them moves from and to memory."""

    flops: Any
    bytes: Any


class Held(NamedTuple):
    """Bytes of memory at the fullest, by what they hold."""

    weights: Any
    kv: Any
    activations: Any
    overhead: Any

    @property
    def peak(self) -> Any:
        """All together."""
        return self.weights + self.kv + self.activations + self.overhead


def stored_bytes(llm: LlmShape, stored: Stored) -> float:
    """Bytes of an LLM's weights; embeddings, head, norms and biases stay in bf16."""
    return _linear_bytes(llm, stored) + _BF16 * (llm.n_params - llm.n_matmul)


def read_bytes(llm: LlmShape, stored: Stored, head: bool = True) -> float:
    """Bytes of weights that a pass reads: blocks and head; input embeddings are look-ups."""
    others = llm.n_vectors + (llm.n_head if head else 0)
    return _linear_bytes(llm, stored) + _BF16 * others


def _linear_bytes(llm: LlmShape, stored: Stored) -> float:
    """int8 has a 32-bit scale a row (LLM.int8, arXiv 2208.07339); nf4 as in `cost.memory`."""
    if stored == "int8":
        return llm.n_matmul + 4.0 * llm.n_layers * sum(columns for _, columns in llm.linears)
    return (NF4_BYTES if stored == "nf4" else _BF16) * llm.n_matmul


def work(
    llm: LlmShape,
    encoder: EncoderShape | None,
    compressor: Compressing,
    visual_tokens: Any,
    service: Service,
) -> Mapping[str, Work]:
    """The work of each phase: encoder, compressor, prefill, decode.

    The question's pass through the LLM, where the compressor needs it, counts as the compressor's.
    Activations' traffic is left out: kernels keep it far below that of weights and cache.
    """
    s, new = service, prompt_tokens(visual_tokens, service)
    weights = read_bytes(llm, s.weights)
    nothing = 0.0 * new
    seeing = Work(nothing, nothing)
    if encoder is not None:
        an_image = encoder_flops(encoder, compressor.level)
        if compressor.encoder is not None:
            an_image = compressor.encoder
        seeing = Work(1.0 * s.images * an_image + nothing, _BF16 * encoder.n_params + nothing)
    flops, moved = s.images * compressor.flops + nothing, _BF16 * compressor.n_params + nothing
    if compressor.needs_query and not s.question_known and s.text_tokens:
        flops = flops + query_flops(llm, s.text_tokens)
        moved = moved + read_bytes(llm, s.weights, head=False)
    steps = max(s.generated_tokens - 1, 0)
    prefilled, decoded = _llm_flops(llm, compressor, new, s)
    prefill = Work(
        prefilled,
        weights + s.batch * _kv_bytes(llm, compressor, new, s.cached_tokens, s),
    )
    # It grows linearly with the context: all steps are as many of the middle one.
    more = s.cached_tokens + (steps + 1) / 2
    decode = Work(decoded, steps * (weights + s.batch * _kv_bytes(llm, compressor, new, more, s)))
    return dict(zip(PHASES, (seeing, Work(flops, moved), prefill, decode), strict=True))


def _llm_flops(llm: LlmShape, compressor: Compressing, new: Any, s: Service) -> tuple[Any, Any]:
    """FLOPs of the prefill of `new` tokens, and of decoding behind it."""
    cached, dropping = s.cached_tokens, compressor.dropping
    if dropping is None:
        return (
            prefill_flops(llm, new, cached=cached, attention=s.attention),
            decode_flops(llm, s.generated_tokens, cached + new),
        )
    text, images = s.text_tokens, s.images
    return (
        pruned.prefill_flops(llm, dropping, text, images, cached=cached, attention=s.attention),
        pruned.decode_flops(llm, dropping, s.generated_tokens, text, images, cached=cached),
    )


def _kv_bytes(llm: LlmShape, compressor: Compressing, new: Any, more: float, s: Service) -> Any:
    """Bytes of a row's cache: of `new` tokens, and of `more` without images."""
    element = _KV_ELEMENT[s.kv]
    if compressor.dropping is None:
        return kv_bytes(llm, new + more, element)
    return pruned.kv_bytes(llm, compressor.dropping, s.text_tokens + more, s.images, element)


def prompt_tokens(visual_tokens: Any, service: Service) -> Any:
    """Tokens that the prefill computes: those of all images, and the text behind them."""
    return service.images * visual_tokens + service.text_tokens


def memory(
    llm: LlmShape,
    encoder: EncoderShape | None,
    compressor: Compressing,
    visual_tokens: Any,
    service: Service,
    *,
    gpu: bool = True,
) -> Held:
    """Peak bytes of serving a batch: weights, KV cache of the whole answer, activations.

    Every row keeps its own copy of the cached prefix. Activations are those of the encoder's pass
    or of one layer of the prefill, without attention's score matrix (FlashAttention, SDPA). On a
    GPU CUDA's context and the allocator's slack come on top, as in training.
    """
    s, new = service, prompt_tokens(visual_tokens, service)
    seeing = _BF16 * encoder.n_params if encoder else 0
    weights = stored_bytes(llm, s.weights) + seeing + _BF16 * compressor.n_params + 0.0 * new
    more = s.cached_tokens + max(s.generated_tokens - 1, 0)
    kv = s.batch * _kv_bytes(llm, compressor, new, more, s)
    if compressor.dropping is not None:
        # The first layers have all tokens at once.
        new = prompt_tokens(compressor.dropping.entering, s)
    d, f = llm.hidden_size, llm.intermediate_size
    queries, keys = llm.n_heads * llm.head_dim, llm.n_kv_heads * llm.head_dim
    token = _BF16 * (2 * d + max(3 * f, 3 * queries + 3 * keys))
    # Logits in bf16, and their copy in fp32.
    activations = s.batch * (new * token + 6 * llm.vocab_size)
    if encoder is not None:
        features = _BF16 * compressor.levels * encoder.n_patches * encoder.hidden_size
        image = encoder_bytes(encoder, _BF16) + features
        activations = _larger(activations, float(s.batch * s.images * image))
    overhead = overhead_bytes(weights + kv + activations) if gpu else 0.0 * new
    return Held(weights, kv, activations, overhead)


def _larger(x: Any, y: float) -> Any:
    """max(x, y), of NumPy's arrays as well."""
    return (x + y + abs(x - y)) / 2
