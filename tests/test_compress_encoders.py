"""Every compressor on the encoders that there are: CLIP's and SigLIP's, of 12, 24 and 27 layers."""

import json
import shutil

import pytest
import torch
from compress_features import features_of
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    SiglipVisionConfig,
)

from vtc.compress.choices import KNOWN
from vtc.compress.registry import COMPRESSORS, build
from vtc.errors import InputError
from vtc.model.backbones import load_encoder
from vtc.model.config import VtcConfig
from vtc.model.modeling import build_compressor
from vtc.model.tower import attention_layer, encode_states

# Widths that no power of two divides: 12 layers of 36, 24 of 60, 27 of 84.
ENCODERS = [
    (kind, depth, width)
    for kind in (CLIPVisionConfig, SiglipVisionConfig)
    for depth, width in ((12, 36), (24, 60), (27, 84))
]


def config_of(kind, depth: int, width: int, name: str, tokens: int) -> VtcConfig:
    vision = kind(
        hidden_size=width, intermediate_size=8, num_hidden_layers=depth, num_attention_heads=3,
        image_size=24, patch_size=4,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=44, num_attention_heads=2, num_hidden_layers=4, intermediate_size=8,
        vocab_size=9,
    )  # fmt: skip
    return VtcConfig(
        vision_config=vision, text_config=text, image_token_index=0, compressor=name,
        visual_tokens=tokens,
        vision_feature_select_strategy="default" if kind is CLIPVisionConfig else "full",
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "depth", "width"), ENCODERS)
@torch.no_grad()
def test_every_compressor_or_a_sentence(kind, depth: int, width: int):
    """Real features of the encoder itself; those that need a class token say that it has none."""
    from transformers import AutoModel

    torch.manual_seed(0)
    tower = AutoModel.from_config(config_of(kind, depth, width, "mlp", 36).vision_config).eval()
    pixels = torch.randn(2, 3, 24, 24)
    for name, known in KNOWN.items():
        if known.schedule is not None:  # Inside the LLM.
            continue
        tokens = min(v for v in known.supported((6, 6)) if v > 1)
        config = config_of(kind, depth, width, name, tokens)
        if known.needs_cls and kind is SiglipVisionConfig:
            with pytest.raises(InputError, match=r"this encoder has none \(SigLIP\); use divprune"):
                build_compressor(config)
            continue
        made = build_compressor(config).eval()
        request = made.request
        given = features_of(made, width, 44, batch=2)
        states = encode_states(tower, pixels, request.levels, (6, 6), request.tokens)
        n_patches = request.tokens.merged or 36
        before = states.shape[2] - n_patches
        assert before == int(request.tokens.class_token)
        for place, level in enumerate(request.levels):
            given.levels[level] = states[:, place, before:]
            if before:
                given.before[level] = states[:, place, :before]
        if request.attention is not None:
            given.attention = attention_layer(tower, request.attention)
        out = made(given)
        assert out.shape == (2, tokens, 44), name
        assert out.isfinite().all(), name


def test_a_clip_of_images_that_are_not_square_is_refused(tiny_world, tmp_path):
    folder = shutil.copytree(tiny_world.encoder, tmp_path / "tall")
    config = json.loads((folder / "config.json").read_text())
    config.get("vision_config", config)["image_size"] = [48, 24]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"tall: its config.json has image_size \[48, 24\], and clip"
    ):
        load_encoder(folder)


def test_a_dinov2_of_images_that_are_not_square_is_refused(tiny_world, tmp_path):
    """transformers' class builds it, and then takes its positions for a square's."""
    folder = shutil.copytree(tiny_world.encoder, tmp_path / "wide")
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, patch_size=8)
    Dinov2Model(Dinov2Config(**sizes, image_size=[16, 48])).save_pretrained(folder)
    with pytest.raises(
        InputError, match=r"wide: its config.json has image_size \[16, 48\], and dinov2 encoders"
    ):
        load_encoder(folder)
    Dinov2Model(Dinov2Config(**sizes, image_size=[48, 48])).save_pretrained(folder)
    assert load_encoder(folder).tower.config.image_size == [48, 48]


@pytest.mark.parametrize("name", list(COMPRESSORS))
def test_rectangular_grids_work_or_are_refused(name: str):
    def make(tokens: int):
        return build(
            name, vision_width=36, text_width=44, depth=24, grid=(4, 6), visual_tokens=tokens
        )

    choices = COMPRESSORS[name].supported((4, 6))
    if not choices:
        with pytest.raises(InputError, match="a square grid of patches, this encoder's is 4x6"):
            make(4)
        return
    for tokens in (choices[0], choices[-1]):
        made = make(tokens)
        if getattr(made, "prunes", False):
            continue
        with torch.no_grad():
            assert made(features_of(made, 36, 44, batch=2)).shape == (2, tokens, 44)
