"""FLOPs by arithmetic against torch's own counter on real models, and against known figures."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from vtc.catalog import encoders, llms
from vtc.catalog.shapes import encoder_from_config, llm_from_config
from vtc.commands.stating import stated_of
from vtc.cost.encoder import encoder_flops
from vtc.cost.llm import prefill_flops, training_flops
from vtc.errors import InputError

SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "vocab_size": 500,
}
LLMS = {
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    # Heads wider together than the model, and norms of queries and keys.
    "qwen3": Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
}
TOKENS, SUPERVISED = 20, 6


def build(config):
    # Eager attention: the counter sees both of its products.
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model, llm_from_config(config.to_dict(), "llm")


def counted(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def embeddings(model):
    """What the compressor gives: inputs that need a gradient."""
    width = model.config.hidden_size
    return torch.zeros(1, TOKENS, width, requires_grad=True)


def train(model):
    """Forward and backward with the head at the supervised positions alone."""
    kept = torch.arange(TOKENS - SUPERVISED, TOKENS)
    model.train()
    outputs = model(inputs_embeds=embeddings(model), logits_to_keep=kept, use_cache=False)
    outputs.logits.sum().backward()


@pytest.mark.parametrize("config", LLMS.values(), ids=LLMS)
def test_prefill_is_what_torch_counts(config):
    model, shape = build(config)
    assert sum(weight.numel() for weight in model.parameters()) == shape.n_params
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    with torch.no_grad():
        once = counted(lambda: model(ids, logits_to_keep=1, use_cache=False))
        everywhere = counted(lambda: model(ids, use_cache=False))
    assert once == prefill_flops(shape, TOKENS)
    assert everywhere == prefill_flops(shape, TOKENS, TOKENS)


def test_a_cached_prefix_is_attended_to_and_not_computed():
    model, shape = build(LLMS["qwen2"])
    with torch.no_grad():
        cache = model(torch.zeros(1, 8, dtype=torch.long), use_cache=True).past_key_values
        ids = torch.zeros(1, TOKENS, dtype=torch.long)
        got = counted(lambda: model(ids, past_key_values=cache, logits_to_keep=1))
    assert got == prefill_flops(shape, TOKENS, cached=8)


@pytest.mark.parametrize("config", LLMS.values(), ids=LLMS)
def test_training_is_what_torch_counts(config):
    model, shape = build(config)
    model.requires_grad_(False)
    frozen = training_flops(shape, TOKENS, SUPERVISED, "nothing", attention="dense")
    assert counted(lambda: train(model)) == frozen
    model.requires_grad_(True)
    full = training_flops(shape, TOKENS, SUPERVISED, "full", attention="dense")
    assert counted(lambda: train(model)) == full


def test_lora_is_what_torch_counts():
    from peft import LoraConfig, get_peft_model

    model, shape = build(LLMS["qwen2"])
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=names))
    trained = sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    assert trained == shape.n_lora(4)
    needed = training_flops(
        shape, TOKENS, SUPERVISED, "lora", lora_rank=4, attention="dense"
    )  # fmt: skip
    assert counted(lambda: train(tuned)) == needed


VIT = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 48,
    "patch_size": 8,
}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (CLIPVisionConfig(**VIT), CLIPVisionModel),
        (SiglipVisionConfig(**VIT, vision_use_head=False), SiglipVisionModel),
        (Dinov2Config(**{**VIT, "intermediate_size": None}, mlp_ratio=3), Dinov2Model),
    ],
    ids=["clip", "siglip", "dinov2"],
)
def test_an_encoder_is_what_torch_counts(config, kind):
    config._attn_implementation = "eager"
    model, shape = kind(config).eval(), encoder_from_config(config.to_dict(), "encoder")
    with torch.no_grad():
        assert counted(lambda: model(torch.zeros(1, 3, 48, 48))) == encoder_flops(shape)
    # Norms around the layers are all that the shape leaves out.
    total = sum(weight.numel() for weight in model.parameters())
    assert 0 <= total - shape.n_params <= 4 * VIT["hidden_size"]


def test_a_dinov2_with_gates_or_without_a_ratio_is_refused():
    config = Dinov2Config(**VIT).to_dict()
    with pytest.raises(InputError, match="encoder: feed-forward layers with a gate"):
        encoder_from_config({**config, "use_swiglu_ffn": True}, "encoder")
    with pytest.raises(InputError, match="has mlp_ratio None; need a number above 0"):
        encoder_from_config({**config, "mlp_ratio": None}, "encoder")


@pytest.mark.parametrize("patch", [8, (8, 16)])
def test_a_model_of_rectangular_images_is_what_torch_counts(tiny_world, tmp_path, patch):
    from vtc.model.assemble import assemble

    config = ViTConfig(**{**VIT, "image_size": (32, 64), "patch_size": patch})
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 64}).save_pretrained(tmp_path)
    shape = encoders.shape(tmp_path)
    model = assemble(tmp_path, tiny_world.qwen, "resampler", 5).model
    model.set_attn_implementation("eager")
    weights = model.model.vision_tower.named_parameters()
    n_params = sum(one.numel() for name, one in weights if "pooler" not in name)
    assert 0 <= n_params - shape.n_params <= 4 * VIT["hidden_size"]
    text, level = llm_from_config(model.config.text_config.to_dict(), "llm"), shape.n_layers - 1
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    ids[0, 2:7] = model.config.image_token_id
    pixels = torch.zeros(1, 3, 32, 64)
    with torch.no_grad():
        got = counted(lambda: model(ids, pixel_values=pixels, logits_to_keep=1, use_cache=False))
        compressing = counted(
            lambda: model.model.compress(model.model.encode(pixels))
        ) - counted(lambda: model.model.encode(pixels))  # fmt: skip
    assert got == encoder_flops(shape, level) + compressing + prefill_flops(text, TOKENS)
    said = stated_of("resampler", shape, text.hidden_size, 5)
    # The products of queries and keys are taken by a kernel or element by element.
    assert compressing == pytest.approx(said.flops, rel=0.05)


def test_the_published_encoder_costs_what_is_known():
    clip = encoders.shape("openai/clip-vit-large-patch14-336")
    assert encoder_flops(clip) == pytest.approx(381.918e9, rel=1e-6)
    assert encoder_flops(clip, 23) == pytest.approx(366.0e9, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("Qwen1.5-0.5B", 62950473728),
        ("Qwen/Qwen1.5-7B-Chat", 1301688614912),
        ("Qwen1.5-14B", 2531574415360),
        ("Qwen2.5-0.5B", 72697741312),
    ],
)
def test_known_prefills_of_100_tokens(name, flops):
    assert prefill_flops(llms.shape(name), 100) == flops


def test_causal_attention_counts_the_pairs_that_count():
    shape = llms.shape("Qwen1.5-0.5B")
    dense = prefill_flops(shape, 10) - prefill_flops(shape, 10, attention="causal")
    assert dense == 4 * (100 - 55) * 24 * 1024


def test_a_whole_model_costs_the_sum_of_its_parts(tiny_world):
    from vtc.compress.statement import statement
    from vtc.model.assemble import assemble

    model = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4).model
    model.set_attn_implementation("eager")
    vision = encoder_from_config(model.config.vision_config.to_dict(), "encoder")
    text = llm_from_config(model.config.text_config.to_dict(), "llm")
    stated = statement(
        "tokenpacker",
        vision_width=vision.hidden_size,
        text_width=text.hidden_size,
        depth=vision.n_layers,
        grid=vision.grid,
        visual_tokens=4,
    )
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    ids[0, 2:6] = model.config.image_token_id
    pixels = torch.zeros(1, 3, vision.image_size, vision.image_size)
    with torch.no_grad():
        got = counted(lambda: model(ids, pixel_values=pixels, logits_to_keep=1, use_cache=False))
    # TokenPacker counts its products of queries and keys, and of weights and values; they are taken
    # element by element, and torch counts matrix products alone.
    unseen = 4 * vision.n_patches * vision.hidden_size
    parts = encoder_flops(vision, max(stated.levels)) + stated.flops + prefill_flops(text, TOKENS)
    assert got == parts - unseen
