"""How the weights of a published checkpoint map onto a compressor's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vtc.compress.choices import Grid

LEVELS_OF_24 = (12, 16, 22, 23)
"""The hidden states that TokenPacker and QueCC join, whatever the encoder's depth."""

Facts = Callable[[Mapping[str, Tensor], Grid], dict[str, int]]


def _none(tensors: Mapping[str, Tensor], grid: Grid) -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class Source:
    """A tensor of the checkpoint; `third` is a block of nn.MultiheadAttention's in_proj."""

    name: str
    third: int | None = None
    transposed: bool = False

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        """The shape it must have for our weight of shape `own`."""
        shape = own[::-1] if self.transposed else own
        return shape if self.third is None else (3 * shape[0], *shape[1:])

    def take(self, tensor: Tensor) -> Tensor:
        """Our weight."""
        if self.third is not None:
            tensor = tensor.chunk(3)[self.third]
        return (tensor.T if self.transposed else tensor).contiguous()


@dataclass(frozen=True)
class Published:
    """A published projector.

    `weights` has a source for each of our weights. `facts` reads `vision_width`, `text_width` and
    `visual_tokens` off the shapes. `settings` are those with which our class does as the
    published one, `shaped` those that shapes tell, of weights that may be missing; `levels` are the
    hidden states that it reads of an encoder of any depth, where ours would take fractions of it.
    `place` is what the module is called in a whole model.
    """

    weights: Mapping[str, Source]
    facts: Facts
    place: str = "mm_projector"
    settings: Mapping[str, Any] = field(default_factory=dict)
    shaped: Facts = _none
    levels: tuple[int, ...] = ()


def both(pairs: Mapping[str, str]) -> dict[str, Source]:
    """Weight and bias of layers: ours to theirs."""
    return {
        f"{own}.{part}": Source(f"{theirs}.{part}")
        for own, theirs in pairs.items()
        for part in ("weight", "bias")
    }


def attention(query: str, key: str, value: str, out: str, theirs: str) -> dict[str, Source]:
    """The layers of an nn.MultiheadAttention under the name `theirs`."""
    three = {
        f"{own}.{part}": Source(f"{theirs}.in_proj_{part}", third=number)
        for number, own in enumerate((query, key, value))
        for part in ("weight", "bias")
    }
    return {**three, **both({out: f"{theirs}.out_proj"})}
