"""A model asked for another V than its own; the V that it was trained at, by its own account."""

import json

import pytest
import torch
from conftest import TinyWorld

from vtc.compress.serving import check_served, trained_of, untrained
from vtc.errors import InputError
from vtc.model.asking import serve_at
from vtc.model.assemble import assemble
from vtc.model.config import VtcConfig
from vtc.model.run import load_run, save_run
from vtc.model.turns import train_at, trained_at

OWN = 36


def build(world: TinyWorld, compressor: str, visual_tokens: int = OWN, **settings):
    return assemble(world.encoder, world.qwen, compressor, visual_tokens, settings=settings, seed=3)


def prompt(built, n: int) -> torch.Tensor:
    return torch.tensor([[5, *[built.processor.image_token_id] * n, 6, 7]])


@pytest.mark.parametrize("compressor", ["m3", "mqt", "tokenpacker"])
@pytest.mark.parametrize("features", [True, False])
def test_a_pass_at_another_v_is_that_of_a_model_of_that_v(tiny_world, compressor, features):
    large, small = build(tiny_world, compressor), build(tiny_world, compressor, 4)
    small.model.compressor.load_state_dict(large.model.compressor.state_dict())
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    given = {"pixel_values": pixels}
    if features:
        given = {"vision_levels": large.model.model.encode(pixels)}
    ids = prompt(large, 4)
    with torch.no_grad():
        expected = small.model(input_ids=ids, **given).logits
        found = large.model(input_ids=ids, **given, visual_tokens=4).logits
    torch.testing.assert_close(found, expected)
    answer = large.model.generate(ids, **given, visual_tokens=4, max_new_tokens=3)
    assert torch.equal(answer, small.model.generate(ids, **given, max_new_tokens=3))


def test_a_compressor_of_one_v_is_asked_for_no_other(tiny_world):
    one = build(tiny_world, "resampler", 4)
    levels = one.model.model.encode(torch.zeros(1, 3, 48, 48))
    assert one.model.model.compress(levels, visual_tokens=4).shape[1] == 4
    with pytest.raises(InputError, match=r"resampler cannot make 9 visual tokens .* choose from 4"):
        one.model.model.compress(levels, visual_tokens=9)


def test_the_set_is_kept_and_its_own_v_is_always_in_it(tiny_world):
    model = build(tiny_world, "m3").model
    assert trained_at(model) == (OWN,)
    train_at(model, None)
    assert model.config.compressor_settings is None
    train_at(model, (4, 1))
    assert trained_at(model) == (1, 4, OWN)
    assert model.config.compressor_settings == {"trained": [1, 4, OWN]}
    assert trained_at(build(tiny_world, "m3", trained=[1, 4]).model) == (1, 4, OWN)
    train_at(model, "published")
    assert trained_at(model) == (1, 9, OWN)
    train_at(model, (OWN,))
    assert trained_at(model) == (OWN,)
    assert model.config.compressor_settings is None
    queries = build(tiny_world, "mqt", 6).model
    train_at(queries, "published")
    assert trained_at(queries) == (1, 2, 4, 6)


@pytest.mark.parametrize(
    ("compressor", "asked", "words"),
    [
        ("resampler", (1, 4), "resampler is trained at one V; at several can be avgpool, tok"),
        ("avgpool", "published", "avgpool is published at one V a model; name the V, such as 1,9"),
        ("m3", (4, 9), "--train-visual-tokens 4,9: 1, the cheapest V, must be"),
        ("m3", (1, 36), "36 is above the run's own V, 9; leave it out, or train a run of"),
        ("m3", (1, 5), "m3 cannot make 5 visual tokens of a 6x6 grid; choose from 1, 4, 9, 36"),
    ],
)
def test_a_set_that_cannot_be_is_refused(tiny_world, compressor, asked, words):
    with pytest.raises(InputError, match=words):
        train_at(build(tiny_world, compressor, 9).model, asked)


def test_a_run_says_what_it_was_trained_at_and_serves(tiny_world, tmp_path):
    built = build(tiny_world, "mqt", 16)
    train_at(built.model, (1, 4))
    save_run(
        tmp_path / "run", built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert trained_of(manifest) == (1, 4, 16)
    assert VtcConfig.from_pretrained(tmp_path / "run").compressor_settings == {
        "trained": [1, 4, 16]
    }
    run = load_run(tmp_path / "run")
    assert trained_at(run.model) == (1, 4, 16)
    for tokens in (4, 1, 16):
        serve_at(run, tokens)
        levels = run.model.model.encode(torch.zeros(1, 3, 48, 48))
        assert run.model.model.compress(levels).shape[1] == run.processor.visual_tokens == tokens
    serve_at(run, 4)
    serve_at(run, None)
    assert run.processor.visual_tokens == 16
    check_served("r", manifest, 9)
    with pytest.raises(InputError, match="run r: its compressor mqt cannot make 17 visual tokens"):
        check_served("r", manifest, 17)
    assert untrained("r", manifest, (1, 4, 16)) is None
    said = untrained("r", manifest, (1, 2, 9))
    assert said is not None
    assert "run r was trained at V = 1, 4, 16, not at 2, 9" in said
    # What was written before there were sets.
    del manifest["trained_visual_tokens"]
    assert trained_of(manifest) == (16,)


def test_of_many_v_a_warning_names_few():
    """MQT's published ones are 128."""
    manifest = {"visual_tokens": 256, "trained_visual_tokens": list(range(2, 257, 2))}
    said = untrained("r", manifest, (1,))
    assert said is not None
    assert "was trained at V = 2, 4, 6, ..., 256 (128 in all), not at 1:" in said
