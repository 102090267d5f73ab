"""vtc plan through its command line: points in, plan out, one line for what cannot be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from shell import vtc

from vtc.catalog.measurements import PUBLISHED
from vtc.cli import main
from vtc.commands.estimate import jobs_of
from vtc.cost.job import flops
from vtc.cost.recipe import read_recipes
from vtc.errors import VtcError
from vtc.tables import specs
from vtc.tables.read import read_rows

RECIPE = str(Path(__file__).parents[1] / "recipes/paper/full.toml")
SMALL = ("--sizes", "0.36b,0.5b", "--budget-gpu-hours", "12")


def plan(*arguments, stdin=None):
    """Rows and words of a plan, in this process; a failure as it is raised."""
    done = CliRunner().invoke(main, ["plan", *arguments, "--format", "json"], input=stdin)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_without_a_table_it_plans_upon_the_published_points():
    done = vtc("plan", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Stop: wherever alpha/beta lies in [3.856, 5.773]" in done.stderr
    heading, first = (line.split() for line in done.stdout.splitlines()[:2])
    assert heading[:5] == ["step", "LLM", "V", "run", "hours"]
    assert first[0] == "1"


def test_a_plan_is_a_table_with_a_footer(tmp_path):
    out = tmp_path / "plan.parquet"
    done = vtc("plan", str(PUBLISHED), *SMALL, "--goal", "vstar", "-o", str(out))
    assert done.returncode == 0, done.stderr
    read = read_rows(out, specs.PLAN)
    assert {row["goal"] for row in read.rows} == {"vstar"}
    assert read.footer["settings"]["goal"] == "vstar"
    assert read.footer["inputs"][0]["path"] == str(PUBLISHED)
    again = vtc("plan", *SMALL, "-o", str(out))
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_points_from_stdin_and_runs_from_a_table(tmp_path):
    table = tmp_path / "runs.csv"
    table.write_text(
        "llm,visual_tokens,seeds,gpu_hours,compressor\n"
        "0.36b,64,2,1.5,\nQwen1.5-14B,16,,,\n0.5b,4,,2,avgpool\n"
    )
    text = PUBLISHED.read_text(encoding="utf-8")
    found, words = plan("-", "--candidates", str(table), "--each", stdin=text)
    assert [row["gpu_hours"] for row in found if row["llm"] == "360M"] == [1.5]
    assert next(row for row in found if row["llm"] == "Qwen1.5-14B")["flops"] > 1e19
    assert "3 candidate runs, rated one by one." in words
    twice, _ = plan("--candidates", str(table), "--budget-gpu-hours", "4")
    assert [row["replicate"] for row in twice if row["llm"] == "360M"] == [1, 2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("llm,visual_tokens\n0.36b,1\n360m,1\n", "row 1: the same run stands in row 0"),
        ("llm,visual_tokens\n0.36b,1.5\n", "visual_tokens is 1.5; it must be a whole number"),
        ("llm,visual_tokens\n0.36b,\n", "column 'visual_tokens' is missing or empty"),
        ("llm,visual_tokens\nnobody,4\n", "'nobody' is no size such as 0.36b"),
        ("llm,n_params_b,visual_tokens\nQwen1.5-4B,7,1\n", "n_params_b and llm disagree"),
        ("llm,visual_tokens,gpu_hours\n0.36b,1,-2\n", "gpu_hours is -2; it must be above zero"),
        ("llm,visual_tokens,gpu_hours\n0.36b,1,nan\n", "not a finite number"),
        ("n_params,visual_tokens\n7,1\n", "too few for an LLM: write 7e9"),
        ("llm\n0.36b\n", "needs columns visual_tokens and llm"),
        ("llm,visual_tokens\n", "has no rows"),
        ("llm,visual_tokens\n0.36b,900\n", "V = 900 cannot be of openai/clip"),
    ],
)
def test_tables_of_runs_that_are_none(tmp_path, rows, message):
    table = tmp_path / "runs.csv"
    table.write_text(rows)
    with pytest.raises(VtcError) as raised:
        plan("--candidates", str(table))
    assert message in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--goal", "speed"], 2, "--goal speed is unknown"),
        (["--goal", "predict:N=14b"], 2, "write predict:N=14b,V=16"),
        (["--forms", "power,cubic"], 2, "--forms power,cubic: name two of power"),
        (["--budget-gpu-hours", "1"], 3, "needs 2.5 GPU-hours"),
        (["--sizes", "500m,0.5b"], 2, "names the same LLM twice"),
        (["--n", "total", "--sizes", "0.5b"], 2, "the points count N as total (464M)"),
        (["--tokens", "1000"], 2, "choose from 1 to 576"),
        (
            ["--compressors", "tokenpacker", "--tokens", "7"],
            2,
            "with tokenpacker; choose from 1, 4",
        ),
        (["--goal", "vstar", "--q", "0"], 2, "without text V* is 0"),
        (["--compressors", "fastv"], 2, "fastv drops tokens inside the LLM"),
        (["--compressors", "divprune"], 2, "divprune needs no training"),
        (["--compressors", "avgpol"], 2, "no compressor is named 'avgpol'"),
        ([str(PUBLISHED), str(PUBLISHED)], 2, "is given twice"),
        (["--sizes", "4b", "--candidates", "runs.csv"], 2, "--candidates and --sizes exclude"),
        (["--recipe", RECIPE, "--sizes", "0.36b"], 2, "360M is a size alone: name an LLM"),
        (["--recipe", RECIPE, "--samples", "1,2"], 2, "--samples and --recipe exclude"),
        (["--calibrate", "7b=3"], 2, "--calibrate 7b=3: write LLM:V=HOURS"),
        (["--law", "paper"], 2, "made by fixed-exponents and has no intervals"),
        (["--law", "published", "--n", "total"], 2, "counts N as nominal, not total"),
        (["--law", "published", "--level", "0.9"], 2, "has intervals at 0.95"),
        (["--gpu", "abacus"], 2, "--gpu abacus is unknown"),
        (["-", "--candidates", "-"], 2, "TABLE and --candidates cannot both be stdin"),
        (["--run-sd", "nan"], 2, "not a finite number"),
        (["nobody.csv"], 2, "nobody.csv does not exist"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, code, message):
    done = CliRunner().invoke(main, ["plan", *arguments], input="")
    assert done.stdout == ""
    if isinstance(done.exception, VtcError):
        assert (done.exception.exit_code, str(done.exception).count("\n")) == (code, 0)
        assert message in str(done.exception)
    else:
        assert done.exit_code == code
        assert message in done.stderr


def test_a_law_and_points_in_conflict(tmp_path):
    lines = PUBLISHED.read_text(encoding="utf-8").splitlines(keepends=True)
    table = tmp_path / "points.csv"
    table.write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(VtcError, match="fitted to 28 points of task reasoning that are not those"):
        plan(str(table), "--law", "published")


def test_a_law_leads_to_the_points_it_was_fitted_to(tmp_path):
    law, table = tmp_path / "law.parquet", tmp_path / "points.csv"
    table.write_text(PUBLISHED.read_text(encoding="utf-8"))
    CliRunner().invoke(
        main,
        ["fit", str(table), "--drop-suspect", "--holdout", "n_params>=7b", "--level", "0.9",
         "-o", str(law)],
    )  # fmt: skip
    found, words = plan("--law", str(law), *SMALL)
    assert "reasoning: 21 runs of 3 LLM sizes" in words
    assert {row["level"] for row in found} == {0.9}
    direct, _ = plan("--law", str(law), str(table), *SMALL)
    assert direct == found
    table.unlink()
    with pytest.raises(VtcError, match="does not say where its points are"):
        plan("--law", str(law), *SMALL)


def test_hours_of_a_recipe_are_those_of_estimate():
    found, words = plan("--recipe", RECIPE, "--sizes", "0.5b", "--tokens", "4,576", "--each")
    wanted = {}
    for stage in read_recipes([RECIPE]):
        if "0.5B" not in stage.llm:
            continue
        for job in jobs_of(replace(stage, visual_tokens=(4, 576))):
            v = job.parts.visual_tokens
            # Beside others in one process each bears its share of the encoder; alone, all of it.
            whole, encoder = flops(job)
            share = encoder * len(job.beside)
            wanted[v] = wanted.get(v, 0) + whole + share
    for row in found:
        assert row["flops"] == pytest.approx(wanted[row["visual_tokens"]], rel=1e-9)
    assert f"exact FLOPs of {RECIPE}" in words


def test_a_recipe_leaves_out_what_its_gpu_does_not_hold():
    recipe = ("--recipe", RECIPE, "--gpu", "rtx4090", "--tokens", "1")
    found, words = plan(*recipe, "--sizes", "0.5b,7b", "--each")
    assert [row["llm"] for row in found] == ["Qwen1.5-0.5B"]
    assert "not one row fits a rtx4090 as the recipe trains them: Qwen1.5-7B (1 run)" in words
    with pytest.raises(VtcError, match=r"not one row of Qwen1\.5-7B fits") as raised:
        plan(*recipe, "--sizes", "7b")
    assert raised.value.exit_code == 3


def test_hours_follow_a_run_that_was_timed():
    plain, _ = plan("--each", "--sizes", "0.5b", "--budget-gpu-hours", "50")
    timed, words = plan("--each", "--sizes", "0.5b", "--budget-gpu-hours", "50",
                        "--calibrate", "7b:576=108")  # fmt: skip
    scale = {round(b["gpu_hours"] / a["gpu_hours"], 9) for a, b in zip(plain, timed, strict=True)}
    assert len(scale) == 1
    assert scale.pop() == pytest.approx(1.29, abs=0.01)
    assert "--calibrate 7b:576=108" in words


def test_the_other_task_has_a_plan_of_its_own():
    found, words = plan("--task", "ocr", "--drop-suspect", "--budget-gpu-hours", "15")
    assert {row["task"] for row in found} == {"ocr"}
    assert "Worst-case regret: the best V may waste" in words
    assert "Stop" not in words
