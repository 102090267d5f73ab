"""The MLP, average pooling, and what holds for every compressor."""

import pytest
import torch
from compress_features import features_of, rows_of
from hypothesis import assume, settings
from hypothesis import given as drawn_by
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vtc.compress.choices import listed
from vtc.compress.interface import VisionFeatures, resolve_level
from vtc.compress.layers import windows
from vtc.compress.registry import COMPRESSORS, build
from vtc.errors import InputError


def make(name: str, side: int = 6, tokens: int = 4, **extra):
    facts = {"vision_width": 16, "text_width": 24, "depth": 4, "grid": (side, side)}
    return build(name, **{**facts, "visual_tokens": tokens, **extra})


def features(made, batch: int = 2, side: int = 6) -> VisionFeatures:
    generator = torch.Generator().manual_seed(0)
    levels = {
        level: torch.randn(batch, side * side, 16, generator=generator)
        for level in made.request.levels
    }
    return VisionFeatures(levels, (side, side))


@pytest.mark.parametrize("tokens", [1, 4, 9, 36])
def test_avgpool_is_adaptive_pooling_before_the_mlp(tokens: int):
    made = make("avgpool", tokens=tokens)
    given_features = features(made)
    side = int(tokens**0.5)
    image = given_features.levels[3].transpose(1, 2).unflatten(2, (6, 6))
    pooled = nn.AdaptiveAvgPool2d(side)(image).flatten(2).transpose(1, 2)
    expected = made.linear_2(nn.functional.gelu(made.linear_1(pooled)))
    torch.testing.assert_close(made(given_features), expected)


def test_avgpool_nests():
    """The mean of the windows of V = 9 is the window of V = 1, before the MLP."""
    patches = features(make("avgpool")).levels[3]
    fine = windows(patches, 6, 9).mean(2)
    torch.testing.assert_close(fine.mean(1), windows(patches, 6, 1).mean(2)[:, 0])


def test_avgpool_with_every_patch_is_the_mlp():
    mlp, pool = make("mlp", tokens=36), make("avgpool", tokens=36)
    pool.load_state_dict(mlp.state_dict())
    assert torch.equal(pool(features(mlp)), mlp(features(mlp)))


def test_llava_size_and_cost():
    with torch.device("meta"):
        made = build(
            "mlp", vision_width=1024, text_width=4096, depth=24, grid=(24, 24), visual_tokens=576
        )
    assert sum(weight.numel() for weight in made.parameters()) == 20_979_712
    assert round(made.flops() / 1e9, 1) == 24.2
    assert made.request.levels == (23,)


@pytest.mark.parametrize("name", ["mlp", "avgpool"])
def test_flops_are_those_torch_counts(name: str):
    made = make(name, tokens=36)
    with FlopCounterMode(display=False) as counter:
        made(features(made, batch=1))
    assert made.flops() == counter.get_total_flops()


@pytest.mark.parametrize("name", list(COMPRESSORS))
def test_refuses_a_v_it_cannot_make_and_names_the_choices(name: str):
    with pytest.raises(InputError, match="choose from") as caught:
        make(name, tokens=37)
    assert f"choose from {listed(COMPRESSORS[name].supported((6, 6)))}" in str(caught.value)


def test_non_square_grid():
    assert make("mlp", grid=(2, 3), tokens=6).visual_tokens == 6
    for name in ("avgpool", "tokenpacker"):
        with pytest.raises(InputError, match="square grid of patches, this encoder's is 2x3"):
            make(name, grid=(2, 3), tokens=1)


def test_unknown_names_and_settings():
    with pytest.raises(InputError, match="choose from mlp, avgpool, tokenpacker"):
        make("nonsense")
    with pytest.raises(InputError, match="no setting 'heads'; it has level"):
        make("avgpool", settings={"heads": 2})
    with pytest.raises(InputError, match="outside an encoder of 4 layers"):
        make("avgpool", settings={"level": 7})
    with pytest.raises(InputError, match="no fraction"):
        make("avgpool", settings={"level": 1.5})
    with pytest.raises(InputError, match='layers = "two"; it takes a whole number'):
        make("resampler", settings={"layers": "two"})
    with pytest.raises(InputError, match="static_keys = 1; it takes true or false"):
        make("mqt", settings={"static_keys": 1})
    with pytest.raises(InputError, match="width = 0; take at least 1"):
        make("qformer", settings={"width": 0})
    with pytest.raises(InputError, match="name at least one level"):
        make("tokenpacker", settings={"key_levels": []})


@pytest.mark.parametrize(
    ("level", "depth", "index"),
    [
        (-2, 24, 23),
        (-1, 24, 24),
        (0, 24, 0),
        (12, 24, 12),
        (0.5, 25, 12),
        (1.0, 24, 23),
        (0.0, 9, 0),
    ],
)
def test_levels(level: int | float, depth: int, index: int):
    assert resolve_level(level, depth) == index


@settings(max_examples=40, deadline=None)
@drawn_by(side=st.integers(1, 12), data=st.data())
def test_windows_partition_the_grid(side: int, data: st.DataObject):
    """Every patch is in one window, in raster order, at the place that its row and column say."""
    count = data.draw(st.sampled_from([k for k in range(1, side + 1) if side % k == 0]))
    size = side // count
    numbers = torch.arange(side * side, dtype=torch.float32).reshape(1, -1, 1)
    cut = windows(numbers, side, count * count)[0, :, :, 0]
    assert cut.shape == (count * count, size * size)
    for window, place in [(w, p) for w in range(count * count) for p in range(size * size)]:
        row = (window // count) * size + place // size
        column = (window % count) * size + place % size
        assert cut[window, place] == row * side + column


@settings(max_examples=25, deadline=None)
@drawn_by(
    name=st.sampled_from(sorted(COMPRESSORS)),
    side=st.integers(1, 6),
    width=st.integers(1, 20),
    depth=st.integers(1, 5),
    data=st.data(),
)
def test_every_supported_v_works(name: str, side: int, width: int, depth: int, data: st.DataObject):
    """Any grid, width and depth: V tokens of the LLM's width, the same alone as in a batch."""
    choices = COMPRESSORS[name].supported((side, side))
    # VisionZip makes nothing of a single patch; ToMe needs a layer below its level to merge in.
    assume(choices and (name != "tome" or depth > 1))
    tokens = data.draw(st.sampled_from(choices))
    made = build(
        name, vision_width=width, text_width=6, depth=depth, grid=(side, side),
        visual_tokens=tokens,
    )  # fmt: skip
    given = features_of(made, width, 6, batch=3)
    assert all(0 <= level <= depth for level in made.request.levels)
    assert list(made.request.levels) == sorted(set(made.request.levels))
    out = made(given)
    assert out.shape == (3, tokens, 6)
    alone = made(rows_of(given, slice(1, 2)))
    torch.testing.assert_close(alone, out[1:2], rtol=1e-4, atol=1e-5)
    out.sum().backward()
    assert all(weight.grad is not None for weight in made.parameters())
    assert made.flops() > 0 or name == "blind"
