"""Checkpoints of the original LLaVA-1.5 code (haotian-liu/LLaVA) and its heirs, as transformers'
Llava.

One config.json of the LLM's own fields and `mm_*` ones; the projector under `model.mm_projector`
(LLaVA's an nn.Sequential: 0 and 2 are its layers) or `model.query_abstractor`; the encoder's
weights only if it was trained along.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

from vtc.compress.reference import projector_prefix
from vtc.errors import InputError
from vtc.model.backbones import Encoder, load_encoder
from vtc.model.checkpoint import check_fit, read_tensors
from vtc.model.original_config import check_fields, level_of
from vtc.model.original_names import PROJECTOR, TOWER, Names
from vtc.model.original_projector import Projector, Wish, load_projector, name_of, refuse_file
from vtc.model.tower import class_tokens, grid_of

_LLMS = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_qwen": "qwen2",
    "llava_qwen2": "qwen2",
    "llava_mistral": "mistral",
}
_LEGACY = {"rope_theta", "rope_scaling"}
# Tables that old versions of transformers wrote, and every version computes.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")


@dataclass(frozen=True)
class Original:
    """A checkpoint as transformers' Llava, its encoder, and whether that is unchanged.

    `projector` takes the place of the Llava's own; None if that is LLaVA-1.5's MLP.
    """

    llava: Any
    encoder: Encoder
    unchanged: bool
    projector: Projector | None


def is_original(settings: dict[str, Any]) -> bool:
    """Whether a config.json is one of the original code's."""
    return "mm_vision_tower" in settings or "mm_projector_type" in settings


def load_original(
    folder: Path,
    settings: dict[str, Any],
    encoder: str | None,
    allow_bin: bool,
    wish: Wish | None = None,
    say: Callable[[str], object] = lambda words: None,
) -> Original:
    """The model of a checkpoint's folder.

    The encoder is the one given, else the one that config.json names; where the checkpoint holds
    weights of its own for it, those count. `say` is told what is left out. Raises InputError for a
    variant that is not known, or tensors that are missing, mis-shaped or unknown.
    """
    check_variant(folder, settings)
    read = {
        name: tensor
        for name, tensor in read_tensors(folder, allow_bin).items()
        if not _COMPUTED.search(name)
    }
    vision = original_encoder(folder, settings, encoder)
    projector = _projector(folder, read, settings, vision, wish or Wish())
    names = Names(projector_prefix(projector.name if projector else "mlp", read))
    model = _empty(folder, settings, vision)
    wanted = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if projector is None or not name.startswith(PROJECTOR)
    }
    own = {TOWER + name: tensor for name, tensor in vision.tower.state_dict().items()}
    without_newline(folder, read, say)
    theirs = {
        _at_home(own_name, wanted): name
        for own_name, name in _own_names(folder, names, read).items()
        if projector is None or not names.is_projector(name)
    }
    tensors = {name: read[file_name] for name, file_name in theirs.items()}
    unchanged = all(
        torch.equal(tensors[name].float(), tensor.float())
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape == tensor.shape
    )
    tensors = {**own, **tensors}
    embedding = "model.language_model.embed_tokens.weight"
    if model.config.tie_word_embeddings and embedding in tensors:
        tensors.setdefault("lm_head.weight", tensors[embedding])
    check_fit(
        {theirs.get(name) or names.theirs(name): tensor for name, tensor in tensors.items()},
        {theirs.get(name) or names.theirs(name): tensor for name, tensor in wanted.items()},
        folder,
    )
    model.load_state_dict(tensors, assign=True, strict=projector is None)
    model.tie_weights()
    return Original(model, vision, unchanged, projector)


def without_newline(source: Path, tensors: dict[str, Tensor], say: Callable[[str], Any]) -> None:
    """Take out what closes a row of LLaVA-1.6's crops, of which a checkpoint of 1.5 has no use."""
    for name in [name for name in tensors if name.rpartition(".")[2] == "image_newline"]:
        del tensors[name]
        say(
            f"warning: {source}: {name} is left out; it is of images in several crops (anyres), "
            "which config.json does not ask for"
        )


def _own_names(folder: Path, names: Names, read: Mapping[str, Tensor]) -> dict[str, str]:
    try:
        return names.all_own(read)
    except InputError as error:
        raise refuse_file(folder, error) from None


def _projector(
    folder: Path,
    tensors: Mapping[str, Tensor],
    settings: dict[str, Any],
    vision: Encoder,
    wish: Wish,
) -> Projector | None:
    """The checkpoint's compressor; None for LLaVA-1.5's MLP, which transformers' Llava has."""
    try:
        name = name_of(tensors, settings, wish)
        check_projector_type(folder, settings, name)
        if name == "mlp":
            _refuse_wish(wish)
            return None
        config = vision.tower.config
        grid, depth = grid_of(config), config.num_hidden_layers
        return load_projector(name, tensors, settings, grid=grid, depth=depth, wish=wish)
    except InputError as error:
        raise error if str(folder) in str(error) else refuse_file(folder, error) from None


def _refuse_wish(wish: Wish) -> None:
    """Raise InputError for another V, or settings, of LLaVA-1.5's MLP."""
    if wish.visual_tokens is not None or wish.settings:
        raise InputError(
            "its projector is LLaVA-1.5's MLP, a token a patch; import it as it is and give it "
            "fewer with 'vtc eval --compressor visionzip', or import it as --compressor m3"
        )


def check_variant(folder: Path, settings: dict[str, Any]) -> None:
    """Raise InputError, naming the reason, for a checkpoint of another kind than LLaVA-1.5's."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} holds LoRA weights; merge them into their LLM with LLaVA's "
            "scripts/merge_lora_weights.py, and import the folder that it writes"
        )
    try:
        check_fields(settings)
    except InputError as error:
        raise refuse_file(folder, error) from None
    expected = {
        "mm_vision_select_feature": ("patch",),
        "image_aspect_ratio": ("pad", "square", None),
    }
    for name, known in expected.items():
        value = settings.get(name) or ("patch" if name == "mm_vision_select_feature" else None)
        if value not in known:
            raise _unknown(folder, name, value, known)
    if settings.get("model_type") not in _LLMS:
        raise InputError(
            f"{folder}: a {settings.get('model_type')} model; of the original code's, vtc imports "
            f"{', '.join(_LLMS)}"
        )


def check_projector_type(folder: Path, settings: Mapping[str, Any], name: str) -> None:
    """Raise InputError for another MLP than LLaVA-1.5's; heirs' configs say what they like."""
    kind = settings.get("mm_projector_type") or "linear"
    if name in ("mlp", "m3") and kind != "mlp2x_gelu":
        raise _unknown(folder, "mm_projector_type", kind, ("mlp2x_gelu",))


def _unknown(folder: Path, name: str, value: Any, known: tuple) -> InputError:
    return InputError(
        f"{folder}: {name} is {value}, of LLaVA-1.5 it is {' or '.join(map(str, known))}; "
        "vtc imports LLaVA-1.5, TokenPacker, QueCC, MQT and M3 alone"
    )


def original_encoder(folder: Path, settings: dict[str, Any], given: str | None) -> Encoder:
    """The encoder given, or the one that config.json names. Raises InputError without any."""
    named = given or settings.get("mm_vision_tower")
    if not named:
        raise InputError(f"{folder}: config.json names no mm_vision_tower; give --encoder")
    try:
        return load_encoder(str(named))
    except InputError as error:
        way = "" if given else "; give its folder with --encoder"
        raise InputError(f"{folder} stands on an encoder: {error}{way}") from None


def _empty(folder: Path, settings: dict[str, Any], vision: Encoder) -> Any:
    """The Llava that config.json describes, without weights."""
    kind = _LLMS[settings["model_type"]]
    known = {*AutoConfig.for_model(kind).to_dict(), *_LEGACY} - {"model_type", "architectures"}
    try:
        level = level_of(settings, vision.tower.config.num_hidden_layers)
    except InputError as error:
        raise refuse_file(folder, error) from None
    grid = grid_of(vision.tower.config)
    try:
        text = AutoConfig.for_model(kind, **{k: v for k, v in settings.items() if k in known})
        config = LlavaConfig(
            vision_config=vision.tower.config,
            text_config=text,
            image_seq_length=grid[0] * grid[1],
            vision_feature_layer=level,
            vision_feature_select_strategy="default"
            if class_tokens(vision.tower, grid)
            else "full",
            tie_word_embeddings=text.tie_word_embeddings,
        )
        with torch.device("meta"):
            return LlavaForConditionalGeneration(config)
    except Exception as error:
        # Whatever a field of the wrong type makes of transformers' classes.
        said = " ".join(str(error).split())
        raise InputError(f"{folder}: config.json describes no {kind} model ({said})") from None


def _at_home(name: str, wanted: dict[str, Tensor]) -> str:
    """The encoder's name of a tensor: versions of transformers differ in one level of it."""
    deeper = name.replace(TOWER, f"{TOWER}vision_model.", 1)
    return deeper if name not in wanted and deeper in wanted else name
