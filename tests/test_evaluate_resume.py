"""An evaluation that is killed goes on where it was, and its table is as if undisturbed."""

import contextlib
import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from conftest import TinyWorld
from hypothesis import given
from hypothesis import strategies as st
from shell import started, vtc

from vtc.data.image_files import content_hash
from vtc.errors import InputError
from vtc.evaluate.answered import Answer, Answers, differ, finished, keeping, left, refuse_left
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.exam import Exam
from vtc.evaluate.items import read_items
from vtc.model.assemble import assemble
from vtc.model.run import save_run
from vtc.tables import specs
from vtc.tables.read import read_rows

ABOUT = {"runs": {"a": "1"}, "benchmarks": {"b": "2"}, "settings": {"dtype": "float32"}}
N_ITEMS = 60


@pytest.fixture(scope="module")
def study(tiny_world: TinyWorld, tmp_path_factory) -> tuple[list[Path], Path]:
    """Two runs, and a benchmark whose items show several images, one, a damaged one, or none."""
    root = tmp_path_factory.mktemp("study")
    for tokens in (1, 4):
        built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", tokens, seed=3)
        save_run(
            root / f"v{tokens}", built.model, built.processor, encoder=built.encoder,
            llm=built.llm, stage="projector", weights="compressor", seed=3,
        )  # fmt: skip
    names = [*tiny_world.image_names, "missing.png"]
    shown = [None, *names, names[:2], names[1:3]]
    words = ["What colour ?", "How many circles are there ?", "Read the text ."]
    rows = [
        {"id": n, "image": shown[n % 10], "question": f"{n} " + words[n % 3], "answer": "red"}
        for n in range(N_ITEMS)
    ]
    (root / "rows.json").write_text(json.dumps(rows))
    (root / "b.toml").write_text(
        f'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "anls"\nmax_new_tokens = 5\n'
        f'images = "{tiny_world.images}"\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    return [root / "v1", root / "v4"], root / "b.toml"


def command(study, out: Path, *more: object) -> tuple[object, ...]:
    runs, benchmark = study
    return ("eval", *runs, "--benchmark", benchmark, "-o", out, "--batch-size", 1, *more)


def kill_behind(study, out: Path, n_lines: int, *more: object) -> int:
    """Start an evaluation, kill it outright once so many batches are kept; how many are."""
    lines = left(out) / "answers.jsonl"

    def kept() -> int:
        return lines.read_bytes().count(b"\n") if lines.exists() else 0

    process = started(command(study, out, *more))
    while kept() < n_lines and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    return kept()


def test_killed_twice_and_resumed_it_ends_as_undisturbed(study, tmp_path):
    from vtc.evaluate import runner

    benchmark = read_benchmark(study[1])
    exam = Exam.of(benchmark, read_items(benchmark))
    how = runner.Settings(batch_size=16)
    expected = runner.evaluate(study[0], [exam], how, lambda *_: contextlib.nullcontext(int))
    chance = random.Random(0)
    out, scores = tmp_path / "p.parquet", tmp_path / "s.parquet"
    first = kill_behind(study, out, chance.randint(5, 40), "--scores", scores)
    assert first
    assert not out.exists()
    # What a process leaves that dies while it writes.
    with open(left(out) / "answers.jsonl", "ab") as file:
        file.write(b'{"run": "v1", "benchmark": "b", "ans')
    second = kill_behind(study, out, first + chance.randint(5, 40), "--resume")
    assert second > first
    with pytest.raises(InputError, match="of an evaluation that was stopped"):
        refuse_left(out)
    done = vtc(*command(study, out, "--resume", "--scores", scores, "--batch-size", 7))
    assert done.returncode == 0, done.stderr
    assert "going on behind" in done.stderr
    rows = read_rows(out, specs.PREDICTIONS).rows
    assert rows == read_rows_of(expected, tmp_path)
    assert len({row["prediction"] for row in rows}) > 5
    assert {row["answered_by"] for row in rows} == {"generation", None}
    assert len(read_rows(scores, specs.SCORES).rows) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", out.name, scores.name]
    about = runner.identity(study[0], [exam], how)
    assert finished(out, about)
    other = runner.identity(study[0], [exam], runner.Settings(dtype=torch.bfloat16))
    with pytest.raises(InputError, match=r"is finished, with dtype = float32, not bfloat16"):
        finished(out, other)
    assert not finished(tmp_path / "none.parquet", about)


def read_rows_of(rows: list[dict], folder: Path) -> list[dict]:
    """Rows as they come back from a file."""
    from vtc.tables.write import write_rows

    write_rows(rows, specs.PREDICTIONS, folder / "e.parquet")
    return read_rows(folder / "e.parquet", specs.PREDICTIONS).rows


def answer(n: int) -> Answer:
    return Answer(f"answer {n} é\n", n, 5, "generation", None)


def test_what_is_left_is_of_the_same_or_refused(tmp_path):
    out = tmp_path / "p.csv"
    stopped = keeping(out, ABOUT)
    stopped.__enter__().add("a", "b", {0: answer(0), 2: answer(2)})
    with pytest.raises(InputError, match=r"is being made by process \d+ on"):
        keeping(out, ABOUT).__enter__()
    with pytest.raises(KeyboardInterrupt):
        stopped.gen.throw(KeyboardInterrupt)
    with pytest.raises(InputError, match="go on with --resume, or begin again with --force"):
        refuse_left(out)
    for changed, words in (
        ({**ABOUT, "settings": {"dtype": "bfloat16"}}, "of dtype = float32, not bfloat16"),
        ({**ABOUT, "runs": {"a": "9"}}, "of another run 'a' than there is now"),
        ({**ABOUT, "benchmarks": {"b": "2", "c": "3"}}, "of benchmarks b, not b, c"),
    ):
        with pytest.raises(InputError, match=words):
            keeping(out, changed, resume=True).__enter__()
    with keeping(out, ABOUT, resume=True) as answers:
        assert answers.of("a", "b") == {0: answer(0), 2: answer(2)}
        assert not answers.of("a", "c")
        out.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
    with keeping(out, ABOUT, force=True) as answers:
        assert len(answers) == 0


def test_nothing_is_left_where_nothing_was_answered(tmp_path):
    with pytest.raises(InputError), keeping(tmp_path / "p.csv", ABOUT):
        raise InputError("no image opens")
    assert not list(tmp_path.iterdir())
    assert differ(ABOUT, ABOUT) is None


@given(
    st.lists(st.dictionaries(st.integers(0, 99), st.text(), min_size=1, max_size=3), max_size=5),
    st.floats(0, 1),
)
def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, batches, share):
    file = tmp_path_factory.mktemp("cut") / "answers.jsonl"
    answers, ends = Answers(file), [0]
    for batch in batches:
        own = {place: Answer(text, 1, 2, None, text) for place, text in batch.items()}
        answers.add("run", "benchmark", own)
        ends.append(file.stat().st_size)
    answers.close()
    cut = int(share * ends[-1])
    os.truncate(file, cut)
    n_whole = max(n for n, end in enumerate(ends) if end <= cut)
    expected: dict[int, str] = {}
    for batch in batches[:n_whole]:
        expected |= batch
    again = Answers(file)
    assert {place: own.text for place, own in again.of("run", "benchmark").items()} == expected
    again.add("run", "benchmark", {100: answer(1)})
    again.close()
    assert len(Answers(file)) == len(expected) + 1


def test_images_are_told_by_what_they_hold(tmp_path):
    rows = [{"question": f"{n}?", "image": f"{n}.png", "answer": "red"} for n in range(3)]
    (tmp_path / "a").mkdir()
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "anls"\n'
        '[columns]\nimage = "image"\nanswers = "answer"\n'
    )
    for n in (0, 1):  # The third is not there.
        (tmp_path / "a" / f"{n}.png").write_bytes(bytes([n]) * 100_000)

    def about(folder: str) -> dict:
        benchmark = read_benchmark(tmp_path / "b.toml", images=tmp_path / folder)
        exam = Exam.of(benchmark, read_items(benchmark))
        return {**ABOUT, "benchmarks": {"b": exam.fingerprint()}, "images": {"b": exam.shown()}}

    begun = about("a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy", copy_function=shutil.copyfile)
    assert differ(begun, about("copy")) is None
    for change in (
        lambda: (tmp_path / "copy" / "0.png").write_bytes(bytes(99_999) + b"\1"),
        lambda: (tmp_path / "copy" / "0.png").write_bytes(bytes(99_999)),
        lambda: (tmp_path / "copy" / "2.png").write_bytes(b"new"),
        lambda: (tmp_path / "copy" / "1.png").unlink(),
    ):
        change()
        changed = about("copy")
        assert differ(begun, changed) == "benchmark 'b' with images that have changed since"
        begun = changed
    # What an older version began says nothing of images.
    assert differ({**begun, "images": {}}, about("a")) is None


def test_what_is_no_file_has_no_content(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    hashes = {content_hash([(tmp_path, name)]) for name in ("pipe", "folder", "none", "a\0b")}
    assert len(hashes) == 4  # The names differ; none waits, none fails.
    assert content_hash([]) == content_hash([])
