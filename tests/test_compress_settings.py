"""A compressor's own settings on the command line: trained, saved, counted, refused."""

import json
from collections.abc import Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner
from conftest import TinyWorld

from vtc.commands.estimate import jobs_of
from vtc.commands.options import Setting
from vtc.commands.preflight import check_settings
from vtc.commands.train_projector import train_projector
from vtc.compress.choices import KNOWN
from vtc.compress.mlp import Mlp
from vtc.compress.registry import COMPRESSORS, setting_names
from vtc.cost.recipe import read_recipes
from vtc.errors import InputError

RECIPE = """
[train-projector]
encoder = "openai/clip-vit-large-patch14-336"
llm = "Qwen1.5-0.5B"
compressor = "resampler"
compressor-setting = {settings}
visual-tokens = [4]

[data.train-projector]
rows = 100
text-tokens = 20
longest-text-tokens = 30
supervised-tokens = 20
"""


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("layers=2", ("layers", 2)),
        ("query=area", ("query", "area")),
        ("static_keys=true", ("static_keys", True)),
        (" trained = [1, 4]", ("trained", [1, 4])),
        ("level=0.5", ("level", 0.5)),
    ],
)
def test_values_are_those_of_toml_or_texts(text, pair):
    assert Setting().convert(text, None, None) == pair


def test_what_is_no_setting():
    for text in ("layers", "=2", "layers="):
        with pytest.raises(click.BadParameter, match="is no KEY=VALUE"):
            Setting().convert(text, None, None)
    with pytest.raises(InputError, match="names a setting twice"):
        check_settings(["mqt"], [("heads", 1), ("heads", 2)])
    with pytest.raises(InputError, match="avgpool has no setting 'layers'; it has level"):
        check_settings(["resampler", "avgpool"], [("layers", 2)])
    assert check_settings(["mlp"], []) is None


WRONG = {
    "level": (True, "x", [1], "a number"),
    "query_level": (False, "last", "a number"),
    "key_levels": (3, "all", [True], ["x"], None, "a list of numbers"),
    "trained": ("all", 4, [1.0], ["x"], [True], "a list of whole numbers"),
    "query": (1, ["area"], "a text"),
    "ratio": ("half", True, "a number"),
    **dict.fromkeys(
        ("layers", "heads", "width", "cross_every", "blocks", "hidden", "contextual", "layer",
         "average", "stages", "queries"),
        ("two", 1.5, True, [2], "a whole number"),
    ),
    **dict.fromkeys(
        ("static_keys", "normalise", "reference_behaviour"), (1, "yes", None, "true or false")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_a_value_of_another_type_is_refused_in_one_sentence(name):
    for key in setting_names(name):
        *values, takes = WRONG[key]
        for value in values:
            said = f"compressor {name}: {key} = {json.dumps(value, separators=(',', ':'))}; it "
            with pytest.raises(InputError) as caught:
                check_settings([name], [(key, value)])
            assert str(caught.value) == f"{said}takes {takes}"


def test_a_compressor_of_ones_own_may_take_what_it_likes(monkeypatch):
    class Own(Mlp):
        def __init__(
            self, *, shape: dict, size=2, kinds: Sequence[str] | bool = False, **given: Any
        ) -> None: ...

    monkeypatch.setitem(KNOWN, "own", KNOWN["mlp"])
    monkeypatch.setitem(COMPRESSORS, "own", Own)
    for settings in ({"shape": 3}, {"size": 4}, {"kinds": ["a"]}, {"kinds": True}):
        assert check_settings(["own"], settings.items()) == settings
    with pytest.raises(InputError, match="kinds = \\[1\\]; it takes a list of texts or true or"):
        check_settings(["own"], [("kinds", [1])])
    with pytest.raises(InputError, match='size = "x"; it takes a whole number'):
        check_settings(["own"], [("size", "x")])


def test_a_run_keeps_its_settings(tiny_world: TinyWorld, tmp_path):
    rows = [
        {"id": name, "image": name, "conversations": [
            {"from": "human", "value": "<image>"}, {"from": "gpt", "value": "two circles"}]}
        for name in tiny_world.image_names[:2]
    ]  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(rows))
    words = [
        str(tmp_path / "s.json"), "--images", str(tiny_world.images),
        "--encoder", str(tiny_world.encoder), "--llm", str(tiny_world.qwen),
        "--compressor", "resampler", "--visual-tokens", "4", "--max-steps", "1",
        "--accumulate", "1", "--batch-size", "2", "-o", str(tmp_path / "runs"),
    ]  # fmt: skip
    own = ["--compressor-setting", "layers=2", "--compressor-setting", "heads=4"]
    done = CliRunner().invoke(train_projector, words + own)
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "runs/resampler-v4/config.json").read_text())
    assert config["compressor_settings"] == {"layers": 2, "heads": 4}
    from vtc.model.run import load_run

    compressor = load_run(tmp_path / "runs/resampler-v4").model.compressor
    assert (len(compressor.layers), compressor.layers[0].attn.heads) == (2, 4)


def costs(tmp_path, settings: str) -> int:
    (tmp_path / "r.toml").write_text(RECIPE.format(settings=settings))
    [planned] = read_recipes([tmp_path / "r.toml"])
    [job] = jobs_of(planned)
    return job.parts.compressor.n_params


def test_a_recipe_is_estimated_with_them(tmp_path):
    one, three = costs(tmp_path, "[]"), costs(tmp_path, '["layers=3"]')
    a_layer = 12 * 1024**2 + 4 * 1024 + 5 * 1024 + 4 * 1024  # attention and feed-forward, norms
    assert three - one == 2 * a_layer
    with pytest.raises(InputError, match="compressor-setting: Value must be an iterable"):
        costs(tmp_path, '"layers=3"')
    with pytest.raises(InputError, match=r"recipe .*r\.toml: compressor resampler has no setting"):
        costs(tmp_path, '["query=area"]')
    with pytest.raises(InputError, match="compressor-setting: 'layers' is no KEY=VALUE"):
        costs(tmp_path, '["layers"]')
