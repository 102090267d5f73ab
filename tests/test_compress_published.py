"""Compressors with published weights against the publications' own way, at every V they can make.

On the publications' grid of 24 x 24 and one of 12 x 12, several images at a time, of features that
do not lie in one piece, in every floating type.
"""

import math
import re
from pathlib import Path

import pytest
import torch
from published_projectors import M3, Mqt, TokenPacker, drawn, quecc
from torch import Tensor, nn

from vtc.compress import load_reference
from vtc.compress.choices import square_choices
from vtc.compress.interface import Compressor, VisionFeatures
from vtc.compress.registry import COMPRESSORS

WIDTH, TEXT, LEVELS = 32, 40, (12, 16, 22, 23)
BOUNDS = {
    torch.float64: (0, 1e-12), torch.float32: (1e-5, 1e-6), torch.bfloat16: (2e-2, 1e-2),
    torch.float16: (5e-3, 2e-3),
}  # fmt: skip
GRIDS = [(side, dtype) for side in (24, 12) for dtype in BOUNDS]


class Images:
    """Levels [3, N, D] whose rows lie apart, and a question's vector each."""

    def __init__(self, side: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(side)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.grid, self.dtype = (side, side), dtype
        self.levels = {level: noise(3, WIDTH, side * side).transpose(1, 2) for level in LEVELS}
        self.several = torch.cat(list(self.levels.values()), -1)
        self.asked = noise(3, TEXT)

    @property
    def features(self) -> VisionFeatures:
        return VisionFeatures(dict(self.levels), self.grid, query=self.asked)

    def load(self, name: str, published: nn.Module, tokens: int | None = None) -> Compressor:
        place = "query_abstractor" if name == "mqt" else "mm_projector"
        state = {f"model.{place}.{key}": part for key, part in published.state_dict().items()}
        return load_reference(name, state, visual_tokens=tokens, grid=self.grid)

    def check(self, found: Tensor, expected: Tensor) -> None:
        rtol, atol = BOUNDS[self.dtype]
        assert found.dtype == self.dtype
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("side", "dtype"), GRIDS)
@torch.no_grad()
def test_tokenpacker_and_quecc(side: int, dtype: torch.dtype):
    images = Images(side, dtype)
    for tokens in square_choices((side, side)):
        scale = side // math.isqrt(tokens)
        packer = drawn(TokenPacker(WIDTH, TEXT, scale)).to(dtype)
        found = images.load("tokenpacker", packer, tokens)(images.features)
        images.check(found, packer((images.levels[23], images.several)))
        asking = drawn(quecc(WIDTH, TEXT, scale)).to(dtype)
        ours = images.load("quecc", asking)
        assert ours.visual_tokens == tokens
        given = (images.several, images.asked.unsqueeze(1), images.levels[23])
        images.check(ours(images.features), asking(given))


@pytest.mark.parametrize(("side", "dtype"), GRIDS)
@torch.no_grad()
def test_mqt_and_m3(side: int, dtype: torch.dtype):
    images = Images(side, dtype)
    mqt = drawn(Mqt(WIDTH, TEXT, min(side, 16))).to(dtype)
    ours = images.load("mqt", mqt)
    for tokens in (1, 2, 16, 37, ours.visual_tokens):
        found = ours(images.features, visual_tokens=tokens)
        images.check(found, mqt(images.levels[23], tokens))
    m3 = drawn(M3(WIDTH, TEXT)).to(dtype)
    ours = images.load("m3", m3)
    for tokens in square_choices((side, side)):
        found = ours(images.features, visual_tokens=tokens)
        images.check(found, m3.pooled(images.levels[23], tokens))
    images.check(images.load("mlp", m3)(images.features), m3(images.levels[23]))


@torch.no_grad()
def test_mqts_positions_come_in_half_precision():
    """As its file has them; the tokens are those of the same positions in fp32."""
    images = Images(24, torch.float32)
    mqt = drawn(Mqt(WIDTH, TEXT))
    state = mqt.state_dict()
    halved = {**state, "pos_embed": state["pos_embed"].half()}
    ours = load_reference("mqt", halved, grid=images.grid)
    assert {weight.dtype for weight in ours.state_dict().values()} == {torch.float32}
    images.check(ours(images.features, visual_tokens=16), mqt(images.levels[23], 16))


def listed_tensors() -> dict[str, dict[str, str]]:
    """The tensors of docs/compressors.md, with their shapes in letters, by compressor."""
    page = Path(__file__).parents[1] / "docs" / "compressors.md"
    found: dict[str, dict[str, str]] = {}
    block = re.compile(r"\n((?:`[a-z0-9]+`(?:, )?)+): [^\n]*\n\n```\n(.*?)```", re.S)
    for names, lines in block.findall(page.read_text()):
        own: dict[str, str] = {}
        for line in lines.strip().splitlines():
            keys, shape = line.split("[")
            own |= dict.fromkeys((key.strip() for key in keys.split(",")), shape.rstrip("]"))
        found |= dict.fromkeys(re.findall("[a-z0-9]+", names), own)
    return found


def test_the_page_lists_every_tensor_of_a_checkpoint():
    """One may be built from the list alone: names and shapes are those that are taken."""
    sizes = {"D": 16, "T": 24, "s": 2, "M": 36}
    listed = listed_tensors()
    assert set(listed) == {name for name, kind in COMPRESSORS.items() if kind.published}
    for name, shapes in listed.items():
        state = {
            key: torch.randn([eval(part.replace(" ", "*"), sizes) for part in shape.split(", ")])
            for key, shape in shapes.items()
        }
        loaded = load_reference(name, state, grid=(6, 6))
        assert sum(t.numel() for t in loaded.state_dict().values()) == sum(
            t.numel() for t in state.values()
        )
