"""`vtc eval` from the shell: predictions and scores on disk, and faults before any model loads."""

import json
from pathlib import Path

import pytest
from conftest import TinyWorld
from shell import vtc

from vtc.model.assemble import assemble
from vtc.model.run import save_run
from vtc.tables import specs
from vtc.tables.read import read_rows


@pytest.fixture(scope="module")
def runs(tiny_world: TinyWorld, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    for tokens in (1, 4):
        built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", tokens, seed=3)
        save_run(
            root / f"v{tokens}", built.model, built.processor, encoder=built.encoder,
            llm=built.llm, stage="projector", weights="compressor", seed=3,
        )  # fmt: skip
    return [root / "v1", root / "v4"]


@pytest.fixture
def benchmarks(tiny_world: TinyWorld, tmp_path) -> list[Path]:
    rows = [
        {"id": n, "image": name, "question": "What colour is the square ?", "answer": "red"}
        for n, name in enumerate([*tiny_world.image_names, "missing.png"])
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    paths = []
    for task in ("reasoning", "ocr"):
        path = tmp_path / f"{task}.toml"
        path.write_text(
            f'name = "tiny-{task}"\ntask = "{task}"\nrows = "rows.json"\nmetric = "anls"\n'
            f'images = "{tiny_world.images}"\nmax_new_tokens = 3\n'
            '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
        )
        paths.append(path)
    return paths


def given(benchmarks: list[Path]) -> list[object]:
    return [part for path in benchmarks for part in ("--benchmark", path)]


def test_runs_answer_benchmarks(runs, benchmarks, tmp_path):
    predictions, scores = tmp_path / "predictions.parquet", tmp_path / "scores.parquet"
    done = vtc("eval", *runs, *given(benchmarks), "-o", predictions, "--scores", scores)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    said = (
        "4 of 28 answers are missing and scored wrong; the first is tiny-reasoning, item 6: image"
    )
    assert said in done.stderr
    rows = read_rows(predictions, specs.PREDICTIONS)
    assert len(rows.rows) == 2 * 2 * 7
    assert {row["visual_tokens"] for row in rows.rows} == {1, 4}
    assert {row["fault"] for row in rows.rows} == {None, "image missing.png: missing"}
    assert {row["backbone"] for row in rows.rows} == {"tiny-qwen"}
    assert rows.footer["settings"]["dtype"] == "float32"
    assert len(rows.footer["inputs"]) == 3
    again = tmp_path / "again.parquet"
    assert vtc("score", predictions, "-o", again).returncode == 0
    whole = read_rows(scores, specs.SCORES).rows
    assert read_rows(again, specs.SCORES).rows == whole
    # A stop between the two tables leaves the answers alone.
    scores.unlink()
    same = ("eval", *runs, *given(benchmarks), "-o", predictions, "--scores")
    done = vtc(*same, scores, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"is finished; {scores} is made from it" in done.stderr
    assert read_rows(scores, specs.SCORES).rows == whole
    done = vtc(*same, predictions, "--force")
    assert done.returncode == 2
    assert "is a file that the command reads" in done.stderr


def test_faults_come_before_any_model_is_loaded(runs, benchmarks, tmp_path):
    out = tmp_path / "predictions.parquet"
    out.touch()
    cases = {
        ("-o", out): "predictions.parquet exists; give another name, or --force",
        ("-o", tmp_path / "p.txt"): "no format has the suffix '.txt'",
        ("--scores", tmp_path / "none" / "s.csv"): "folder",
        ("--benchmark", tmp_path / "none.toml"): "none.toml does not exist",
        ("--benchmark", benchmarks[0]): "are both 'tiny-reasoning'",
        ("--images", tmp_path / "nowhere"): "nowhere is no folder",
    }
    for arguments, message in cases.items():
        done = vtc("eval", runs[0], *given(benchmarks), *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert out.read_bytes() == b""


def test_benchmarks_of_the_field_by_name(runs, tmp_path):
    from benchmark_rows import write_all

    from vtc.evaluate.benchmarks.registry import SPECS

    data, predictions = write_all(tmp_path / "data"), tmp_path / "p.parquet"
    scores, averages = tmp_path / "s.parquet", tmp_path / "a.csv"
    named = [part for name in SPECS for part in ("--benchmark", name)]
    done = vtc(
        "eval", runs[1], *named, "--data-dir", data, "--save-images", tmp_path / "pictures",
        "--max-new-tokens", 2, "-o", predictions, "--scores", scores,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mme: 8 items; its split has 2374" in done.stderr
    rows = read_rows(predictions, specs.PREDICTIONS).rows
    assert {row["benchmark"] for row in rows} == set(SPECS)
    assert all(row["fault"] is None and row["n_generated"] for row in rows)
    shown = next(row for row in rows if row["item_id"] == "validation_Art_Theory_1")
    assert [(tmp_path / "pictures" / name).is_file() for name in shown["image_id"].split()] == [
        True, True, True,
    ]  # fmt: skip
    assert vtc("score", predictions, "--average", "-o", averages).returncode == 0
    found = read_rows(averages, specs.SCORES).rows
    assert [row["benchmark"] for row in found] == ["reasoning", "ocr"]
    every = {row["benchmark"]: row for row in read_rows(scores, specs.SCORES).rows}
    ocr = [every[name]["error"] for name in ("docvqa", "textvqa")]
    assert found[1]["error"] == pytest.approx(sum(ocr) / 2)
    listed = vtc("benchmarks", "mme", "gqa", "--format", "csv").stdout
    assert "\nmme,MME,reasoning,mme,2374,16,lmms-lab-encoder/MME" in listed
    assert "testdev_balanced_images.id = imageId" in listed


def test_faults_of_named_benchmarks(runs, tmp_path):
    cases = {
        ("--benchmark", "mmebench"): "no benchmark 'mmebench': did you mean mmbench",
        ("--benchmark", "mme"): "mme is not to be had from the hub (lmms-lab-encoder/MME",
        ("--benchmark", "mme", "--data-dir", tmp_path): "has no data of 'mme'",
    }
    for arguments, message in cases.items():
        done = vtc("eval", runs[0], *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
