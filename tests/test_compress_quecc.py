"""QueCC against a straightforward implementation with torch's own attention, window by window."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vtc.compress import load_reference
from vtc.compress.interface import VisionFeatures
from vtc.compress.quecc import QueCC
from vtc.compress.registry import build
from vtc.compress.window_attention import WindowAttention
from vtc.errors import InputError

LEVELS = (12, 16, 22, 23)


class Reference(nn.Module):
    """As the paper and its weights' names tell it; a window of patches at a time."""

    def __init__(self, width: int, text_width: int, size: int, heads: int = 8):
        super().__init__()
        self.size = size

        def mlp(width_in: int) -> nn.Sequential:
            norm = nn.LayerNorm(width, eps=1e-6)
            return nn.Sequential(
                nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, width), norm
            )

        norm = nn.LayerNorm(width, eps=1e-6)
        parts = {
            "q_proj": mlp(width),
            "k_proj": mlp(4 * width),
            "v_proj": mlp(4 * width),
            "q_downsample": nn.Conv2d(width, width, size, stride=size, groups=width),
            "text_projection": nn.Sequential(nn.Linear(text_width, width), norm),
            "clip_attn": nn.MultiheadAttention(width, heads, batch_first=True),
        }
        behind = nn.Linear(width, text_width), nn.GELU(), nn.Linear(text_width, text_width)
        self.mm_projector = nn.Sequential(nn.ModuleDict(parts), *behind)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.parameters():
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight.copy_(noise * 1.5 / math.sqrt(weight.shape[-1]))

    def forward(self, levels: dict[int, Tensor], text: Tensor) -> Tensor:
        own, *behind = self.mm_projector
        multi = torch.cat([levels[level] for level in LEVELS], -1)
        told = own["q_proj"](levels[23] + own["text_projection"](text)[:, None])
        side, size = math.isqrt(multi.shape[1]), self.size
        image = told.transpose(1, 2).unflatten(2, (side, side))
        queries = own["q_downsample"](image)
        keys, values = (own[n](multi).unflatten(1, (side, side)) for n in ("k_proj", "v_proj"))
        found = []
        for row in range(side // size):
            for column in range(side // size):
                query = queries[:, :, row, column][:, None]
                here = (
                    slice(row * size, (row + 1) * size),
                    slice(column * size, (column + 1) * size),
                )
                key, value = (part[:, here[0], here[1]].flatten(1, 2) for part in (keys, values))
                found.append(own["clip_attn"](query, key, value)[0])
        tokens = torch.cat(found, 1)
        for layer in behind:
            tokens = layer(tokens)
        return tokens


def features(side: int, dtype: torch.dtype, batch: int = 2) -> tuple[dict[int, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return {level: draw(batch, side * side, 32) for level in LEVELS}, draw(batch, 48)


def pair(side: int, tokens: int, dtype: torch.dtype) -> tuple[QueCC, Reference]:
    """The reference, and the compressor with its weights, named as the published ones."""
    reference = Reference(32, 48, side // math.isqrt(tokens)).to(dtype)
    state = {f"model.{key}": weight for key, weight in reference.state_dict().items()}
    made = load_reference("quecc", state, grid=(side, side))
    assert isinstance(made, QueCC)
    assert made.visual_tokens == tokens
    return made, reference


BOUNDS = {torch.float64: (0, 1e-12), torch.float32: (1e-5, 1e-6), torch.bfloat16: (2e-2, 2e-2)}


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize(
    ("side", "tokens"), [(12, 1), (12, 4), (12, 9), (12, 16), (12, 36), (12, 144), (6, 4)]
)
def test_equals_the_reference(side: int, tokens: int, dtype: torch.dtype):
    made, reference = pair(side, tokens, dtype)
    levels, text = features(side, dtype)
    with torch.no_grad():
        found = made(VisionFeatures(levels, (side, side), text))
        expected = reference(levels, text)
    rtol, atol = BOUNDS[dtype]
    atol *= expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("tokens", [4, 144])
def test_gradients_are_the_references(tokens: int):
    made, reference = pair(12, tokens, torch.float64)
    levels, text = features(12, torch.float64)
    made(VisionFeatures(levels, (12, 12), text)).square().sum().backward()
    reference(levels, text).square().sum().backward()
    theirs = dict(reference.named_parameters())
    for key, source in QueCC.published.weights.items():
        own = made.get_parameter(key).grad
        expected = theirs[f"mm_projector.{source.name}"].grad
        assert own is not None, key
        assert expected is not None, key
        bound = 1e-9 * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(own, expected, rtol=0, atol=bound, msg=key)


@pytest.mark.parametrize("tokens", [1, 9, 36, 144])
def test_flops_are_those_torch_counts(tokens: int):
    made, _ = pair(12, tokens, torch.float32)
    levels, text = features(12, torch.float32)
    with FlopCounterMode(display=False) as counter:
        made(VisionFeatures(levels, (12, 12), text))
    assert 2 * made.flops() == counter.get_total_flops()


@pytest.mark.parametrize(
    ("tokens", "n_params", "reference_gflops"),
    [(1, 21_581_824, 17.0), (4, None, 17.1), (16, None, 17.7), (36, 21_008_384, 18.6)],
)
def test_size_and_cost_on_llava(tokens: int, n_params: int | None, reference_gflops: float):
    """CLIP-L/336 and a 7B LLM: the reference's parameters beside LLaVA's MLP, and fewer FLOPs."""
    with torch.device("meta"):
        made = build(
            "quecc", vision_width=1024, text_width=4096, depth=24, grid=(24, 24),
            visual_tokens=tokens,
        )  # fmt: skip
    own = sum(weight.numel() for weight in made.parameters())
    assert n_params is None or own == n_params + 20_979_712
    assert isinstance(made, QueCC)
    spared = WindowAttention(1024, 8)._orders(tokens, 576 // tokens)
    attention = 2 * 2 * 576 * 1024  # of the reference, whose products over windows count too
    theirs = made.flops() - spared[1] + spared[0] + attention
    assert round(theirs / 1e9, 1) == pytest.approx(reference_gflops, abs=0.05)
    assert made.flops() < 0.9 * theirs


def test_several_questions_about_one_image():
    """Each is compressed as if it came alone with the image; another question, other tokens."""
    made, _ = pair(12, 9, torch.float64)
    levels, text = features(12, torch.float64)
    asked = torch.tensor([1, 0, 1])
    questions = torch.cat([text, text[:1] + 1])
    together = made(VisionFeatures(levels, (12, 12), questions, asked))
    for number, image in enumerate(asked.tolist()):
        one = {level: states[image : image + 1] for level, states in levels.items()}
        alone = made(VisionFeatures(one, (12, 12), questions[number : number + 1]))
        torch.testing.assert_close(together[number : number + 1], alone, rtol=0, atol=1e-12)
    assert (together[0] - together[2]).abs().max() > 1e-3


def test_a_window_of_one_patch_ignores_the_question():
    made, _ = pair(12, 144, torch.float64)
    levels, text = features(12, torch.float64)
    tokens = [made(VisionFeatures(levels, (12, 12), text + shift)) for shift in (0, 1)]
    torch.testing.assert_close(*tokens, rtol=0, atol=1e-12)


def test_without_a_question_it_says_so():
    made, _ = pair(6, 4, torch.float32)
    levels, _ = features(6, torch.float32)
    with pytest.raises(ValueError, match="given none"):
        made(VisionFeatures(levels, (6, 6)))


def test_published_weights_that_do_not_fit_are_listed():
    state = {k: w for k, w in Reference(32, 48, 6).state_dict().items() if "q_proj.3" not in k}
    with pytest.raises(InputError, match=r"missing: 0\.q_proj\.3\.bias, 0\.q_proj\.3\.weight"):
        load_reference("quecc", state, grid=(12, 12))
