"""Checkpoints of the original LLaVA-1.5 code (haotian-liu/LLaVA) and its heirs, as transformers'
Llava.

One config.json of the LLM's own fields and `mm_*` ones; the projector under `model.mm_projector`
(LLaVA's an nn.Sequential: 0 and 2 are its layers) or `model.query_abstractor`; the encoder's
weights only if it was trained along.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

from vtc.compress.reference import projector_keys
from vtc.errors import InputError
from vtc.model.backbones import Encoder, load_encoder
from vtc.model.checkpoint import check_fit, read_tensors
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
_TOWER = "model.vision_tower."
_RENAMED = (
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", _TOWER),
    (r"^model\.(?!multi_modal_projector\.|vision_tower\.)", "model.language_model."),
)
# Tables that old versions of transformers wrote, and every version computes.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")
PROJECTOR = "model.multi_modal_projector."


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
) -> Original:
    """The model of a checkpoint's folder.

    The encoder is the one given, else the one that config.json names; where the checkpoint holds
    weights of its own for it, those count. Raises InputError for a variant that is not known, or
    tensors that are missing, mis-shaped or unknown.
    """
    check_variant(folder, settings)
    read = {
        name: tensor
        for name, tensor in read_tensors(folder, allow_bin).items()
        if not _COMPUTED.search(name)
    }
    vision = original_encoder(folder, settings, encoder)
    projector = _projector(folder, read, settings, vision, wish or Wish())
    aside = projector_keys(projector.name, read) if projector else set()
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(_config(settings, vision))
    wanted = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if projector is None or not name.startswith(PROJECTOR)
    }
    own = {_TOWER + name: tensor for name, tensor in vision.tower.state_dict().items()}
    renamed = {_renamed(name): tensor for name, tensor in read.items() if name not in aside}
    tensors = {_at_home(name, wanted): tensor for name, tensor in renamed.items()}
    unchanged = all(
        torch.equal(tensors[name].float(), tensor.float())
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape == tensor.shape
    )
    tensors = {**own, **tensors}
    if model.config.tie_word_embeddings:
        tensors.setdefault(
            "lm_head.weight", tensors.get("model.language_model.embed_tokens.weight")
        )
    check_fit(tensors, wanted, folder)
    model.load_state_dict(tensors, assign=True, strict=projector is None)
    model.tie_weights()
    return Original(model, vision, unchanged, projector)


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
            f"{folder} holds LoRA weights; merge them with LLaVA's scripts/merge_lora_weights.py"
        )
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


def _config(settings: dict[str, Any], vision: Encoder) -> LlavaConfig:
    kind = _LLMS[settings["model_type"]]
    known = {*AutoConfig.for_model(kind).to_dict(), *_LEGACY} - {"model_type", "architectures"}
    text = AutoConfig.for_model(kind, **{k: v for k, v in settings.items() if k in known})
    grid = grid_of(vision.tower.config)
    return LlavaConfig(
        vision_config=vision.tower.config,
        text_config=text,
        image_seq_length=grid[0] * grid[1],
        vision_feature_layer=int(settings.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="default" if class_tokens(vision.tower, grid) else "full",
        tie_word_embeddings=text.tie_word_embeddings,
    )


def _renamed(name: str) -> str:
    for pattern, new in _RENAMED:
        renamed, count = re.subn(pattern, new, name)
        if count:
            return renamed
    return name


def _at_home(name: str, wanted: dict[str, Tensor]) -> str:
    """The encoder's name of a tensor: versions of transformers differ in one level of it."""
    deeper = name.replace(_TOWER, f"{_TOWER}vision_model.", 1)
    return deeper if name not in wanted and deeper in wanted else name
