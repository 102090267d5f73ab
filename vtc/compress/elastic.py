"""The V that an elastic compressor is trained at, in turns."""

from collections.abc import Sequence

from vtc.compress.choices import listed
from vtc.compress.interface import Compressor
from vtc.errors import InputError


def turns(compressor: Compressor, wanted: Sequence[int]) -> tuple[int, ...]:
    """Those of `wanted` up to the compressor's own V, and that V, ascending.

    Raises InputError for one that it does not support, and if 1 is not among them: a V that no
    step trains is not served, and 1 is the cheapest.
    """
    choices = compressor.supported(compressor.grid)
    unknown = sorted(set(wanted) - set(choices))
    if unknown or 1 not in wanted:
        fault = f"{unknown[0]} is no V of this grid" if unknown else "1 is missing"
        raise InputError(
            f"{type(compressor).__name__}: the V to train at: {fault}; take from {listed(choices)}"
        )
    own = compressor.visual_tokens
    return tuple(sorted({v for v in wanted if v <= own} | {own}))
