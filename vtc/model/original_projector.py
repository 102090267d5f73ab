"""What stands between encoder and LLM in a checkpoint of the original LLaVA code or its heirs.

LLaVA-1.5's MLP, or TokenPacker's, QueCC's, MQT's or M3's projector: told by the names of their
weights, and M3 (which has the MLP's) by its config.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vtc.compress.choices import Grid, check_name
from vtc.compress.interface import Compressor
from vtc.compress.reference import load_reference, own_tokens, recognise, released_settings
from vtc.compress.registry import check_settings
from vtc.errors import InputError
from vtc.model.original_config import level_of, scale_of, scales_of


@dataclass(frozen=True)
class Wish:
    """What is asked of an imported projector; None is what the checkpoint says.

    `reference` has questions compressed for as released, where that is not as vtc does it.
    """

    compressor: str | None = None
    visual_tokens: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: bool = False


@dataclass(frozen=True)
class Projector:
    """A compressor with published weights, its settings as a config keeps them, and its V.

    `trained` are the V that the checkpoint was trained at; its own may be another.
    """

    name: str
    compressor: Compressor
    settings: dict[str, Any]
    trained: tuple[int, ...]


def name_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any], wish: Wish) -> str:
    """The compressor of a checkpoint's projector.

    Raises InputError for one that has not the weights of the compressor asked for.
    """
    own = recognise(tensors) or "mlp"
    if own == "mlp" and scales_of(config):
        own = "m3"
    if wish.compressor is None:
        return own
    check_name(wish.compressor)
    alike = {"mlp", "m3"}
    if wish.compressor != own and not {wish.compressor, own} <= alike:
        takes = " or ".join(sorted(alike)) if own in alike else own
        raise InputError(
            f"--compressor {wish.compressor}: the checkpoint's projector is one of {takes}"
        )
    return wish.compressor


def load_projector(
    name: str,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    grid: Grid,
    depth: int,
    wish: Wish,
) -> Projector:
    """The projector of a checkpoint (all of its tensors, and its config.json) as a compressor.

    It computes what the released class computes; `wish.settings` win. Raises InputError as
    `load_reference`, and for a V or a setting that the compressor does not have.
    """
    check_settings(name, wish.settings)
    asked = {**_level(name, config, depth), **wish.settings}
    settings = released_settings(name, tensors, grid, depth, asked)
    own = _tokens(name, config, grid)
    compressor = load_reference(
        name,
        tensors,
        visual_tokens=wish.visual_tokens or own,
        grid=grid,
        depth=depth,
        settings=settings,
    )
    own = own or own_tokens(name, tensors, grid)
    return Projector(name, compressor, settings, tuple(_trained(name, config, own)))


def refuse_file(file: Path, error: InputError) -> InputError:
    """An error about a projector's weights, naming the file or folder that has them."""
    return InputError(f"{file}: {error}")


def _level(name: str, config: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The setting of the hidden state that is read, where it is not a run's default."""
    level, joins = level_of(config, depth), name in ("tokenpacker", "quecc")
    return {} if level == -2 else {"query_level" if joins else "level": level}


def _tokens(name: str, config: Mapping[str, Any], grid: Grid) -> int | None:
    """V as the config has it; None where the weights say, or the publication."""
    scale = scale_of(config, grid) if name == "tokenpacker" else None
    return None if scale is None else (grid[0] // scale) ** 2


def _trained(name: str, config: Mapping[str, Any], own: int) -> list[int]:
    """The V that a checkpoint of `own` V, or queries, was trained at; LLaVA-1.5's MLP at all."""
    if name == "m3":
        return scales_of(config) or [own]
    if name != "mqt":
        return [own]
    said = str(config.get("num_visual_tokens"))
    if said == "first_stage":
        return [own]
    # Of a finished model the release writes "second_stage", which draws of the even numbers.
    return [int(said)] if re.fullmatch("[1-9][0-9]*", said) else list(range(2, own + 1, 2))
