"""One run evaluated at several V: the rows of separate evaluations, each marked."""

import contextlib
import json
from pathlib import Path

import pytest
from conftest import TinyWorld

from vtc.commands.eval_dry_run import report
from vtc.commands.evaluate import warn_untrained
from vtc.errors import InputError
from vtc.evaluate import runner, vision
from vtc.evaluate.aggregate import aggregate
from vtc.evaluate.answered import Answer, Answers
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.items import read_items
from vtc.model.assemble import assemble
from vtc.model.run import save_run
from vtc.model.turns import train_at
from vtc.tables import specs
from vtc.tables.read import read_rows
from vtc.tables.write import write_rows

OWN, SET, ASKED = 16, (1, 4, 16), (16, 1, 9)
CELLS = ("prediction", "n_generated", "n_text_tokens", "answered_by", "fault")


def save(world: TinyWorld, folder: Path, compressor: str, v: int, weights=None, trained=None):
    """A run, its compressor with the weights of another if given."""
    built = assemble(world.encoder, world.qwen, compressor, v, seed=3)
    if weights is not None:
        built.model.compressor.load_state_dict(weights)
    train_at(built.model, trained)
    save_run(
        folder, built.model, built.processor, encoder=built.encoder, llm=built.llm,
        stage="projector", weights="compressor", seed=v,
    )  # fmt: skip
    return built.model.compressor.state_dict()


@pytest.fixture(scope="module")
def runs(tiny_world, tmp_path_factory) -> Path:
    """An elastic run, runs of other V with its weights, and one of a compressor of one V."""
    root = tmp_path_factory.mktemp("runs")
    weights = save(tiny_world, root / "mqt", "mqt", OWN, trained=SET)
    for v in ASKED:
        save(tiny_world, root / f"v{v}", "mqt", v, weights)
    save(tiny_world, root / "resampler", "resampler", 4)
    return root


@pytest.fixture(scope="module")
def exam(tiny_world, tmp_path_factory) -> runner.Exam:
    """Questions on several images, one image, a missing one or none."""
    folder = tmp_path_factory.mktemp("exam")
    names = [*tiny_world.image_names, "missing.png"]
    shown = [None, *names, names[:2]]
    words = ("What colour ?", "How many circles are there ?", "Read the text .")
    rows = [
        {"id": n, "image": shown[n % 9], "question": f"{n} {words[n % 3]}", "answer": "yes"}
        for n in range(18)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "anls"\nmax_new_tokens = 4\n'
        f'images = "{tiny_world.images}"\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    benchmark = read_benchmark(folder / "b.toml")
    return runner.Exam.of(benchmark, read_items(benchmark))


def evaluate(folders, exam, answers=None, **how):
    seen = {}

    def track(what, total):
        seen[what] = seen.get(what, 0) + total
        return contextlib.nullcontext(lambda n: None)

    rows = runner.evaluate(folders, [exam], runner.Settings(**how), track, answers)
    return rows, seen


def without_run(row):
    own = ("run_id", "seed", "compressor_settings", "visual_tokens_trained")
    return {name: cell for name, cell in row.items() if name not in own}


@pytest.fixture(scope="module")
def apart(runs, exam) -> list[dict]:
    """The rows of a run for each V, asked one by one."""
    return evaluate([runs / f"v{v}" for v in ASKED], exam, batch_size=1)[0]


@pytest.mark.parametrize("blocks", [False, True])
def test_rows_are_those_of_runs_of_each_v_and_images_are_seen_once(
    runs, exam, apart, tiny_world, blocks, monkeypatch
):
    if blocks:
        monkeypatch.setattr(vision, "MEMORY_LIMIT", 3 * 36 * 32 * 4)
    rows, seen = evaluate([runs / "mqt"], exam, visual_tokens=ASKED, batch_size=5)
    assert seen["encoding images"] == len(tiny_world.image_names) + 1
    assert [without_run(row) for row in rows] == [without_run(row) for row in apart]
    assert [row["visual_tokens"] for row in rows[:: len(exam.items)]] == list(ASKED)
    by_v = {v: [row["prediction"] for row in rows if row["visual_tokens"] == v] for v in ASKED}
    assert len(set(map(tuple, by_v.values()))) == 3
    assert {(row["visual_tokens"], row["visual_tokens_trained"]) for row in rows} == {
        *((16, True), (1, True), (9, False))
    }
    scores = aggregate(rows)
    assert [(s["visual_tokens"], s["visual_tokens_trained"]) for s in scores] == [
        *((16, True), (1, True), (9, False))
    ]
    assert len({score["run_id"] for score in scores}) == 1


def test_by_likelihood_too(runs, tiny_world, tmp_path):
    rows = [
        {"id": n, "image": f"{n}.png", "question": "is it ?", "answer": ("yes", "no")[n % 2]}
        for n in range(6)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "b.toml").write_text(
        'name = "b"\ntask = "ocr"\nrows = "rows.json"\nmetric = "pope"\n'
        f'images = "{tiny_world.images}"\n'
        '[columns]\nid = "id"\nimage = "image"\nanswers = "answer"\n'
    )
    benchmark = read_benchmark(tmp_path / "b.toml")
    exam = runner.Exam.of(benchmark, read_items(benchmark))
    how = {"answer_by": "likelihood"}
    found, _ = evaluate([runs / "mqt"], exam, visual_tokens=(9, 16), **how)
    apart, _ = evaluate([runs / "v9", runs / "v16"], exam, **how)
    assert [without_run(row) for row in found] == [without_run(row) for row in apart]


def test_it_goes_on_at_each_v_where_it_stopped(runs, exam, tmp_path):
    whole, _ = evaluate([runs / "mqt"], exam, visual_tokens=ASKED)
    file = tmp_path / "answers.jsonl"
    answers, run_id, n = Answers(file), whole[0]["run_id"], len(exam.items)
    # All at the run's own V, half at another, nothing at the third.
    for at, own in ((None, whole[:n]), (1, whole[n : n + 9])):
        given = {k: Answer(*(row[cell] for cell in CELLS)) for k, row in enumerate(own)}
        answers.add(run_id, "b", given, at)
    answers.close()
    again = Answers(file)
    assert (len(again.of(run_id, "b")), len(again.of(run_id, "b", 1))) == (n, 9)
    rows, seen = evaluate([runs / "mqt"], exam, again, visual_tokens=ASKED)
    assert rows == whole
    asked = {what.split(" at ")[1]: total for what, total in seen.items() if " at " in what}
    n_missing = sum(row["fault"] is not None for row in whole[n + 9 : 2 * n])
    assert "V = 16 on b" not in asked
    assert asked["V = 1 on b"] == 9 - n_missing
    assert asked["V = 9 on b"] == n - 2
    one, other = (
        runner.identity([runs / "mqt"], [exam], runner.Settings(visual_tokens=v))["settings"]
        for v in ((), ASKED)
    )
    assert one != other


def test_a_v_that_a_run_cannot_serve_is_refused_by_name(runs, exam):
    with pytest.raises(InputError, match=r"resampler: .* resampler makes 4 visual tokens, not 1"):
        evaluate([runs / "mqt", runs / "resampler"], exam, visual_tokens=(1, 4))
    with pytest.raises(
        InputError, match=r"run \S+mqt: .* mqt cannot make 36 visual tokens of 16 at most; cho"
    ):
        evaluate([runs / "mqt"], exam, visual_tokens=(36,))
    with pytest.raises(InputError, match="leave --visual-tokens out, or take a run of that V"):
        list(report([runs / "resampler"], [exam], runner.Settings(visual_tokens=(1,)), {}, []))
    # Its own V is no other.
    rows, _ = evaluate([runs / "resampler"], exam, visual_tokens=(4,))
    assert {row["visual_tokens_trained"] for row in rows} == {True}


def test_a_dry_run_estimates_each_v(runs, exam):
    how = runner.Settings(visual_tokens=(4, 16))
    lines = list(report([runs / "mqt"], [exam], how, {}, []))
    assert sum(" at V = 4 on b: " in line for line in lines) == 1
    assert sum(" at V = 16 on b: " in line for line in lines) == 1
    assert "(1 pass over 7 images)" in lines[-1]
    assert "visual_tokens = [4, 16]" in lines


def test_the_warning_names_what_was_not_trained_once(runs, capsys):
    warn_untrained([runs / "mqt", runs / "v9"], (1, 4, 9))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("warning:") == 2
    assert f"run {runs / 'mqt'} was trained at V = 1, 4, 16, not at 9:" in said
    assert f"run {runs / 'v9'} was trained at V = 9, not at 1, 4:" in said
    warn_untrained([runs / "mqt"], SET)
    warn_untrained([runs / "mqt"], ())
    assert capsys.readouterr().err == ""


def test_the_mark_stays_in_files_and_is_empty_where_nobody_knows(runs, exam, tmp_path):
    rows, _ = evaluate([runs / "mqt"], exam, visual_tokens=(1, 9))
    for name in ("p.parquet", "p.csv", "p.json"):
        write_rows(rows, specs.PREDICTIONS, tmp_path / name)
        back = read_rows(tmp_path / name, specs.PREDICTIONS).rows
        assert [row["visual_tokens_trained"] for row in back] == [
            row["visual_tokens"] == 1 for row in rows
        ]
    foreign = [{**row, "visual_tokens_trained": None} for row in rows]
    assert {score["visual_tokens_trained"] for score in aggregate(foreign)} == {None}
