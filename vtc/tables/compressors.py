"""What a row's compressor is called: its name, settings that are not defaults, and repeats."""

import json
import re
from collections.abc import Mapping
from typing import Any

from vtc.errors import InputError


def compressor_name(row: Mapping[str, Any]) -> str | None:
    """The row's compressor as "tokenpacker (query=antialias)"; None if it names none.

    Of a run whose visual tokens are repeated, as "tokenpacker (x4)".
    """
    name, times = row.get("compressor"), row.get("visual_tokens_repeated")
    more = [row.get("compressor_settings"), f"x{times}" if times else None]
    said = " ".join(filter(None, more))
    return f"{name} ({said})" if name and said else name


def settings_of(text: str | None) -> dict[str, Any]:
    """The settings in a cell of `compressor_settings`, such as "layers=2, query=area".

    Values are JSON where they are any, else texts. Raises InputError for another text.
    """
    if not text:
        return {}
    parts = re.split(r", (?=\w+=)", text)
    found = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (equals and key.isidentifier()):
            raise InputError(f"compressor_settings '{text}' is no list of KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
