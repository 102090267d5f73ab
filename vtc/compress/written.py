"""Whether weights are what they were, so that what was computed of them may be kept.

torch counts writes (`Tensor._version`), but not those that go through `.data`, as exponential
moving averages and loaders of one's own do. So some numbers of the weights are compared as well.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

SAMPLED = 64
"""Numbers of each weight that `sample` takes."""


def identity(weights: Iterable[Tensor], kind: str) -> tuple:
    """What changes when a weight is moved, or written to as torch counts it, or autocast is on.

    `kind` is the type of the device that computes.
    """
    computed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return computed, *((w.data_ptr(), -1 if w.is_inference() else w._version) for w in weights)


@torch.no_grad()
def checksum(weights: Sequence[Tensor]) -> Tensor:
    """Of each matrix [R, C] R weighted sums, of each vector all numbers, in fp32 or wider.

    A number that is changed changes one of them, rows in another order do, too. Of one device.
    """
    parts = []
    with torch.autocast(weights[0].device.type, enabled=False):
        for weight in weights:
            wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
            if wide.dim() > 1:
                # Of no simple pattern, so that no two columns may be exchanged.
                ramp = torch.arange(wide.shape[-1], device=wide.device, dtype=wide.dtype)
                wide = wide.flatten(0, -2) @ (1 + torch.cos(ramp * ramp))
            parts.append(wide.flatten())
        return torch.cat(parts)


@torch.no_grad()
def sample(weights: Iterable[Tensor]) -> list[Tensor]:
    """Up to 64 numbers of each weight, from all over it, put together by device and type.

    They show what changes a whole weight, as a training or a swap does; a write to a few numbers
    of a large matrix may escape them. Of weights that are elsewhere (meta) there are none.
    """
    found: dict[Any, list[Tensor]] = {}
    for weight in weights:
        own = weight.detach()
        own = own.to_local() if hasattr(own, "to_local") else own  # type: ignore[operator]
        if own.is_meta or not own.numel():
            continue
        # Odd, so that the rows of a matrix are not all met in the same column.
        step = (own.numel() // SAMPLED) | 1
        found.setdefault((own.device, own.dtype), []).append(own.flatten()[::step])
    return [torch.cat(parts) for parts in found.values()]


def same(found: Sequence[Tensor], before: Sequence[Tensor]) -> bool:
    """Whether samples or checksums are equal; NaN is equal to nothing."""
    return len(found) == len(before) and all(map(torch.equal, found, before))
