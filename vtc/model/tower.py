"""Patch features of any transformers vision encoder: the states asked for, and no more work."""

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.interface import Grid
from vtc.errors import InputError


class _Enough(Exception):
    """Raised inside the encoder once the last state asked for is at hand."""


def grid_of(vision_config: Any) -> Grid:
    """Rows and columns of patches of an encoder, from its config.

    Raises InputError if the config states no image or patch size.
    """
    image, patch = (getattr(vision_config, key, None) for key in ("image_size", "patch_size"))
    if image is None or patch is None:
        raise InputError(
            f"vision encoder of type {vision_config.model_type} states no image_size and "
            "patch_size; vtc needs an encoder with a fixed grid of patches (CLIP, SigLIP, ViT, ...)"
        )
    (height, width), (rows, columns) = _pair(image), _pair(patch)
    return height // rows, width // columns


def patch_states(
    tower: nn.Module, pixel_values: Float[Tensor, "B C H W"], levels: Iterable[int], grid: Grid
) -> dict[int, Float[Tensor, "B N D"]]:
    """The hidden states `levels` of the encoder at its patches, without CLS or register tokens.

    State 0 is the input of the first layer, state l the output of layer l. Layers past the last
    level asked for are not run. Raises InputError if the encoder gives fewer tokens than patches.
    """
    wanted = sorted(set(levels))
    states = _hidden_states(tower, pixel_values, wanted)
    n_patches = grid[0] * grid[1]
    found = states[wanted[0]].shape[1]
    if found < n_patches:
        raise InputError(
            f"the vision encoder gives {found} tokens for a grid of {grid[0]}x{grid[1]} patches; "
            "it pools or merges patches, which vtc does not support"
        )
    # CLS and register tokens stand before the patches in every transformers encoder.
    return {level: states[level][:, found - n_patches :] for level in wanted}


def _hidden_states(
    tower: nn.Module, pixel_values: Tensor, wanted: list[int]
) -> dict[int, Float[Tensor, "B T D"]]:
    """The states `wanted`, caught as the inputs of the layers that follow them."""
    depth = int(tower.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    layers = _layers(tower, depth)
    if layers is None or wanted[-1] == depth:
        # The last state may be normed after the last layer or not: only the encoder knows.
        states = tower(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        return {level: states[level] for level in wanted}
    caught: dict[int, Tensor] = {}

    def catch(level: int):
        def hook(_layer: nn.Module, args: tuple, kwargs: dict) -> None:
            caught[level] = args[0] if args else kwargs["hidden_states"]
            if level == wanted[-1]:
                raise _Enough

        return hook

    with ExitStack() as stack:
        for level in wanted:
            handle = layers[level].register_forward_pre_hook(catch(level), with_kwargs=True)
            stack.callback(handle.remove)
        with suppress(_Enough):
            tower(pixel_values)
    return caught


def _layers(tower: nn.Module, depth: int) -> nn.ModuleList | None:
    """The encoder's list of layers: the first list of modules as long as the encoder is deep."""
    for module in tower.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    return None


def class_tokens(tower: nn.Module, grid: Grid) -> int:
    """How many tokens the encoder puts before its patches; runs the embeddings once."""
    config: Any = tower.config
    weight = next(tower.parameters())
    size = [int(side) for side in _pair(config.image_size)]
    channels = int(getattr(config, "num_channels", 3))
    blank = torch.zeros(1, channels, *size, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        state = _hidden_states(tower, blank, [0])[0]
    return state.shape[1] - grid[0] * grid[1]


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    first, second = size
    return int(first), int(second)
