"""Several tables fitted as one: what they hold together, and what is refused."""

import json

import pytest
from shell import vtc

from vtc.errors import InputError
from vtc.law.run import Request, fit_table
from vtc.law.several import join, read_tables

CELLS = [(n, v) for n in (1, 2, 4) for v in (1, 4, 16, 64)]


def row(n, v, index, **more):
    error = 0.5 * n**-0.3 * v**-0.1 + 0.1 + 0.001 * (index % 3)
    about = {"run_id": f"r{n}-{v}", "backbone": f"llm-{n}", "task": "reasoning", "benchmark": "b"}
    return {**about, "n_params": n * 10**9, "visual_tokens": v, "error": error, **more}


ROWS = [row(n, v, index) for index, (n, v) in enumerate(CELLS)]


@pytest.fixture
def tables(tmp_path):
    """A table a size of LLM, in three formats, and all of them in one."""
    names = {"whole.jsonl": ROWS, "a.jsonl": ROWS[:4], "b.json": ROWS[4:8], "c.csv": ROWS[8:]}
    for name, rows in names.items():
        text = "\n".join(map(json.dumps, rows))
        if name == "b.json":
            text = json.dumps(rows)
        elif name == "c.csv":
            lines = [",".join(map(str, one.values())) for one in rows]
            text = "\n".join([",".join(rows[0]), *lines])
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in names]


def test_several_tables_are_one(tables):
    whole, *parts = tables
    one, many = (
        fit_table(Request(names[0], more=tuple(names[1:]), n_draws=20))
        for names in ([whole], parts)
    )
    assert many == one


def test_a_row_is_named_by_its_own_table(tables):
    rows = [dict(one) for one in ROWS[4:8]]
    rows[2]["error"] = 50
    found = join({"first.csv": ROWS[:4], "second.csv": rows})
    from vtc.law.points import read_points

    with pytest.raises(InputError, match=r"second\.csv, row 2: error is 50; .* divide percentages"):
        read_points(found, "both")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"second, row 0: run r1-1 at V = 1 is in first, row 0 too; give each run once"),
        (
            {"run_id": "new", "n_params": 1_100_000_000},
            r"second, row 0: n_params of llm-1 is 1100000000, in first, row 0 it is 1000000000",
        ),
        (
            {"run_id": "new", "n_params_total": 5},
            None,
        ),
        ({"run_id": "new"}, None),
        ({"run_id": "r1-1", "visual_tokens": 9}, None),
        ({"run_id": "r1-1", "benchmark": "other"}, None),
    ],
)
def test_one_run_twice_and_two_counts_of_n_are_refused(change, message):
    second = [{**ROWS[0], **change}]
    if message is None:
        assert len(join({"first": ROWS, "second": second})) == len(ROWS) + 1
        return
    with pytest.raises(InputError, match=message):
        join({"first": ROWS, "second": second})


BARE = [{"n_params_b": 7, "visual_tokens": v, "error": 0.4 - v / 1000} for v in (1, 4, 16, 64)]


def test_a_copy_of_a_table_is_no_replicate(tmp_path):
    first, other = tmp_path / "first.json", tmp_path / "other.csv"
    first.write_text(json.dumps(BARE))
    lines = [",".join([*map(str, one.values()), "copied"]) for one in BARE]
    other.write_text("\n".join(["n_params_b,visual_tokens,error,note", *lines]))
    with pytest.raises(InputError, match=r"other\.csv, row 0 is .*first\.json, row 0 again"):
        read_tables([str(first), str(other)])


@pytest.mark.parametrize("apart", [{"seed": 1}, {"error": 0.3991}, {"compressor": "mlp"}])
def test_a_row_twice_in_one_table_is_refused_unless_something_tells_it_apart(tmp_path, apart):
    table = tmp_path / "points.json"
    table.write_text(json.dumps([*BARE, BARE[0]]))
    with pytest.raises(InputError, match=r"row 4 is .*row 0 again, .* leave it out, or tell"):
        read_tables([str(table)])
    table.write_text(json.dumps([*BARE, {**BARE[0], **apart}]))
    assert len(read_tables([str(table)])) == 5


def test_a_table_given_twice_is_refused(tables, tmp_path):
    (tmp_path / "sub").mkdir()
    again = str(tmp_path / "sub" / ".." / "a.jsonl")
    with pytest.raises(InputError, match="is given twice"):
        read_tables([tables[1], again])


def test_the_command_takes_several(tables, tmp_path):
    out = tmp_path / "law.parquet"
    done = vtc("fit", *tables[1:], "-o", out, "--draws", 20)
    assert done.returncode == 0, done.stderr
    assert "over 12 points of 3 LLM sizes" in done.stderr
    from vtc.tables import specs
    from vtc.tables.read import read_rows

    footer = read_rows(out, specs.LAW).footer
    assert [one["path"] for one in footer["inputs"]] == tables[1:]


def test_predictions_beside_scores_are_refused(tables, tmp_path):
    answers = tmp_path / "answers.csv"
    answers.write_text("item_id,prediction\n1,yes\n")
    done = vtc("fit", tables[1], answers)
    assert (done.returncode, done.stdout) == (2, "")
    assert "answers.csv holds predictions" in done.stderr
    assert len(done.stderr.splitlines()) == 1
