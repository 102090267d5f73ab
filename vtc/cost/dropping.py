"""What one inference takes of an LLM that drops visual tokens between its layers.

Layers come in stages, each with as many visual tokens of an image in all of its layers. What is
counted of a stage is what `cost.llm` counts of as many layers; and what the choice of tokens takes
is counted too.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from vtc.catalog.shapes import LlmShape
from vtc.cost import llm as whole
from vtc.cost.llm import Attention, attention_flops


class Dropping(NamedTuple):
    """(layers, visual tokens of an image in them), from the first layer on; numbers or arrays.

    `by_next`: a drop is chosen by queries and keys that the layer behind it makes of all tokens of
    the stage before; else by the keys of the layer before, and one query.
    """

    stages: tuple[tuple[int, Any], ...]
    by_next: bool

    @property
    def mean(self) -> Any:
        """Visual tokens of an image in a layer, the mean over layers."""
        n_layers = sum(layers for layers, _ in self.stages)
        return sum(layers * tokens for layers, tokens in self.stages) / n_layers

    @property
    def entering(self) -> Any:
        """Visual tokens of an image in the first layer."""
        return self.stages[0][1]

    def summed(
        self, llm: LlmShape, text: float, images: int, of: Callable[[LlmShape, Any], Any]
    ) -> Any:
        """The sum over stages of what `of` says of their layers and tokens, text included."""
        return sum(
            of(replace(llm, n_layers=layers), images * tokens + text)
            for layers, tokens in self.stages
        )


def prefill_flops(
    llm: LlmShape,
    dropping: Dropping,
    text: float,
    images: int = 1,
    *,
    cached: float = 0,
    attention: Attention = "dense",
) -> Any:
    """FLOPs of a forward pass over images and text, the LM head at the last token; one row."""

    def layers(part: LlmShape, tokens: Any) -> Any:
        return whole.prefill_flops(part, tokens, 0, cached=cached, attention=attention)

    passed = dropping.summed(llm, text, images, layers)
    return passed + choosing_flops(llm, dropping, text, images, cached=cached) + 2.0 * llm.n_head


def choosing_flops(
    llm: LlmShape, dropping: Dropping, text: float, images: int = 1, *, cached: float = 0
) -> Any:
    """FLOPs of choosing the tokens that stay: a row of attention, and the queries and keys for it.

    A stage with as many tokens as the one before has no choice before it. `cached` tokens before
    these, without images, are looked at as well.
    """
    (d, queries), (_, keys), (_, values), *_ = llm.linears
    a_token = 2.0 * d * (queries + keys + values)
    total: Any = 0.0
    for (_, before), (_, behind) in zip(dropping.stages, dropping.stages[1:], strict=False):
        there = images * before + text
        projected = there if dropping.by_next else 1
        choosing = a_token * projected + 2.0 * queries * (there + cached)
        total = total + choosing * (before > behind)
    return total


def decode_flops(
    llm: LlmShape,
    dropping: Dropping,
    generated: float,
    text: float,
    images: int = 1,
    *,
    cached: float = 0,
) -> Any:
    """FLOPs of generating behind images and text, as `cost.llm.decode_flops`; one row."""
    steps = max(generated - 1, 0)

    def layers(part: LlmShape, tokens: Any) -> Any:
        return attention_flops(part, steps, cached=cached + tokens, attention="causal")

    linear = 2.0 * (llm.n_matmul + llm.n_head) * steps
    return linear + dropping.summed(llm, text, images, layers)


def kv_bytes(
    llm: LlmShape, dropping: Dropping, text: float, images: int = 1, element: float = 2.0
) -> Any:
    """Bytes of the keys and values of images and text, in each layer of the tokens left there."""
    return dropping.summed(
        llm, text, images, lambda part, tokens: whole.kv_bytes(part, tokens, element)
    )
