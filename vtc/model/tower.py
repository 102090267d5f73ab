"""Patch features of any transformers vision encoder: the states asked for, and no more work."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtc.compress.interface import PATCHES, AttentionLayer, Grid, Tokens
from vtc.errors import InputError
from vtc.model.merging import merged_state

_NORMS = ("layer_norm1", "layernorm_before", "norm1")
"""What the norm before a layer's attention is called: CLIP and SigLIP, ViT, DINOv2."""


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


def encode_states(
    tower: nn.Module,
    pixel_values: Float[Tensor, "B C H W"],
    levels: Sequence[int],
    grid: Grid,
    tokens: Tokens = PATCHES,
) -> Float[Tensor, "B L T D"]:
    """The hidden states `levels`, in that order, at the encoder's patches or at other `tokens`.

    Raises InputError as `patch_states`, and for an encoder that cannot merge its patches.
    """
    if tokens.merged is not None:
        return _merged(tower, pixel_values, levels, grid, tokens).unsqueeze(1)
    states = patch_states(tower, pixel_values, levels, grid, tokens.class_token)
    return torch.stack([states[level] for level in levels], dim=1)


def patch_states(
    tower: nn.Module,
    pixel_values: Float[Tensor, "B C H W"],
    levels: Iterable[int],
    grid: Grid,
    class_token: bool = False,
) -> dict[int, Float[Tensor, "B T D"]]:
    """The hidden states `levels` of the encoder at its patches, without CLS or register tokens.

    With `class_token` they stand before the patches. State 0 is the input of the first layer,
    state l the output of layer l. Layers past the last level asked for are not run. Raises
    InputError if the encoder gives fewer tokens than patches.
    """
    wanted = sorted(set(levels))
    states = _hidden_states(tower, pixel_values, wanted)
    found = _check_patches(states[wanted[0]], grid)
    # CLS and register tokens stand before the patches in every transformers encoder.
    start = 0 if class_token else found - grid[0] * grid[1]
    return {level: states[level][:, start:] for level in wanted}


def _merged(
    tower: nn.Module, pixel_values: Tensor, levels: Sequence[int], grid: Grid, tokens: Tokens
) -> Float[Tensor, "B V D"]:
    """The one state asked for, its patches merged on the way."""
    (level,) = levels
    layers = _layers(tower, int(tower.config.num_hidden_layers))  # type: ignore[union-attr, arg-type]
    state = _hidden_states(tower, pixel_values, [0])[0]
    _check_patches(state, grid)
    below = nn.ModuleList() if layers is None else layers[:level]
    return merged_state(below, state, grid[0] * grid[1], tokens)


def _check_patches(state: Float[Tensor, "B T D"], grid: Grid) -> int:
    """The number of tokens of a state; raises InputError if there are fewer than patches."""
    found = state.shape[1]
    if found < grid[0] * grid[1]:
        raise InputError(
            f"the vision encoder gives {found} tokens for a grid of {grid[0]}x{grid[1]} patches; "
            "it pools or merges patches, which vtc does not support"
        )
    return found


def attention_layer(tower: nn.Module, number: int) -> AttentionLayer:
    """What makes the queries and keys of the encoder's layer `number`, from 0.

    Raises InputError for an encoder whose layers are of another build than CLIP's, ViT's and
    DINOv2's.
    """
    config: Any = tower.config
    layers = _layers(tower, int(config.num_hidden_layers))
    found = dict(layers[number].named_modules()) if layers is not None else {}
    norm = next((found[name] for name in _NORMS if name in found), None)
    query, key = (
        next((part for name, part in found.items() if name.endswith(f".{end}")), None)
        for end in ("q_proj", "k_proj")
    )
    turned = getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None)
    if norm is None or query is None or key is None or turned:
        raise InputError(
            f"the keys of a {config.model_type} encoder's layers are not known to vtc; choose a "
            "compressor that needs no class token, or a CLIP, ViT or DINOv2 encoder"
        )
    return AttentionLayer(norm, query, key, int(config.num_attention_heads))


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
