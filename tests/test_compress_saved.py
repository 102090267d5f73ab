"""Every compressor, without a class token where it needs none: trained, saved, loaded, the same."""

import pytest
import torch
from conftest import TinyWorld

from vtc.compress.choices import KNOWN
from vtc.compress.registry import COMPRESSORS
from vtc.model.assemble import assemble
from vtc.model.modeling import VtcForConditionalGeneration
from vtc.model.run import load_run, save_run

NAMES = [name for name, kind in COMPRESSORS.items() if not kind.needs_query]
# Those inside the LLM are shown every patch.
V = {"mlp": 36} | {name: 36 for name, known in KNOWN.items() if known.schedule is not None}


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_compressor_comes_back(tiny_world: TinyWorld, tmp_path, name: str):
    tokens = V.get(name, 4)
    encoder = tiny_world.encoder if KNOWN[name].needs_cls else tiny_world.siglip
    built = assemble(encoder, tiny_world.qwen, name, tokens)
    model = built.model
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    image = [built.processor.image_token_id] * tokens
    ids = torch.tensor([[7, *image, 9, 11], [8, *image, 11, 9]])
    before = model(input_ids=ids, pixel_values=pixels, labels=ids).loss
    before.backward()
    with torch.no_grad():
        for weight in model.compressor.parameters():
            assert weight.grad is not None
            weight -= 1e-3 * weight.grad / (weight.grad.norm() + 1e-12)
        after = model(input_ids=ids, pixel_values=pixels, labels=ids)
    assert after.loss < before
    save_run(
        tmp_path / "run", model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights="compressor", seed=0,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "whole")
    whole = VtcForConditionalGeneration.from_pretrained(tmp_path / "whole")
    for loaded in (load_run(tmp_path / "run").model, whole):
        with torch.no_grad():
            logits = loaded.eval()(input_ids=ids, pixel_values=pixels).logits
        assert torch.equal(logits, after.logits)


def test_fixed_positions_are_there_whatever_builds_the_model(tiny_world: TinyWorld):
    """A model of a config alone, as transformers makes it, has the same table of positions."""
    for name in ("mqt", "resampler", "llava-mini"):
        built = assemble(tiny_world.siglip, tiny_world.qwen, name, 4).model
        fresh = VtcForConditionalGeneration(built.config)
        assert torch.equal(fresh.compressor.pos_embed, built.compressor.pos_embed)
        assert fresh.compressor.pos_embed.std() > 0.1
