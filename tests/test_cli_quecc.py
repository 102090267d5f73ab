"""quecc from the shell: both stages, an evaluation, a kill between, and what it refuses."""

import json
import signal
from pathlib import Path

import pytest
from conftest import TinyWorld
from shell import vtc
from train_kills import end_when_killed
from train_runs import STAGE_1, same_run, stage_1, stage_2
from train_samples import read, write

from vtc import cli
from vtc.tables.read import read_rows
from vtc.train.settings import FINETUNE, PROJECTOR

QUICK = ("--batch-size", "4", "--accumulate", "1", "--max-steps", "2", "--log-every", "1")


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line that a command ends with, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run([str(argument) for argument in arguments])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_both_stages_and_an_evaluation(tiny_world: TinyWorld, tmp_path: Path, monkeypatch):
    """Dialogues, a feature cache, samples in one row, questions that share an image; any batch."""
    write(tmp_path)
    asked = [
        {
            "id": f"{n}-{k}",
            "image": f"{n}.png",
            "question": f"What colour is it {k} ?",
            "answer": "a",
        }
        for n in range(3)
        for k in range(3)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(asked))
    (tmp_path / "tiny.toml").write_text(
        f'name = "tiny"\ntask = "reasoning"\nrows = "rows.json"\nmetric = "anls"\n'
        f'images = "{tiny_world.images}"\nmax_new_tokens = 6\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    tuned = "tuned/tiny-qwen-quecc-v4"
    steps = (
        ("train-projector", "samples.json", "--encoder", tiny_world.encoder, "--llm",
         tiny_world.qwen, "--images", tiny_world.images, "--compressor", "quecc", "--template",
         "chat", "--visual-tokens", "4", *QUICK, "-o", "runs"),
        ("finetune", "runs/quecc-v4", "--samples", "samples.json", "--images", tiny_world.images,
         "--pack", "--query-scope", "all", "--lr", "1e-3", *QUICK, "-o", "tuned"),
        ("eval", "runs/quecc-v4", tuned, "--benchmark", "tiny.toml", "-o", "k.parquet"),
        ("eval", "runs/quecc-v4", tuned, "--benchmark", "tiny.toml", "-o", "1.parquet",
         "--batch-size", "1"),
    )  # fmt: skip
    done = vtc(*steps[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    for step in steps[1:]:  # In this process, where torch is loaded already.
        with pytest.raises(SystemExit) as caught:
            cli.run([str(argument) for argument in step])
        assert caught.value.code == 0
    found, alone = (read_rows(tmp_path / f"{name}.parquet").rows for name in ("k", "1"))
    answers = [row["prediction"] for row in found]
    assert answers == [row["prediction"] for row in alone]
    assert len(found) == 2 * len(asked)
    assert len(set(answers)) > 3
    scopes = [
        json.loads((tmp_path / folder / "processor_config.json").read_text())["query_scope"]
        for folder in ("runs/quecc-v4", tuned)
    ]
    assert scopes == ["latest", "all"]


def test_a_killed_training_ends_the_same(tiny_world: TinyWorld, tmp_path: Path):
    """Vectors of questions kept by the process that was killed are made again, bit for bit."""
    samples = read(tmp_path, tiny_world)
    settings = STAGE_1.with_(template="chat")

    def first(out: str, **saving):
        return stage_1(tiny_world, samples, tmp_path / out, settings, compressor="quecc", **saving)

    (whole,) = first("whole", every=0)
    killed = end_when_killed(lambda: first("cut", every=2), "batch", 6)
    assert killed == -signal.SIGKILL
    (again,) = first("cut", every=2, resume=True)
    same_run(whole, again)

    def second(out: str, **saving):
        return stage_2(whole, samples, tmp_path / out, "lora", **saving)

    (tuned,) = second("tuned", every=0)
    killed = end_when_killed(lambda: second("cut2", every=2), "batch", 6)
    assert killed == -signal.SIGKILL
    (again,) = second("cut2", every=2, resume=True)
    same_run(tuned, again)


def test_a_template_without_questions_is_refused(tiny_world: TinyWorld, tmp_path: Path, capsys):
    file = write(tmp_path)
    given = ("train-projector", file, "--encoder", tiny_world.encoder, "--llm", tiny_world.qwen,
             "--images", tiny_world.images, "--compressor", "avgpool,quecc", "--visual-tokens",
             "4", "-o", tmp_path / "runs")  # fmt: skip
    line = refused(capsys, *given)
    assert "quecc compresses an image for the question" in line
    assert "use --template chat" in line
    assert not (tmp_path / "runs").exists()


def test_a_finetuning_without_questions_is_refused(tiny_world: TinyWorld, tmp_path: Path):
    from vtc.errors import InputError
    from vtc.train.questions import check_questions

    with pytest.raises(InputError, match="--template plain throws away"):
        check_questions(["tokenpacker", "quecc"], FINETUNE.with_(template="plain"))
    check_questions(["tokenpacker"], PROJECTOR)
    check_questions(["avgpool", "quecc"], FINETUNE.with_(query_scope="first"))
    with pytest.raises(InputError, match=r"says which question quecc .*; avgpool, mlp reads none"):
        check_questions(["avgpool", "mlp"], FINETUNE.with_(query_scope="first"))
    check_questions(["quecc"], FINETUNE)
