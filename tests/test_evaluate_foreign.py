"""Predictions made elsewhere: held against a benchmark's rows, and read from lmms-eval's logs."""

import csv
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import benchmark_rows
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmms_samples import PICTURES, TASKS, sample, write_log
from shell import vtc

from vtc.errors import InputError
from vtc.evaluate import looking
from vtc.evaluate.aggregate import aggregate, score_item
from vtc.evaluate.benchmarks.registry import SPECS
from vtc.evaluate.lean import lean
from vtc.evaluate.lmms_logs import benchmark_of
from vtc.evaluate.lmms_rows import options
from vtc.evaluate.logged import logged_rows
from vtc.evaluate.predictions import Source, read_predictions
from vtc.evaluate.truths import read_truths

RUN = {"n_params": 7e9, "visual_tokens": 576}
# The ten answers of humans are in no log.
NOT_IN_LOGS = ("textvqa", "vizwiz", "vqav2")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return benchmark_rows.write_all(tmp_path_factory.mktemp("data"))


def answers(name: str, data: Path) -> list[str]:
    """An answer an item, in turn right, wrong and in a sentence; all right in a circle."""
    items = read_truths(SPECS[name], data).items
    said = [item.references[0] for item in items]
    if name == "mmbench":
        return [a if item.group == "1" else "12" for a, item in zip(said, items, strict=True)]
    return [(a, "12", f"The answer is {a}.")[n % 3] for n, a in enumerate(said)]


def samples_of(name: str, data: Path) -> list[dict]:
    prompts = [item.prompt for item in read_truths(SPECS[name], data).items]
    rows = benchmark_rows.TABLES[name]().to_pylist()
    said = answers(name, data)
    return [
        sample(name, n, row, prompt, answer)
        for n, (row, prompt, answer) in enumerate(zip(rows, prompts, said, strict=True))
    ]


def scored(path: Path, compat: bool = False, **more) -> tuple[dict, list[str]]:
    """The scores row of a file, and what was said meanwhile."""
    said: list[str] = []
    source = Source({**RUN, **more.pop("given", {})}, say=said.append, **more)
    rows = [score_item(row, compat) for row in read_predictions(path, source)]
    [row] = aggregate(rows, compat, incomplete=True)
    return row, said


@pytest.mark.parametrize("name", TASKS)
def test_a_log_scores_the_same_by_itself_by_its_rows_and_beside_the_data(name, data, tmp_path):
    lines = samples_of(name, data)
    path = write_log(tmp_path, name, lines)
    by_data, said = scored(path, data_dir=data)
    assert said == []
    assert (by_data["benchmark"], by_data["run_id"]) == (name, "some__model")
    assert by_data["task"] == SPECS[name].task
    assert 0 < by_data["score"] <= 1
    assert by_data["chance"] is not None
    same = ("score", "n_items", "metric", "parser", "task")
    if name in NOT_IN_LOGS:
        with pytest.raises(InputError, match=f"accepted answers of {name}; name a folder .*--data"):
            scored(path)
    else:
        alone, said = scored(path)
        assert {key: alone[key] for key in same} == {key: by_data[key] for key in same}
        assert f"{len(lines)} of the {SPECS[name].n_rows} rows" in said[0]
        assert (
            scored(path, compat=True)[0]["score"] == scored(path, True, data_dir=data)[0]["score"]
        )
    # Before version 0.3 a sample held its row, and all of them stood in one object.
    rows = benchmark_rows.TABLES[name]().to_pylist()
    docs = [{key: cell for key, cell in row.items() if key not in PICTURES} for row in rows]
    logs = [{**line, "doc": doc, "resps": [[line["filtered_resps"]]]}
            for line, doc in zip(lines, docs, strict=True)]  # fmt: skip
    old = tmp_path / "model" / "log.json"
    old.parent.mkdir()
    old.write_text(json.dumps({"args": {}, "model_configs": {"task": TASKS[name]}, "logs": logs}))
    from_rows, _ = scored(old)
    assert {key: from_rows[key] for key in same} == {key: by_data[key] for key in same}


def test_names_of_tasks():
    assert {benchmark_of(task, SPECS) for task in TASKS.values()} == set(TASKS)
    assert benchmark_of("mathvista_testmini_cot", SPECS) == "mathvista"
    assert benchmark_of("vqav2_val_lite", SPECS) == "vqav2"
    assert benchmark_of("seedbench", SPECS) is None


def test_options_of_a_prompt():
    assert options("Which?\nA. a b\nB. \nC.c\nAnswer with A. or B.") == ["a b", "", "c"]
    assert options("A. x\nB. y\ntext\nA. p\nC. q\nB. r") == ["p", "r"]
    assert options("no list") == []


def test_a_task_that_vtc_does_not_know(tmp_path):
    lines = [
        {"doc_id": n, "target": "['yes', 'yeah']", "filtered_resps": [text], "input": "?"}
        for n, text in enumerate(["yeah", "no"])
    ]
    lines[0]["resps"] = [["Yeah."]]
    path = write_log(tmp_path, "seedbench", [*lines, lines[1]])
    given = {"metric": "exact_match", "task": "reasoning"}
    row, _ = scored(path, given=given)
    assert (row["benchmark"], row["score"], row["n_items"]) == ("seedbench", 0.5, 2)
    with pytest.raises(InputError, match=r"sample 0: column 'metric' is missing; .* --metric"):
        scored(path, given={"task": "ocr"})
    lines[1]["filtered_resps"] = [[-1.5, False]]
    with pytest.raises(InputError, match="sample 1: the answer is no generated text"):
        scored(write_log(tmp_path, "seedbench", lines), given=given)
    lines[1] = {**lines[0], "resps": ["other"]}
    with pytest.raises(InputError, match="sample 1: doc_id 0 stands twice, with two answers"):
        scored(write_log(tmp_path, "seedbench", lines), given=given)


def test_a_log_beside_other_rows_is_refused(data, tmp_path):
    lines = samples_of("docvqa", data)
    lines[1]["input"] = "What is the capital?\nAnswer"
    with pytest.raises(InputError, match=r"asks 'what is the capital\? answer', but row 1 of docv"):
        scored(write_log(tmp_path, "docvqa", lines), data_dir=data)
    lines[1]["doc_id"] = 7
    with pytest.raises(InputError, match="doc_id 7, but --data-dir has 2 rows of docvqa"):
        scored(write_log(tmp_path, "docvqa", lines), data_dir=data)


def write_csv(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["mme", "pope", "mmbench", "gqa", "mathvista", "vqav2"])
def test_answers_and_ids_are_enough_beside_the_data(name, data, tmp_path):
    items = read_truths(SPECS[name], data).items
    rows = [
        {"benchmark": name, "item_id": item.item_id, "prediction": answer}
        for item, answer in zip(items, answers(name, data), strict=True)
    ]
    found, said = scored(write_csv(tmp_path / "theirs.csv", rows[::-1]), data_dir=data)
    log, _ = scored(write_log(tmp_path, name, samples_of(name, data)), data_dir=data)
    assert (found["score"], found["stderr"]) == (log["score"], log["stderr"])
    assert (found["metric"], found["task"], said) == (log["metric"], log["task"], [])


def test_items_left_out_count_as_wrong_and_unknown_ones_are_refused(data, tmp_path):
    rows = [{"item_id": 262148000, "prediction": "down"}]
    path = write_csv(tmp_path / "p.csv", rows)
    given = {"benchmark": "vqav2"}
    found, said = scored(path, data_dir=data, given=given)
    assert (found["score"], found["n_items"]) == (0.5, 2)
    assert "1 of 2 items of vqav2 have no prediction of run p: scored wrong" in said[0]
    found, said = scored(path, data_dir=data, given=given, incomplete=True)
    assert (found["score"], found["n_items"]) == (1.0, 1)
    assert said[0].endswith("left out")
    path = write_csv(path, [*rows, {"item_id": 5, "prediction": "x"}])
    with pytest.raises(
        InputError, match=r"1 prediction is for .* vqav2 does not have \(5\); its ids are 2"
    ):
        scored(path, data_dir=data, given=given)
    with pytest.raises(
        InputError, match=r"'references' is missing; .* rows of vqav2 with --data-dir"
    ):
        scored(path, given=given)
    path = write_csv(path, [{"prediction": "x"}])
    with pytest.raises(InputError, match="column 'item_id' is missing; it joins predictions"):
        scored(path, data_dir=data, given=given)


def test_lean_rows_add_up_to_the_same(data, tmp_path):
    for name in ("pope", "gqa", "mmbench"):
        path = write_log(tmp_path, name, samples_of(name, data))
        source = Source(RUN, data_dir=data)
        rows = [score_item(row) for row in read_predictions(path, source)]
        assert aggregate(lean(rows, False)) == aggregate(rows)
        for short, full in zip(lean(rows, False), rows, strict=True):
            assert dict(short).items() == {key: full[key] for key in short}.items()
    [one] = lean(rows[:1], False)
    assert one is rows[0]  # A circle's rows keep what their total reads.


def test_logs_of_several_models_become_points_of_a_law(data, tmp_path):
    logs = []
    for number, (n_params, tokens) in enumerate(product(("7b", "1.8b"), (576, 16))):
        path = write_log(tmp_path / str(number), "gqa", samples_of("gqa", data)[: number + 1])
        out = tmp_path / f"{number}.csv"
        about = ("--n-params", n_params, "--visual-tokens", tokens, "--run-id", f"r{number}")
        done = vtc("score", path, *about, "--incomplete", "--compat", "lmms-eval", "-o", out)
        assert done.returncode == 0, done.stderr
        logs.append(out.read_text().splitlines())
    table = tmp_path / "scores.csv"
    table.write_text("\n".join([logs[0][0], *(line for log in logs for line in log[1:])]))
    done = vtc("fit", table, "--format", "json", "--exponents", ".077/.015")
    assert done.returncode == 0, done.stderr
    [law] = map(json.loads, done.stdout.splitlines())
    assert (law["n_points"], law["n_sizes"], law["task"]) == (4, 2, "reasoning")
    piped = subprocess.run(
        [sys.executable, "-m", "vtc", "score", "-"],
        input=path.read_bytes(), capture_output=True, check=False,
    )  # fmt: skip
    assert (piped.returncode, piped.stdout) == (2, b"")
    assert b"is read from its file, not from stdin" in piped.stderr
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"doc_id": 0, "filtered_resps": "a", "target": "b"}\n{"doc_id": 1,\n')
    done = vtc("score", damaged, "--benchmark", "gqa", "--n-params", "7b", "--visual-tokens", 4)
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 2: broken JSON" in done.stderr


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=60)
@given(draw=st.data())
def test_a_log_with_odd_cells_is_scored_or_refused(data, tmp_path_factory, draw):
    name = draw.draw(st.sampled_from(sorted(TASKS)))
    line = draw.draw(st.sampled_from(samples_of(name, data)))
    line[draw.draw(st.sampled_from(sorted(line)))] = draw.draw(CELLS)
    path = write_log(tmp_path_factory.getbasetemp() / "odd", name, [line])
    for data_dir in (None, data):
        try:
            row, _ = scored(path, data_dir=data_dir, incomplete=True)
        except InputError:
            continue
        assert 0 <= row["score"] <= 1


@pytest.mark.parametrize("name", SPECS)
def test_logs_are_looked_at_as_they_are_scored(data, tmp_path, name):
    path = write_log(tmp_path, name, samples_of(name, data))
    rows = logged_rows(path, str(data) if name in NOT_IN_LOGS else None, lambda words: None)
    assert rows is not None
    expected = [score_item(row) for row in read_predictions(path, Source(RUN, data))]
    assert [row["score"] for row in rows] == [row["score"] for row in expected]
    assert [row["parsed"] for row in rows] == [row["parsed"] for row in expected]
    assert [row["question"] for row in rows] == [s["input"] for s in samples_of(name, data)]
    assert looking.block(rows[0], 1, 1).startswith(f"1/1  {name}")
    assert "V =" not in looking.block(rows[0], 1, 1)


def test_show_reads_logs(data, tmp_path):
    path = write_log(tmp_path, "mme", samples_of("mme", data))
    shown = vtc("show", path, "--wrong", "-n", 2)
    assert shown.returncode == 0, shown.stderr
    assert "question  Is there a" in shown.stdout
    assert "answer    12" in shown.stdout
    assert "samples of lmms-eval" in shown.stderr
    other = write_log(tmp_path, "seedbench", samples_of("mme", data))
    with pytest.raises(InputError, match="vtc knows no benchmark of the task 'seedbench'"):
        logged_rows(other, None, lambda words: None)
    assert logged_rows(tmp_path / "none.csv", None, lambda words: None) is None
    with pytest.raises(InputError, match="does not hold the accepted answers of textvqa"):
        logged_rows(write_log(tmp_path, "textvqa", samples_of("textvqa", data)), None, print)
