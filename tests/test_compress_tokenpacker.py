"""TokenPacker against a reference written from the paper with torch's own attention."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vtc.compress import tokenpacker
from vtc.compress.interface import VisionFeatures
from vtc.compress.registry import build
from vtc.compress.tokenpacker import TokenPacker
from vtc.errors import InputError


class Reference(nn.Module):
    """Queries of a bilinear grid, nn.MultiheadAttention with the windows folded into the batch."""

    def __init__(self, width: int, levels: int, text_width: int, heads: int):
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.k = self._mlp(width * levels, width)
        self.v = self._mlp(width * levels, width)
        self.ln_q, self.ln_k, self.ln_v = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attn = nn.MultiheadAttention(width, heads)
        self.out = self._mlp(width, text_width)

    @staticmethod
    def _mlp(width_in: int, width_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out)
        )

    def forward(self, single: Tensor, multi: Tensor, tokens: int) -> Tensor:
        batch, patches, width = single.shape
        side, count = math.isqrt(patches), math.isqrt(tokens)
        image = single.reshape(batch, side, side, width).permute(0, 3, 1, 2).float()
        small = F.interpolate(image, (count, count), mode="bilinear", align_corners=False)
        coarse = small.permute(0, 2, 3, 1).reshape(batch, tokens, width).to(single.dtype)
        query = self.ln_q(self.q(coarse)).reshape(1, batch * tokens, width)
        key, value = self.ln_k(self.k(multi)), self.ln_v(self.v(multi))
        key, value = (self._fold(x, count, side // count) for x in (key, value))
        found, _ = self.attn(query, key, value)
        return self.out(found.reshape(batch, tokens, width))

    @staticmethod
    def _fold(x: Tensor, count: int, size: int) -> Tensor:
        """[B, N, D] -> [patches of a window, B * windows, D], one window at a time."""
        batch, patches, width = x.shape
        grid = x.reshape(batch, math.isqrt(patches), math.isqrt(patches), width)
        parts = [
            grid[:, r * size : (r + 1) * size, c * size : (c + 1) * size].reshape(batch, -1, width)
            for r in range(count)
            for c in range(count)
        ]
        return torch.stack(parts, 1).flatten(0, 1).transpose(0, 1)


def copy_weights(source: TokenPacker, target: Reference) -> None:
    """Fill the reference with the compressor's weights, all drawn at random, biases too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in source.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * 0.5 / math.sqrt(parameter.shape[-1]))
    pairs = {
        "q": source.query_proj, "k": source.key_proj, "v": source.value_proj,
        "ln_q": source.query_norm, "ln_k": source.key_norm, "ln_v": source.value_norm,
        "out": source.out_proj,
    }  # fmt: skip
    for name, module in pairs.items():
        getattr(target, name).load_state_dict(module.state_dict())
    three = (source.attn_query, source.attn_key, source.attn_value)
    with torch.no_grad():
        target.attn.in_proj_weight.copy_(torch.cat([layer.weight for layer in three]))
        target.attn.in_proj_bias.copy_(torch.cat([layer.bias for layer in three]))
        target.attn.out_proj.load_state_dict(source.attn_out.state_dict())


NAMES = ("query", "key", "value")


def pair(side: int, tokens: int, dtype: torch.dtype) -> tuple[TokenPacker, Reference, dict]:
    """The compressor and its reference on a 24-layer encoder of width 32, and features."""
    made = build(
        "tokenpacker", vision_width=32, text_width=48, depth=24, grid=(side, side),
        visual_tokens=tokens,
    )  # fmt: skip
    assert isinstance(made, TokenPacker)
    reference = Reference(32, 4, 48, 8).to(dtype)
    made = made.to(dtype)
    copy_weights(made, reference)
    generator = torch.Generator().manual_seed(1)
    levels = {
        level: torch.randn(2, side * side, 32, generator=generator, dtype=torch.float64).to(dtype)
        for level in made.request.levels
    }
    return made, reference, levels


# Bounds: float64 differs only through the bilinear step, which both take in float32.
BOUNDS = {torch.float64: (0, 1e-12), torch.float32: (1e-5, 1e-6), torch.bfloat16: (2e-2, 2e-2)}


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize(
    ("side", "tokens"), [(12, 1), (12, 4), (12, 9), (12, 36), (12, 144), (6, 4)]
)
def test_equals_the_reference(side: int, tokens: int, dtype: torch.dtype):
    made, reference, levels = pair(side, tokens, dtype)
    assert made.request.levels == (12, 16, 22, 23)
    with torch.no_grad():
        found = made(VisionFeatures(levels, (side, side)))
        multi = torch.cat([levels[level] for level in (12, 16, 22, 23)], -1)
        expected = reference(levels[23], multi, tokens)
    rtol, atol = BOUNDS[dtype]
    assert found.shape == (2, tokens, 48)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("tokens", [1, 4, 9])
def test_wide_encoders_take_fewer_products_to_the_same_end(tokens, dtype, monkeypatch):
    monkeypatch.setattr(tokenpacker, "WIDE", 1)
    made, reference, levels = pair(12, tokens, dtype)
    assert made._absorbs(tokens)
    multi = torch.cat([levels[level] for level in (12, 16, 22, 23)], -1)
    with FlopCounterMode(display=False) as counter:
        found = made(VisionFeatures(levels, (12, 12)))
    assert made.flops() == counter.get_total_flops() // 2  # two images
    rtol, atol = BOUNDS[dtype]
    expected = reference(levels[23], multi, tokens)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    found.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert made.attn_key.bias.grad.abs().max() == 0
    if dtype == torch.float64:
        ours = torch.cat([getattr(made, f"attn_{name}").weight.grad for name in NAMES])
        torch.testing.assert_close(ours, reference.attn.in_proj_weight.grad)
        torch.testing.assert_close(made.key_proj[0].weight.grad, reference.k[0].weight.grad)


def test_many_tokens_or_a_narrow_encoder_keep_the_plain_order():
    assert not pair(12, 144, torch.float32)[0]._absorbs(144)
    assert not pair(12, 1, torch.float32)[0]._absorbs(1)
    with torch.device("meta"):
        wide = {"vision_width": 1024, "text_width": 8, "depth": 24, "grid": (24, 24)}
        made = [build("tokenpacker", **wide, visual_tokens=tokens) for tokens in (1, 144, 576)]
    assert [one._absorbs(one.visual_tokens) for one in made] == [True, True, False]


@pytest.mark.parametrize("tokens", [1, 9, 144])
def test_flops_are_those_torch_counts_in_the_reference(tokens: int):
    made, reference, levels = pair(12, tokens, torch.float32)
    multi = torch.cat([levels[level] for level in made.key_levels], -1)
    with FlopCounterMode(display=False) as counter:
        reference(levels[23], multi, tokens)
    assert made.flops() == counter.get_total_flops() // 2  # two images


@pytest.mark.parametrize("tokens", [1, 4, 16, 36, 64, 144, 576])
def test_size_and_cost_on_llava(tokens: int):
    """CLIP ViT-L/14-336 and a 7B LLM: the reference's 36,722,688 parameters and its GFLOPs."""
    with torch.device("meta"):
        made = build(
            "tokenpacker", vision_width=1024, text_width=4096, depth=24, grid=(24, 24),
            visual_tokens=tokens,
        )  # fmt: skip
    assert sum(weight.numel() for weight in made.parameters()) == 36_722_688
    known = {1: 14.5, 4: 14.7, 16: 15.3, 36: 16.2, 64: 17.6, 144: 21.4, 576: 42.3}
    projected, taken = made._orders(tokens)[0], made._orders(tokens)[made._absorbs(tokens)]
    assert round((made.flops() + projected - taken) / 1e9, 1) == pytest.approx(
        known[tokens], abs=0.05
    )
    if tokens <= 16:
        assert made.flops() < 0.85 * known[tokens] * 1e9


def test_a_query_sees_its_own_window_alone():
    made, _, levels = pair(12, 9, torch.float32)
    before = made(VisionFeatures(levels, (12, 12)))
    changed = {level: states.clone() for level, states in levels.items()}
    for states in changed.values():
        states[:, :2] += 1.0  # two patches of the first window
    after = made(VisionFeatures(changed, (12, 12)))
    moved = (after - before).abs().amax(-1) > 1e-6
    assert moved.tolist() == [[True] + [False] * 8] * 2


@pytest.mark.parametrize(
    ("depth", "levels"),
    [(24, (12, 16, 22, 23)), (27, (14, 18, 25, 26)), (12, (6, 8, 11)), (3, (1, 2)), (1, (0,))],
)
def test_levels_scale_with_the_depth(depth: int, levels: tuple[int, ...]):
    made = build(
        "tokenpacker", vision_width=16, text_width=8, depth=depth, grid=(4, 4), visual_tokens=4
    )
    assert made.request.levels == levels


def test_heads_fit_the_width_and_are_a_setting():
    def heads(width: int, **settings) -> int:
        made = build(
            "tokenpacker", vision_width=width, text_width=8, depth=4, grid=(4, 4),
            visual_tokens=4, settings=settings,
        )  # fmt: skip
        assert isinstance(made, TokenPacker)
        return made.heads

    assert [heads(64), heads(36), heads(7)] == [8, 6, 7]
    assert heads(64, heads=2) == 2
    with pytest.raises(
        InputError, match="3 heads do not divide the width 64; choose from 1, 2, 4, 8"
    ):
        heads(64, heads=3)


def test_initial_weights_are_the_references_at_its_width():
    made = build(
        "tokenpacker", vision_width=1024, text_width=16, depth=2, grid=(2, 2), visual_tokens=1
    )
    assert isinstance(made, TokenPacker)
    assert made.query_proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert made.key_proj[0].bias.abs().max() == 0
    bound = math.sqrt(6 / 4096)
    assert made.attn_key.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
