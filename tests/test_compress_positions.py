"""Fixed positions: LLaVA-Mini's keys have its queries', stretched to the grid of patches."""

import math

import pytest
import torch
from conftest import TinyWorld
from torch import Tensor

from vtc.compress.layers import resized, sincos
from vtc.compress.llavamini import LlavaMini
from vtc.compress.registry import build
from vtc.model.assemble import assemble
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.run import load_run, save_run

WIDTH, SIDE = 32, 6


def made(tokens: int) -> LlavaMini:
    torch.manual_seed(0)
    compressor = build(
        "llava-mini", vision_width=WIDTH, text_width=24, depth=4, grid=(SIDE, SIDE),
        visual_tokens=tokens, settings={"layers": 1, "heads": 2},
    )  # fmt: skip
    assert isinstance(compressor, LlavaMini)
    return compressor


def stretching(few: int, many: int) -> Tensor:
    """Cubic convolution with a = -0.75 between pixel centres, edges repeated, as a matrix."""
    a, matrix = -0.75, torch.zeros(many, few, dtype=torch.float64)
    for place in range(many):
        source = (place + 0.5) * few / many - 0.5
        for tap in range(math.floor(source) - 1, math.floor(source) + 3):
            far = abs(source - tap)
            near = (a + 2) * far**3 - (a + 3) * far**2 + 1
            weight = near if far <= 1 else a * (far**3 - 5 * far**2 + 8 * far - 4)
            matrix[place, min(max(tap, 0), few - 1)] += weight
    return matrix


def stretched(table: Tensor, rows: int, columns: int) -> Tensor:
    side = math.isqrt(len(table))
    image = table.double().unflatten(0, (side, side))
    down, across = stretching(side, rows), stretching(side, columns)
    return torch.einsum("rs,ct,std->rcd", down, across, image).flatten(0, 1)


@pytest.mark.parametrize("tokens", [1, 4, 25, 36])
def test_llavaminis_keys_stand_where_its_queries_do(tokens):
    compressor, side = made(tokens), math.isqrt(tokens)
    table = sincos(side, side, WIDTH)
    assert torch.equal(compressor.query_pos, table)
    expected = stretched(table, SIDE, SIDE).float()
    torch.testing.assert_close(compressor.pos_embed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("tokens", "same"), [(1, True), (4, False)])
def test_one_query_knows_no_places(tokens, same):
    compressor, found = made(tokens), []
    values = torch.randn(1, SIDE * SIDE, WIDTH)
    for order in (torch.arange(SIDE * SIDE), torch.randperm(SIDE * SIDE)):
        keys = values[:, order] + compressor.pos_embed
        found.append(compressor.attn(compressor.queries, keys, values[:, order]))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-5) == same


def test_positions_stretch_to_any_grid_in_float32():
    table = sincos(4, 4, WIDTH)
    assert resized(table, (4, 4)) is table
    for grid in ((4, 7), (9, 5)):
        found = resized(table, grid)
        torch.testing.assert_close(found, stretched(table, *grid).float(), rtol=1e-5, atol=1e-6)
    coarse = table.bfloat16()
    assert torch.equal(resized(coarse, (9, 5)), resized(coarse.float(), (9, 5)).bfloat16())


def test_a_run_keeps_the_positions_that_it_was_trained_with(tiny_world: TinyWorld, tmp_path):
    """Those of earlier runs, a table of the whole grid, are in their weights."""
    one = assemble(tiny_world.encoder, tiny_world.qwen, "llava-mini", 4, settings={"layers": 1})
    own = one.model.compressor.pos_embed
    earlier = sincos(SIDE, SIDE, own.shape[1])
    assert not torch.allclose(own, earlier, atol=0.1)
    own.copy_(earlier)
    save_run(
        tmp_path / "run", one.model, one.processor, encoder=one.encoder, llm=one.llm,
        stage="projector", weights="compressor", seed=0,
    )  # fmt: skip
    one.model.save_pretrained(tmp_path / "whole")
    whole = VtcForConditionalGeneration.from_pretrained(tmp_path / "whole")
    for loaded in (load_run(tmp_path / "run").model, whole):
        assert torch.equal(loaded.compressor.pos_embed, earlier)
