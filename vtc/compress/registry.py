"""The compressors by name, and building one."""

import inspect
from collections.abc import Mapping
from typing import Any

from vtc.compress.avgpool import AvgPool
from vtc.compress.choices import check_name
from vtc.compress.interface import Compressor, Grid
from vtc.compress.mlp import Mlp
from vtc.compress.tokenpacker import TokenPacker
from vtc.errors import InputError

COMPRESSORS: dict[str, type[Compressor]] = {
    "mlp": Mlp,
    "avgpool": AvgPool,
    "tokenpacker": TokenPacker,
}
_GIVEN = ("vision_width", "text_width", "depth", "grid", "visual_tokens")


def find(name: str) -> type[Compressor]:
    """The class of a compressor. Raises InputError, naming all, for an unknown name."""
    check_name(name)
    return COMPRESSORS[name]


def build(
    name: str,
    *,
    vision_width: int,
    text_width: int,
    depth: int,
    grid: Grid,
    visual_tokens: int,
    settings: Mapping[str, Any] | None = None,
) -> Compressor:
    """Build a compressor for an encoder of `depth` layers and an LLM of `text_width`.

    Raises InputError for an unknown name or setting, or a V that the compressor cannot make.
    """
    chosen, extra = find(name), dict(settings or {})
    known = [key for key in inspect.signature(chosen).parameters if key not in _GIVEN]
    for key in extra:
        if key not in known:
            raise InputError(f"compressor {name} has no setting '{key}'; it has {', '.join(known)}")
    return chosen(
        **{  # type: ignore[arg-type]
            "vision_width": vision_width,
            "text_width": text_width,
            "depth": depth,
            "grid": grid,
            "visual_tokens": visual_tokens,
            **extra,
        }
    )
