"""A projector alone as a run: what a first stage of the original LLaVA code, or its heirs, leaves.

Such a folder has a config.json and mm_projector.bin (of MQT query_abstractor.bin, behind a training
with LoRA non_lora_trainables.bin); encoder and LLM are elsewhere, as in a stage-1 run.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc.compress.interface import Compressor
from vtc.compress.reference import projector_prefix
from vtc.compress.registry import COMPRESSORS
from vtc.data.chat_templates import give_template
from vtc.data.image_modes import with_mode
from vtc.data.queries import QueryScope
from vtc.errors import InputError
from vtc.model.assemble import Assembled, assemble
from vtc.model.backbones import Encoder, Llm, load_llm
from vtc.model.checkpoint import check_fit, read_projector
from vtc.model.original_llava import (
    check_projector_type,
    check_variant,
    is_original,
    original_encoder,
    without_newline,
)
from vtc.model.original_projector import Projector, Wish, load_projector, name_of, refuse_file
from vtc.model.run import save_run
from vtc.model.tower import grid_of


def import_projector(
    file: Path,
    settings: dict[str, Any],
    out: str | Path,
    *,
    encoder: str | None,
    llm: str | None,
    chat_template: str | None,
    wish: Wish,
    allow_bin: bool,
    footer: Mapping[str, Any] | None,
    force: bool,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Write a projector's file as a run that stands on its encoder and LLM; its manifest.

    They are those given, else those that config.json (`settings`) names. Raises InputError for
    backbones that are missing or do not fit, and weights that are missing, mis-shaped or unknown.
    """
    if not is_original(settings):
        raise InputError(f"{file.parent}: config.json names no mm_vision_tower; no LLaVA's")
    check_variant(file.parent, settings)
    tensors = read_projector(file, allow_bin)
    without_newline(file, tensors, say)
    if file.stem == "non_lora_trainables":
        say(f"warning: {file} is of an LLM with LoRA weights; the run's LLM is without them")
    vision = original_encoder(file.parent, settings, encoder)
    projector = _projector(file, tensors, settings, vision, wish)
    one = _assembled(file, projector, settings, vision, llm, chat_template)
    one.processor.image_processor = images_of(vision, settings)
    one.processor.set_up(query_scope=scope_of(one.model.compressor, wish))
    return save_run(
        out,
        one.model,
        one.processor,
        encoder=one.encoder,
        llm=one.llm,
        stage="import",
        weights="compressor",
        seed=None,
        trained=projector.trained,
        footer=footer,
        force=force,
    )


def images_of(vision: Encoder, settings: Mapping[str, Any]) -> Any:
    """The encoder's image processor, padding where the checkpoint's config does."""
    return with_mode(
        vision.image_processor, "pad" if settings.get("image_aspect_ratio") == "pad" else None
    )


def scope_of(compressor: Compressor, wish: Wish) -> QueryScope | None:
    """Which questions an imported run's images are compressed for; None where it reads none.

    Raises InputError for a wish of one that reads none to do so as released.
    """
    if not compressor.needs_query:
        if wish.reference:
            raise InputError(
                "--reference-behaviour is about the question that QueCC compresses an image for; "
                "this checkpoint's projector reads none, leave the option out"
            )
        return None
    return "first" if wish.reference else "latest"


def _projector(
    file: Path, tensors: Mapping[str, Tensor], settings: dict[str, Any], vision: Encoder, wish: Wish
) -> Projector:
    config = vision.tower.config
    try:
        name = name_of(tensors, settings, wish)
        check_projector_type(file.parent, settings, name)
        _refuse_more(name, tensors)
        return load_projector(
            name,
            tensors,
            settings,
            grid=grid_of(config),
            depth=config.num_hidden_layers,
            wish=wish,
        )
    except InputError as error:
        raise refuse_file(file, error) from None


def _refuse_more(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError for weights beside a projector's, which would be lost."""
    prefix = projector_prefix(name, tensors)
    more = [key for key in tensors if prefix is not None and not key.startswith(prefix)]
    if more:
        raise InputError(
            f"it holds more than a projector, such as {more[0]} ({len(more)} tensors), trained "
            "along with it; import the whole model"
        )


def _assembled(
    file: Path,
    projector: Projector,
    settings: Mapping[str, Any],
    vision: Encoder,
    llm: str | None,
    chat_template: str | None,
) -> Assembled:
    """A model of the backbones, with the projector's weights and in their type."""
    named = llm or settings.get("_name_or_path")
    if not named:
        raise InputError(f"{file.parent} holds a projector alone; give its LLM with --llm")
    try:
        dtype = next(projector.compressor.parameters()).dtype
        text = load_llm(str(named), _floating(dtype), chat_template=chat_template, speaks=False)
    except InputError as error:
        way = "" if llm else "; give its folder with --llm"
        raise InputError(f"{file.parent} stands on an LLM: {error}{way}") from None
    _ensure_template(str(named), text)
    one = assemble(
        vision,
        text,
        projector.name,
        projector.compressor.visual_tokens,
        settings=projector.settings,
        dtype=_floating(dtype),
    )
    weights = projector.compressor.state_dict()
    check_fit(
        as_published(projector.name, weights),
        as_published(projector.name, one.model.compressor.state_dict()),
        file,
        f"encoder {vision.source.name} and llm {named}",
    )
    one.model.compressor.load_state_dict(weights)
    return one


def _ensure_template(source: str, text: Llm) -> None:
    """A Llama without a chat template gets LLaVA's; raises InputError for another LLM."""
    if text.tokenizer.chat_template:
        return
    if text.model.config.model_type != "llama":
        raise InputError(
            f"llm {source}: its tokenizer has no chat template; give one with --chat-template, "
            "such as vicuna"
        )
    give_template(text.tokenizer, "vicuna")


def as_published(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The shapes of a compressor's weights under the names that its checkpoints have (meta)."""
    published = COMPRESSORS[name].published
    assert published is not None
    sources = ((published.weights[key], tuple(own.shape)) for key, own in weights.items())
    return {
        source.name: torch.empty(source.shape(shape), device="meta") for source, shape in sources
    }


def _floating(dtype: torch.dtype) -> torch.dtype:
    """A type that models compute in: fp64 is read as fp32."""
    return torch.float32 if dtype == torch.float64 else dtype
