"""Real small models answer benchmarks: shared encoder pass, faults counted, rows complete."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from conftest import TinyWorld

from vtc.data.images import open_image
from vtc.errors import InputError
from vtc.evaluate import runner, vision
from vtc.evaluate.answered import Answer, Answers
from vtc.evaluate.benchmark import read_benchmark
from vtc.evaluate.items import read_items
from vtc.evaluate.prompts import tokenise
from vtc.model.assemble import assemble
from vtc.model.four_bit import is_four_bit
from vtc.model.generation import generate_answers
from vtc.model.run import load_run, save_run
from vtc.tables import specs
from vtc.tables.write import encode

QUESTIONS = ("What colour is the square ?", "How many circles are there ?", "Read the text .")


@pytest.fixture(scope="module")
def runs(tiny_world: TinyWorld, tmp_path_factory) -> list[Path]:
    """A stage-1 run of tokenpacker (four levels) and a whole one of avgpool (one level)."""
    root = tmp_path_factory.mktemp("runs")
    settings = [("tokenpacker", 4, "compressor"), ("avgpool", 9, "full")]
    for compressor, tokens, weights in settings:
        built = assemble(tiny_world.encoder, tiny_world.qwen, compressor, tokens, seed=3)
        save_run(
            root / compressor, built.model, built.processor, encoder=built.encoder, llm=built.llm,
            stage="projector", weights=weights, seed=3,
        )  # fmt: skip
    return [root / compressor for compressor, _, _ in settings]


def make_exam(folder: Path, root: Path, rows: list[dict], **more) -> runner.Exam:
    folder.mkdir(exist_ok=True)
    (folder / "rows.json").write_text(json.dumps(rows))
    settings = {"name": folder.name, "task": "ocr", "rows": "rows.json", "images": str(root)}
    settings |= {"metric": "exact_match", "max_new_tokens": 3, **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["[columns]", 'id = "id"', 'image = "image"', 'answers = "answer"']
    (folder / "b.toml").write_text("\n".join(lines))
    benchmark = read_benchmark(folder / "b.toml")
    return runner.Exam.of(benchmark, read_items(benchmark))


def rows_of(images: tuple[str | None, ...]) -> list[dict]:
    return [
        {"id": n, "image": image, "question": QUESTIONS[n % 3] * (n % 2 + 1), "answer": "red"}
        for n, image in enumerate(images)
    ]


def evaluate(runs, exams, **kwargs):
    counts: dict[str, int] = {}

    @contextlib.contextmanager
    def track(what: str, total: int):
        def advance(n: int) -> None:
            counts[what] = counts.get(what, 0) + n

        yield advance

    return runner.evaluate(runs, exams, runner.Settings(**kwargs), track), counts


def test_two_runs_share_the_encoder_and_answer_as_each_alone(tiny_world, runs, tmp_path):
    names = tiny_world.image_names
    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of((*names, names[0], None)))
    other = make_exam(tmp_path / "b", tiny_world.images, rows_of(names[:2]), chance=0.25)
    rows, counts = evaluate(runs, [exam, other], batch_size=4)
    assert counts.pop("encoding images") == len(names)
    assert sorted(counts.values()) == [2, 2, 8, 8]
    assert [row["item_id"] for row in rows] == [*map(str, range(8)), "0", "1"] * 2
    assert {row["chance"] for row in rows} == {1.0, 0.25}
    for folder in runs:
        run = load_run(folder)
        items = exam.items
        opened = [open_image(tiny_world.images, i.images[0]) if i.images else None for i in items]
        prompts = tokenise(items, run.processor.tokenizer, run.manifest["visual_tokens"])
        # One at a time, from pixels, is what a batch from shared features must equal.
        alone = [
            generate_answers(run.model, run.processor, [prompt.ids], [image], 3)[0].text
            for prompt, image in zip(prompts, opened, strict=True)
        ]
        run_id = run.manifest["run_id"]
        found = [r["prediction"] for r in rows if r["run_id"] == run_id and r["benchmark"] == "a"]
        assert found == alone
        assert len(set(alone)) > 1
    assert encode(rows, specs.PREDICTIONS, "parquet")


def test_blocks_of_images_give_the_same_rows(tiny_world, runs, tmp_path, monkeypatch):
    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of((*tiny_world.image_names, None)))
    whole, _ = evaluate(runs, [exam])
    monkeypatch.setattr(vision, "MEMORY_LIMIT", 3 * 2 * 36 * 32 * 4)
    blocks, counts = evaluate(runs, [exam])
    assert blocks == whole
    assert counts["encoding images"] == 2 * len(tiny_world.image_names)


def test_a_feature_cache_spares_the_encoder(tiny_world, runs, tmp_path):
    from vtc.model.backbones import load_encoder
    from vtc.model.encode import layout_of, requested_levels, write_encoded

    names = tiny_world.image_names
    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of(names))
    live, _ = evaluate(runs, [exam])
    encoder = load_encoder(tiny_world.encoder)
    layout = layout_of(encoder, requested_levels(encoder.tower.config, ()), "fp32")
    write_encoded(tmp_path / "f", encoder, tiny_world.images, list(names[1:]), layout)
    cached, counts = evaluate(runs, [exam], features=tmp_path / "f")
    assert cached == live
    assert counts["encoding images"] == 1
    other = load_encoder(tiny_world.clip_pair)
    write_encoded(tmp_path / "g", other, tiny_world.images, list(names), layout)
    with pytest.raises(InputError, match="were made by another encoder"):
        evaluate(runs, [exam], features=tmp_path / "g")


def test_an_image_that_does_not_open_is_counted_and_wrong(tiny_world, runs, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    good = (tiny_world.images / tiny_world.image_names[0]).read_bytes()
    (root / "good.png").write_bytes(good)
    (root / "cut.png").write_bytes(good[: len(good) // 2])
    exam = make_exam(tmp_path / "a", root, rows_of(("good.png", "cut.png", "none.png")))
    rows, _ = evaluate(runs[:1], [exam])
    assert [row["fault"] is None for row in rows] == [True, False, False]
    assert rows[1]["fault"].startswith("image cut.png: damaged or truncated")
    assert rows[2]["fault"] == "image none.png: missing"
    assert [row["score"] for row in rows[1:]] == [0.0, 0.0]
    assert [row["n_generated"] for row in rows[1:]] == [0, 0]
    exam = make_exam(tmp_path / "b", root, rows_of(("cut.png", "none.png")))
    with pytest.raises(InputError, match=r"not one of 2 images opens under .*; image cut\.png: "):
        evaluate(runs[:1], [exam])


def test_prompts_are_the_start_of_what_training_saw(tiny_world, runs, tmp_path):
    from vtc.data.labels import encode_turns

    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of(tiny_world.image_names[:1]))
    tokenizer = load_run(runs[0]).processor.tokenizer
    [prompt] = tokenise(exam.items, tokenizer, 4)
    turns = [
        {"role": "user", "text": f"<image>\n{QUESTIONS[0]}"},
        {"role": "assistant", "text": "red"},
    ]
    trained = encode_turns(turns, tokenizer, "chat", 4)
    first = int((trained.labels != -100).argmax())
    assert prompt.ids == trained.input_ids[:first].tolist()
    assert prompt.n_text_tokens == len(prompt.ids) - 4


def test_faults_of_runs_and_devices(tiny_world, runs, tmp_path):
    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of(tiny_world.image_names[:1]))
    with pytest.raises(InputError, match="evaluate them apart"):
        evaluate([runs[0], runs[0]], [exam])
    with pytest.raises(InputError, match="no finished run"):
        evaluate([tmp_path], [exam])
    with pytest.raises(InputError, match="--device nowhere"):
        runner.settings(1, None, "nowhere")
    assert runner.settings(1, "bf16", "cpu").dtype == torch.bfloat16


def test_runs_answer_in_four_bits(tiny_world, runs, tmp_path, monkeypatch):
    loaded = []

    def load(*args, **kwargs):
        loaded.append(load_run(*args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(runner, "load_run", load)
    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of(tiny_world.image_names))
    exact, _ = evaluate(runs, [exam])
    rough, _ = evaluate(runs, [exam], four_bit=True)
    assert [is_four_bit(run.model) for run in loaded] == [False, False, True, True]
    assert [row["item_id"] for row in rough] == [row["item_id"] for row in exact]
    assert all(row["n_generated"] for row in rough)
    described = runner.settings(1, None, "cpu", four_bit=True).described()
    assert described["load_4bit"] is True


def test_workers_change_nothing(tiny_world, runs, tmp_path):
    names = (*tiny_world.image_names, "none.png")
    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of(names))
    alone, _ = evaluate(runs, [exam], batch_size=2)
    ahead, counts = evaluate(runs, [exam], batch_size=2, workers=2)
    assert ahead == alone
    assert ahead[-1]["fault"] == "image none.png: missing"
    assert counts["encoding images"] == len(names)


def test_yes_and_no_by_likelihood_in_any_precision(tiny_world, runs, tmp_path):
    rows = [
        {**row, "answer": ("yes", "no")[n % 2]} for n, row in enumerate(rows_of(("0.png",) * 6))
    ]
    exam = make_exam(tmp_path / "a", tiny_world.images, rows, metric="pope")
    for more in ({}, {"dtype": torch.bfloat16}, {"four_bit": True}):
        found, _ = evaluate(runs, [exam], answer_by="likelihood", **more)
        assert {row["prediction"] for row in found} <= {"Yes", "No"}
        assert {(row["answered_by"], row["n_generated"]) for row in found} == {("likelihood", 0)}
        assert encode(found, specs.PREDICTIONS, "parquet")
    free = make_exam(tmp_path / "free", tiny_world.images, rows_of(("0.png",)))
    with pytest.raises(InputError, match="benchmark free has free answers"):
        evaluate(runs, [free], answer_by="likelihood")


def test_what_was_answered_is_not_asked_again(tiny_world, runs, tmp_path):
    names = (*tiny_world.image_names, "none.png", None)
    exam = make_exam(tmp_path / "a", tiny_world.images, rows_of(names))
    whole, _ = evaluate(runs, [exam])
    answers = Answers()
    # One run has answered all, the other all but the item whose image does not open.
    for folder, n_done in zip(runs, (8, 6), strict=True):
        run_id = load_run(folder).manifest["run_id"]
        own = [row for row in whole if row["run_id"] == run_id][:n_done]
        cells = ("prediction", "n_generated", "n_text_tokens", "answered_by", "fault")
        given = {n: Answer(*(row[cell] for cell in cells)) for n, row in enumerate(own)}
        answers.add(run_id, "a", given)
    loaded = []

    def track(what, total):
        loaded.append(what)
        return contextlib.nullcontext(lambda n: None)

    assert runner.evaluate(runs, [exam], runner.Settings(), track, answers) == whole
    assert not any("tokenpacker" in what for what in loaded)
