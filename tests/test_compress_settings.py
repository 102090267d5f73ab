"""A compressor's own settings on the command line: trained, saved, counted, refused."""

import json

import click
import pytest
from click.testing import CliRunner
from conftest import TinyWorld

from vtc.commands.estimate import jobs_of
from vtc.commands.options import Setting
from vtc.commands.preflight import check_settings
from vtc.commands.train_projector import train_projector
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
