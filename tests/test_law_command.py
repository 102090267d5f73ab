"""vtc fit through its command line: formats, stdin, exit codes, nothing heavy or half-written."""

import json
import subprocess
import sys

import pytest
from shell import vtc

from vtc.catalog.measurements import PUBLISHED
from vtc.tables import specs
from vtc.tables.read import read_rows

POINTS = "n_params_b,visual_tokens,error\n" + "\n".join(
    f"{n},{v},{0.5 * n**-0.3 * v**-0.1 + 0.1 + 0.001 * (i % 3)}"
    for i, (n, v) in enumerate((n, v) for n in (1, 2, 4) for v in (1, 4, 16, 64))
)


def fit(*arguments, stdin=None):
    return vtc("fit", *arguments, stdin=stdin or "")


def test_both_published_tasks_to_parquet(tmp_path):
    out = tmp_path / "law.parquet"
    done = fit(str(PUBLISHED), "--drop-suspect", "-o", str(out))
    assert done.returncode == 0, done.stderr
    read = read_rows(out, specs.LAW)
    assert [row["task"] for row in read.rows] == ["reasoning", "ocr"]
    assert read.footer["settings"]["drop_suspect"] is True
    assert read.footer["inputs"][0]["sha256"]
    assert "best V at Q = 50: 13.5 [12.1, 15] visual tokens" in done.stderr


def test_stdin_to_stdout_in_pipes():
    done = fit("-", "--format", "json", "--level", "0.9", "--q", "8", stdin=POINTS)
    [row] = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["level"] == 0.9
    assert row["text_tokens"] == 8
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["v_star"] == pytest.approx(8 / (row["ratio"] - 1))


def test_equal_seeds_give_equal_laws():
    runs = [fit("-", "--format", "json", "--seed", seed, stdin=POINTS).stdout for seed in "001"]
    assert runs[0] == runs[1]
    first, other = json.loads(runs[0]), json.loads(runs[2])
    assert first["alpha"] == other["alpha"]
    assert first["draw_alpha"] != other["draw_alpha"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["no.csv"], None, 2, "no.csv does not exist"),
        (["-"], "", 2, "stdin is empty"),
        (["-"], "a,b\n1,2\n", 2, "no column 'visual_tokens'; it has a, b"),
        (["-"], POINTS.replace("4,16,", "4,16,nan#"), 2, "row 10, column 'error'"),
        (["-"], "\n".join(POINTS.splitlines()[:4]), 2, "3 points"),
        (["-"], '[{"n_params": 1, }]', 2, "row 0: broken JSON"),
        (["-"], "PAR1" + "x" * 40, 2, "damaged or truncated Parquet"),
        (["-"], "n_params,visual_tokens,error\n" + "1e9,4,.5\n2e9,4,.4\n3e9,4,.3\n4e9,4,.2\n", 3,
         "every point has 4 visual tokens"),
        (["-", "--holdout", "n>2"], POINTS, 2, "as in 'n_params>=7b'"),
        (["-", "--exponents", "3"], POINTS, 2, "write alpha/beta"),
        (["-", "--exponents", "0/0"], POINTS, 2, "both must be above zero"),
        (["-", "--exponents", "nan/1"], POINTS, 2, "both must be above zero"),
        (["-", "--exponents", ".1/.1", "--method", "paper-grid"], POINTS, 2, "exclude each other"),
        (["-", "--level", "1.5"], POINTS, 2, "--level"),
        (["-", "--level", "nan"], POINTS, 2, "'nan' is not a finite number"),
        (["-", "--seed", "-1"], POINTS, 2, "--seed"),
        (["-"], "n_params_b;visual_tokens;error\n1;1;.5\n", 2, "separated by ';'"),
        (["-"], "n_params_b,visual_tokens,error\n", 2, "stdin has no rows"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, arguments, stdin, code, message):
    out = tmp_path / "law.json"
    done = fit(*arguments, "-o", str(out), stdin=stdin)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_another_table_is_refused_by_name(tmp_path):
    law = tmp_path / "law.parquet"
    assert fit("-", "-o", str(law), stdin=POINTS).returncode == 0
    done = fit(str(law))
    assert (done.returncode, done.stdout) == (2, "")
    assert "need a scores table or bare points, found table law" in done.stderr


def test_an_existing_output_is_kept(tmp_path):
    out = tmp_path / "law.json"
    out.write_text("mine")
    done = fit("-", "-o", str(out), stdin=POINTS)
    assert done.returncode == 2
    assert "exists" in done.stderr
    assert out.read_text() == "mine"


def test_fit_loads_no_scipy_torch_or_pandas():
    code = (
        "import sys; from vtc.cli import main; "
        f"main(['-q', 'fit', {str(PUBLISHED)!r}], standalone_mode=False); "
        "heavy = {'scipy', 'torch', 'pandas', 'pyarrow', 'transformers', 'matplotlib'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
