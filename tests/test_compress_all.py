"""What holds for every compressor of the registry, at every V."""

import pytest
import torch
from compress_features import features_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vtc.compress.choices import KNOWN
from vtc.compress.interface import VisionFeatures
from vtc.compress.registry import COMPRESSORS, build

SIDE, WIDTH, TEXT, DEPTH = 6, 32, 24, 4
V_OF_A_6X6_GRID = (1, 2, 4, 9, 16, 36)
# Attention over small windows runs without matrix products, but counts as the reference's does.
ELEMENTWISE = {"tokenpacker": 2 * 2 * SIDE * SIDE * WIDTH}


def made(name: str, tokens: int, **settings):
    return build(
        name, vision_width=WIDTH, text_width=TEXT, depth=DEPTH, grid=(SIDE, SIDE),
        visual_tokens=tokens, settings=settings,
    )  # fmt: skip


def features(compressor, batch: int = 1, dtype: torch.dtype = torch.float32) -> VisionFeatures:
    return features_of(compressor, WIDTH, TEXT, batch=batch, dtype=dtype)


EVERY = [
    (name, tokens)
    for name, kind in COMPRESSORS.items()
    for tokens in V_OF_A_6X6_GRID
    if tokens in kind.supported((SIDE, SIDE))
]


@pytest.mark.parametrize(("name", "tokens"), EVERY)
def test_flops_are_those_torch_counts(name: str, tokens: int):
    compressor = made(name, tokens)
    # The counter does not know the fused kernel of attention on the CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compressor(features(compressor))
    assert compressor.flops() == counter.get_total_flops() + ELEMENTWISE.get(name, 0)


@pytest.mark.parametrize(("name", "tokens"), EVERY)
def test_one_training_step_moves_every_weight(name: str, tokens: int):
    torch.manual_seed(0)
    compressor = made(name, tokens)
    given = features(compressor, batch=3)
    target = torch.randn(3, tokens, TEXT)
    optimizer = torch.optim.AdamW(compressor.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = (compressor(given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(weight.grad is not None for weight in compressor.parameters())


@pytest.mark.parametrize("name", [name for name, kind in COMPRESSORS.items() if kind.elastic])
def test_an_elastic_compressor_serves_every_v_up_to_its_own(name: str):
    from vtc.errors import InputError

    most = max(COMPRESSORS[name].supported((SIDE, SIDE)))
    large = made(name, most)
    given = features(large, batch=2)
    for tokens in (v for v in V_OF_A_6X6_GRID if v in large.supported((SIDE, SIDE))):
        small = made(name, tokens)
        small.load_state_dict(large.state_dict())
        torch.testing.assert_close(large(given, visual_tokens=tokens), small(given))
        published = KNOWN[name].publishes_turns
        assert small.trained_visual_tokens[0] == (1 if published else tokens)
        assert small.trained_visual_tokens[-1] == tokens
    with pytest.raises(InputError, match="choose from 1"):
        large(given, visual_tokens=most + 1)
    with pytest.raises(InputError, match="1 must be among them; take from 1"):
        made(name, most, trained=[4])
    with pytest.raises(InputError, match="40 is no V of this grid"):
        made(name, most, trained=[1, 40])
    assert made(name, most, trained=[1, 9]).trained_visual_tokens == (1, 9, most)


def test_pooled_features_serve_every_v_that_is_trained():
    from vtc.errors import InputError

    alone = made("avgpool", 9)
    assert alone.feature_grid(9) == (3, 3)
    with pytest.raises(ValueError, match="do not serve avgpool"):
        made("avgpool", 9, trained=[1, 4]).feature_grid(9)
    patches = torch.zeros(1, 9, alone.linear_1.in_features)
    given = VisionFeatures(levels={alone.level: patches}, grid=(3, 3))
    with pytest.raises(InputError, match="means of 9 windows, of which no 4 visual tokens"):
        alone(given, visual_tokens=4)
