"""Compressors of which one set of weights serves several V, and the V that trainings give them."""

from collections.abc import Sequence

from vtc.compress.choices import listed
from vtc.compress.interface import Compressor, name_of
from vtc.errors import InputError


class Elastic(Compressor):
    """A compressor that takes `visual_tokens` at forward, and can be trained at a set of V.

    `mqt` and `m3` are published so. Others have weights of one shape for every V and are published
    at one V a model: those are trained at a set only where it is asked for, and else at their own.
    """

    elastic = True
    _trained: tuple[int, ...] = ()

    def published_turns(self) -> Sequence[int]:
        """The V that the publication trains, on this grid; the model's own if it has no set."""
        return (self.visual_tokens,)

    @property
    def trained_visual_tokens(self) -> tuple[int, ...]:
        """The V of an elastic training, ascending, the last its own."""
        return self._trained

    def take_turns(self, wanted: Sequence[int] | None) -> None:
        """Choose the V of an elastic training; None: the published. Raises as `turns`."""
        chosen = self.published_turns() if wanted is None else wanted
        own = (self.visual_tokens,)
        self._trained = own if tuple(chosen) == own else turns(self, chosen)


def turns(compressor: Compressor, wanted: Sequence[int]) -> tuple[int, ...]:
    """Those of `wanted` up to the compressor's own V, and that V, ascending.

    Raises InputError for one that it does not support, and if 1 is not among them: a V that no
    step trains is not served, and 1 is the cheapest.
    """
    choices = compressor.supported(compressor.grid)
    unknown = sorted(set(wanted) - set(choices))
    if unknown or 1 not in wanted:
        fault = f"{unknown[0]} is no V of this grid" if unknown else "1 must be among them"
        raise InputError(
            f"{name_of(type(compressor))}: the V to train at: {fault}; take from {listed(choices)}"
        )
    own = compressor.visual_tokens
    return tuple(sorted({v for v in wanted if v <= own} | {own}))
