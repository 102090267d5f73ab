"""What a row's compressor is called: its name, and its settings where they are not the defaults."""

from collections.abc import Mapping
from typing import Any


def compressor_name(row: Mapping[str, Any]) -> str | None:
    """The row's compressor as "tokenpacker (query=antialias)"; None if it names none."""
    name, settings = row.get("compressor"), row.get("compressor_settings")
    return f"{name} ({settings})" if name and settings else name
