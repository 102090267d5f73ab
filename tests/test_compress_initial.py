"""Initial weights of compressors whose release draws them in a way of its own."""

import math

import pytest
import torch
from torch import Tensor, nn

from vtc.compress.mqt import Mqt
from vtc.compress.registry import build


def mqt(vision_width: int, text_width: int) -> Mqt:
    torch.manual_seed(0)
    made = build(
        "mqt", vision_width=vision_width, text_width=text_width, depth=2, grid=(16, 16),
        visual_tokens=256,
    )  # fmt: skip
    assert isinstance(made, Mqt)
    return made


def deviation(weight: Tensor) -> float:
    assert abs(weight.mean().item()) < 5 * weight.std().item() / math.sqrt(weight.numel())
    return weight.std().item()


@pytest.mark.parametrize(
    ("vision_width", "text_width", "out"), [(1024, 320, 0.02), (256, 640, 0.04), (2048, 64, 0.02)]
)
def test_mqt_draws_as_released(vision_width, text_width, out):
    """query, out_proj: trunc_normal_(std=.02); proj: randn / sqrt(width of the LLM)."""
    made = mqt(vision_width, text_width)
    assert deviation(made.query) == pytest.approx(0.02, rel=0.02)
    assert deviation(made.attn.out.weight) == pytest.approx(out, rel=0.02)
    assert deviation(made.proj.weight) == pytest.approx(text_width**-0.5, rel=0.02)
    # A normal's fourth moment is 3 of its variance squared; that of torch's own uniform is 1.8.
    spread = (made.attn.out.weight / out).pow(4).mean().item()
    assert spread == pytest.approx(3, rel=0.05)


def test_mqts_attention_reads_as_torchs_own():
    """The release draws no [3 D, D] matrix of nn.MultiheadAttention anew: it is no nn.Linear."""
    made, reference = mqt(256, 32), nn.MultiheadAttention(256, 16)
    assert reference.in_proj_weight is not None
    bound = math.sqrt(6 / (256 + 3 * 256))
    layers = (made.attn.query, made.attn.key, made.attn.value)
    for weight in (reference.in_proj_weight, *(layer.weight for layer in layers)):
        assert bound * 0.999 < weight.abs().max().item() <= bound
        assert deviation(weight) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert all(layer.bias.abs().max() == 0 for layer in (*layers, made.attn.out))
