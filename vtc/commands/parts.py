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
    repeats: int = 1,
) -> Any:
    """The models of a training: shapes from their folders, the catalog or the hub's files.

    The compressor, with `settings` of its own, states its own costs; the LLM is fed its visual
    tokens `repeats` times. Raises InputError for a model that is nowhere.
    """
    from vtc.catalog import encoders, llms
    from vtc.compress.choices import refuse_pruning
    from vtc.cost.job import Parts

    refuse_pruning([compressor], " and is not trained")

    vision, text = shape_of(encoders.shape, encoder), shape_of(llms.shape, llm)
    own = json.dumps(settings, sort_keys=True)
    cost = _stated(compressor, vision, text.hidden_size, visual_tokens, own)
    return Parts(llm, text, encoder, vision, compressor, cost, visual_tokens * repeats)


def turns_of(models: Mapping[str, Any], asked: Any = None) -> dict[str, Any]:
    """What a Job takes of an elastic training: the models at each V, and how its steps take them.

    `models` are arguments of `parts_of`; the V are those `asked` for, or the setting `trained` of
    the compressor. Empty for a training at one V. Raises InputError for V that cannot be.
    """
    settings = dict(models.get("settings") or {})
    if asked is None and "trained" not in settings:
        return {}
    from vtc.compress.choices import check_turns
    from vtc.compress.registry import find

    own = parts_of(**models)
    name, v = own.compressor_name, models["visual_tokens"]
    check_turns(name, own.encoder.grid, v, asked)
    if asked is not None:
        settings["trained"] = None if asked == "published" else list(asked)
    if settings["trained"] == [v]:
        return {}
    chosen = _trained(name, own.encoder, own.llm.hidden_size, v, settings)
    each = [parts_of(**{**models, "visual_tokens": number}) for number in chosen]
    return {"turns": tuple(each), "together": find(name).together} if len(each) > 1 else {}


def _trained(
    name: str, vision: Any, text_width: int, visual_tokens: int, settings: Mapping[str, Any]
) -> tuple[int, ...]:
    """The V that an elastic training of a compressor takes."""
    import torch

    from vtc.compress.registry import build, shape_arguments

    with torch.device("meta"):
        compressor = build(
            name,
            **shape_arguments(vision, text_width),
            visual_tokens=visual_tokens,
            settings=settings,
        )
    return compressor.trained_visual_tokens


@cache
def _stated(
    compressor: str, vision: Any, text_width: int, visual_tokens: int, settings: str
) -> Any:
    """What a compressor states of itself; both stages, and LLMs of one width, share it."""
    from vtc.compress.registry import shape_arguments
    from vtc.compress.statement import statement
    from vtc.cost.memory import CompressorCost

    stated = statement(
        compressor,
        **shape_arguments(vision, text_width),
        visual_tokens=visual_tokens,
        settings=json.loads(settings),
    )
    return CompressorCost(*stated)


def shape_of(of: Callable[[str | Path], Any], source: str) -> Any:
    """The shape of a model folder, of a name in the catalog, or of a hub id.

    Of a hub id its config.json is read, from this disk or else from the hub. Raises InputError for
    a model that is nowhere.
    """
    from vtc.errors import InputError

    try:
        return of(source)
    except InputError as error:
        # A folder whose config is not fit, or no hub id.
        if Path(source).exists() or source.count("/") > 1:
            raise
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HFValidationError

        try:
            config = hf_hub_download(source, "config.json")
        except (HFValidationError, OSError, ValueError):
            raise error from None
        return of(Path(config).parent)
