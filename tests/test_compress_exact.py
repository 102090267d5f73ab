"""Compressors against plain implementations written from their papers, with random weights."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtc.compress.interface import Compressor, VisionFeatures
from vtc.compress.registry import build
from vtc.errors import InputError

WIDTH, TEXT, SIDE, DEPTH = 32, 48, 6, 24
BOUNDS = {torch.float64: (0, 1e-12), torch.float32: (1e-5, 1e-6), torch.bfloat16: (2e-2, 1e-2)}
DTYPES = list(BOUNDS)


def made(name: str, tokens: int, dtype: torch.dtype, side: int = SIDE, **settings) -> Compressor:
    """A compressor whose weights are all drawn at random, norms and biases too."""
    compressor = build(
        name, vision_width=WIDTH, text_width=TEXT, depth=DEPTH, grid=(side, side),
        visual_tokens=tokens, settings=settings,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in compressor.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(noise * 0.5 / math.sqrt(weight.shape[-1]) + (weight.dim() == 1) * 0.1)
    return compressor.to(dtype)


def patches(dtype: torch.dtype, batch: int = 2, side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, side * side, WIDTH, generator=generator, dtype=torch.float64).to(
        dtype
    )


def run(compressor: Compressor, given: Tensor, **more) -> Tensor:
    side = math.isqrt(given.shape[1])
    with torch.no_grad():
        return compressor(VisionFeatures({23: given}, (side, side)), **more)


def check(found: Tensor, expected: Tensor) -> None:
    rtol, atol = BOUNDS[found.dtype]
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def grid_of(given: Tensor) -> Tensor:
    """[B, N, D] -> [B, D, side, side]."""
    side = math.isqrt(given.shape[1])
    return given.transpose(1, 2).unflatten(2, (side, side))


def attend(attn, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """torch's own attention with the weights of a CrossAttention, without any reordering."""
    reference = nn.MultiheadAttention(
        attn.query.in_features, attn.heads, batch_first=True,
        kdim=attn.key.in_features, vdim=attn.value.in_features, dtype=queries.dtype,
    )  # fmt: skip
    three = (attn.query, attn.key, attn.value)
    with torch.no_grad():
        if reference.in_proj_weight is None:
            for name, layer in zip("qkv", three, strict=True):
                getattr(reference, f"{name}_proj_weight").copy_(layer.weight)
        else:
            reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in three]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in three]))
        reference.out_proj.load_state_dict(attn.out.state_dict())
        return reference(queries, keys, values)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 4, 9, 36])
def test_m3_is_the_mlp_then_the_means(dtype, tokens):
    compressor, given = made("m3", tokens, dtype), patches(dtype)
    with torch.no_grad():
        full = compressor.linear_2(F.gelu(compressor.linear_1(given)))
    side = math.isqrt(tokens)
    pooled = F.adaptive_avg_pool2d(grid_of(full), side).flatten(2).transpose(1, 2)
    check(run(compressor, given), pooled)


def test_m3_nests():
    compressor, given = made("m3", 36, torch.float64), patches(torch.float64)
    fine = run(compressor, given, visual_tokens=9)
    check(fine.mean(1, keepdim=True), run(compressor, given, visual_tokens=1))
    assert compressor.trained_visual_tokens == (1, 9, 36)
    large = made("m3", 576, torch.float32, side=24)
    assert large.trained_visual_tokens == (1, 9, 36, 144, 576)


def mqt_by_torch(compressor, given: Tensor, count: int) -> Tensor:
    """MQT as the facts describe it: torch's attention, keys with or without the patches."""
    side, own = math.isqrt(given.shape[1]), math.isqrt(len(compressor.pos_embed))
    image = compressor.pos_embed.float().T.reshape(1, -1, own, own)
    position = F.interpolate(image, (side, side), mode="bicubic", align_corners=False)
    position = position.flatten(2)[0].T.to(given.dtype)
    with torch.no_grad():
        query = compressor.query_norm(compressor.query + compressor.pos_embed)[:count]
        key = compressor.key_norm(position).expand_as(given)
        if not compressor.static_keys:
            key = compressor.key_norm(given) + position
        value = compressor.value_norm(given)
        found = attend(compressor.attn, query.expand(len(given), -1, -1), key, value)
        return found @ compressor.proj.weight.T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("static_keys", [False, True])
@pytest.mark.parametrize(("tokens", "side"), [(1, 6), (5, 6), (36, 6), (16, 18)])
def test_mqt(dtype, static_keys, tokens, side):
    compressor = made("mqt", tokens, dtype, side, static_keys=static_keys)
    given = patches(dtype, side=side)
    check(run(compressor, given), mqt_by_torch(compressor, given, tokens))
    with torch.enable_grad():
        features = VisionFeatures({23: given}, (side, side))
        check(compressor(features).detach(), mqt_by_torch(compressor, given, tokens))


def test_mqt_nests_and_knows_its_static_weights():
    compressor, given = made("mqt", 36, torch.float64), patches(torch.float64)
    every = run(compressor, given)
    for count in (1, 2, 16):
        check(run(compressor, given, visual_tokens=count), every[:, :count])
    static = made("mqt", 36, torch.float64, static_keys=True)
    before = run(static, given)
    kept = static._folded.weights
    run(static, patches(torch.float64, batch=3))
    assert static._folded.weights is kept
    with torch.no_grad():
        static.attn.key.weight.mul_(2)
    after = run(static, given)
    assert static._folded.weights is not kept
    assert not torch.allclose(before, after)
    check(after, mqt_by_torch(static, given, 36))


PARTS = ("query", "pos_embed", "query_norm.bias", "key_norm.weight", "attn.key.weight",
         "attn.query.bias")  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("write", ["swap", "one", "rows", "columns"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_mqt_notices_writes_that_torch_does_not_count(part, write, dtype):
    """Through `.data`, as of moving averages: of all numbers, of one, or in another order."""
    static, given = made("mqt", 36, dtype, static_keys=True), patches(dtype)
    run(static, given)
    weight = static.get_parameter(part) if part != "pos_embed" else static.pos_embed
    version, old = weight._version, weight.detach().clone()
    if write == "swap":
        weight.data.copy_(1.5 * old + 0.25)
    elif write == "one":
        weight.data.view(-1)[7] += 0.125
    else:
        weight.data.copy_(old.flip(0 if write == "rows" else -1))
    assert weight._version == version
    found = run(static, given)
    assert static._folded.numbers.dtype in (torch.float64, torch.float32)
    static._folded = None
    assert torch.equal(found, run(static, given))


def test_mqt_with_static_keys_reads_every_image_alike():
    """The release's attention never looks at the image, so it is linear in the normed patches."""
    given = patches(torch.float64)
    for static_keys in (True, False):
        compressor = made("mqt", 4, torch.float64, static_keys=static_keys)
        compressor.value_norm = nn.Identity()
        empty = run(compressor, torch.zeros_like(given[:1]))
        parts = [run(compressor, image[None]) - empty for image in given]
        linear = torch.allclose(sum(parts), run(compressor, given.sum(0, keepdim=True)) - empty)
        assert linear == static_keys


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "layers"), [(1, 1), (5, 2), (36, 2)])
def test_resampler(dtype, tokens, layers):
    compressor = made("resampler", tokens, dtype, layers=layers)
    given = patches(dtype)
    with torch.no_grad():
        values = compressor.patch_norm(given)
        keys = values + compressor.pos_embed
        latents = compressor.latents.expand(2, -1, -1)
        for layer in compressor.layers:
            latents = latents + attend(layer.attn, layer.norm(latents), keys, values)
            latents = latents + layer.ffn(layer.ffn_norm(latents))
        expected = compressor.proj(compressor.norm(latents))
    if dtype == torch.bfloat16:
        torch.testing.assert_close(run(compressor, given), expected, rtol=5e-2, atol=3e-2)
    else:
        check(run(compressor, given), expected)


@pytest.mark.parametrize(("tokens", "layers"), [(1, 4), (5, 3)])
def test_qformer_is_that_of_transformers(tokens, layers):
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    compressor = made("qformer", tokens, torch.float64, layers=layers, width=24, heads=4)
    config = Blip2QFormerConfig(
        hidden_size=24, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=96,
        encoder_hidden_size=WIDTH, cross_attention_frequency=2, hidden_act="gelu",
    )  # fmt: skip
    reference = Blip2QFormerModel(config).double().eval()
    reference.layernorm.load_state_dict(compressor.norm.state_dict())
    pairs = zip(compressor.layers, reference.encoder.layer, strict=True)
    for ours, theirs in pairs:
        attentions = [(ours.attn, ours.attn_norm, theirs.attention)]
        if ours.reads_patches:
            attentions.append((ours.cross, ours.cross_norm, theirs.crossattention))
        for attn, norm, block in attentions:
            for name in ("query", "key", "value"):
                getattr(block.attention, name).load_state_dict(getattr(attn, name).state_dict())
            block.output.dense.load_state_dict(attn.out.state_dict())
            block.output.LayerNorm.load_state_dict(norm.state_dict())
        theirs.intermediate_query.dense.load_state_dict(ours.ffn[0].state_dict())
        theirs.output_query.dense.load_state_dict(ours.ffn[2].state_dict())
        theirs.output_query.LayerNorm.load_state_dict(ours.ffn_norm.state_dict())
    given = patches(torch.float64)
    with torch.no_grad():
        states = reference(
            query_embeds=compressor.queries.expand(2, -1, -1), encoder_hidden_states=given
        ).last_hidden_state
        check(run(compressor, given), compressor.proj(states))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 4, 16, 36])
def test_ldpv2_pools_behind_the_mlp(dtype, tokens):
    compressor, given = made("ldpv2", tokens, dtype), patches(dtype)
    with torch.no_grad():
        full = compressor.linear_2(F.gelu(compressor.linear_1(given)))
        image = F.adaptive_avg_pool2d(grid_of(full), math.isqrt(tokens))
        expected = (image + compressor.conv(image)).flatten(2).transpose(1, 2)
    check(run(compressor, given), expected)


@pytest.mark.parametrize("tokens", [1, 16])
def test_c_abstractor_by_convolutions(tokens):
    """Channels first, 1 x 1 convolutions for linear layers, as RegNet is written; eps 1e-5."""
    compressor, given = (
        made("c-abstractor", tokens, torch.float64, blocks=2),
        patches(torch.float64),
    )

    def normed(norm, image):
        last = image.permute(0, 2, 3, 1)
        last = F.layer_norm(last, (WIDTH,), norm.weight, norm.bias, eps=1e-5)
        return last.permute(0, 3, 1, 2)

    def pointwise(layer, image):
        return F.conv2d(image, layer.weight[..., None, None], layer.bias)

    def block(part, image):
        inner = F.silu(normed(part.norm_1, pointwise(part.linear_1, image)))
        inner = F.silu(normed(part.norm_2, part.conv(inner)))
        mean = F.silu(pointwise(part.squeeze, F.adaptive_avg_pool2d(inner, 1)))
        inner = inner * torch.sigmoid(pointwise(part.excite, mean))
        return F.silu(normed(part.norm_3, pointwise(part.linear_2, inner)) + image)

    before = given.clone()
    with torch.no_grad():
        image = grid_of(given + compressor.pos_embed)
        for part in compressor.before:
            image = block(part, image)
        image = F.adaptive_avg_pool2d(image, math.isqrt(tokens))
        for part in compressor.behind:
            image = block(part, image)
        expected = compressor.proj(image.flatten(2).transpose(1, 2))
    check(run(compressor, given), expected)
    assert torch.equal(given, before)


def test_pixel_shuffle_is_torchs_up_to_the_order_of_channels():
    compressor, given = made("pixel-shuffle", 9, torch.float64), patches(torch.float64)
    shuffled = F.pixel_unshuffle(grid_of(given), 2).flatten(2).transpose(1, 2)
    # torch keeps the patches of one channel together, we the channels of one patch.
    shuffled = shuffled.unflatten(2, (WIDTH, 4)).transpose(2, 3).flatten(2)
    with torch.no_grad():
        expected = compressor.proj(compressor.norm(shuffled))
    check(run(compressor, given), expected)


def test_blind_sees_nothing():
    compressor = made("blind", 4, torch.float32)
    assert torch.equal(
        run(compressor, patches(torch.float32)), run(compressor, torch.ones(2, 36, WIDTH))
    )


@pytest.mark.parametrize(("query", "seen"), [("bilinear", 4), ("antialias", 36), ("area", 36)])
def test_how_many_patches_a_query_of_tokenpacker_reads(query, seen):
    compressor = made("tokenpacker", 1, torch.float64, query=query)
    given = patches(torch.float64, batch=1).requires_grad_()
    compressor._reduce(given, 1).sum().backward()
    assert (given.grad.abs().sum(-1) > 0).sum() == seen
    constant = torch.ones(1, 36, WIDTH, dtype=torch.float64)
    check(compressor._reduce(constant, 1), torch.ones(1, 1, WIDTH, dtype=torch.float64))
    with pytest.raises(InputError, match="choose from bilinear, antialias, area"):
        made("tokenpacker", 1, torch.float64, query="max")


LLAVA_SIZES = {
    "pixel-shuffle": (144, 4096 + 4096 + 4 * 1024 * 4096 + 4096 + 4096 * 4096 + 4096, None),
    "mqt": (256, 8_660_992, None),
    "m3": (576, 20_979_712, 24.2),
    "c-abstractor": (144, 37_398_016, 15.1),
    "ldpv2": (144, 21_020_672, None),
    "blind": (4, 4 * 4096, 0.0),
}


@pytest.mark.parametrize("name", list(LLAVA_SIZES))
def test_sizes_on_llava(name):
    """CLIP ViT-L/14-336 and a 7B LLM: parameters of the published classes, and their GFLOPs."""
    tokens, n_params, gflops = LLAVA_SIZES[name]
    with torch.device("meta"):
        compressor = build(
            name, vision_width=1024, text_width=4096, depth=24, grid=(24, 24), visual_tokens=tokens
        )
    assert sum(weight.numel() for weight in compressor.parameters()) == n_params
    if gflops is not None:
        assert round(compressor.flops() / 1e9, 1) == pytest.approx(gflops, abs=0.05)


@pytest.mark.parametrize(("tokens", "gflops"), [(1, 7.3), (16, 8.2), (144, 15.1), (576, 38.7)])
def test_c_abstractors_flops_are_the_published_ones(tokens, gflops):
    with torch.device("meta"):
        compressor = build(
            "c-abstractor", vision_width=1024, text_width=4096, depth=24, grid=(24, 24),
            visual_tokens=tokens,
        )  # fmt: skip
    assert round(compressor.flops() / 1e9, 1) == pytest.approx(gflops, abs=0.05)
