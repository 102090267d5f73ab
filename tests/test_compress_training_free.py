"""VisionZip, PruMerge and DivPrune against loops over tokens, on a real CLIP of random weights."""

import copy
import math

import pytest
import torch
from compress_features import features_of, rows_of
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vtc.compress.interface import Compressor, VisionFeatures
from vtc.compress.registry import build
from vtc.errors import InputError
from vtc.model.tower import attention_layer, encode_states

WIDTH, TEXT, DEPTH, HEADS, SIDE = 48, 40, 4, 3, 6
N = SIDE * SIDE
BOUNDS = {torch.float64: (0, 1e-12), torch.float32: (1e-5, 1e-6), torch.bfloat16: (2e-2, 1e-2)}
NAMES = ("visionzip", "prumerge", "prumerge+", "divprune")


@pytest.fixture(scope="module")
def clip():
    """A CLIP with eager attention, whose weights are all drawn wide, so that scores differ."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=DEPTH,
        num_attention_heads=HEADS, image_size=8 * SIDE, patch_size=8,
    )  # fmt: skip
    tower = CLIPVisionModel._from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            if weight.dim() > 1:
                scale = 2 / math.sqrt(weight[0].numel())
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
            elif "norm" not in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return tower


def pixels(dtype: torch.dtype, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 8 * SIDE, 8 * SIDE, generator=generator).to(dtype)


def made(name: str, tokens: int, dtype: torch.dtype = torch.float64, **settings) -> Compressor:
    compressor = build(
        name, vision_width=WIDTH, text_width=TEXT, depth=DEPTH, grid=(SIDE, SIDE),
        visual_tokens=tokens, settings=settings,
    )  # fmt: skip
    torch.manual_seed(3)
    compressor.reset_parameters()
    return compressor.to(dtype)


def features(tower, compressor: Compressor, images: Tensor) -> VisionFeatures:
    request = compressor.request
    with torch.no_grad():
        states = encode_states(tower, images, request.levels, (SIDE, SIDE), request.tokens)
    before = states.shape[2] - N
    found = VisionFeatures({}, (SIDE, SIDE))
    for place, level in enumerate(request.levels):
        found.levels[level] = states[:, place, before:]
        found.before[level] = states[:, place, :before]
    if request.attention is not None:
        found.attention = attention_layer(tower, request.attention)
    return found


def reduced(tower, compressor: Compressor, images: Tensor) -> Tensor:
    with torch.no_grad():
        return compressor.reduce(features(tower, compressor, images))


def check(found: Tensor, expected: Tensor) -> None:
    rtol, atol = BOUNDS[found.dtype]
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


class Seen:
    """What a full pass of the tower itself shows: states, attention of every head, q and k."""

    def __init__(self, tower, images: Tensor) -> None:
        kept: dict[tuple[int, str], Tensor] = {}
        handles = [
            getattr(layer.self_attn, name).register_forward_hook(
                lambda _, args, out, key=(number, name): kept.update({key: out})
            )
            for number, layer in enumerate(tower.vision_model.encoder.layers
                                           if hasattr(tower, "vision_model")
                                           else tower.encoder.layers)
            for name in ("q_proj", "k_proj")
        ]  # fmt: skip
        with torch.no_grad():
            out = tower(images, output_hidden_states=True, output_attentions=True)
        for handle in handles:
            handle.remove()
        self.states, self.attentions, self.projected = out.hidden_states, out.attentions, kept


def top(scores: Tensor, count: int) -> list[int]:
    """The places of the largest scores, the largest first."""
    return sorted(range(len(scores)), key=lambda place: -scores[place].item())[:count]


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def visionzip_by_loops(tower, images, tokens: int, contextual: int, release: bool) -> Tensor:
    seen, rows = Seen(tower, images), []
    for b in range(len(images)):
        state = seen.states[-2][b]
        scores = seen.attentions[-2][b].sum(0)[0, 1:]
        keys = seen.projected[DEPTH - 2, "k_proj"][b].unflatten(1, (HEADS, -1)).mean(1)[1:]
        dominant = sorted(top(scores, tokens - contextual - 1))
        rest = [place for place in range(N) if place not in dominant]
        step = len(rest) // contextual
        targets = [rest[number * step] for number in range(contextual)]
        groups: dict[int, list[int]] = {target: [] for target in targets}
        for place in rest:
            if place not in targets:
                likeness = [cosine(keys[place], keys[target]) for target in targets]
                groups[targets[likeness.index(max(likeness))]].append(place)
        out = [state[0], *(state[1 + place] for place in dominant)]
        for target, joined in groups.items():
            own = state[1 + target]
            if release:
                mean = torch.stack([state[1 + p] for p in joined]).mean(0) if joined else 0 * own
                out.append(own + mean)
            else:
                out.append(torch.stack([own, *(state[1 + p] for p in joined)]).mean(0))
        rows.append(torch.stack(out))
    return torch.stack(rows)


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize(("tokens", "contextual"), [(2, 1), (9, 1), (12, 4), (36, 18), (36, 5)])
def test_visionzip_is_what_the_loops_give(clip, tokens, contextual, release):
    tower = copy.deepcopy(clip).double()
    compressor = made("visionzip", tokens, contextual=contextual, reference_behaviour=release)
    expected = visionzip_by_loops(tower, pixels(torch.float64), tokens, contextual, release)
    check(reduced(tower, compressor, pixels(torch.float64)), expected)


def test_released_contextual_tokens_are_twice_as_long(clip):
    tower = copy.deepcopy(clip).double()
    lengths = {}
    for release in (False, True):
        compressor = made("visionzip", 12, contextual=4, reference_behaviour=release)
        found = reduced(tower, compressor, pixels(torch.float64))
        lengths[release] = found[:, -4:].sum(-1).abs().mean(), found[:, :-4]
    assert torch.equal(lengths[True][1], lengths[False][1])
    assert 1.5 < lengths[True][0] / lengths[False][0] < 2.5


def test_visionzips_share_of_contextual_tokens():
    """The published splits: 54 + 10, 108 + 20, 162 + 30."""
    for tokens, contextual in ((64, 10), (128, 20), (192, 30), (4, 1), (2, 1)):
        with torch.device("meta"):
            found = build(
                "visionzip", vision_width=8, text_width=8, depth=4, grid=(24, 24),
                visual_tokens=tokens,
            )  # fmt: skip
        assert found.contextual == contextual
    for wrong in (0, 12, -1):
        with pytest.raises(InputError, match="takes a whole number from 1 to 11"):
            made("visionzip", 12, contextual=wrong)


def released_even(count: int, patches: int) -> list[int]:
    """torch.arange(int(step / 2), 575, step) with step = int(1 / ratio), where that can be used."""
    if count == 0:
        return []
    step = int(1 / (count / patches))
    places = list(range(int(step / 2), patches - 1, step))
    if len(places) != count:
        return [math.floor((i + 0.5) * patches / count) for i in range(count)]
    return places


def prumerge_by_loops(
    tower, images: Tensor, tokens: int, plus: bool, release: bool, normalise: bool = False
) -> Tensor:
    seen, rows = Seen(tower, images), []
    for b in range(len(images)):
        state = seen.states[-2][b, 1:]
        query, keys = (seen.projected[DEPTH - 1, name][b] for name in ("q_proj", "k_proj"))
        attention = (query @ keys.T / math.sqrt(WIDTH)).softmax(-1)[0, 1:]
        keys = keys[1:]
        n_even = (tokens - 1) // 2 if plus else 0
        kept = top(attention, tokens - 1 - n_even)
        if release:
            kept = kept + released_even(n_even, N)
            masked = sorted(0 if place in kept else place for place in range(N))
            rest = masked[len(kept) :]
        else:
            left = [place for place in range(N) if place not in kept]
            even = [left[math.floor((i + 0.5) * len(left) / n_even)] for i in range(n_even)]
            kept = sorted(kept + even)
            rest = [place for place in range(N) if place not in kept]
        pool, out = kept + rest, []
        for number, place in enumerate(kept):
            likeness = [
                -2.0 if other == number else cosine(keys[place], keys[pool[other]])
                for other in range(len(pool))
            ]
            near = [pool[other] for other in top(torch.tensor(likeness), 32)]
            total = state[place] + sum(attention[p] * state[p] for p in near)
            out.append(total / (1 + sum(attention[p] for p in near)) if normalise else total)
        extra = sum((attention[p] * state[p] for p in rest), torch.zeros_like(state[0]))
        out.append(extra / sum(attention[p] for p in rest) if normalise else extra)
        rows.append(torch.stack(out))
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["prumerge", "prumerge+"])
@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 5, 12, 19, 21, 36])
def test_prumerge_is_what_the_loops_give(clip, name, tokens, release):
    tower = copy.deepcopy(clip).double()
    compressor = made(name, tokens, reference_behaviour=release)
    expected = prumerge_by_loops(tower, pixels(torch.float64), tokens, "+" in name, release)
    check(reduced(tower, compressor, pixels(torch.float64)), expected)


def test_prumerge_with_weighted_means(clip):
    tower = copy.deepcopy(clip).double()
    found = reduced(tower, made("prumerge+", 9, normalise=True), pixels(torch.float64))
    expected = prumerge_by_loops(tower, pixels(torch.float64), 9, True, False, normalise=True)
    check(found, expected)


def test_the_released_uniform_samples():
    """Of 576 patches 72 are every eighth; with 82 steps of 7 end before the last patches."""
    from vtc.compress.prumerge import _release_even, middles

    cpu = torch.device("cpu")
    assert middles(72, 576).tolist() == list(range(4, 575, 8))
    assert _release_even(72, 576, cpu).tolist() == list(range(4, 575, 8))
    assert _release_even(82, 576, cpu).tolist() == list(range(3, 575, 7))
    assert middles(82, 576).tolist()[-1] == 572
    apart = []
    for count in range(288):
        found = _release_even(count, 576, cpu).tolist()
        assert found == released_even(count, 576)
        assert len(found) == count
        if found != middles(count, 576).tolist():
            apart.append(2 * count + 1)
    assert len(apart) == 24
    assert apart[:4] == [11, 15, 21, 23]


def test_released_plus_keeps_a_patch_twice():
    from vtc.compress.prumerge import _release_others

    assert _release_others(torch.tensor([[5, 2, 2]]), 6).tolist() == [[1, 3, 4]]
    assert _release_others(torch.tensor([[5, 2, 0]]), 6).tolist() == [[1, 3, 4]]
    assert _release_others(torch.tensor([[5, 2, 1]]), 6).tolist() == [[0, 3, 4]]


def divprune_by_loops(tokens: Tensor, count: int) -> list[int]:
    """Max-min diversity, greedily, pair by pair."""
    far = [[1 - cosine(a, b) for b in tokens] for a in tokens]
    everyone = range(len(tokens))
    chosen = [max(everyone, key=lambda i: min([far[i][j] for j in everyone if j != i]))]
    while len(chosen) < count:
        left = [i for i in everyone if i not in chosen]
        chosen.append(max(left, key=lambda i: min(far[i][j] for j in chosen)))
    return sorted(chosen)


@pytest.mark.parametrize("tokens", [1, 2, 7, 20, 36])
def test_divprune_is_what_the_loops_give(clip, tokens):
    tower = copy.deepcopy(clip).double()
    compressor, images = made("divprune", tokens), pixels(torch.float64)
    given_features = features(tower, compressor, images)
    with torch.no_grad():
        found = compressor(given_features)
        projected = compressor.project(given_features.levels[DEPTH - 1])
    places = [divprune_by_loops(image, tokens) for image in projected]
    check(found, torch.stack([image[own] for image, own in zip(projected, places, strict=True)]))
    with torch.no_grad():
        check(compressor.project(compressor.reduce(given_features)), found)


def test_divprune_of_equal_patches_takes_each_place_once():
    from vtc.compress.divprune import diverse

    assert diverse(torch.ones(2, 5, 3), 5).tolist() == [[0, 1, 2, 3, 4]] * 2
    pair = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 0]]).unsqueeze(0)
    assert len({tuple(pair[0, place].tolist()) for place in diverse(pair, 2)[0]}) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_other_types_give_the_tokens_of_fp64(clip, name, dtype):
    """With scores that differ by more than a type can tell, the choice is the same."""
    exact, low = made(name, 9), made(name, 9, dtype)
    given_features = features_of(exact, WIDTH, TEXT, batch=2, dtype=dtype, heads=HEADS)
    wide = features_of(exact, WIDTH, TEXT, batch=2, dtype=torch.float64, heads=HEADS)
    for part in ("levels", "before"):
        setattr(wide, part, {k: v.double() for k, v in getattr(given_features, part).items()})
    low.load_state_dict(exact.state_dict())
    exact.load_state_dict(low.state_dict())
    if wide.attention is not None:
        wide.attention = copy.deepcopy(given_features.attention)
        for layer in (wide.attention.norm, wide.attention.query, wide.attention.key):
            layer.double()
    with torch.no_grad():
        check(low(given_features), exact(wide).to(dtype))


@given(
    name=st.sampled_from(NAMES),
    tokens=st.integers(2, N),
    batch=st.integers(1, 4),
    release=st.booleans(),
    seed=st.integers(0, 99),
    before=st.integers(1, 3),
)
def test_v_is_exact_and_no_image_changes_another(name, tokens, batch, release, seed, before):
    settings = {} if name == "divprune" else {"reference_behaviour": release}
    compressor = made(name, tokens, **settings)
    together = features_of(
        compressor, WIDTH, TEXT, batch=batch, dtype=torch.float64, seed=seed, before=before,
        heads=HEADS,
    )  # fmt: skip
    with torch.no_grad():
        out = compressor(together)
        assert out.shape == (batch, tokens, TEXT)
        for row in range(batch):
            alone = compressor(rows_of(together, slice(row, row + 1)))
            torch.testing.assert_close(alone, out[row : row + 1], rtol=1e-9, atol=1e-9)


@given(name=st.sampled_from(("prumerge", "divprune")), seed=st.integers(0, 99))
def test_the_order_of_the_patches_orders_the_tokens_alone(name, seed):
    """Shuffled patches: the same tokens, in another order."""
    compressor = made(name, 8)
    one = features_of(compressor, WIDTH, TEXT, dtype=torch.float64, seed=seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    other = rows_of(one, slice(None))
    other.levels = {level: state[:, order] for level, state in one.levels.items()}
    with torch.no_grad():
        found, expected = compressor(other)[0], compressor(one)[0]
    for token in expected:
        assert (found - token).abs().amax(1).min() < 1e-9


def test_their_refusals():
    for name, wrong in (("visionzip", 1), ("prumerge", 0), ("divprune", 37), ("tome", 37)):
        with pytest.raises(InputError, match="choose from"):
            made(name, wrong)
    with pytest.raises(InputError, match="no setting 'contextual'; it has level, normalise"):
        made("prumerge", 4, contextual=2)
