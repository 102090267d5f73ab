"""Runs that differ in their compressor's settings alone are told apart in every table."""

import contextlib
import json

import pytest
from conftest import TinyWorld
from hypothesis import given
from hypothesis import strategies as st
from test_cli_score import prediction

from vtc.commands.scores import Scoring
from vtc.compress.registry import settings_text
from vtc.errors import InputError
from vtc.evaluate.aggregate import aggregate, score_item
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.exam import Exam
from vtc.evaluate.items import read_items
from vtc.evaluate.runner import Settings, evaluate
from vtc.figures.scores import draw
from vtc.law.points import read_points
from vtc.model.assemble import assemble
from vtc.model.run import save_run
from vtc.tables import specs
from vtc.tables.read import read_rows
from vtc.tables.write import write_rows


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("tokenpacker", None, None),
        ("tokenpacker", {"query": "bilinear"}, None),
        ("tokenpacker", {"query": "antialias", "heads": 4}, "heads=4, query=antialias"),
        ("tokenpacker", {"key_levels": [0.5, 1.0]}, "key_levels=[0.5,1.0]"),
        ("mqt", {"trained": [1, 4], "static_keys": False}, "trained=[1,4]"),
        ("mlp", {"level": -2}, None),
    ],
)
def test_settings_as_text(name, settings, said):
    assert settings_text(name, settings) == said


@given(st.dictionaries(st.sampled_from(["level", "layers", "heads"]), st.integers(-9, 9)))
def test_equal_settings_have_one_text_and_others_another(settings):
    text = settings_text("resampler", settings)
    assert text == settings_text("resampler", dict(reversed(settings.items())))
    whole = {"level": -2, "layers": 1, **settings}
    assert text == settings_text("resampler", whole)
    said = dict(part.split("=") for part in (text or "").split(", ") if part)
    assert {key: json.loads(value) for key, value in said.items()} == {
        key: value
        for key, value in settings.items()
        if value != {"level": -2, "layers": 1}.get(key)
    }


def test_an_evaluation_says_its_runs_settings(tiny_world: TinyWorld, tmp_path):
    for name, settings in (("plain", None), ("smooth", {"query": "antialias"})):
        built = assemble(
            tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4, seed=3, settings=settings
        )
        save_run(
            tmp_path / name, built.model, built.processor, encoder=built.encoder,
            llm=built.llm, stage="projector", weights="compressor", seed=3,
        )  # fmt: skip
    row = {"image": tiny_world.image_names[0], "question": "What colour ?", "answer": "red"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.jsonl"\nmetric = "anls"\nmax_new_tokens = 1\n'
        '[columns]\nimage = "image"\nanswers = "answer"\n'
    )
    benchmark = read_benchmark(tmp_path / "b.toml", tiny_world.images)
    exam = Exam.of(benchmark, read_items(benchmark))
    folders = [tmp_path / "plain", tmp_path / "smooth"]
    rows = evaluate(folders, [exam], Settings(), lambda *_: contextlib.nullcontext(int))
    assert [row["compressor_settings"] for row in rows] == [None, "query=antialias"]
    scores = aggregate(rows)
    assert [row["compressor_settings"] for row in scores] == [None, "query=antialias"]
    for name in ("s.parquet", "s.csv"):
        write_rows(scores, specs.SCORES, tmp_path / name)
        found = read_rows(tmp_path / name, specs.SCORES).rows
        assert [row["compressor_settings"] for row in found] == [None, "query=antialias"]


def scored(settings: str | None, n_params: int, tokens: int) -> dict:
    about = {"compressor_settings": settings, "n_params": n_params, "visual_tokens": tokens}
    return score_item(prediction(0, "yes", run_id=f"{settings}-{n_params}-{tokens}", **about))


def test_figures_and_laws_do_not_mix_them_silently():
    rows = aggregate(
        scored(settings, n, v)
        for settings in (None, "query=antialias")
        for n in (10_000, 20_000)
        for v in (1, 4)
    )
    legend = draw(rows).legends[0].get_texts()
    assert {text.get_text() for text in legend} >= {
        "tiny (10K), mlp", "tiny (10K), mlp (query=antialias)",
    }  # fmt: skip
    [points] = read_points(rows, "rows")
    assert points.compressors == ("mlp", "mlp (query=antialias)")
    groups = read_points(rows, "rows", by="compressor")
    assert [group.group for group in groups] == ["mlp", "mlp (query=antialias)"]
    columns = Scoring(False, False, None, False, ()).columns
    assert "compressor_settings" in columns(rows)
    assert "compressor_settings" not in columns(rows[:4])


def test_one_run_has_one_setting():
    rows = [scored(None, 10, 1), {**scored("query=antialias", 10, 1), "item_id": "1"}]
    rows[1]["run_id"] = rows[0]["run_id"]
    with pytest.raises(InputError, match="column 'compressor_settings' is None in one row and q"):
        aggregate(rows)
