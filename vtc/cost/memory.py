"""Peak memory of a training step, by arithmetic: weights, gradients, optimizer, activations."""

from dataclasses import dataclass
from typing import Literal

from vtc.catalog.shapes import EncoderShape, LlmShape
from vtc.cost.llm import Trains

Precision = Literal["fp32", "bf16", "mixed"]
"""fp32 and bf16: weights and computation alike. mixed: fp32 weights, computation in bf16."""

# bitsandbytes' nf4 with double quantisation (QLoRA, 2305.14314, section 3): 4 bits a weight, an
# 8-bit scale a block of 64, a 32-bit scale 256 blocks.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Two states a weight: fp32, or 8 bits with a 32-bit scale a block of 256 each. Paged states leave
# the GPU when it is full.
_STATES = {"adamw": 8.0, "adamw-8bit": 2.0 + 2 * 4 / 256, "paged-adamw-8bit": 0.0}
# At a supervised position: logits, their fp32 copy's log-softmax, and its gradient.
_LOGIT_BYTES = 12
# Many logits are made in chunks (model.head_loss), which become their gradients in place.
_MANY_LOGITS = 2**22
_CHUNK_BYTES = {"cpu": 48 * 2**20, "cuda": 256 * 2**20}
# CUDA's context, cuBLAS' workspaces and the allocator's slack.
_CUDA_BYTES = int(1.2 * 2**30)
_FRAGMENTS = 0.05


@dataclass(frozen=True)
class CompressorCost:
    """What a compressor states of itself, of one image.

    `saved_bytes` are its activations kept for the backward pass in fp32, `levels` the encoder's
    hidden states that it reads. One that `needs_query` takes a pass of the LLM over the question.
    One that merges patches in the encoder leaves `patches_left` behind each of its layers. One that
    fuses Q tokens of text with the image takes a Q + b Q^2 FLOPs more, `text_flops`.
    """

    n_params: int
    flops: int
    saved_bytes: int
    levels: tuple[int, ...]
    needs_query: bool = False
    patches_left: tuple[int, ...] = ()
    text_flops: tuple[int, int] = (0, 0)

    def fusing(self, text_tokens: float) -> float:
        """FLOPs of fusing a row's text tokens with its image."""
        a_token, a_pair = self.text_flops
        return a_token * text_tokens + a_pair * text_tokens**2


@dataclass(frozen=True)
class StepShape:
    """One forward and backward pass: `rows` of at most `tokens`, `supervised` of them each.

    Tokens are those of the longest batch, visual ones included; `images` are those of the batch,
    encoded in the step if `encodes`.
    """

    rows: int
    tokens: int
    supervised: int
    images: int
    encodes: bool = True


@dataclass(frozen=True)
class Setup:
    """How a step trains: what, in which types, with which optimizer."""

    trains: Trains
    precision: Precision = "mixed"
    four_bit: bool = False
    lora_rank: int = 0
    lora_dropout: float = 0.05
    optimizer: str = "adamw"
    checkpointing: bool = False
    eager: bool = False
    gpu: bool = True

    @property
    def weight_bytes(self) -> float:
        """Bytes of a floating weight of a backbone.

        A frozen one is kept in the type it is computed in.
        """
        computed = 4 if self.precision == "fp32" else 2
        return 4 if self.precision == "mixed" and self.trains == "full" else computed

    @property
    def compute_bytes(self) -> int:
        """Bytes of an activation."""
        return 4 if self.precision == "fp32" else 2


@dataclass(frozen=True)
class Memory:
    """Peak bytes of a training step, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    overhead: int

    @property
    def peak(self) -> int:
        """All together."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.overhead


def training_memory(
    llm: LlmShape,
    encoder: EncoderShape,
    compressor: CompressorCost,
    setup: Setup,
    step: StepShape,
    *,
    beside: int = 0,
) -> Memory:
    """Peak memory of a step, all gradients and optimizer states in place.

    `beside` are the parameters of other compressors that train in the same process.

    Activations follow what autograd keeps in transformers' decoder layers (measured tensor by
    tensor on Llama and Qwen2 with SDPA; after Korthikanti et al., 2205.05198, section 4). On a GPU
    CUDA's context and the allocator's slack come on top. `benchmarks/memory.py` compares with
    measured peaks.
    """
    n_compressor = compressor.n_params + beside
    n_lora = llm.n_lora(setup.lora_rank) if setup.trains == "lora" else 0
    n_full = llm.n_params if setup.trains == "full" else 0
    # LoRA and the compressor are fp32 always.
    weights = _backbone_bytes(llm, encoder, setup) + 4 * (n_compressor + n_lora)
    gradients = 4 * (n_compressor + n_lora) + setup.weight_bytes * n_full
    states = _STATES[setup.optimizer]
    # AdamW's states are of the weight's type.
    of_full = states * setup.weight_bytes / 4 if setup.optimizer == "adamw" else states
    optimizer = states * (n_compressor + n_lora) + of_full * n_full
    activations = _activation_bytes(llm, encoder, compressor, setup, step)
    used = weights + gradients + optimizer + activations
    return Memory(
        weights=int(weights),
        gradients=int(gradients),
        optimizer=int(optimizer),
        activations=int(activations),
        overhead=int(overhead_bytes(used)) if setup.gpu else 0,
    )


def _backbone_bytes(llm: LlmShape, encoder: EncoderShape, setup: Setup) -> float:
    linears = NF4_BYTES if setup.four_bit else setup.weight_bytes
    others = llm.n_params - llm.n_matmul + encoder.n_params
    if setup.precision == "mixed" and setup.trains == "full":
        # Autocast keeps a bf16 copy of every matrix that trains until the forward pass is over.
        linears += 2
        others += llm.n_head / 2
    return linears * llm.n_matmul + setup.weight_bytes * others


def _activation_bytes(
    llm: LlmShape,
    encoder: EncoderShape,
    compressor: CompressorCost,
    setup: Setup,
    step: StepShape,
) -> float:
    """What the step holds at its fullest: the encoder's pass, the loss, or a layer's backward."""
    tokens, a = step.rows * step.tokens, setup.compute_bytes
    kept = _layer_bytes(llm, setup, step.tokens) * tokens
    # A layer's backward holds its own gradients beside what it kept.
    working = 2 * a * (llm.hidden_size + llm.intermediate_size) * tokens
    if setup.eager:
        working += 8 * llm.n_heads * step.tokens * tokens
    logits = _loss_bytes(llm.vocab_size, step.supervised * step.rows, setup)
    if setup.checkpointing:
        held = _residual_bytes(setup) * llm.hidden_size * tokens * llm.n_layers
        working += kept
    else:
        held = kept * llm.n_layers
    compressed = compressor.saved_bytes * step.images * a / 4
    embedded = _residual_bytes(setup) * llm.hidden_size * tokens
    encoded = _encoder_bytes(encoder, setup) * step.images if step.encodes else 0
    # The head's gradient comes first, and waits for the embeddings' where the two are one; then
    # both stand beside their sum.
    waiting = 4 * llm.n_head if setup.trains == "full" else 0
    ending = 3 * waiting if llm.tied else 0
    return max(encoded, ending, compressed + embedded + held + max(logits, working) + waiting)


def _loss_bytes(vocabulary: int, positions: int, setup: Setup) -> float:
    """What the loss of so many supervised positions holds beside the gradients."""
    if positions * vocabulary < _MANY_LOGITS:
        return _LOGIT_BYTES * vocabulary * positions
    rows = max(16, _CHUNK_BYTES["cuda" if setup.gpu else "cpu"] // (4 * vocabulary))
    # In fp32, and beside it in the type of the products if that is another.
    each = 4 if setup.compute_bytes == 4 else 4 + setup.compute_bytes
    return each * vocabulary * min(positions, rows)


def _residual_bytes(setup: Setup) -> int:
    """Bytes of the residual stream: it has the type of the weights."""
    return 2 if setup.weight_bytes == 2 else 4


def _layer_bytes(llm: LlmShape, setup: Setup, row: int) -> float:
    """Bytes that autograd keeps of one token of a `row` of tokens in one decoder layer.

    Two norms (input in fp32; its normal form and the result where their weights train); queries,
    keys, values and the attention's result; gate, its activation, up, and their product where down
    trains. LoRA keeps every adapted layer's input anew, after dropout and with its mask.
    """
    d, f, a = llm.hidden_size, llm.intermediate_size, setup.compute_bytes
    queries, keys = llm.n_heads * llm.head_dim, llm.n_kv_heads * llm.head_dim
    full = setup.trains == "full"
    normed = (4 if setup.weight_bytes == 4 else 2) + a if full else 0
    norms = 2 * ((4 + normed) * d + 4)
    # Under mixed precision rotary embeddings give fp32 and are cast for the product.
    rotary = 1.75 if full and setup.precision == "mixed" else 1.0
    if setup.eager:
        # Keys and values repeated for every query head; softmax in fp32, and cast.
        pairs = llm.n_heads * row * (4 if a == 4 else 4 + a)
        attention = rotary * a * (3 + full) * queries + pairs
    else:
        attention = rotary * a * (2 * queries + 2 * keys) + 4 * llm.n_heads
    feed_forward = (4 if full else 3) * a * f
    adapted = 0.0
    if setup.trains == "lora":
        mask = (1 if setup.gpu else 4) if setup.lora_dropout else 0
        inputs = sum(rows for rows, _ in llm.linears) if setup.lora_dropout else d + queries + d + f
        adapted = inputs * (a + mask) + len(llm.linears) * setup.lora_rank * a
    return norms + attention + feed_forward + adapted


def _encoder_bytes(encoder: EncoderShape, setup: Setup) -> float:
    """Bytes of one image while the frozen encoder runs."""
    return encoder_bytes(encoder, setup.compute_bytes)


def encoder_bytes(encoder: EncoderShape, element: int) -> float:
    """Bytes of one image in an encoder's forward pass: one layer's tensors, and its pixels."""
    d, f = encoder.hidden_size, encoder.intermediate_size
    return encoder.n_tokens * (8 * d + 2 * f) * element + 4 * encoder.image_values


def overhead_bytes(used: float) -> float:
    """What CUDA's context and the allocator's slack add on a GPU to `used` bytes."""
    return _CUDA_BYTES + _FRAGMENTS * used
