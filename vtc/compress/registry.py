"""The compressors' classes by name, and building one; their lines stand in choices.KNOWN."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any, get_type_hints

from vtc.catalog.shapes import EncoderShape
from vtc.compress.choices import KNOWN, Known, check_name
from vtc.compress.interface import Compressor, Grid, LevelError
from vtc.compress.kinds import check_kind, written
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


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError for a setting that the compressor does not have, naming those it has.

    And for a value of another type than its constructor's annotation says.
    """
    known, kinds = _defaults(name), get_type_hints(find(name).__init__)
    for key, value in settings.items():
        if key not in known:
            raise InputError(f"compressor {name} has no setting '{key}'; it has {', '.join(known)}")
        check_kind(f"compressor {name}: {key}", value, kinds.get(key, type(known[key])))


def setting_names(name: str) -> list[str]:
    """What a compressor's own settings are called."""
    return list(_defaults(name))


def settings_text(name: str, settings: Mapping[str, Any] | None) -> str | None:
    """A compressor's settings as tables say them, "layers=3, query=antialias"; None for defaults.

    The same text for the same compressor: keys are sorted, and those at their default left out.
    """
    known = _defaults(name)
    said = [
        f"{key}={value if isinstance(value, str) else written(value)}"
        for key, value in sorted((settings or {}).items())
        if key not in known or written(value) != written(known[key])
    ]
    return ", ".join(said) or None


def _defaults(name: str) -> dict[str, Any]:
    """A compressor's own settings and their defaults."""
    parameters = inspect.signature(find(name)).parameters.items()
    return {key: parameter.default for key, parameter in parameters if key not in _GIVEN}


def shape_arguments(vision: EncoderShape, text_width: int) -> dict[str, Any]:
    """What `build` is given of an encoder's shape and an LLM's width."""
    return {
        "vision_width": vision.hidden_size,
        "text_width": text_width,
        "depth": vision.n_layers,
        "grid": vision.grid,
    }


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
    check_settings(name, extra)
    given: dict[str, Any] = {
        "vision_width": vision_width,
        "text_width": text_width,
        "depth": depth,
        "grid": grid,
        "visual_tokens": visual_tokens,
    }
    try:
        return chosen(**given, **extra)
    except LevelError as error:
        raise InputError(f"compressor {name}: {error}") from None
    except TypeError as error:
        if not extra:
            raise
        said = ", ".join(f"{key} = {written(value)}" for key, value in extra.items())
        first = str(error).splitlines()[0]
        raise InputError(f"compressor {name} cannot be built with {said}: {first}") from error
