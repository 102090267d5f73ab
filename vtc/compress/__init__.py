"""Token compressors: from a vision encoder's patch features to V tokens of the LLM's width."""

from typing import Any


def load_reference(name: str, state_dict: Any, **facts: Any) -> Any:
    """The compressor `name` with a published checkpoint's weights: see `reference.load_reference`.

    Here, so that the package is light as long as none is loaded.
    """
    from vtc.compress.reference import load_reference as load

    return load(name, state_dict, **facts)
