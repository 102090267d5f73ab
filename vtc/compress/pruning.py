"""How many visual tokens each layer of an LLM has, where some are dropped on the way. Light: no
torch, so that a V that cannot be is refused before anything is loaded."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from vtc.errors import InputError


class Drop(NamedTuple):
    """Behind `layer` layers an image has `kept` tokens."""

    layer: int
    kept: int


@dataclass(frozen=True)
class Schedule:
    """The visual tokens of an image in each of an LLM's layers: `n_tokens` enter the first.

    Drops are in order of layers; one that would drop nothing is left out.
    """

    n_layers: int
    n_tokens: int
    drops: tuple[Drop, ...]

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(layers, tokens of an image in each of them), from the first layer to the last."""
        starts = [0, *(drop.layer for drop in self.drops)]
        ends = [*starts[1:], self.n_layers]
        tokens = [self.n_tokens, *(drop.kept for drop in self.drops)]
        return tuple((end - start, n) for start, end, n in zip(starts, ends, tokens, strict=True))

    @property
    def by_layer(self) -> tuple[int, ...]:
        """Tokens of an image in each layer."""
        return tuple(tokens for layers, tokens in self.stages for _ in range(layers))

    @property
    def mean(self) -> float:
        """Visual tokens of an image in a layer, and in its KV cache: the mean over layers."""
        return sum(layers * tokens for layers, tokens in self.stages) / self.n_layers

    @property
    def kept(self) -> int:
        """Visual tokens of an image in the last layer, and in its KV cache."""
        return self.stages[-1][1]


def fastv(
    n_layers: int,
    n_tokens: int,
    *,
    layer: int | None = None,
    average: int | None = None,
    ratio: float | None = None,
) -> Schedule:
    """One drop behind `layer` layers (2, or all but one of an LLM of two).

    `average` is the most that the mean over layers may be; without it the share `ratio` of the
    tokens is kept (0.5). Raises InputError for a layer, a mean or a share that cannot be.
    """
    first = min(2, n_layers - 1) if layer is None else layer
    if type(first) is not int or not 1 <= first < n_layers:
        raise InputError(
            f"fastv: layer = {layer!r}; an LLM of {n_layers} layers can drop tokens behind layer 1 "
            f"to {n_layers - 1}"
            if n_layers > 1
            else "fastv drops tokens between layers, and this LLM has one"
        )
    if average is None:
        kept = _share(n_tokens, _checked("fastv", ratio), 1)
    else:
        _check_average("fastv", n_layers, n_tokens, first, average, ratio)
        kept = (average * n_layers - first * n_tokens) // (n_layers - first)
    return Schedule(n_layers, n_tokens, _effective(n_tokens, [Drop(first, kept)]))


def pyramiddrop(
    n_layers: int,
    n_tokens: int,
    *,
    stages: int | None = None,
    average: int | None = None,
    ratio: float | None = None,
) -> Schedule:
    """Equal `stages` (4, or as many as layers); behind each but the last the share `ratio` stays.

    Behind stage s an image has floor(ratio^s of its tokens). `average` is the most that the mean
    over layers may be, and the share the largest that keeps it; without it `ratio` is 0.5. Raises
    InputError for stages, a mean or a share that cannot be.
    """
    count = min(4, n_layers) if stages is None else stages
    if type(count) is not int or not 2 <= count <= n_layers:
        raise InputError(
            f"pyramiddrop: stages = {stages!r}; an LLM of {n_layers} layers has 2 to {n_layers}"
            if n_layers > 1
            else "pyramiddrop drops tokens between layers, and this LLM has one"
        )
    ends = [stage * n_layers // count for stage in range(1, count)]

    def at(share: float) -> Schedule:
        drops = [Drop(end, _share(n_tokens, share, s)) for s, end in enumerate(ends, 1)]
        return Schedule(n_layers, n_tokens, _effective(n_tokens, drops))

    if average is None:
        return at(_checked("pyramiddrop", ratio))
    _check_average("pyramiddrop", n_layers, n_tokens, ends[0], average, ratio)
    # Counts change only where a power of the share is a whole number of tokens.
    shares = sorted({(m / n_tokens) ** (1 / s) for m in range(n_tokens + 1) for s in
                     range(1, count)})  # fmt: skip
    low, high = 0, len(shares) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if at(shares[middle]).mean <= average else (low, middle - 1)
    return at(shares[low])


def schedule_of(
    make: Callable[..., Schedule],
    n_layers: int,
    n_tokens: int,
    settings: Mapping[str, Any] | None = None,
) -> Schedule:
    """The schedule of a compressor's settings, of which others than the schedule's are ignored.

    Raises InputError as `make`, `fastv` or `pyramiddrop`.
    """
    known = inspect.signature(make).parameters
    return make(n_layers, n_tokens, **{k: v for k, v in (settings or {}).items() if k in known})


def averages(
    make: Callable[..., Schedule],
    n_layers: int,
    n_tokens: int,
    settings: Mapping[str, Any] | None = None,
) -> list[int]:
    """The V that an LLM can have of an image as its mean over layers, ascending."""
    own = {k: v for k, v in (settings or {}).items() if k not in ("average", "ratio")}
    first = schedule_of(make, n_layers, n_tokens, {**own, "ratio": 0.0}).drops[0].layer
    return list(range(_fewest(n_layers, n_tokens, first), n_tokens + 1))


def _check_average(
    name: str, n_layers: int, n_tokens: int, first: int, average: int, ratio: float | None
) -> None:
    if ratio is not None:
        raise InputError(f"{name}: average and ratio both say how many tokens stay; give one")
    fewest = _fewest(n_layers, n_tokens, first)
    if type(average) is not int or not fewest <= average <= n_tokens:
        raise InputError(
            f"{name} cannot have {average} visual tokens a layer on average: the first {first} of "
            f"{n_layers} layers have all {n_tokens}; choose from {fewest} to {n_tokens}"
        )


def _fewest(n_layers: int, n_tokens: int, first: int) -> int:
    return max(1, math.ceil(first * n_tokens / n_layers))


def _checked(name: str, ratio: float | None) -> float:
    share = 0.5 if ratio is None else ratio
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise InputError(f"{name}: ratio = {ratio!r} is no share of the tokens from 0 to 1")
    return float(share)


def _share(n_tokens: int, share: float, power: int) -> int:
    """A share's power of the tokens, whole ones; a rounding error is no token."""
    return math.floor(n_tokens * share**power + 1e-6)


def _effective(n_tokens: int, drops: list[Drop]) -> tuple[Drop, ...]:
    """The drops that drop something."""
    before = [n_tokens, *(drop.kept for drop in drops)]
    return tuple(drop for drop, had in zip(drops, before, strict=False) if drop.kept < had)
