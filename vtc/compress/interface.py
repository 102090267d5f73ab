"""What every compressor takes, returns, asks for and states about itself."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vtc.compress.choices import KNOWN, check_visual_tokens
from vtc.compress.choices import Grid as Grid
from vtc.compress.published import Published
from vtc.errors import InputError


class Tokens(NamedTuple):
    """Which of the encoder's tokens features hold: its patches alone, unless this says otherwise.

    `class_token`: what stands before the patches too, the class token first. `merged`: patches are
    merged inside the encoder until so many are left, in raster order if `in_order`.
    """

    class_token: bool = False
    merged: int | None = None
    in_order: bool = True

    @property
    def words(self) -> str:
        """What a pass of the encoder for these is called."""
        if self.merged is not None:
            order = "" if self.in_order else ", in the order of the merges"
            return f"patches merged to {self.merged}{order}"
        return "the class token and the patches" if self.class_token else "the patches"


PATCHES = Tokens()


@dataclass(frozen=True)
class FeatureRequest:
    """What a compressor needs of the encoder: indices into its hidden states, ascending.

    `attention` is the layer (from 0) whose queries and keys it needs; that layer reads the hidden
    state of the same number, which must be among the levels.
    """

    levels: tuple[int, ...]
    tokens: Tokens = PATCHES
    attention: int | None = None


@dataclass(frozen=True)
class AttentionLayer:
    """The first half of a layer of the encoder: its norm, and what makes queries and keys."""

    norm: nn.Module
    query: nn.Module
    key: nn.Module
    heads: int

    def project(
        self, state: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B T D"]]:
        """The query of the first token and the keys of all, heads side by side.

        `state` is the layer's input, with the class token first; no gradients.
        """
        with torch.no_grad():
            weight = next(self.key.parameters())
            normed = self.norm(state.to(weight.dtype))
            return self.query(normed[:, 0]), self.key(normed)


@dataclass
class VisionFeatures:
    """Patch features of a batch of images: level -> [B, N, D], never with a CLS token.

    `grid` is (rows, columns) of patches, rows * columns = N, in raster order.

    For compressors that need the question, `query` holds the LLM's vector of each [Q, text_width]
    and the result is one of Q compressions. `asked` [Q] says which of the B images each question
    is about; without it question k is about image k.

    For those that ask for them, `before` holds the P tokens that stand before the patches, the
    class token first, and `attention` the layer of which they need queries and keys.
    """

    levels: dict[int, Float[Tensor, "B N D"]]
    grid: Grid
    query: Float[Tensor, "Q text_width"] | None = None
    asked: Int[Tensor, " Q"] | None = None
    before: dict[int, Float[Tensor, "B P D"]] = field(default_factory=dict)
    attention: AttentionLayer | None = None

    def all_tokens(self, level: int) -> Float[Tensor, "B T D"]:
        """The tokens before the patches, and the patches."""
        return torch.cat([self.before[level], self.levels[level]], dim=1)


class Compressor(nn.Module, ABC):
    """Base of all compressors: [B, N, D] features in, [B, V, text_width] tokens out.

    A subclass sets `request`, builds its layers, and takes its own settings as keyword arguments
    with defaults. It raises InputError for a V it does not support, and never rounds V.

    An elastic one takes `visual_tokens` at forward too: any V that it supports up to its own.
    """

    request: FeatureRequest
    source: ClassVar[str] = ""
    """The paper it is from."""
    published: ClassVar[Published | None] = None
    """How the weights of published checkpoints map onto its own, where there are any."""
    pools: ClassVar[bool] = False
    """Whether means of equal square windows of patches serve as well as the patches themselves."""
    elastic: ClassVar[bool] = False
    """Whether one set of weights serves several V."""
    together: ClassVar[bool] = False
    """Whether a step of an elastic training trains every V of its set, and not one drawn of it."""
    needs_query: ClassVar[bool] = False
    """Whether it compresses an image for the question asked about it."""
    fuses: ClassVar[bool] = False
    """Whether it fuses the text with the image before the LLM: see `compress.fusing.Fusing`."""
    needs_cls: ClassVar[bool] = False
    """Whether it needs the encoder's class token."""
    trained: ClassVar[bool] = True
    """Whether it must be trained; otherwise the projector of a finished mlp run serves as it is."""

    prunes: ClassVar[bool] = False
    """Whether the LLM drops visual tokens between its layers (`compress.inllm.InLlm`)."""

    patches_left: tuple[int, ...] = ()
    """Patches behind each layer of the encoder below its level, where it merges them there."""

    def __init__(self, *, grid: Grid, visual_tokens: int) -> None:
        super().__init__()
        check_visual_tokens(name_of(type(self)), grid, visual_tokens, self.supported(grid))
        self.grid = grid
        self.visual_tokens = visual_tokens
        self._served: int | None = None

    @property
    def reads_text(self) -> bool:
        """Whether what it makes depends on more than the image."""
        return self.needs_query or self.fuses

    def feature_grid(self, n_patches: int) -> Grid:
        """The grid that features of `n_patches` patches stand on.

        It is the encoder's, or where the compressor `pools` a coarser one that every V it trains
        divides. Raises ValueError if it is neither.
        """
        rows, columns = self.grid
        if n_patches == rows * columns:
            return self.grid
        side = math.isqrt(n_patches)
        windows = side * side == n_patches and rows == columns and rows % side == 0
        serves = all(side % math.isqrt(count) == 0 for count in self.trained_visual_tokens)
        if self.pools and windows and serves:
            return side, side
        raise ValueError(
            f"{n_patches} patches in place of {rows * columns} do not serve {name_of(type(self))} "
            f"at V = {self.visual_tokens}"
        )

    @property
    def trained_visual_tokens(self) -> tuple[int, ...]:
        """The V that an elastic training takes its turns from, ascending, the last its own.

        Those of the setting `trained`, else the published ones; its own alone if not elastic.
        Whether a run was trained so, says its config (`model.turns.trained_at`).
        """
        return (self.visual_tokens,)

    def serve(self, visual_tokens: int) -> None:
        """Let forward passes that ask for no V have this one; raises InputError as `turn`."""
        self._served = self.turn(visual_tokens)

    def turn(self, visual_tokens: int | None) -> int:
        """The V of one forward pass of an elastic compressor: the one asked for, or its own.

        Its own may be replaced by one to `serve`. Raises InputError for a V that it does not
        support, or above its own.
        """
        if visual_tokens is None:
            return self._served or self.visual_tokens
        choices = [v for v in self.supported(self.grid) if v <= self.visual_tokens]
        check_visual_tokens(name_of(type(self)), self.grid, visual_tokens, choices)
        return visual_tokens

    @classmethod
    @abstractmethod
    def supported(cls, grid: Grid) -> list[int]:
        """The numbers of visual tokens this compressor can make of a grid, ascending."""

    @abstractmethod
    def forward(self, features: VisionFeatures) -> Float[Tensor, "B V text_width"]:
        """Compress the features of B images into V tokens each."""

    @abstractmethod
    def flops(self) -> int:
        """FLOPs of the matrix products for one image, a multiply-add counted as two."""

    def text_flops(self) -> tuple[int, int]:
        """a and b: fusing Q tokens of text with one image takes a Q + b Q^2 FLOPs besides."""
        return 0, 0

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw all weights anew from the compressor's own initial distribution."""


def name_of(kind: type) -> str:
    """What --compressor calls a class; one that no line of the registry names goes by its own."""
    where = f"{kind.__module__}:{kind.__name__}"
    return next((name for name, known in KNOWN.items() if known.where == where), kind.__name__)


class LevelError(InputError):
    """A level that an encoder does not have; whoever knows whose setting it is says so."""


def resolve_level(level: int | float, depth: int) -> int:
    """The index into the depth + 1 hidden states of an encoder that `level` names.

    A whole number is an index (negative: from the end; 0 is the embedding). A fraction in [0, 1]
    is a share of the way to the penultimate state, LLaVA's feature: of 24 layers .5217 is state
    12 and 1.0 is state 23. Raises InputError for an index that the encoder does not have.
    """
    if isinstance(level, float):
        if not 0 <= level <= 1:
            raise LevelError(f"level {level} is no fraction in [0, 1] and no whole number")
        return round(level * (depth - 1))
    if not -depth - 1 <= level <= depth:
        raise LevelError(f"level {level} is outside an encoder of {depth} layers (0 to {depth})")
    return level % (depth + 1)
