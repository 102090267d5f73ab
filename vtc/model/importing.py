"""Models of others as runs: transformers' Llava, and checkpoints of the original LLaVA-1.5 code."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import LlavaForConditionalGeneration

from vtc.data.chat_templates import give_template
from vtc.data.templates import ConversationTemplate
from vtc.data.tokenizers import load_tokenizer
from vtc.errors import InputError
from vtc.model.assemble import generation_config
from vtc.model.backbones import (
    ensure_pad,
    ensure_rows,
    load_image_processor,
    refuse_quantised,
)
from vtc.model.checkpoint import (
    check_finite,
    check_fit,
    first_sentence,
    projector_file,
    weight_files,
)
from vtc.model.config import VtcConfig
from vtc.model.export import PARTS_TO_TEXT
from vtc.model.importing_projector import (
    as_published,
    images_of,
    import_projector,
    scope_of,
)
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.original_llava import is_original, load_original
from vtc.model.original_names import PROJECTOR
from vtc.model.original_projector import Projector, Wish
from vtc.model.processor import VtcProcessor
from vtc.model.run import save_run
from vtc.model.sources import EncoderSource, fingerprint, hub_folder, llm_source
from vtc.model.tower import class_tokens, grid_of
from vtc.tables.atomic import refuse_existing


def import_run(
    source: str,
    out: str | Path,
    *,
    encoder: str | None = None,
    llm: str | None = None,
    llm_name: str | None = None,
    chat_template: str | None = None,
    wish: Wish | None = None,
    allow_bin: bool = False,
    footer: Mapping[str, Any] | None = None,
    force: bool = False,
    say: Callable[[str], object] = lambda words: None,
) -> dict[str, Any]:
    """Write a LLaVA of others (folder or hub id) as a run; its manifest.

    It is one of the mlp compressor, or of that whose published weights an original checkpoint
    holds. Weights keep their types. `encoder` takes the place of the one that an original
    checkpoint names; `llm` is that of a folder with a projector alone; `llm_name` is what the LLM
    is called in scores (its size and family come from the catalog, if it is there); `say` is told
    of weights that are left out. Raises InputError, naming the reason, for what is no LLaVA-1.5 and
    none of its known heirs.
    """
    refuse_existing(out, force, folder=True)
    folder, wish = _folder(source, allow_bin), wish or Wish()
    settings = _settings(folder)
    alone = projector_file(folder)
    if alone is not None:
        if llm_name is not None:
            raise InputError(f"--llm-name: {folder} stands on an LLM that has its own name")
        return import_projector(
            alone,
            settings,
            out,
            encoder=encoder,
            llm=llm,
            chat_template=chat_template,
            wish=wish,
            allow_bin=allow_bin,
            footer=footer,
            force=force,
            say=say,
        )
    if llm is not None:
        raise InputError(f"--llm: {folder} holds its LLM; leave the option out")
    projector: Projector | None = None
    if is_original(settings):
        found = load_original(folder, settings, encoder, allow_bin, wish, say)
        llava, projector = found.llava, found.projector
        images = images_of(found.encoder, settings)
        eye = found.encoder.source if found.unchanged else None
        named = settings.get("_name_or_path")
    else:
        if wish != Wish():
            raise InputError(
                f"{folder} is transformers' Llava, whose projector is the mlp; only of original "
                "checkpoints another may be asked for"
            )
        llava = _load_hf(folder, settings, encoder, allow_bin)
        images, eye = load_image_processor(folder), None
        named = settings["text_config"].get("_name_or_path")
    name = llm_name or Path(str(named or source)).name
    tokenizer = _tokenizer(folder, llava, chat_template)
    described = llm_source(folder, llava, name=name)
    ensure_rows(llava, len(tokenizer))
    model = _as_vtc(llava, tokenizer, projector)
    processor = VtcProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        visual_tokens=model.compressor.visual_tokens,
        query_scope=scope_of(model.compressor, wish),
    )
    return save_run(
        out,
        model,
        processor,
        encoder=eye or _own_encoder(folder, settings),
        llm=described,
        stage="import",
        weights="full",
        seed=None,
        trained=projector.trained if projector else (),
        footer=footer,
        force=force,
    )


def _folder(source: str, allow_bin: bool) -> Path:
    folder = Path(source)
    if not folder.is_dir():
        folder = hub_folder(source, pickles=allow_bin)
    if projector_file(folder) is None:
        weight_files(folder, allow_bin)
    return folder.resolve()


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{folder} has no config.json: no model to import") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(settings, dict):
        raise InputError(f"{file} holds no object of settings")
    kind, text = settings.get("model_type"), settings.get("text_config")
    if not is_original(settings) and (kind != "llava" or not isinstance(text, dict)):
        raise InputError(
            f"{folder}: a {kind} model; vtc imports transformers' llava, and checkpoints of the "
            "original LLaVA-1.5"
        )
    return settings


def _load_hf(folder: Path, settings: dict[str, Any], encoder: str | None, allow_bin: bool) -> Any:
    """transformers' Llava, whole, if it is one that the mlp compressor equals."""
    if encoder is not None:
        raise InputError(f"--encoder: {folder} holds its encoder; leave the option out")
    for name, known in {"projector_hidden_act": "gelu", "multimodal_projector_bias": True}.items():
        if settings.get(name, known) != known:
            raise InputError(f"{folder}: {name} is {settings[name]}; of LLaVA-1.5 it is {known}")
    if "quantization_config" in settings:
        refuse_quantised(folder, SimpleNamespace(**settings))
    if not isinstance(settings.get("vision_feature_layer", -2), int):
        raise InputError(f"{folder} joins several layers of its encoder; LLaVA-1.5 takes one")
    try:
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype="auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=None if allow_bin else True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} does not load ({first_sentence(error)})") from None
    model, found = loaded
    _check_whole(folder, model, found)
    return model


def _check_whole(folder: Path, model: Any, found: Mapping[str, Any]) -> None:
    """Raise InputError for tensors that do not fit, or states that vtc reads otherwise."""
    missing = set(found["missing_keys"])
    shapes = {key: torch.empty(shape, device="meta") for key, shape, _ in found["mismatched_keys"]}
    state = model.state_dict()
    check_fit(
        {**{key: tensor for key, tensor in state.items() if key not in missing}, **shapes},
        state,
        folder,
    )
    check_finite(state, folder)
    config = model.config
    n_before = class_tokens(model.model.vision_tower, grid_of(config.vision_config))
    skipped = 1 if config.vision_feature_select_strategy == "default" else 0
    if n_before != skipped:
        raise InputError(
            f"{folder}: its encoder puts {n_before} tokens before the patches, and "
            f"vision_feature_select_strategy {config.vision_feature_select_strategy} leaves out "
            f"{skipped}; vtc takes the patches alone"
        )


def _tokenizer(folder: Path, llava: Any, chat_template: str | None) -> Any:
    """The checkpoint's tokenizer, with a chat template of texts and a pad token."""
    tokenizer = load_tokenizer(folder)
    ensure_pad(folder, tokenizer)
    if chat_template is None and not _takes_texts(tokenizer):
        if llava.config.text_config.model_type != "llama":
            raise InputError(
                f"{folder}: its tokenizer has no chat template for texts; give --chat-template"
            )
        chat_template = "vicuna"
    give_template(tokenizer, chat_template)
    return tokenizer


def _takes_texts(tokenizer: Any) -> bool:
    """Whether the tokenizer's own template renders turns of text (Llava's often takes parts)."""
    if not tokenizer.chat_template:
        return False
    tokenizer.chat_template = tokenizer.chat_template.removeprefix(PARTS_TO_TEXT)
    turns = [{"role": "user", "text": "?"}, {"role": "assistant", "text": "!"}]
    try:
        ConversationTemplate(tokenizer).spans(turns)
    except InputError:
        return False
    return True


def _as_vtc(llava: Any, tokenizer: Any, projector: Projector | None) -> VtcForConditionalGeneration:
    """The same tensors in vtc's class: with the MLP, names and shapes are the same."""
    given, grid = llava.config, grid_of(llava.config.vision_config)
    level = given.vision_feature_layer
    config = VtcConfig(
        vision_config=given.vision_config,
        text_config=given.text_config,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        compressor="mlp",
        compressor_settings=None if level == -2 else {"level": level},
        visual_tokens=grid[0] * grid[1],
        vision_feature_select_strategy=given.vision_feature_select_strategy,
        tie_word_embeddings=given.tie_word_embeddings,
        dtype=llava.lm_head.weight.dtype,
    )
    if projector is not None:
        config.compressor = projector.name
        config.compressor_settings = projector.settings or None
        config.visual_tokens = projector.compressor.visual_tokens
        config.image_seq_length = projector.compressor.visual_tokens
    with torch.device("meta"):
        model = VtcForConditionalGeneration(config)
    state = llava.state_dict()
    if projector is not None:
        check_fit(
            as_published(projector.name, projector.compressor.state_dict()),
            as_published(projector.name, model.compressor.state_dict()),
            "the projector",
        )
        own = {f"{PROJECTOR}{name}": t for name, t in projector.compressor.state_dict().items()}
        state = {**{k: t for k, t in state.items() if not k.startswith(PROJECTOR)}, **own}
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = generation_config(tokenizer)
    model.freeze_vision()
    return model.eval()


def _own_encoder(folder: Path, settings: dict[str, Any]) -> EncoderSource:
    """An encoder that stands in the checkpoint alone, under the name that it once had."""
    vision = settings.get("vision_config") or {}
    named = settings.get("mm_vision_tower") or vision.get("_name_or_path") or f"{folder}-encoder"
    return EncoderSource(Path(str(named)).name, str(folder), fingerprint(folder))
