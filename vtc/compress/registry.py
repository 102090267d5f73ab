"""The compressors' classes by name, and building one; their lines stand in choices.KNOWN."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vtc.compress.choices import KNOWN, Known, check_name
from vtc.compress.interface import Compressor, Grid
from vtc.errors import InputError


def load_class(known: Known) -> type[Compressor]:
    """The class that a line of the registry names."""
    module, name = known.where.split(":")
    return getattr(import_module(module), name)


COMPRESSORS = {name: load_class(known) for name, known in KNOWN.items()}
_GIVEN = ("vision_width", "text_width", "depth", "grid", "visual_tokens")


def find(name: str) -> type[Compressor]:
    """The class of a compressor. Raises InputError, naming all, for an unknown name."""
    check_name(name)
    if name not in COMPRESSORS:  # A line that was added to the registry since.
        COMPRESSORS[name] = load_class(KNOWN[name])
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
