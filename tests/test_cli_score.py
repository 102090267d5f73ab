"""`vtc score`: anybody's predictions become scores, from their text alone."""

import json
import re

import pytest
from shell import vtc

from vtc.errors import InputError
from vtc.evaluate.predictions import Source, read_predictions
from vtc.tables import specs
from vtc.tables.read import read_rows
from vtc.tables.write import write_rows

ABOUT = {"metric": "exact_match", "benchmark": "b", "task": "ocr"}
ABOUT |= {"n_params": 7e9, "visual_tokens": 4}


def flags(**given: object) -> list[str]:
    return [part for key, value in given.items() for part in (f"--{key.replace('_', '-')}", value)]


def prediction(item: int, text: str, **more) -> dict:
    return {
        "run_id": "r",
        "backbone": "tiny",
        "family": "f",
        "n_params": 1000,
        "compressor": "mlp",
        "visual_tokens": 4,
        "benchmark": "b",
        "task": "ocr",
        "metric": "exact_match",
        "chance": 0.25,
        "item_id": str(item),
        "image_id": f"{item // 2}.png",
        "question": "what?",
        "references": ["yes"],
        "prediction": text,
        "parsed": "stale",
        "score": 0.0,
        "n_text_tokens": 3,
        "n_generated": 1,
        "parser": "old/0",
        "prompt_sha": "0",
        **more,
    }


def test_our_own_predictions_are_scored_anew_from_their_text(tmp_path):
    rows = [prediction(n, "Yes!" if n < 3 else "no") for n in range(6)]
    rows.append(prediction(6, "yes", fault="image 3.png: missing"))
    source, out = tmp_path / "p.parquet", tmp_path / "s.parquet"
    write_rows(rows, specs.PREDICTIONS, source)
    assert vtc("score", source, "-o", out).returncode == 0
    found = read_rows(out, specs.SCORES)
    [row] = found.rows
    assert row["score"] == pytest.approx(3 / 7)
    assert (row["n_items"], row["chance"], row["family"]) == (7, 0.25, "f")
    assert row["stderr"] > 0
    assert found.footer["inputs"][0]["path"] == str(source)
    done = vtc("score", source, "-o", out)
    assert done.returncode == 2
    assert "s.parquet exists" in done.stderr


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_minimal_table_of_anybody(tmp_path, suffix):
    rows = [
        {"prediction": "Yes", "references": ["yes", "yeah"], "image_id": "a"},
        {"prediction": "", "references": ["no"], "image_id": "a"},
        {"prediction": "no.", "references": ["no"], "image_id": "b"},
    ]
    path = tmp_path / f"theirs.{suffix}"
    if suffix == "csv":
        lines = [
            "prediction,references,image_id",
            'Yes,"[""yes"", ""yeah""]",a',
            ",no,a",
            "no.,no,b",
        ]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    done = vtc("score", path, *flags(**ABOUT, format="json", family="qwen"))
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["score"] == pytest.approx(2 / 3)
    assert (row["run_id"], row["backbone"], row["compressor"]) == ("theirs", "7B LLM", "unknown")
    assert (row["n_params"], row["family"], row["seed"]) == (7_000_000_000, "qwen", None)


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("prediction\nyes\n", ABOUT, "column 'references' is missing; add it to the table"),
        (
            "prediction,references\nyes,yes\n",
            {**ABOUT, "n_params": None},
            "row 0: column 'n_params' is missing; add it, or give --n-params",
        ),
        (
            "prediction,references,visual_tokens\nyes,yes,16\n",
            ABOUT,
            "row 0: column 'visual_tokens' says 16, but --visual-tokens says 4",
        ),
        ("prediction,references\nyes,yes\n", {**ABOUT, "metric": "f1"}, "no metric 'f1'; choose"),
        ("predicton,references\nyes,yes\n", ABOUT, "'prediction' is missing (it has 'predicton')"),
        (
            'prediction,references\nno,"[""no"""\n',
            ABOUT,
            """row 0, column 'references': '["no"' begins a JSON list that does not end""",
        ),
        (
            "prediction,references\nred,red\n",
            {**ABOUT, "metric": "vqa"},
            "row 0, column 'references': 1 answer, but metric vqa needs at least 4",
        ),
        (
            "prediction,references\nyes,nope\n",
            {**ABOUT, "metric": "pope"},
            "column 'references': 'nope', but metric pope knows yes or no alone",
        ),
        (
            "prediction,references,n_params,visual_tokens\nyes,yes,-7,1\n",
            {**ABOUT, "n_params": None, "visual_tokens": None},
            "row 0, column 'n_params': -7 is below 1",
        ),
        (
            "prediction,references,item_id\nyes,yes,1\nno,yes,1\n",
            ABOUT,
            "run p, benchmark b: item '1' stands twice",
        ),
    ],
)
def test_faults_of_a_minimal_table(tmp_path, text, given, message):
    path, out = tmp_path / "p.csv", tmp_path / "s.csv"
    path.write_text(text)
    chosen = {key: value for key, value in given.items() if value is not None}
    done = vtc("score", path, *flags(**chosen), "-o", out)
    assert done.returncode == 2
    assert message in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([], "column 'references': no accepted answer"),
        ([None], "expected texts, or objects with an 'answer', found None"),
        ({"b": 1}, "expected texts, or objects with an 'answer', found {'b': 1}"),
    ],
)
def test_references_that_are_no_answers(tmp_path, references, message):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prediction": "yes", "references": references}))
    given = {name: value for name, value in ABOUT.items() if name != "benchmark"}
    source = Source({"benchmark": "b", **given})
    with pytest.raises(InputError, match=re.escape(message)):
        list(read_predictions(path, source))


def test_a_misspelt_benchmark_is_named_before_its_columns(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prediction,item_id\nyes,1\n")
    source = Source({"benchmark": "pop", "n_params": 7e9, "visual_tokens": 1}, data_dir=tmp_path)
    with pytest.raises(InputError, match="no benchmark 'pop': did you mean pope"):
        list(read_predictions(path, source))


def test_another_table_is_refused_by_name(tmp_path):
    path = tmp_path / "rejects.parquet"
    write_rows([{"source": "a", "row": 1, "reason": "b", "kept": False}], specs.REJECTS, path)
    done = vtc("score", path)
    assert done.returncode == 2
    assert "need table predictions, found rejects" in done.stderr


def test_tables_of_several_runs_are_scored_together(tmp_path):
    for run in ("r1", "r2"):
        rows = [prediction(n, "yes", run_id=run) for n in range(2)]
        write_rows(rows, specs.PREDICTIONS, tmp_path / f"{run}.parquet")
    done = vtc("score", tmp_path / "r1.parquet", tmp_path / "r2.parquet", "--format", "json")
    assert [json.loads(line)["run_id"] for line in done.stdout.splitlines()] == ["r1", "r2"]
    twice = vtc("score", tmp_path / "r1.parquet", tmp_path / "r1.parquet")
    assert twice.returncode == 2
    assert "twice" in twice.stderr
