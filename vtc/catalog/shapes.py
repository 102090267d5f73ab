"""The shapes of LLMs and vision encoders: all that exact costs need to know of a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from vtc.errors import InputError

# Gated feed-forward layers (three matrices); others have two, and other costs.
_GATED = ("silu", "swish", "gelu_pytorch_tanh")
_WITHOUT_CLASS_TOKEN = ("siglip", "siglip2")
# Vision models whose layers are of CLIP's build, and do not turn queries and keys by position.
_OF_CLIPS_BUILD = (
    *("clip", "clip_vision_model", "siglip", "siglip_vision_model", "chinese_clip"),
    *("chinese_clip_vision_model", "idefics3_vision", "smolvlm_vision", "granite_docling_vision"),
)


@dataclass(frozen=True)
class LlmShape:
    """A decoder with gated feed-forward layers and grouped-query attention.

    `vocab_size` counts the rows of the embedding, padding included; `tied`: the head is the
    embedding. `n_vectors` are the parameters of norms and biases, which no matrix product uses.
    `n_windowed` layers attend to the last `window` tokens alone, itself among them (Gemma).
    """

    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    n_vectors: int = 0
    window: int = 0
    n_windowed: int = 0

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the linear layers of one block: q, k, v, o, gate, up, down."""
        d, f = self.hidden_size, self.intermediate_size
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return (d, queries), (d, keys), (d, keys), (queries, d), (d, f), (d, f), (f, d)

    @property
    def n_matmul(self) -> int:
        """Parameters of the blocks' linear layers: M of the cost formulas."""
        return self.n_layers * sum(rows * columns for rows, columns in self.linears)

    @property
    def n_head(self) -> int:
        """Parameters of the LM head, shared or not."""
        return self.hidden_size * self.vocab_size

    @property
    def n_embedding(self) -> int:
        """Parameters of the input embedding, and of the head where it is another."""
        return self.n_head * (1 if self.tied else 2)

    @property
    def n_params(self) -> int:
        """All parameters."""
        return self.n_matmul + self.n_embedding + self.n_vectors

    def n_lora(self, rank: int) -> int:
        """Parameters of LoRA of a rank on every linear layer of every block, head excluded."""
        return self.n_layers * rank * sum(rows + columns for rows, columns in self.linears)


@dataclass(frozen=True)
class EncoderShape:
    """A vision transformer; `n_params` all its parameters, pooling head too.

    `image_size` and `patch_size` are sides of squares, or (height, width). `mergeable`: its layers
    are of CLIP's build, between whose halves `vtc.model.merging` merges patches.
    """

    n_layers: int
    hidden_size: int
    n_heads: int
    intermediate_size: int
    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int]
    class_token: bool
    n_params: int
    n_channels: int = 3
    mergeable: bool = True

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (height, width), (rows, columns) = sides(self.image_size), sides(self.patch_size)
        return height // rows, width // columns

    @property
    def image_values(self) -> int:
        """Numbers that an image is: its pixels, all channels."""
        return self.n_channels * prod(sides(self.image_size))

    @property
    def patch_values(self) -> int:
        """Numbers that a patch is."""
        return self.n_channels * prod(sides(self.patch_size))

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def n_tokens(self) -> int:
        """Tokens the layers run on: patches and the class token, if there is one."""
        return self.n_patches + self.class_token


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size, which may be the side of a square."""
    return (size, size) if isinstance(size, int) else size


def is_mergeable(model_type: str | None) -> bool:
    """Whether a vision model's layers are of CLIP's build; one of no known type may be."""
    return model_type is None or model_type in _OF_CLIPS_BUILD


def llm_from_config(config: Mapping[str, Any], where: str) -> LlmShape:
    """The shape in a Hugging Face config.json of a causal LLM.

    Raises InputError naming `where` for a mixture of experts, feed-forward layers without a gate,
    or a config that lacks a size: their costs are not known here.
    """
    config = config.get("text_config", config)
    if any("expert" in key and config[key] for key in config):
        raise InputError(f"{where}: a mixture of experts; its costs are not known here")
    activation = config.get("hidden_act") or config.get("hidden_activation")
    if activation not in _GATED:
        raise InputError(f"{where}: feed-forward layers with {activation}; need a gate ({_GATED})")
    d, layers, heads = (
        _size(config, key, where)
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or d // heads)
    kind = str(config.get("model_type"))
    biased = kind == "qwen2" or bool(config.get("attention_bias"))
    normed = kind.startswith(("qwen3", "gemma3"))
    norms = (4 if kind.startswith(("gemma2", "gemma3")) else 2) * d + 2 * head_dim * normed
    biases = (heads + 2 * kv_heads) * head_dim * biased
    return LlmShape(
        n_layers=layers,
        hidden_size=d,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=_size(config, "intermediate_size", where),
        vocab_size=_size(config, "vocab_size", where),
        tied=bool(config.get("tie_word_embeddings", kind.startswith("gemma"))),
        n_vectors=layers * (norms + biases) + d,
        **_windows(config, layers),
    )


def _windows(config: Mapping[str, Any], layers: int) -> dict[str, int]:
    """How many layers attend to a window, and how long it is; none where the config has none."""
    window = config.get("sliding_window")
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return {}
    kinds, pattern = config.get("layer_types"), config.get("sliding_window_pattern")
    if kinds:
        windowed = sum(kind == "sliding_attention" for kind in kinds)
    else:
        # Of `pattern` layers one sees everything (Gemma 3's first configs); without it, none does.
        windowed = layers - layers // pattern if pattern else layers
    return {"window": window, "n_windowed": windowed} if windowed else {}


def encoder_from_config(config: Mapping[str, Any], where: str) -> EncoderShape:
    """The shape in a config.json of a CLIP, SigLIP, ViT or DINOv2 encoder, or of a pair with one.

    Parameters are those of the layers, patches and positions, without a pooling head. Raises
    InputError naming `where` for a config that lacks a size, or has two where its class takes one.
    """
    config = config.get("vision_config", config)
    d, layers = (_size(config, key, where) for key in ("hidden_size", "num_hidden_layers"))
    kind = config.get("model_type")
    dino = kind == "dinov2"
    f = _dino_width(config, d, where) if dino else _size(config, "intermediate_size", where)
    image, patch = (_side_or_sides(config, key, where) for key in ("image_size", "patch_size"))
    if kind in _OF_CLIPS_BUILD and not (isinstance(image, int) and isinstance(patch, int)):
        raise InputError(
            f"{where}: its config.json has image_size {config['image_size']} and patch_size "
            f"{config['patch_size']}; {kind} encoders take square images alone"
        )
    shape = EncoderShape(
        n_layers=layers,
        hidden_size=d,
        n_heads=_size(config, "num_attention_heads", where),
        intermediate_size=f,
        image_size=image,
        patch_size=patch,
        class_token=not str(kind).startswith(_WITHOUT_CLASS_TOKEN),
        n_params=0,
        n_channels=int(config.get("num_channels", 3)),
        mergeable=is_mergeable(kind),
    )
    # DINOv2 scales what each half of a layer adds, and has a token for masked patches.
    scales = (2 * layers + 1) * d if dino else 0
    return replace(shape, n_params=n_vit_params(shape) + scales)


def _dino_width(config: Mapping[str, Any], d: int, where: str) -> int:
    """The width of a DINOv2's feed-forward layers, which its config.json has as a ratio."""
    ratio = config.get("mlp_ratio", 4)
    if config.get("use_swiglu_ffn"):
        raise InputError(
            f"{where}: feed-forward layers with a gate (use_swiglu_ffn); their costs are not known"
        )
    if not isinstance(ratio, int | float) or ratio <= 0:
        raise InputError(f"{where}: its config.json has mlp_ratio {ratio}; need a number above 0")
    return int(d * ratio)


def n_vit_params(shape: EncoderShape) -> int:
    """Parameters of the layers, patches and positions, without a pooling head."""
    d, f = shape.hidden_size, shape.intermediate_size
    a_layer = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
    pieces = shape.n_tokens + shape.patch_values + 1 + shape.class_token
    return shape.n_layers * a_layer + pieces * d


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder; raises InputError if there is none or it is damaged."""
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); it is no model folder") from None


def _side_or_sides(config: Mapping[str, Any], key: str, where: str) -> int | tuple[int, int]:
    value = config.get(key)
    if not isinstance(value, list | tuple):
        return _size(config, key, where)
    if len(value) != 2 or not all(isinstance(side, int) and side > 0 for side in value):
        raise InputError(f"{where}: config.json has {key} {list(value)}; need height and width")
    height, width = value
    return height if height == width else (height, width)


def _size(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{where}: its config states no {key}, which costs are computed from")
    return value
