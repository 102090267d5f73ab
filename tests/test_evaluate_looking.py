"""Answers for reading: which are chosen, how they are printed and drawn, and scores as figures."""

import pytest
from conftest import TinyWorld
from PIL import Image
from shell import vtc

from vtc.cli import main
from vtc.errors import InputError
from vtc.evaluate.looking import WIDTH, block, choose, filtered, is_wrong, score_rows, truth
from vtc.figures import scores, sheet, style
from vtc.tables import specs
from vtc.tables.write import write_rows


def prediction(item: int, score: float, **more) -> dict:
    return {
        "run_id": "r", "backbone": "tiny", "family": "f", "n_params": 1000, "compressor": "mlp",
        "visual_tokens": 4, "benchmark": "b", "task": "ocr", "metric": "exact_match",
        "chance": 0.25, "item_id": str(item), "image_id": f"{item}.png", "question": "what?",
        "references": ["yes"], "prediction": "yes" if score else "no", "parsed": "yes",
        "score": score, "n_text_tokens": 3, "n_generated": 1, "parser": "p/1", "prompt_sha": "0",
        **more,
    }  # fmt: skip


def test_answers_are_taken_in_turn_from_runs_and_benchmarks():
    rows = [prediction(n, 0.0) for n in range(5)]
    rows += [prediction(n, n / 4, benchmark="c") for n in range(5)]
    chosen = choose(rows, "t", 4, wrong=True)
    assert [(row["benchmark"], row["item_id"]) for row in chosen] == [
        ("b", "0"), ("c", "0"), ("b", "1"), ("c", "1"),
    ]  # fmt: skip
    assert len(choose(rows, "t", 100, wrong=True)) == 7
    assert len(choose(rows, "t", 100, wrong=False)) == 10
    assert is_wrong(prediction(0, 1.0, fault="missing"))
    with pytest.raises(InputError, match="t: not one of 2 answers is wrong"):
        choose([prediction(n, 1.0) for n in range(2)], "t", 3, wrong=True)
    with pytest.raises(InputError, match="t: no column 'prediction'; answers are shown from"):
        choose([{"benchmark": "b", "item_id": 1, "question": "", "references": []}], "t", 1, True)
    with pytest.raises(InputError, match="t: no benchmark 'x'; it has b, c"):
        filtered(rows, "t", None, "x")


@pytest.mark.parametrize(
    "more",
    [
        {"prediction": "word " * 300, "parsed": "word"},
        {"prediction": "a\x1b[31m\tred\nline", "item_id": "i" * 200},
        {"question": "q" * 500, "choices": ["one", "two " * 60], "references": ["a"] * 7 + ["b"]},
        {"prediction": "", "parsed": ""},
        {"fault": "image 0.png: missing"},
    ],
)
def test_a_block_fits_the_screen(more):
    text = block(prediction(0, 0.0, **more), 1, 12)
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert "\x1b" not in text
    assert "question" in text
    assert "truth" in text


def test_the_truth_counts_who_said_it():
    assert truth(["nikon", "canon", "nikon"]) == "nikon x2 | canon"
    assert truth([str(n) for n in range(9)]) == "0 | 1 | 2 | 3 | 4 | and 4 more"


def test_wrong_answers_on_the_screen_and_on_a_sheet(tiny_world: TinyWorld, tmp_path):
    rows = [prediction(n, float(n % 2)) for n in range(5)]
    rows.append(prediction(5, 0.0, image_id="0.png 1.png", question="which of two?"))
    rows.append(prediction(6, 0.0, image_id="6", question="text alone"))
    table, out = tmp_path / "p.parquet", tmp_path / "wrong.png"
    footer = {"settings": {"images": {"b": str(tiny_world.images), "gone": "/no/such"}}}
    write_rows(rows, specs.PREDICTIONS, table, footer=footer)
    done = vtc("show", table, "--wrong", "-n", 4, "--sheet", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1/4  b  0  0.png  ")
    assert done.stdout.count("  truth     yes") == 4
    assert "5/" not in done.stdout
    with Image.open(out) as picture:
        assert picture.width > 1500
        assert len(set(picture.convert("RGB").resize((64, 64)).tobytes())) > 50
    cases = {
        ("--wrong", "--sheet", out): "wrong.png exists",
        ("--sheet", tmp_path / "a.png", "--images", tmp_path): "not one picture is found in",
        ("--sheet", tmp_path / "a.png", "--images", tmp_path / "no"): "no is no folder",
        ("--wrong", "--run", "s"): "no run_id 's'; it has r",
    }
    for arguments, message in cases.items():
        with pytest.raises(InputError, match=message):
            main.main(["show", str(table), *map(str, arguments)], standalone_mode=False)
    assert not (tmp_path / "a.png").exists()


def scored(backbone: str, n_params: int, tokens: int, benchmark: str, score: float, **more) -> dict:
    return {
        "run_id": f"{backbone}-{tokens}", "backbone": backbone, "n_params": n_params,
        "compressor": "mlp", "visual_tokens": tokens, "benchmark": benchmark, "task": "ocr",
        "metric": "exact_match", "score": score, "error": 1 - score, "n_items": 100,
        "stderr": 0.02, "chance": 0.25, **more,
    }  # fmt: skip


def test_a_panel_a_benchmark_with_intervals_and_chance():
    rows = [
        scored(name, n, tokens, benchmark, 0.4 + 0.01 * tokens)
        for name, n in (("a", 1000), ("b", 2000))
        for tokens in (1, 4, 16)
        for benchmark in ("textvqa", "docvqa", "mme")
    ]
    rows[0]["stderr"] = None
    figure = scores.draw(rows)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "textvqa (n = 100)", "docvqa (n = 100)", "mme (n = 100)",
    ]  # fmt: skip
    for axes in panels:
        chance = [line for line in axes.lines if line.get_color() == "0.4"]
        assert [line.get_ydata()[0] for line in chance] == [0.25]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16"]
        # Without a standard error, no bar.
        assert len(axes.containers) == 6
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["a (1K)", "b (2K)", "chance", "bars: 95 % intervals"]
    many = [scored(f"m{n}", n + 1, 1, "b", 0.5) for n in range(13)]
    with pytest.raises(InputError, match="13 pairs of LLM and compressor are more than the 12"):
        scores.draw(many)


def test_scores_of_predictions_are_added_up(tmp_path):
    table = tmp_path / "p.parquet"
    write_rows([prediction(n, float(n < 3)) for n in range(4)], specs.PREDICTIONS, table)
    plain = tmp_path / "s.csv"
    write_rows([scored("a", 1000, 1, "mme", 0.5)], specs.SCORES, plain)
    found = score_rows([str(table), str(plain)], [], [])
    assert [(row["benchmark"], row["score"]) for row in found] == [("b", 0.75), ("mme", 0.5)]
    [only] = score_rows([str(table), str(plain)], [], ["mme"])
    assert only["run_id"] == "a-1"
    with pytest.raises(InputError, match="no benchmark 'x' in the tables; they have b, mme"):
        score_rows([str(table), str(plain)], [], ["x"])
    out = tmp_path / "scores.png"
    done = vtc("plot", "scores", table, plain, "-o", out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 10_000


def test_a_sheet_of_long_texts_is_drawn_without_a_display(tmp_path):
    picture = Image.new("RGB", (1200, 100), "red")
    cell = sheet.Cell([picture], "", "t" * 90, "word " * 80, "$x_1$ and $", "yes", right=True)
    empty = sheet.Cell([], "none.png: missing", "t", "q?", "no", "yes", right=False)
    style.save(sheet.draw([cell, empty] * 3), str(tmp_path / "sheet.pdf"))
    assert (tmp_path / "sheet.pdf").read_bytes()[:4] == b"%PDF"
