"""Weights of published checkpoints, key for key: how they map, and loading them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vtc.compress.interface import Compressor, Grid
from vtc.compress.published import Published
from vtc.compress.registry import COMPRESSORS, build, find
from vtc.errors import InputError

_SHOWN = 8
_USUAL_DEPTH = 24
"""Of CLIP ViT-L, where fractions of the depth are the released levels."""
_WRAPPED = re.compile(r"((module|_orig_mod|_fsdp_wrapped_module)\.)*")
"""What DDP, torch.compile and FSDP put before the names of what they wrap."""


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
    the ones that make it so. `state_dict` may hold the whole model, whatever stands before the
    projector's name. `grid` and `depth` are those of the encoder (CLIP ViT-L/14-336); without
    `visual_tokens` it is what the checkpoint, or else its paper, says. Weights are copied, in the
    widest type among them.

    Raises InputError, listing them, for missing, mis-shaped or unknown weights; for weights in two
    places; for an encoder too shallow; and for a compressor of which no checkpoint is known.
    """
    published = find(name).published
    if published is None:
        known = [name for name, kind in COMPRESSORS.items() if kind.published]
        raise InputError(
            f"no published weights are known of {name}; they are of {', '.join(known)}"
        )
    tensors = _projector(published, state_dict)
    wanted = _wanted(published)
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
            settings=released_settings(name, state_dict, grid, depth, settings),
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


def released_settings(
    name: str,
    state_dict: Mapping[str, Tensor],
    grid: Grid,
    depth: int,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings with which a compressor does as its release, in which `settings` win.

    Those that are its default anyway are left out. Raises InputError for an encoder of fewer layers
    than the release reads.
    """
    published = find(name).published
    own = dict(settings or {})
    if published is None:
        return own
    shaped = published.shaped(_projector(published, state_dict), grid)
    return {**published.settings, **shaped, **_levels(name, published, depth, own), **own}


def _levels(
    name: str, published: Published, depth: int, own: Mapping[str, Any]
) -> dict[str, list[int]]:
    levels = published.levels
    if not levels or "key_levels" in own:
        return {}
    if depth < levels[-1]:
        listed = f"{', '.join(map(str, levels[:-1]))} and {levels[-1]}"
        raise InputError(
            f"{name} reads hidden states {listed} of its encoder, as released, and this one has "
            f"{depth} layers; give an encoder of {levels[-1]} layers or more"
        )
    return {} if depth == _USUAL_DEPTH else {"key_levels": list(levels)}


def own_tokens(name: str, state_dict: Mapping[str, Tensor], grid: Grid) -> int:
    """The V of a published projector, as its weights say, or else its paper.

    Of a state dict that `load_reference` takes.
    """
    published = find(name).published
    assert published is not None
    return published.facts(_projector(published, state_dict), grid)["visual_tokens"]


def recognise(state_dict: Mapping[str, Tensor]) -> str | None:
    """The compressor whose published names stand in a state dict, most of them; None if none do.

    LLaVA-1.5's and M3's are the same; they count as mlp. Raises InputError for weights in two
    places.
    """
    found: dict[str, int] = {}
    for name in COMPRESSORS:
        published = COMPRESSORS[name].published
        if published is not None:
            found[name] = len(_wanted(published) & set(_projector(published, state_dict)))
    best = max(found, key=lambda name: (found[name], name == "mlp"))
    return best if found[best] else None


def projector_prefix(name: str, state_dict: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of a projector's weights in a whole model; None without any.

    It ends with the module's name (`mm_projector.`, `query_abstractor.`), before which a model's
    wrappers put theirs. Raises InputError for two of them.
    """
    published = find(name).published
    return None if published is None else _prefix(published, state_dict)


def _prefix(published: Published, state_dict: Mapping[str, Tensor]) -> str | None:
    place = re.compile(rf"(.*?\.)?{published.place}\.")
    matches = ((key, place.match(key)) for key in state_dict)
    wanted = _wanted(published)
    prefixes = sorted({m[0] for key, m in matches if m and key[m.end() :] in wanted})
    if len(prefixes) > 1:
        raise InputError(
            f"the projector's weights are there {len(prefixes)} times, below "
            f"{' and '.join(prefixes)}; leave those of one place"
        )
    return prefixes[0] if prefixes else None


def _projector(published: Published, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The projector's own tensors: at its place in a model, or a state dict of it alone."""
    prefix = _prefix(published, state_dict)
    if prefix is not None:
        return {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    bare: dict[str, str] = {}
    for key in state_dict:
        first = bare.setdefault(name := _WRAPPED.sub("", key, count=1), key)
        if first != key and name in _wanted(published):
            raise InputError(f"the projector's weights are there twice: {first}, {key}; leave one")
    if not _wanted(published) & set(bare):
        return {}
    return {name: state_dict[key] for name, key in bare.items()}


def _wanted(published: Published) -> set[str]:
    return {source.name for source in published.weights.values()}


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
