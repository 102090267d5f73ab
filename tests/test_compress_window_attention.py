"""What a wide training makes anew to spare memory: the same tokens and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtc.compress import window_attention
from vtc.compress.registry import build
from vtc.compress.window_attention import attend_unprojected


def results(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [part.clone().requires_grad_() for part in parts]
    out = attend_unprojected(*leaves)
    out.square().sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@settings(max_examples=25)
@given(
    batch=st.integers(1, 3),
    windows=st.integers(1, 5),
    size=st.integers(1, 6),
    heads=st.sampled_from([2, 4]),
    seed=st.integers(0, 99),
)
def test_equal_where_it_is_made_anew(batch, windows, size, heads, seed):
    """Of any number of windows, with fewer patches than heads or more."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [
        (batch, windows, heads, 3), (batch, windows, size, 3 * heads),
        (batch, windows, size, 3 * heads), (3 * heads, 3 * heads), (3 * heads, 3 * heads),
    ]  # fmt: skip
    parts = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    kept = results(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_attention, "WIDE", 1)
        anew = results(parts)
    assert len(kept) == len(anew) == 6
    for one, other in zip(kept, anew, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["tokenpacker", "quecc"])
def test_a_wide_training_keeps_less(name):
    """Numbers kept for the backward pass: fewer than a row a head and window would be."""
    from compress_features import features_of

    made = build(
        name, vision_width=512, text_width=16, depth=24, grid=(4, 4), visual_tokens=4
    )  # fmt: skip
    seen: list[tuple[int, ...]] = []

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(tensor.shape))
        return tensor

    features = features_of(made, 512, 16, batch=2)
    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        out = made(features)
    out.sum().backward()
    a_row_a_head = 2 * 4 * 8 * 512
    assert not [shape for shape in seen if torch.Size(shape).numel() == a_row_a_head]
    assert all(weight.grad is not None for weight in made.parameters())
