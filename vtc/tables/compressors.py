"""What a row's compressor is called: its name, settings that are not defaults, and repeats."""

from collections.abc import Mapping
from typing import Any


def compressor_name(row: Mapping[str, Any]) -> str | None:
    """The row's compressor as "tokenpacker (query=antialias)"; None if it names none.

    Of a run whose visual tokens are repeated, as "tokenpacker (x4)".
    """
    name, times = row.get("compressor"), row.get("visual_tokens_repeated")
    more = [row.get("compressor_settings"), f"x{times}" if times else None]
    said = " ".join(filter(None, more))
    return f"{name} ({said})" if name and said else name
