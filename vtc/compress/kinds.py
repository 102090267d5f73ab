"""What a setting takes, by the annotation its compressor's constructor has. Light: no torch."""

import json
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from vtc.errors import InputError

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Sequence[int]: "a list of whole numbers",
    Sequence[float]: "a list of numbers",
    Sequence[int | float]: "a list of numbers",
    Sequence[str]: "a list of texts",
}
"""The types that are checked, in words."""


def check_kind(setting: str, value: Any, annotation: Any) -> None:
    """Raise InputError, naming the setting and what it takes, for a value of another type.

    Known are the types of `_WORDS` and their unions, with None or without; any other type takes
    every value.
    """
    union = () if annotation in _WORDS else get_args(annotation)
    kinds = union or (annotation,)
    if any(kind not in _WORDS and kind is not type(None) for kind in kinds):
        return
    if any(_fits(value, kind) for kind in kinds):
        return
    # A whole number is a number, too.
    named = [kind for kind in kinds if kind in _WORDS and not (kind is int and float in kinds)]
    said = [_WORDS[kind] for kind in named]
    raise InputError(f"{setting} = {written(value)}; it takes {' or '.join(said)}")


def written(value: Any) -> str:
    """A setting's value as TOML and JSON have it: true, "area", [1,4]."""
    return json.dumps(value, separators=(",", ":"), default=str)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; yes and no are no numbers."""
    if get_origin(kind) is Sequence:
        own = get_args(get_args(kind)[0]) or get_args(kind)
        every = isinstance(value, list | tuple)
        return every and all(any(_fits(part, one) for one in own) for part in value)
    return type(value) is kind or (kind is float and type(value) is int)
