"""Weights of published checkpoints, key for key: how they map, and loading them."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vtc.compress.interface import Compressor, Grid
from vtc.compress.published import Published
from vtc.compress.registry import COMPRESSORS, build, find
from vtc.errors import InputError

_SHOWN = 8


def load_reference(
    name: str,
    state_dict: Mapping[str, Tensor],
    *,
    visual_tokens: int | None = None,
    grid: Grid = (24, 24),
    depth: int = 24,
    settings: Mapping[str, Any] | None = None,
) -> Compressor:
    """The compressor `name` with the projector weights of a published checkpoint.

    It computes what the published class computes, where that is wrong too; `settings` win over
    the ones that make it so. `state_dict` may hold the whole model. `grid` and `depth` are those
    of the encoder (CLIP ViT-L/14-336); without `visual_tokens` it is what the checkpoint, or else
    its paper, says. Weights are copied, in the widest type among them.

    Raises InputError, listing them, for missing, mis-shaped or unknown weights; and for a
    compressor of which no checkpoint is known.
    """
    published = find(name).published
    if published is None:
        known = [name for name, kind in COMPRESSORS.items() if kind.published]
        raise InputError(
            f"no published weights are known of {name}; they are of {', '.join(known)}"
        )
    tensors = _below_prefix(published, state_dict)
    wanted = {source.name for source in published.weights.values()}
    _refuse(name, "missing", sorted(wanted - set(tensors)))
    _refuse(name, "unknown", sorted(set(tensors) - wanted))
    facts = published.facts(tensors, grid)
    if visual_tokens is not None:
        facts["visual_tokens"] = visual_tokens
    with torch.device("meta"):
        compressor = build(
            name,
            **facts,
            grid=grid,
            depth=depth,
            settings={**published.settings, **(settings or {})},
        )
    own = {key: tuple(tensor.shape) for key, tensor in compressor.state_dict().items()}
    _refuse(name, "of another shape", list(_misshapen(published, tensors, own)))
    weights = {key: source.take(tensors[source.name]) for key, source in published.weights.items()}
    dtypes = [weights[key].dtype for key, _ in compressor.named_parameters()]
    dtype = dtypes[0]
    for other in dtypes:
        dtype = torch.promote_types(dtype, other)
    copies = {key: weight.to(dtype, copy=True) for key, weight in weights.items()}
    compressor.load_state_dict(copies, assign=True)
    return compressor.eval()


def recognise(state_dict: Mapping[str, Tensor]) -> str | None:
    """The compressor whose published names stand in a state dict, most of them; None if none do.

    LLaVA-1.5's and M3's are the same; they count as mlp.
    """
    found: dict[str, int] = {}
    for name in COMPRESSORS:
        published = COMPRESSORS[name].published
        if published is not None:
            wanted = {source.name for source in published.weights.values()}
            found[name] = len(wanted & set(_below_prefix(published, state_dict)))
    best = max(found, key=lambda name: (found[name], name == "mlp"))
    return best if found[best] else None


def projector_keys(name: str, state_dict: Mapping[str, Tensor]) -> set[str]:
    """The names in a whole model's state dict that stand where `name` has its published weights."""
    published = find(name).published
    prefixes = published.prefixes if published else ()
    return {key for key in state_dict if key.startswith(tuple(prefixes))}


def _below_prefix(published: Published, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The projector's own tensors, of the first place at which any of them stands."""
    wanted = {source.name for source in published.weights.values()}
    for prefix in (*published.prefixes, ""):
        found = {
            key.removeprefix(prefix): tensor
            for key, tensor in state_dict.items()
            if key.startswith(prefix)
        }
        if wanted & set(found):
            return found
    return {}


def _misshapen(
    published: Published, tensors: Mapping[str, Tensor], own: Mapping[str, tuple[int, ...]]
) -> Iterable[str]:
    for key, source in published.weights.items():
        shape, due = tuple(tensors[source.name].shape), source.shape(own[key])
        if shape != due:
            yield f"{source.name} {list(shape)} instead of {list(due)}"


def _refuse(name: str, what: str, keys: list[str]) -> None:
    if keys:
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        listed = ", ".join(dict.fromkeys(keys[:_SHOWN]))
        raise InputError(f"weights for {name}, {what}: {listed}{more}")
