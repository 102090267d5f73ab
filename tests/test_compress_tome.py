"""ToMe against loops over tokens, inside real CLIP and SigLIP encoders of random weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vtc.catalog.shapes import EncoderShape
from vtc.compress.interface import Tokens
from vtc.compress.registry import build
from vtc.compress.schedule import merges
from vtc.compress.tome import match
from vtc.cost.encoder import encoder_flops
from vtc.errors import InputError
from vtc.model.tower import encode_states

WIDTH, DEPTH, HEADS, SIDE = 48, 4, 3, 6
N = SIDE * SIDE


@pytest.fixture(scope="module")
def towers():
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModel,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    shape = {
        "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS, "image_size": 8 * SIDE, "patch_size": 8,
    }  # fmt: skip
    found = {
        "clip": CLIPVisionModel(CLIPVisionConfig(**shape)),
        "siglip": SiglipVisionModel(SiglipVisionConfig(**shape)),
    }
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tower in found.values():
            for weight in (w for w in tower.parameters() if w.dim() > 1):
                scale = 1.5 / math.sqrt(weight[0].numel())
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
            tower.double().eval()
    return found


def pixels(batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 8 * SIDE, 8 * SIDE, generator=generator).double()


def layers_of(tower):
    return next(m for m in tower.modules() if isinstance(m, torch.nn.ModuleList))


def by_loops(tower, image: Tensor, schedule, class_token: bool, in_order: bool) -> Tensor:
    """One image, token by token: lists of (state, patches that it stands for)."""
    with torch.no_grad():
        start = encode_states(tower, image[None], [0], (SIDE, SIDE), Tokens(class_token=True))[0, 0]
        shift = int(class_token)
        tokens = [(state, [place - shift]) for place, state in enumerate(start)]
        for layer, counts in zip(layers_of(tower), schedule, strict=False):
            states = torch.stack([state for state, _ in tokens])
            sizes = torch.tensor([len(of) for _, of in tokens]).double()
            attention, normed = layer.self_attn, layer.layer_norm1(states)
            q, k, v = (
                project(normed).unflatten(1, (HEADS, -1))
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            seen = []
            for head in range(HEADS):
                scores = q[:, head] @ k[:, head].T / math.sqrt(WIDTH / HEADS) + sizes.log()
                seen.append(scores.softmax(-1) @ v[:, head])
            states = states + attention.out_proj(torch.cat(seen, dim=1))
            tokens = [(state, of) for state, (_, of) in zip(states, tokens, strict=True)]
            keys = list(k.mean(1))
            for r in counts:
                tokens, keys = merge_by_loops(tokens, keys, r, class_token)
            states = torch.stack([state for state, _ in tokens])
            states = states + layer.mlp(layer.layer_norm2(states))
            tokens = [(state, of) for state, (_, of) in zip(states, tokens, strict=True)]
    patches = tokens[shift:]
    if in_order:
        patches = sorted(patches, key=lambda pair: sum(pair[1]) / len(pair[1]))
    assert sorted(place for _, of in patches for place in of) == list(range(N))
    return torch.stack([state for state, _ in patches])


def merge_by_loops(tokens, keys, r: int, class_token: bool):
    sources, targets = list(range(0, len(tokens), 2)), list(range(1, len(tokens), 2))
    pairs = []
    for source in sources[int(class_token) :]:
        likeness = [torch.cosine_similarity(keys[source], keys[t], dim=0).item() for t in targets]
        pairs.append((max(likeness), source, targets[likeness.index(max(likeness))]))
    pairs.sort(key=lambda pair: -pair[0])
    gone = {source: target for _, source, target in pairs[:r]}
    kept = [source for _, source, _ in pairs[r:]]
    kept = [0, *sorted(kept)] if class_token else kept

    def one(place: int):
        together = [place, *(source for source, target in gone.items() if target == place)]
        sizes = [len(tokens[other][1]) for other in together]
        mean = sum(tokens[o][0] * n for o, n in zip(together, sizes, strict=True)) / sum(sizes)
        key = sum(keys[o] * n for o, n in zip(together, sizes, strict=True)) / sum(sizes)
        return (mean, [place for o in together for place in tokens[o][1]]), key

    found = [one(place) for place in [*kept, *targets]]
    return [token for token, _ in found], [key for _, key in found]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("tokens", [1, 4, 9, 12, 20, 35, 36])
def test_tome_is_what_the_loops_give(towers, kind, tokens):
    tower = towers[kind]
    schedule = merges(N, tokens, DEPTH - 1)
    for in_order in (True, False):
        how = Tokens(merged=tokens, in_order=in_order)
        with torch.no_grad():
            found = encode_states(tower, pixels(), [DEPTH - 1], (SIDE, SIDE), how)
        assert found.shape == (2, 1, tokens, WIDTH)
        for image, own in zip(pixels(), found[:, 0], strict=True):
            expected = by_loops(tower, image, schedule, kind == "clip", in_order)
            torch.testing.assert_close(own, expected, rtol=0, atol=1e-11)


def test_without_merges_it_is_the_encoder(towers):
    how = Tokens(merged=N)
    for tower in towers.values():
        with torch.no_grad():
            merged = encode_states(tower, pixels(), [3], (SIDE, SIDE), how)
            plain = encode_states(tower, pixels(), [3], (SIDE, SIDE))
        torch.testing.assert_close(merged, plain, rtol=0, atol=1e-11)


@given(
    n_patches=st.integers(1, 700), n_layers=st.integers(1, 30), data=st.data()
)  # fmt: skip
def test_every_number_is_reached_and_no_merge_takes_more_than_half(n_patches, n_layers, data):
    left = data.draw(st.integers(1, n_patches))
    found, now = merges(n_patches, left, n_layers), n_patches
    assert len(found) == n_layers
    taken = [r for layer in found for r in layer]
    for r in taken:
        assert 1 <= r <= now // 2
        now -= r
    assert now == left
    # The same number in all, but where half of the tokens or the end comes before it.
    now = n_patches
    for r in taken:
        assert r == min(taken[0], now // 2, now - left)
        now -= r


def test_the_published_schedules():
    assert merges(576, 576 - 23 * 16, 23) == ((16,),) * 23
    assert [len(merges(576, v, 23)[0]) for v in (1, 4, 16, 36, 64, 144)] == [1] * 6
    # In a shallow encoder one merge a layer, of half at most, is not enough.
    assert merges(36, 1, 3) == ((10, 10), (8, 4), (2, 1))
    assert merges(4, 4, 0) == ()
    with pytest.raises(InputError, match="below level 0 is none"):
        merges(4, 2, 0)


@given(
    tokens=st.integers(3, 30), seed=st.integers(0, 99), class_token=st.booleans(), data=st.data()
)
def test_sizes_are_conserved_and_the_class_token_stays(tokens, seed, class_token, data):
    generator = torch.Generator().manual_seed(seed)
    metric = torch.randn(2, tokens, 5, generator=generator)
    r = data.draw(st.integers(1, (tokens - class_token) // 2))
    matching = match(metric, r, class_token)
    sizes = torch.randint(1, 9, (2, tokens, 1), generator=generator).double()
    summed = matching.summed(sizes)
    assert summed.shape == (2, tokens - r, 1)
    assert torch.equal(summed.sum(1), sizes.sum(1))
    if class_token:
        marked = torch.zeros(2, tokens, 1)
        marked[:, 0] = 1
        assert torch.equal(matching.summed(marked)[:, 0], torch.ones(2, 1))
        assert torch.equal(summed[:, 0], sizes[:, 0])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("tokens", [1, 9, 36])
def test_the_encoders_flops_are_those_torch_counts(towers, kind, tokens):
    """Less the matching: likenesses of all even tokens and all odd ones."""
    shape = EncoderShape(DEPTH, WIDTH, HEADS, 64, 8 * SIDE, 8, kind == "clip", 0)
    made = build(
        "tome", vision_width=WIDTH, text_width=8, depth=DEPTH, grid=(SIDE, SIDE),
        visual_tokens=tokens,
    )  # fmt: skip
    # torch does not count its fused attention on a CPU.
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        encode_states(towers[kind], pixels(1), [3], (SIDE, SIDE), made.request.tokens)
    matching, now = 0, N + shape.class_token
    for r in (r for layer in merges(N, tokens, DEPTH - 1) for r in layer):
        matching += 2 * ((now + 1) // 2) * (now // 2) * (WIDTH // HEADS)
        now -= r
    stated = encoder_flops(shape, 3, made.patches_left)
    assert counter.get_total_flops() == stated + matching
    if tokens == N:
        assert stated == encoder_flops(shape, 3)


def test_batch_is_one_by_one(towers):
    how = Tokens(merged=7)
    for tower in towers.values():
        with torch.no_grad():
            together = encode_states(tower, pixels(3), [3], (SIDE, SIDE), how)
            for row in range(3):
                alone = encode_states(tower, pixels(3)[row : row + 1], [3], (SIDE, SIDE), how)
                torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-11)


def test_encoders_that_it_does_not_know():
    from transformers import ViTConfig, ViTModel

    tower = ViTModel(
        ViTConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            image_size=16, patch_size=8,
        )
    ).eval()  # fmt: skip
    with pytest.raises(InputError, match="inside CLIP's and SigLIP's encoders; this one has"):
        encode_states(tower, torch.zeros(1, 3, 16, 16), [1], (2, 2), Tokens(merged=2))


def test_its_features_are_no_others():
    made = build(
        "tome", vision_width=8, text_width=8, depth=4, grid=(6, 6), visual_tokens=9
    )  # fmt: skip
    assert made.feature_grid(9) == (6, 6)
    with pytest.raises(ValueError, match="36 patches are not merged to 9"):
        made.feature_grid(36)
    with pytest.raises(InputError, match="below level 0 is none"):
        build("tome", vision_width=8, text_width=8, depth=4, grid=(6, 6), visual_tokens=9,
              settings={"level": 0})  # fmt: skip
