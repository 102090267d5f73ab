"""Two real data sets go the whole way: check-data, both stages, eval (skipped where absent)."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from vtc import cli
from vtc.tables import specs
from vtc.tables.read import read_rows

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"


def prepare(monkeypatch, recipe, source, out, limit):
    arguments = [recipe, str(source), str(out), "--limit", str(limit)]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(ROOT / "recipes" / "data" / recipe), run_name="__main__")


def vtc(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.run([str(argument) for argument in arguments])
    assert caught.value.code == 0, arguments


@pytest.mark.parametrize(
    ("recipe", "folder", "name", "objective"),
    [
        ("easy_vqa.py", "easy_vqa", "easy_vqa", "align"),
        ("sroie_lines.py", "sroie_lines", "sroie", "lm"),
    ],
)
def test_real_data_goes_the_whole_way(
    tiny_world, tmp_path, monkeypatch, recipe, folder, name, objective
):
    source = DATA / folder
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    prepare(monkeypatch, recipe, source, tmp_path, 12)
    monkeypatch.chdir(tmp_path)
    for stage in ("pretrain", "finetune"):
        vtc(
            *("check-data", f"{name}_{stage}.json", "--images", source, "--llm", tiny_world.qwen),
            *("-o", f"{stage}.parquet"),
        )
        rows = read_rows(tmp_path / f"{stage}.parquet", specs.SAMPLES).rows
        assert len(rows) == 12
        assert all(row["n_text_tokens"] > 0 for row in rows)
    quick = ("--batch-size", "4", "--accumulate", "1", "--max-steps", "2")
    vtc(
        *("train-projector", "pretrain.parquet", "--encoder", tiny_world.encoder, *quick),
        *("--llm", tiny_world.qwen, "--visual-tokens", "1,9", "--objective", objective),
        *("-o", "runs"),
    )
    vtc(
        *("finetune", "runs/tokenpacker-v1", "runs/tokenpacker-v9", "--samples"),
        *("finetune.parquet", "--turns", "independent", *quick, "-o", "tuned"),
    )
    vtc(
        *("eval", "tuned/tiny-qwen-tokenpacker-v1", "tuned/tiny-qwen-tokenpacker-v9"),
        *("--benchmark", f"{name}.toml", "--limit", "6", "-o", "predictions.parquet"),
    )
    predictions = read_rows(tmp_path / "predictions.parquet", specs.PREDICTIONS).rows
    assert len(predictions) == 12
    assert {row["visual_tokens"] for row in predictions} == {1, 9}
    assert {row["benchmark"] for row in predictions} == {name}


def test_easy_vqa_captions_are_what_the_answers_say(tmp_path, monkeypatch):
    source = DATA / "easy_vqa"
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    prepare(monkeypatch, "easy_vqa.py", source, tmp_path, 50)
    pretrain = json.loads((tmp_path / "easy_vqa_pretrain.json").read_text())
    finetune = json.loads((tmp_path / "easy_vqa_finetune.json").read_text())
    for told, asked in zip(pretrain, finetune, strict=True):
        words = told["conversations"][1]["value"].split()
        talk = asked["conversations"]
        for question, answer in zip(talk[::2], talk[1::2], strict=True):
            if "what" in question["value"]:
                assert answer["value"] in words
