"""vtc compare through its command line: table, figure, faults."""

import csv
from pathlib import Path

import pytest
from test_compare import CLIP, QWEN, study

from vtc import cli
from vtc.catalog import encoders
from vtc.compress.schedule import patches_left
from vtc.cost.encoder import encoder_flops
from vtc.errors import InputError
from vtc.figures import compare as figure
from vtc.tables import specs
from vtc.tables.read import read_rows


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    return written(tmp_path / "scores.csv", study())


def written(path: Path, rows: list[dict]) -> Path:
    """The rows as a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line that the command ends with, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run(["compare", *map(str, arguments)])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_table_and_a_figure(scores, tmp_path, capsys):
    out, drawn = tmp_path / "c.parquet", tmp_path / "c.svg"
    with pytest.raises(SystemExit) as caught:
        cli.run(["compare", str(scores), "-o", str(out), "--figure", str(drawn)])
    said = capsys.readouterr().err
    assert not caught.value.code, said
    assert "V = 16: quecc is best (of 3)." in said
    assert "beta, of `vtc fit --by compressor`: " in said
    read = read_rows(out, specs.COMPARISON)
    assert len(read.rows) == 13
    assert read.footer["settings"]["uncompressed"] == "mlp"
    quecc = next(one for one in read.rows if one["compressor"] == "quecc")
    assert quecc["flops"] == pytest.approx(
        sum(quecc[f"flops_{part}"] for part in ("encoder", "compressor", "query", "prefill"))
    )
    assert 3.6e11 < quecc["flops_encoder"] < 3.7e11
    assert drawn.stat().st_size > 20_000


def test_bad_input_is_one_line(scores, tmp_path, capsys):
    line = refused(capsys, scores, "--llm", "Qwen1.5-7B")
    assert f"the scores are of {QWEN}, none called 'Qwen1.5-7B'" in line
    assert "must be one of png, svg, pdf" in refused(capsys, scores, "--figure", tmp_path / "c.txt")
    assert "give the costs too" in refused(capsys, scores, "--device", "H100")
    line = refused(capsys, scores, "--runs", tmp_path)
    assert "no manifest there is of a run of the scores, such as" in line
    assert not list(tmp_path.glob("c.*"))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"visual_tokens": 0}, "visual_tokens 0 is not a whole number of at least 1"),
        ({"score": 1.7}, "score is 1.7; it is a share between 0 and 1"),
        ({"score": -0.2, "error": 1.2}, "error is 1.2; it is a share"),
        ({"score": 0.5, "error": 0.4}, "error 0.4 and score 0.5 do not add up to 1"),
        ({"stderr": -1}, "stderr is -1; a standard error of a share is between 0 and 1"),
        ({"chance": 25}, "chance is 25; it is a share"),
        ({"n_items": 0}, "n_items is 0; a score is of at least 1 item"),
        ({"visual_tokens_repeated": -2}, "visual_tokens_repeated is -2; tokens are given"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_file_and_row(tmp_path, capsys, cells, said):
    rows = [{"visual_tokens_repeated": "", **one} for one in study()]
    rows[3] |= cells
    path = written(tmp_path / "scores.csv", rows)
    assert f"{path}, row 3: {said}" in refused(capsys, path)


def test_a_run_on_an_unknown_llm_compares_without_flops(scores, tmp_path, capsys):
    scores.write_text(scores.read_text().replace(QWEN, "mine"))
    with pytest.raises(SystemExit) as caught:
        cli.run(["compare", str(scores), "--format", "csv", "--figure", str(tmp_path / "c.png")])
    said = capsys.readouterr()
    assert not caught.value.code
    rows = list(csv.DictReader(said.out.splitlines()))
    assert {one["flops"] for one in rows} == {""}
    assert (
        "Without a known cost: 13 of 13 rows; the LLM's or encoder's shape is not known (give"
        in said.err
    )
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_settings_that_nobody_knows_have_no_cost(scores, capsys):
    text = scores.read_text()
    head, *rest = text.splitlines()
    lines = [f"{head},compressor_settings", *(f"{line},magic=3" for line in rest)]
    scores.write_text("\n".join(lines))
    with pytest.raises(SystemExit) as caught:
        cli.run(["compare", str(scores), "--format", "csv"])
    said = capsys.readouterr()
    assert not caught.value.code
    assert "Without a known cost: 13 of 13 rows" in said.err


def test_layers_that_fuse_text_count_as_the_questions(tmp_path, capsys):
    rows = [{**one, "compressor": "llava-mini"} for one in study() if one["compressor"] == "quecc"]
    path = written(tmp_path / "scores.csv", rows)
    found = {}
    for q in ("0", "10", "20"):
        with pytest.raises(SystemExit):
            cli.run(["compare", str(path), "--q", q, "--format", "csv"])
        first = next(csv.DictReader(capsys.readouterr().out.splitlines()))
        found[q] = float(first["flops_query"])
    # Four layers of a width of 1024; each text token reads 577 others, and the text before it.
    assert found["0"] == 0
    assert 2 * found["10"] < found["20"] < 2.1 * found["10"]
    assert 4 * 10 * 24 * 1024**2 < found["10"] < 4 * 10 * (24 * 1024**2 + 5 * 600 * 1024)


def test_patches_that_merge_make_the_encoder_cheaper(tmp_path, capsys):
    encoder = encoders.shape(CLIP)
    rows = [
        {**one, "compressor": name, "compressor_settings": more, "run_id": one["run_id"] + new}
        for one in study()
        if one["compressor"] == "quecc"
        for name, more, new in (
            ("avgpool", "", "a"), ("tome", "", "t"), ("tome", "reference_behaviour=true", "r")
        )
    ]  # fmt: skip
    path = written(tmp_path / "scores.csv", rows)
    with pytest.raises(SystemExit):
        cli.run(["compare", str(path), "--q", "0", "--format", "csv"])
    read = csv.DictReader(capsys.readouterr().out.splitlines())
    found = {(one["compressor"], int(one["visual_tokens"])): one for one in read}
    for (name, v), one in found.items():
        left = patches_left(576, v, 23) if name.startswith("tome") else ()
        assert float(one["flops_encoder"]) == encoder_flops(encoder, 23, left)
        assert one["flops_compressor"] == found["avgpool", v]["flops_compressor"]
    assert {name for name, _ in found} == {"avgpool", "tome", "tome (reference_behaviour=true)"}


@pytest.mark.parametrize(
    ("ms", "said", "points"),
    [(3.0, "mlp (V = 576), 3 ms", 3), (90.0, "mlp (V = 576), 90 ms", 2), (None, "(no cost)", 2)],
)
def test_a_level_has_its_cost_and_is_a_point_where_that_is_near(ms, said, points):
    cells = [("a", 1, 0.2, 10), ("a", 4, 0.3, 12), ("mlp", 576, 0.6, ms), ("c", 4, 0.1, 11)]
    rows = [
        {"task": "t", "benchmark": None, "backbone": "b", "encoder": CLIP, "compressor": name,
         "visual_tokens": v, "score": score, "chance": None, "time_ms": cost}
        for name, v, score, cost in cells
    ]  # fmt: skip
    _, right = figure.draw(rows).axes
    assert any(text.get_text().endswith(said) for text in right.texts)
    assert len(right.containers) == points
    low, high = right.get_xlim()
    assert points == 2 or low < ms < high


def test_what_stands_alone_far_off_is_a_level():
    rows = [
        {"task": "t", "benchmark": None, "backbone": "b", "encoder": CLIP, "compressor": name,
         "visual_tokens": v, "score": score, "chance": None}
        for name, v, score in (("a", 1, 0.2), ("a", 4, 0.3), ("mlp", 576, 0.6), ("c", 4, 0.1))
    ]  # fmt: skip
    [panel] = figure.panels_of(rows)
    assert [line.label for line in panel.lines] == ["mlp", "a", "c"]
    assert [panel.is_level(line) for line in panel.lines] == [True, False, False]
    drawn = figure.draw(rows)
    assert len(drawn.axes) == 1
    assert drawn.axes[0].get_xlim()[1] < 10
    many = [{**rows[0], "compressor": f"c{n}"} for n in range(figure.MOST + 1)]
    with pytest.raises(InputError, match="more than the 14"):
        figure.draw(many)
    # One compressor at one V alone.
    assert len(figure.draw(rows[:1]).axes) == 1
