"""How many tokens ToMe merges in each layer of the encoder. Light: no torch."""

from itertools import accumulate, pairwise

from vtc.errors import InputError

Merges = tuple[tuple[int, ...], ...]
"""Of each layer how many tokens each of its merges takes away, one merge or several."""


def merges(n_patches: int, left: int, n_layers: int) -> Merges:
    """The merges of `n_layers` layers that leave `left` of the patches.

    ToMe's constant schedule: the same number r in every layer, the smallest with which the last
    layer comes to `left`; the last merges take what is missing then. A merge takes half of the
    patches at most. Where one merge a layer is not enough, every layer has two, or more. Raises
    InputError if there is no layer to merge in.
    """
    if left == n_patches:
        return ((),) * n_layers
    if n_layers == 0:
        raise InputError("tome merges in the layers below its level, and below level 0 is none")
    for per_layer in range(1, n_patches):
        steps = n_layers * per_layer
        if _constant(n_patches, left, steps, n_patches)[-1] == left:
            break
    low, high = 1, n_patches
    while low < high:
        middle = (low + high) // 2
        enough = _constant(n_patches, left, steps, middle)[-1] == left
        low, high = (low, middle) if enough else (middle + 1, high)
    counts = [n_patches, *_constant(n_patches, left, steps, low)]
    taken = [before - after for before, after in pairwise(counts)]
    return tuple(
        tuple(filter(None, taken[at : at + per_layer])) for at in range(0, steps, per_layer)
    )


def patches_left(n_patches: int, left: int, n_layers: int) -> tuple[int, ...]:
    """Patches behind each of the `n_layers` layers of `merges`, whose errors it raises."""
    taken = accumulate(map(sum, merges(n_patches, left, n_layers)))
    return tuple(n_patches - gone for gone in taken)


def _constant(n_patches: int, left: int, steps: int, r: int) -> list[int]:
    """Patches behind each of `steps` merges of r, but at most half, and never below `left`."""
    counts = []
    for _ in range(steps):
        n_patches -= min(r, n_patches // 2, n_patches - left)
        counts.append(n_patches)
    return counts
