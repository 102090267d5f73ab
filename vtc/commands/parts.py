"""The models of a training by name, as its costs need them: shapes, no weights."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any


def parts_of(
    encoder: str,
    llm: str,
    compressor: str,
    visual_tokens: int,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """The models of a training: shapes from their folders, the catalog or the hub's files.

    The compressor, with `settings` of its own, states its own costs. Raises InputError
    for a model that is nowhere.
    """
    from vtc.catalog import encoders, llms
    from vtc.cost.job import Parts

    vision, text = _shape(encoders.shape, encoder), _shape(llms.shape, llm)
    own = json.dumps(settings, sort_keys=True)
    cost = _stated(compressor, vision, text.hidden_size, visual_tokens, own)
    return Parts(llm, text, encoder, vision, compressor, cost, visual_tokens)


@cache
def _stated(
    compressor: str, vision: Any, text_width: int, visual_tokens: int, settings: str
) -> Any:
    """What a compressor states of itself; both stages, and LLMs of one width, share it."""
    from vtc.compress.statement import statement
    from vtc.cost.memory import CompressorCost

    stated = statement(
        compressor,
        vision_width=vision.hidden_size,
        text_width=text_width,
        depth=vision.n_layers,
        grid=vision.grid,
        visual_tokens=visual_tokens,
        settings=json.loads(settings),
    )
    return CompressorCost(*stated)


def _shape(of: Callable[[str | Path], Any], source: str) -> Any:
    """The shape of a model folder, of a name in the catalog, or of a hub id kept on this disk."""
    from vtc.errors import InputError

    try:
        return of(source)
    except InputError as error:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            config = try_to_load_from_cache(source, "config.json")
        except HFValidationError:
            config = None
        if not isinstance(config, str):
            raise error from None
        return of(Path(config).parent)
