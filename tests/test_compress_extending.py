"""The example of docs/extending.md: one file and one line, and the whole program knows it."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TinyWorld
from torch.utils.flop_counter import FlopCounterMode

from vtc.commands.compressors import compressors
from vtc.commands.preflight import check_parts
from vtc.compress import choices, registry
from vtc.compress.interface import VisionFeatures
from vtc.errors import InputError
from vtc.model.assemble import assemble
from vtc.model.run import load_run, save_run

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def maxpool(tmp_path, monkeypatch) -> type:
    """The program of the page as the module it names, and its line in the registry."""
    program, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    file = tmp_path / "maxpool.py"
    file.write_text(program, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("vtc.compress.maxpool", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "vtc.compress.maxpool", module)
    spec.loader.exec_module(module)
    for name, known in eval(f"{{{line}}}", vars(choices)).items():
        monkeypatch.setitem(choices.KNOWN, name, known)
        monkeypatch.setitem(choices.CHOICES, name, known.supported)
    monkeypatch.setattr(registry, "COMPRESSORS", dict(registry.COMPRESSORS))
    return module.MaxPool


def test_it_is_listed_and_refused_like_the_others(maxpool, tiny_world: TinyWorld):
    done = CliRunner().invoke(compressors, ["maxpool", "--visual-tokens", "4", "--format", "csv"])
    assert done.exit_code == 0, done.output
    assert "maxpool,openai/clip-vit-large-patch14-336,Qwen1.5-0.5B" in done.stdout
    check_parts(str(tiny_world.encoder), None, ("maxpool",), (4,))
    with pytest.raises(InputError, match="maxpool cannot make 5 visual tokens of a 6x6 grid"):
        check_parts(str(tiny_world.encoder), None, ("maxpool",), (5,))


def test_it_trains_answers_and_comes_back(maxpool, tiny_world: TinyWorld, tmp_path):
    built = assemble(tiny_world.encoder, tiny_world.qwen, "maxpool", 4)
    model = built.model
    assert isinstance(model.compressor, maxpool)
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[7, *[built.processor.image_token_id] * 4, 9, 11]])
    before = model(input_ids=ids, pixel_values=pixels, labels=ids).loss
    before.backward()
    with torch.no_grad():
        for weight in model.compressor.parameters():
            weight -= 1e-3 * weight.grad / weight.grad.norm()
    assert model(input_ids=ids, pixel_values=pixels, labels=ids).loss < before
    given = {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}
    expected = model.generate(**given, max_new_tokens=4)
    save_run(
        tmp_path / "run", model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights="compressor", seed=0,
    )  # fmt: skip
    loaded = load_run(tmp_path / "run").model
    assert torch.equal(loaded.generate(**given, max_new_tokens=4), expected)


def test_its_flops_are_exact(maxpool):
    made = registry.build(
        "maxpool", vision_width=16, text_width=24, depth=4, grid=(6, 6), visual_tokens=9
    )
    with FlopCounterMode(display=False) as counter:
        made(VisionFeatures({3: torch.randn(1, 36, 16)}, (6, 6)))
    assert made.flops() == counter.get_total_flops()
