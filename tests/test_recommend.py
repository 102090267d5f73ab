"""recommend: the published answer, ranking, clipping, own models and laws, refusals, speed."""

import csv
import io
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import vtc

from vtc import recommend as adviser
from vtc.catalog import llms
from vtc.catalog.llms import LLM
from vtc.catalog.measurements import PUBLISHED
from vtc.cost.flops import affordable_n_params, prefill_flops
from vtc.errors import InputError, NoAnswerError
from vtc.law.power import from_row
from vtc.recommend.laws import Mix, Part, refuse_meaningless
from vtc.recommend.units import say_of, seconds
from vtc.tables.quantity import format_count, format_flops, parse_quantity


def ask(flops=3e12, q=50.0, law="published", task=None, family="qwen1.5", tokens=None, top=5):
    row = adviser.law_row(law, task)
    tokens = tokens or adviser.default_visual_tokens(row)
    question = adviser.Question(flops, q, law, row, llms.family(family), tokens, top)
    return question, adviser.recommend(question)


def test_the_published_answer():
    question, answer = ask()
    assert answer.optimum.visual_tokens == pytest.approx(13.52, abs=0.005)
    assert answer.optimum.n_params == pytest.approx(3e12 / (2 * 63.523), rel=1e-4)
    assert (answer.optimum.low, answer.optimum.high) == pytest.approx((12.05, 15.04), abs=0.01)
    best = answer.rows[0]
    assert (best["model"], best["visual_tokens"]) == ("Qwen1.5-14B", 36)
    assert best["flops"] == 2 * 14e9 * 86
    assert best["error"] == pytest.approx(0.590771 * 14**-0.070937 * 36**-0.015102, rel=1e-5)
    assert best["error_low"] < best["error"] < best["error_high"]
    assert best["extrapolates"]
    words = " ".join(adviser.explain(question, answer))
    assert "V* = 13.5 [12.1, 15] visual tokens" in words
    assert "Deploy Qwen1.5-14B with 36 visual tokens" in words


def test_the_papers_printed_exponents():
    _, answer = ask(law="paper")
    assert answer.optimum.visual_tokens == pytest.approx(12.10, abs=0.005)
    assert answer.rows[0]["error_low"] is None
    _, answer = ask(law="paper", task="ocr")
    assert answer.optimum.visual_tokens == 576


def test_ocr_takes_all_tokens():
    question, answer = ask(task="ocr")
    assert answer.optimum.visual_tokens == 576
    assert answer.rows[0]["visual_tokens"] == 576
    assert "as many visual tokens as there are" in " ".join(adviser.explain(question, answer))


def test_no_text_takes_the_fewest_tokens_and_says_so():
    question, answer = ask(q=0)
    assert answer.optimum.visual_tokens == 1
    assert "clipped to the fewest" in " ".join(adviser.explain(question, answer))


@settings(deadline=None, max_examples=60)
@given(
    flops=st.floats(1e11, 1e15), q=st.floats(0, 1000), task=st.sampled_from(["reasoning", "ocr"])
)
def test_ranked_choices_fit_the_budget_and_none_is_better(flops, q, task):
    row = adviser.law_row("published", task)
    models, tokens = llms.family("qwen2.5"), adviser.VISUAL_TOKENS
    question = adviser.Question(flops, q, "published", row, models, tokens, 10_000)
    every = [(llm.n_params, v) for llm in models for v in tokens]
    fitting = [pair for pair in every if prefill_flops(*pair, q) <= flops]
    if not fitting:
        with pytest.raises(NoAnswerError, match="needs"):
            adviser.recommend(question)
        return
    rows = adviser.recommend(question).rows
    assert len(rows) == len(fitting)
    assert [r["error"] for r in rows] == sorted(r["error"] for r in rows)
    assert [r["rank"] for r in rows] == list(range(1, len(rows) + 1))
    law = from_row(row)
    assert rows[0]["error"] == min(law.error(*pair) for pair in fitting)
    assert all(r["flops"] <= flops and r["budget_share"] <= 1 for r in rows)
    assert rows[0]["regret"] == 0


def test_affordable_size_inverts_the_flops():
    assert prefill_flops(7e9, 14, 50) == 2 * 7e9 * 64
    assert affordable_n_params(prefill_flops(7e9, 14, 50), 14, 50) == pytest.approx(7e9)


def test_own_models_and_own_law(tmp_path):
    models = tmp_path / "llms.csv"
    models.write_text("model,family,n_params\nlab-s,lab,60000\nlab-l,lab,2000000\nx,other,5000\n")
    points = tmp_path / "points.csv"
    lines = ["task,n_params,visual_tokens,error"]
    lines += [
        f"counting,{n},{v},{0.6 * (n / 6e4) ** -0.3 * v**-0.1 + 0.1 + 0.002 * (i % 3)}"
        for i, (n, v) in enumerate(
            (n, v) for n in (60000, 200000, 600000, 2000000) for v in (1, 4, 16, 144)
        )
    ]
    points.write_text("\n".join(lines))
    law = tmp_path / "law.parquet"
    assert vtc("fit", str(points), "-o", str(law)).returncode == 0
    done = vtc("recommend", "--flops", "1e9", "--q", "8", "--law", str(law), "--models",
               str(models), "--family", "lab", "--top", "20", "--format", "json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["model"] for row in rows} == {"lab-s", "lab-l"}
    assert rows[0]["model"] == "lab-l"
    assert rows[0]["task"] == "counting"
    # 576 lies outside what this law was fitted on, so it is not among the default choices.
    assert max(row["visual_tokens"] for row in rows) == 144


def test_models_table_faults_are_named(tmp_path):
    models = tmp_path / "llms.csv"
    models.write_text("model,n_params\na,1e9\nb,\n")
    with pytest.raises(InputError, match="row 1: column 'n_params' is missing or empty"):
        adviser.read_models(str(models))
    models.write_text("model,n_params\na,-3\n")
    with pytest.raises(InputError, match="row 0: n_params is -3; it must be a positive count"):
        adviser.read_models(str(models))
    models.write_text("model,n_params_b\na,7\n")
    assert adviser.read_models(str(models)) == [LLM("a", "", 7 * 10**9)]
    with pytest.raises(InputError, match="no LLM of family 'g'; it has no family"):
        adviser.read_models(str(models), "g")
    models.write_text("model,n_params\na,7\n")
    with pytest.raises(InputError, match="row 0: n_params is 7, too few for an LLM: write 7e9"):
        adviser.read_models(str(models))
    models.write_text("model,n_params\na,7e9\na,7e9\n")
    with pytest.raises(InputError, match="row 1: model 'a' stands twice"):
        adviser.read_models(str(models))
    models.write_text("model,n_params\n")
    with pytest.raises(InputError, match="has no rows"):
        adviser.read_models(str(models))
    models.write_text("model,family,n_params\na,f,3000\n")
    with pytest.raises(InputError, match="no LLM of family 'g'; it has f"):
        adviser.read_models(str(models), "g")


def test_a_law_with_another_count_of_n_needs_that_count():
    row = adviser.law_row("published", "reasoning") | {"n_convention": "total"}
    mine = [LLM("mine", "mine", 10**9)]
    with pytest.raises(InputError, match="mine has no n_params_total"):
        adviser.recommend(adviser.Question(3e12, 50, "x", row, mine, (1, 4)))
    known = adviser.Question(3e12, 50, "x", row, llms.family("qwen1.5"), (1, 4))
    assert adviser.recommend(known).rows[0]["n_params"] == 14_167_290_880


def test_a_single_size_law_is_refused(tmp_path):
    law = tmp_path / "law.json"
    points = "n_params_b,visual_tokens,error\n1,1,.6\n1,4,.55\n1,16,.52\n1,64,.5\n1,144,.49\n"
    assert vtc("fit", "-", "-o", str(law), stdin=points).returncode == 0
    done = vtc("recommend", "--flops", "3e12", "--law", str(law))
    assert done.returncode == 2
    assert "one LLM size" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--flops", "1e9"], 3, "nothing fits 1 GFLOP at Q = 50: the smallest choice, "
         "Qwen1.5-0.5B with V = 1, needs 51 GFLOP"),
        (["--flops", "0"], 2, "above zero"),
        (["--flops", "-3e12"], 2, "above zero"),
        (["--flops", "many"], 2, "not a number"),
        (["--flops", "3e12", "--family", "gpt"], 2, "--family gpt is unknown; choose qwen1.5"),
        (["--flops", "3e12", "--law", "no.json"], 2, "--law no.json does not exist; give"),
        (["--flops", "3e12", "-o", "out.xyz"], 2, "no format has the suffix '.xyz'"),
        (["--flops", "3e12", "-o", "."], 2, ". is a folder"),
        (["--flops", "3e12", "-o", ""], 2, "-o is empty"),
        (["--flops", "3e12", "--law", "-", "--models", "-"], 2, "cannot both be stdin"),
        (["--flops", "3e12", "--task", "chess"], 2, "no law of task 'chess'"),
        (["--flops", "3e12", "--visual-tokens", "0,4"], 2, "at least 1"),
        (["--flops", "3e12", "--law", str(PUBLISHED)], 2, "`vtc fit` makes a law of a table"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, code, message):
    done = vtc("recommend", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


RISING = "n_params_b,visual_tokens,error\n1,1,.3\n1,4,.4\n4,1,.5\n4,4,.6\n8,4,.7\n"


@pytest.mark.parametrize("budget", [("--flops", "3T"), ("--gpu", "rtx4090", "--latency", "1s")])
def test_a_law_by_which_larger_llms_err_more_chooses_none(budget):
    law = vtc("fit", "-", "--format", "json", stdin=RISING).stdout
    done = vtc("recommend", *budget, "--law", "-", "--format", "csv", stdin=law)
    assert (done.returncode, done.stdout) == (3, "")
    assert "law stdin cannot choose an LLM" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    # V alone may be chosen, for one LLM.
    one = vtc("recommend", *budget, "--law", "-", "--llm", "Qwen1.5-7B", "--format", "csv",
              stdin=law)  # fmt: skip
    assert one.returncode == 0
    assert "Law stdin, all" in one.stderr
    assert "a larger LLM did not lower the error" in one.stderr
    assert "more visual tokens did not lower the error: the fewest are taken" in one.stderr
    assert "with 1 visual token" in one.stderr
    assert {row["law"] for row in csv.DictReader(io.StringIO(one.stdout))} == {"stdin"}


def test_a_task_of_the_mix_that_larger_llms_serve_may_choose():
    row = adviser.law_row("published", "reasoning")
    good = Part("a", 0.5, row, from_row(row))
    bad = Part("b", 0.5, {**row, "alpha": -0.1, "task": "b"}, good.law)
    refuse_meaningless(Mix("x", (good, bad)), [1, 2])
    refuse_meaningless(Mix("x", (bad,)), [1, 1])
    with pytest.raises(NoAnswerError, match=r"alpha: b -0\.1"):
        refuse_meaningless(Mix("x", (Part("b", 1.0, bad.row, bad.law),)), [1, 2])


def test_own_models_without_a_family_are_named(tmp_path):
    models = tmp_path / "llms.csv"
    models.write_text("model,n_params\na,7e9\n")
    done = vtc("recommend", "--flops", "3e12", "--models", str(models))
    assert "fitted on qwen1.5; for your LLMs trust the order" in done.stderr


def test_formats_of_the_command(tmp_path):
    done = vtc("recommend", "--flops", "3T", "--format", "csv", "--top", "3")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    table = vtc("recommend", "--flops", "3TFLOP", "--family", "qwen3")
    assert "Qwen3-14B" in table.stdout
    assert "trust the order more than the errors" in table.stderr
    out = tmp_path / "r.parquet"
    assert vtc("recommend", "--flops", "3T", "-o", str(out)).returncode == 0
    assert out.stat().st_size > 0
    again = vtc("recommend", "--flops", "3T", "-o", str(out))
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_the_answer_loads_nothing_heavy():
    code = (
        "import sys; from vtc.cli import main; "
        "main(['recommend', '--flops', '3e12'], standalone_mode=False); "
        "heavy = {'numpy', 'scipy', 'torch', 'pandas', 'pyarrow', 'transformers', 'matplotlib'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e12", 3e12), ("3T", 3e12), ("3TFLOP", 3e12), ("3 TFLOPs", 3e12), ("7b", 7e9),
     ("0.5b", 5e8), ("494M", 494e6), (" 12 ", 12), ("3_000", 3000), (".5", 0.5)],
)  # fmt: skip
def test_quantities(text, value):
    assert parse_quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "b", "3x", "1e", "nan", "inf", "3 7", "1e999"])
def test_bad_quantities(text):
    with pytest.raises(ValueError, match=r"number|large"):
        parse_quantity(text)


@given(st.floats(1, 9e17))
def test_short_counts_read_back(count):
    assert parse_quantity(format_count(count)) == pytest.approx(count, rel=0.006)
    assert format_flops(3e12) == "3 TFLOP"
    assert format_flops(12) == "12 FLOP"


def test_costs_read_as_a_person_writes_them():
    assert say_of("cost", 1.44e-5, 2e-5) == "$0.0144 of $0.02 for 1000 images"
    assert say_of("latency", 0.0294, 0.03) == "29.4 ms of 30 ms"
    assert seconds(10_940) == "10900 s"
    assert format_flops(1e300) == "1e+300 FLOP"
