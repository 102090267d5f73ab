"""What the compressors state of themselves, as arithmetic: no torch, so that an answer is instant.

Each function is of a compressor with its default settings; tests compare it with the class. What
is not here is asked of the class itself (`compress.statement`), which takes seconds to load.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from vtc.catalog.shapes import EncoderShape

# Hidden states 12, 16, 22, 23 of 24 layers as shares of the way to the penultimate (TokenPacker).
_KEY_LEVELS = (12 / 23, 16 / 23, 22 / 23, 1.0)


class InferenceCost(NamedTuple):
    """Of one image: parameters, FLOPs (two a multiply-add), and the highest hidden state read.

    `levels` are how many hidden states it reads. One that `needs_query` runs the LLM over the
    question besides. `patches_left`: patches behind each layer of the encoder, where they merge
    there. One that fuses Q tokens of text with the image takes a Q + b Q^2 FLOPs more: `text_flops`
    are a and b.
    """

    n_params: int
    flops: int
    level: int
    levels: int = 1
    needs_query: bool = False
    patches_left: tuple[int, ...] = ()
    text_flops: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Sizes:
    """Widths of the encoder and the LLM, patches, hidden states read, and visual tokens."""

    vision: int
    text: int
    patches: int
    levels: int
    tokens: int


def stated(
    name: str, encoder: EncoderShape, text_width: int, visual_tokens: int
) -> InferenceCost | None:
    """The costs of a compressor at V on one image; None for one that is not written down here."""
    if name not in _FORMULAS:
        return None
    formula, many = _FORMULAS[name]
    depth = encoder.n_layers
    levels = len({round(share * (depth - 1)) for share in _KEY_LEVELS}) if many else 1
    sizes = Sizes(encoder.hidden_size, text_width, encoder.n_patches, levels, visual_tokens)
    return InferenceCost(*formula(sizes), depth - 1, levels, name == "quecc")


def _mlp(s: Sizes) -> tuple[int, int]:
    return _two(s.vision, s.text), s.tokens * _two_flops(s.vision, s.text)


def _every_patch(s: Sizes) -> tuple[int, int]:
    return _two(s.vision, s.text), s.patches * _two_flops(s.vision, s.text)


def _m3(s: Sizes) -> tuple[int, int]:
    flops = s.patches * 2 * s.vision * s.text + s.tokens * 2 * s.text**2
    return _two(s.vision, s.text), flops


def _ldpv2(s: Sizes) -> tuple[int, int]:
    n_params, flops = _m3(s)
    return n_params + 10 * s.text, flops + s.tokens * 18 * s.text


def _pixel_shuffle(s: Sizes) -> tuple[int, int]:
    wide = s.vision * (s.patches // s.tokens)
    return 2 * wide + _two(wide, s.text), s.tokens * _two_flops(wide, s.text)


def _tokenpacker(s: Sizes) -> tuple[int, int]:
    d, heads = s.vision, _heads(s.vision, 8)
    n_params = d * d + 6 * d + 2 * _two(s.levels * d, d) + 4 * _linear(d, d) + _two(d, s.text)
    met = s.patches * 4 * d
    projected, absorbed = s.patches * 4 * d * d + met, s.tokens * 4 * d * d + heads * met
    # Narrow encoders keep the plain order (compress.tokenpacker.WIDE).
    attention = absorbed if d >= 512 and absorbed < projected else projected
    a_patch = 2 * _two_flops(s.levels * d, d)
    a_token = 3 * 2 * d * d + _two_flops(d, s.text)
    return n_params, s.patches * a_patch + attention + s.tokens * a_token


def _quecc(s: Sizes) -> tuple[int, int]:
    d, heads = s.vision, _heads(s.vision, 8)
    n_params = (
        *(_linear(s.text, d), _two(d, d), 2 * _two(s.levels * d, d), 4 * _linear(d, d)),
        *(8 * d, d * (s.patches // s.tokens) + d, _two(d, s.text)),
    )
    projected = s.patches * 4 * d * d
    absorbed = s.tokens * 4 * d * d + heads * s.patches * 4 * d
    attention = s.tokens * 4 * d * d + min(projected, absorbed)
    a_patch = _two_flops(d, d) + 2 * _two_flops(s.levels * d, d) + 2 * d
    flops = 2 * s.text * d + s.patches * a_patch + attention + s.tokens * _two_flops(d, s.text)
    return sum(n_params), flops


def _mqt(s: Sizes) -> tuple[int, int]:
    d = s.vision
    count = int(min(256, s.patches) ** 0.5) ** 2
    n_params = count * d + 6 * d + 4 * _linear(d, d) + d * s.text
    flops = _attention(d, d, s.tokens, s.patches, _heads(d, 16)) + s.tokens * 2 * d * s.text
    return n_params, flops


def _resampler(s: Sizes) -> tuple[int, int]:
    d = s.vision
    n_params = s.tokens * d + 8 * d + 4 * _linear(d, d) + _feed_forward(d) + _two(d, s.text)
    attention = _attention(d, d, s.tokens, s.patches, _heads(d, 16))
    return n_params, attention + s.tokens * (16 * d * d + _two_flops(d, s.text))


def _qformer(s: Sizes) -> tuple[int, int]:
    width = min(768, s.vision)
    heads = _heads(width, 12)
    own = 4 * _linear(width, width) + 4 * width + _feed_forward(width)
    cross = 2 * _linear(width, width) + 2 * _linear(s.vision, width) + 2 * width
    n_params = s.tokens * width + 2 * width + 12 * own + 6 * cross + _linear(width, s.text)
    layer = _attention(width, width, s.tokens, s.tokens, heads) + s.tokens * 16 * width**2
    reading = _attention(width, s.vision, s.tokens, s.patches, heads)
    return n_params, 12 * layer + 6 * reading + s.tokens * 2 * width * s.text


def _c_abstractor(s: Sizes) -> tuple[int, int]:
    d = s.vision
    squeezed = max(1, round(d / 4))
    block = 2 * d * d + 15 * d + _linear(d, squeezed) + _linear(squeezed, d)
    n_params = s.patches * d + 6 * block + _two(d, s.text)
    gate = 4 * d * squeezed
    blocks = 3 * ((s.patches + s.tokens) * (4 * d * d + 18 * d) + 2 * gate)
    return n_params, blocks + s.tokens * _two_flops(d, s.text)


def _blind(s: Sizes) -> tuple[int, int]:
    return s.tokens * s.text, 0


def _linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with a bias."""
    return inputs * outputs + outputs


def _two(inputs: int, outputs: int) -> int:
    """Parameters of LLaVA's projector: two linear layers."""
    return _linear(inputs, outputs) + _linear(outputs, outputs)


def _two_flops(inputs: int, outputs: int) -> int:
    """Its FLOPs for one token."""
    return 2 * (inputs * outputs + outputs * outputs)


def _feed_forward(width: int) -> int:
    """Parameters of two linear layers, four times as wide between them."""
    return _linear(width, 4 * width) + _linear(4 * width, width)


def _attention(width: int, key_width: int, queries: int, keys: int, heads: int) -> int:
    """FLOPs of compress.attention.CrossAttention: each side in the order that takes fewer."""
    projected = 2 * keys * key_width * width + 2 * queries * keys * width
    absorbed = 2 * queries * width * key_width + 2 * heads * queries * keys * key_width
    return queries * 4 * width * width + 2 * min(projected, absorbed)


def _heads(width: int, most: int) -> int:
    return next(count for count in range(most, 0, -1) if width % count == 0)


# The formula, and whether it reads several hidden states.
_FORMULAS: dict[str, tuple[Callable[[Sizes], tuple[int, int]], bool]] = {
    "mlp": (_mlp, False),
    "avgpool": (_mlp, False),
    "tokenpacker": (_tokenpacker, True),
    "quecc": (_quecc, True),
    "pixel-shuffle": (_pixel_shuffle, False),
    "mqt": (_mqt, False),
    "m3": (_m3, False),
    "resampler": (_resampler, False),
    "qformer": (_qformer, False),
    "c-abstractor": (_c_abstractor, False),
    "ldpv2": (_ldpv2, False),
    "blind": (_blind, False),
    "fastv": (_every_patch, False),
    "pyramiddrop": (_every_patch, False),
    # The encoder's part, which merges inside it make smaller, is `encoder_flops`.
    "tome": (_mlp, False),
}
