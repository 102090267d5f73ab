"""Fields of an original checkpoint's config.json, whatever was written there: read, or refused."""

import json
import re
from collections.abc import Mapping
from typing import Any

from vtc.compress.choices import Grid
from vtc.errors import InputError

_WHOLE = re.compile(r"\s*-?[0-9]+\s*")
_SCALES = "matryoshka_vis_token_scale"


def check_fields(config: Mapping[str, Any]) -> None:
    """Raise InputError, naming it, for a field that is read and holds what it cannot hold."""
    for name in ("model_type", "mm_vision_tower", "mm_projector_type", "image_aspect_ratio",
                 "mm_vision_select_feature", "_name_or_path"):  # fmt: skip
        value = config.get(name)
        if value is not None and not isinstance(value, str):
            raise _wrong(name, value, "a text")
    level_of(config)
    scales_of(config)


def level_of(config: Mapping[str, Any], depth: int | None = None) -> int:
    """The hidden state that is read, by `mm_vision_select_layer`; without it the last but one.

    Raises InputError for what is no whole number, and for one that an encoder of `depth` layers
    does not have.
    """
    name = "mm_vision_select_layer"
    level = _whole(name, config[name], "a hidden state, as -2") if name in config else -2
    if depth is not None and not -depth - 1 <= level <= depth:
        raise _wrong(name, level, f"a hidden state of an encoder of {depth} layers, as -2")
    return level


def scale_of(config: Mapping[str, Any], grid: Grid) -> int | None:
    """TokenPacker's `scale_factor`, the side of a window; None without it.

    Raises InputError for what does not divide the side of the encoder's grid.
    """
    name = "scale_factor"
    if name not in config:
        return None
    what = f"a number that divides the side of the encoder's grid, {grid[0]}"
    scale = _whole(name, config[name], what)
    if not 1 <= scale <= grid[0] or grid[0] % scale:
        raise _wrong(name, config[name], what)
    return scale


def scales_of(config: Mapping[str, Any]) -> list[int]:
    """M3's numbers of visual tokens, ascending; none if it is no M3's.

    `matryoshka_vis_token_scale` is a list of them, one, or a text with commas between them. Raises
    InputError for anything else.
    """
    given = config.get(_SCALES)
    if given is None or given in ("", []):
        return []
    parts = given.split(",") if isinstance(given, str) else given
    parts = parts if isinstance(parts, list) else [parts]
    what = "numbers of visual tokens, as [1, 9, 36]"
    scales = sorted({_whole(_SCALES, part, what, given) for part in parts})
    if scales[0] < 1:
        raise _wrong(_SCALES, given, what)
    return scales


def _whole(name: str, value: Any, what: str, given: Any = None) -> int:
    """A whole number, or a text of one."""
    if type(value) is int or (isinstance(value, str) and _WHOLE.fullmatch(value)):
        return int(value)
    raise _wrong(name, value if given is None else given, what)


def _wrong(name: str, value: Any, what: str) -> InputError:
    written = json.dumps(value, default=repr)
    shown = written if len(written) <= 60 else f"{written[:57]}..."
    return InputError(f"config.json: {name} is {shown}, not {what}")
