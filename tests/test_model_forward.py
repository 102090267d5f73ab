"""The model against transformers' own Llava, with pixels and cached features, and its encoder."""

import re

import pytest
import torch
from conftest import GRID, TinyWorld
from transformers import LlavaConfig, LlavaForConditionalGeneration

import vtc.model as vtc_model
from vtc.compress.choices import KNOWN
from vtc.compress.registry import COMPRESSORS
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.backbones import load_encoder
from vtc.model.tower import grid_of, patch_states

LEVELS = {
    name: (2, 3) if name in ("tokenpacker", "visionzip") else (3,)
    for name, kind in COMPRESSORS.items()
    if not kind.needs_query
}


def rows(image: int, visual_tokens: int) -> torch.Tensor:
    """Two prompts; the second shows its image later."""
    shown = [image] * visual_tokens
    return torch.tensor([[7, *shown, 9, 11, 12], [7, 8, *shown, 11, 12]])


def pixels(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("llm", ["qwen", "llama"])
def test_mlp_with_all_patches_is_llava(tiny_world: TinyWorld, llm: str):
    """Same state dict, same logits, same greedy answers, and the same gradients."""
    built = assemble(tiny_world.encoder, getattr(tiny_world, llm), "mlp")
    model = built.model
    llava = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=model.config.vision_config,
            text_config=model.config.text_config,
            image_token_index=model.config.image_token_index,
        )
    )
    missing = llava.load_state_dict(model.state_dict(), strict=True)
    assert not missing.missing_keys
    llava.eval()
    ids = rows(built.processor.image_token_id, GRID * GRID)
    ours = model(input_ids=ids, pixel_values=pixels())
    theirs = llava(input_ids=ids, pixel_values=pixels())
    assert (ours.logits - theirs.logits).abs().max() <= 1e-5
    settings = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    settings["generation_config"] = model.generation_config
    assert torch.equal(
        model.generate(input_ids=ids, pixel_values=pixels(), **settings),
        llava.generate(input_ids=ids, pixel_values=pixels(), **settings),
    )
    model(input_ids=ids, pixel_values=pixels(), labels=ids).loss.backward()
    llava(input_ids=ids, pixel_values=pixels(), labels=ids).loss.backward()
    torch.testing.assert_close(
        model.compressor.linear_1.weight.grad,
        llava.model.multi_modal_projector.linear_1.weight.grad,
    )


@pytest.mark.parametrize("compressor", list(LEVELS))
@pytest.mark.parametrize("encoder", ["encoder", "siglip"])
def test_cached_features_give_the_logits_of_pixels(
    tiny_world: TinyWorld, encoder: str, compressor: str
):
    every = compressor == "mlp" or KNOWN[compressor].schedule is not None
    tokens = GRID * GRID if every else 9
    if encoder == "siglip" and KNOWN[compressor].needs_cls:
        with pytest.raises(InputError, match=re.escape(f"{compressor} chooses patches by the")):
            assemble(tiny_world.siglip, tiny_world.qwen, compressor, tokens)
        return
    built = assemble(getattr(tiny_world, encoder), tiny_world.qwen, compressor, tokens)
    request = built.model.compressor.request
    assert request.levels == LEVELS[compressor]
    n_tokens = request.tokens.merged or GRID * GRID + request.tokens.class_token
    ids = rows(built.processor.image_token_id, tokens)
    with torch.no_grad():
        levels = built.model.model.encode(pixels())
        expected = built.model(input_ids=ids, pixel_values=pixels()).logits
        found = built.model(input_ids=ids, vision_levels=levels).logits
        hidden = built.model.model(input_ids=ids, vision_levels=levels).last_hidden_state
    assert levels.shape == (2, len(LEVELS[compressor]), n_tokens, 32)
    assert torch.equal(found, expected)
    assert torch.equal(built.model.lm_head(hidden), expected)


def test_generate_takes_cached_features(tiny_world: TinyWorld):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4)
    ids = rows(built.processor.image_token_id, 4)
    common = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 5}
    levels = built.model.model.encode(pixels())
    expected = built.model.generate(**common, pixel_values=pixels())
    assert torch.equal(built.model.generate(**common, vision_levels=levels), expected)
    without_cache = built.model.generate(**common, vision_levels=levels, use_cache=False)
    assert torch.equal(without_cache, expected)
    beams = built.model.generate(**common, vision_levels=levels, num_beams=2)
    assert beams.shape[0] == 2


@pytest.mark.parametrize(("encoder", "class_token"), [("encoder", 1), ("siglip", 0)])
def test_patch_states_are_the_encoders_own(tiny_world: TinyWorld, encoder: str, class_token: int):
    tower = load_encoder(getattr(tiny_world, encoder)).tower
    with torch.no_grad():
        hidden = tower(pixels(), output_hidden_states=True).hidden_states
        found = patch_states(tower, pixels(), range(5), grid_of(tower.config))
        early = patch_states(tower, pixels(), [0, 2], grid_of(tower.config))
    for level in range(5):
        assert torch.equal(found[level], hidden[level][:, class_token:])
    assert torch.equal(early[2], found[2])


def test_layers_past_the_last_level_do_not_run(tiny_world: TinyWorld):
    tower = load_encoder(tiny_world.encoder).tower
    ran = []
    for number, layer in enumerate(tower.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    patch_states(tower, pixels(), [2], (GRID, GRID))
    assert ran == [0, 1]


def test_vision_half_of_a_clip_pair(tiny_world: TinyWorld):
    pair = load_encoder(tiny_world.clip_pair)
    assert type(pair.tower).__name__ == "CLIPVisionModel"
    assert grid_of(pair.tower.config) == (GRID, GRID)
    from transformers import CLIPModel

    whole = CLIPModel.from_pretrained(tiny_world.clip_pair)
    with torch.no_grad():
        expected = whole.vision_model(pixels()).last_hidden_state
        assert torch.equal(pair.tower(pixels()).last_hidden_state, expected)


def test_encoder_stays_frozen_and_in_eval(tiny_world: TinyWorld):
    model = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 4).model
    model.train()
    assert model.training
    assert model.model.language_model.training
    assert not model.model.vision_tower.training
    assert not any(p.requires_grad for p in model.model.vision_tower.parameters())
    assert not model.model.encode(pixels()).requires_grad
    model.config.freeze_vision = False
    model.model.vision_tower.requires_grad_(True)
    assert model.train().model.vision_tower.training
    assert model.model.encode(pixels()).requires_grad


def test_text_alone_needs_no_image(tiny_world: TinyWorld):
    model = assemble(tiny_world.encoder, tiny_world.qwen, "avgpool", 4).model
    assert model(input_ids=torch.tensor([[7, 8, 9]])).logits.shape[:2] == (1, 3)


def test_what_does_not_fit_is_refused(tiny_world: TinyWorld):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4)
    ids = rows(built.processor.image_token_id, 4)
    levels = built.model.model.encode(pixels())
    with pytest.raises(ValueError, match="asks for levels"):
        built.model(input_ids=ids, vision_levels=levels[:, :1])
    with pytest.raises(ValueError, match="not both"):
        built.model(input_ids=ids, vision_levels=levels, pixel_values=pixels())
    with pytest.raises(ValueError, match="do not match"):
        built.model(input_ids=ids[:, :-3], vision_levels=levels)
    with pytest.raises(InputError, match="choose from 1, 4, 9, 36"):
        assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 5)


def test_half_precision(tiny_world: TinyWorld):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4, dtype=torch.bfloat16)
    assert {p.dtype for p in built.model.parameters()} == {torch.bfloat16}
    ids = rows(built.processor.image_token_id, 4)
    logits = built.model(input_ids=ids, pixel_values=pixels()).logits
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


def test_auto_classes_know_the_model(tiny_world: TinyWorld, tmp_path):
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    built = assemble(tiny_world.encoder, tiny_world.llama, "tokenpacker", 4)
    built.model.save_pretrained(tmp_path)
    built.processor.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), vtc_model.VtcConfig)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(model, vtc_model.VtcForConditionalGeneration)
    assert isinstance(processor, vtc_model.VtcProcessor)
    ids = rows(processor.image_token_id, 4)
    expected = built.model(input_ids=ids, pixel_values=pixels()).logits
    assert torch.equal(model(input_ids=ids, pixel_values=pixels()).logits, expected)


def test_fresh_weights_are_the_compressors_own(tiny_world: TinyWorld, tmp_path):
    """transformers' general rule for linear layers (here .2) does not get at the compressor."""
    config = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4).model.config
    model = vtc_model.VtcForConditionalGeneration(config)
    own = 0.64 / 64**0.5
    assert model.compressor.key_proj[0].weight.std().item() == pytest.approx(own, rel=0.1)
    # A checkpoint that lacks one weight: that one is drawn anew, the others are kept.
    state = {k: v for k, v in model.state_dict().items() if "key_proj.0.weight" not in k}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = vtc_model.VtcForConditionalGeneration.from_pretrained(tmp_path).compressor
    assert loaded.key_proj[0].weight.std().item() == pytest.approx(own, rel=0.1)
    assert not torch.equal(loaded.key_proj[0].weight, model.compressor.key_proj[0].weight)
    assert torch.equal(loaded.key_proj[2].weight, model.compressor.key_proj[2].weight)
