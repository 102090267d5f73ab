"""Points from tables of several shapes, hold-outs, and the whole of `estimate`."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_design import law

from vtc.catalog.measurements import PUBLISHED
from vtc.errors import InputError, NoAnswerError, VtcError
from vtc.law import holdout
from vtc.law.estimate import Settings, estimate
from vtc.law.points import read_points
from vtc.law.run import Request, fit_table, parse_exponents
from vtc.law.sentences import describe
from vtc.tables import specs
from vtc.tables.read import read_rows
from vtc.tables.write import write_rows

ROWS = [
    {"n_params": n, "visual_tokens": v, "error": e}
    for (n, v), e in zip(
        [(n, v) for n in (5e8, 18e8, 4e9, 7e9) for v in (1, 4, 16, 36, 64, 144, 576)],
        law(0.5, 0.3, 0.1, 0.1),
        strict=True,
    )
]


def test_forms_of_a_table_give_the_same_points():
    [plain] = read_points(ROWS, "t")
    billions = [
        {"n_params_b": r["n_params"] / 1e9, "visual_tokens": str(r["visual_tokens"]),
         "score": 1 - r["error"]}
        for r in ROWS
    ]  # fmt: skip
    [other] = read_points(billions, "t")
    assert [p[:2] for p in plain.points] == [p[:2] for p in other.points]
    assert np.allclose([p.error for p in plain.points], [p.error for p in other.points])
    assert plain.task == "all"


def test_benchmarks_of_a_run_are_averaged():
    rows = [
        {**row, "run_id": f"r{index}", "benchmark": name, "task": "ocr", "error": row["error"] + e}
        for index, row in enumerate(ROWS)
        for name, e in (("a", -0.05), ("b", 0.05))
    ]
    [points] = read_points(rows, "t")
    assert len(points.points) == len(ROWS)
    assert points.points[3].error == pytest.approx(ROWS[3]["error"])
    with pytest.raises(InputError, match="run r0 has no row of benchmark 'b'"):
        read_points([rows[0], *rows[2:]], "t")
    with pytest.raises(InputError, match="row 1: run r0 has a twice"):
        read_points([rows[0], rows[0], *rows[1:]], "t")


def test_benchmarks_without_a_runs_name_ask_for_it():
    rows = [{**row, "task": "r", "benchmark": "ab"[i % 2]} for i, row in enumerate(ROWS)]
    with pytest.raises(InputError, match="add run_id, or take --by benchmark"):
        read_points(rows, "t")


def test_suspect_rows_are_counted_or_dropped():
    rows = read_rows(PUBLISHED).rows
    kept = {p.task: p for p in read_points(rows, "t")}
    dropped = {p.task: p for p in read_points(rows, "t", drop_suspect=True)}
    assert (len(kept["ocr"].points), kept["ocr"].n_suspect) == (28, 2)
    assert (len(dropped["ocr"].points), dropped["ocr"].n_dropped) == (26, 2)
    assert kept["ocr"].families == ("qwen1.5",)
    assert kept["reasoning"].points == dropped["reasoning"].points


def test_conventions_of_n_move_the_ratio_as_published():
    rows = read_rows(PUBLISHED).rows
    ratios = {}
    for convention in ("nominal", "total", "non-embedding"):
        [points] = read_points(rows, "t", tasks=("reasoning",), convention=convention)
        ratios[convention] = estimate(points, Settings(n_draws=0))["ratio"]
    assert ratios["nominal"] == pytest.approx(4.70, abs=0.005)
    assert ratios["total"] == pytest.approx(4.45, abs=0.01)
    assert ratios["non-embedding"] == pytest.approx(4.10, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": "nan"}, "row 2, column 'error': nan is not a finite number"),
        ({"error": -0.1}, "row 2: error is -0.1; it is a share between 0 and 1"),
        ({"error": 45}, "row 2: error is 45; it is a share between 0 and 1; divide percentages"),
        ({"error": None, "score": 55}, "row 2: score is 55; it is a share between 0 and 1"),
        ({"error": 0.5, "score": 0.6}, "row 2: error 0.5 and score 0.6 do not add up to 1"),
        ({"n_params": 7}, "row 2: n_params is 7, too few for an LLM: write 7e9"),
        ({"n_params": "7b"}, r"row 2, column 'n_params': '7b' is not a number; write 7e\+09"),
        ({"n_params": None, "n_params_b": 7e9}, "row 2: n_params_b is 7e.09 billions"),
        ({"n_params_b": 100}, "row 2: n_params and n_params_b disagree"),
        ({"task": "ocr"}, "row 0: column 'task' is empty; other rows name one"),
        ({"error": "abc"}, "row 2, column 'error': 'abc' is not a number"),
        ({"error": None}, "row 2: needs a column 'error' or 'score'"),
        ({"visual_tokens": 0}, "row 2: visual_tokens 0 is not a whole number"),
        ({"visual_tokens": "1e300"}, "row 2: visual_tokens 1e.300 is more than any LLM reads"),
        ({"n_params": 0.5}, "row 2: n_params is 0.5; .* name the column n_params_b"),
        ({"visual_tokens": 2.5}, "row 2: visual_tokens 2.5 is not a whole number"),
        ({"n_params": -1}, "row 2: n_params is -1; it must be a positive count"),
        ({"n_params": None}, "row 2: needs a column 'n_params' or 'n_params_b'"),
    ],
)
def test_bad_cells_are_named(change, message):
    rows = [{**row, **(change if index == 2 else {})} for index, row in enumerate(ROWS)]
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        read_points(rows, "t")


def test_missing_columns_tasks_and_points_are_named():
    with pytest.raises(InputError, match="t has no column 'visual_tokens'; it has a"):
        read_points([{"a": 1}], "t")
    with pytest.raises(InputError, match="t has no column 'error' or 'score'"):
        read_points([{"visual_tokens": 1, "n_params": 1}], "t")
    with pytest.raises(InputError, match="3 points"):
        read_points(ROWS[:3], "t")
    with pytest.raises(InputError, match="no rows of task 'ocr'; it has reasoning"):
        read_points([{**row, "task": "reasoning"} for row in ROWS], "t", tasks=("ocr",))


def _estimate(rows, **settings):
    [points] = read_points(rows, "t")
    return estimate(points, Settings(n_draws=20, **settings))


def test_an_exact_law_is_recovered_and_fills_the_law_table():
    row = _estimate(ROWS)
    assert row["alpha"] == pytest.approx(0.3, rel=1e-5)
    assert row["beta"] == pytest.approx(0.1, rel=1e-5)
    assert row["ratio"] == pytest.approx(3.0, rel=1e-5)
    assert row["v_star"] == pytest.approx(25.0, rel=1e-4)
    assert row["flags"] == []
    assert specs.LAW.complete(row)["n_params_max"] == 7_000_000_000


def test_one_size_has_no_alpha():
    row = _estimate([r for r in ROWS if r["n_params"] == 4e9])
    assert row["alpha"] is None
    assert row["ratio"] is None
    assert "single_size" in row["flags"]
    assert row["beta"] == pytest.approx(0.1, rel=1e-4)
    assert "One LLM size only (4B)" in " ".join(describe(row))


def test_points_that_cannot_tell_a_law_are_refused():
    with pytest.raises(NoAnswerError, match="every point has 16 visual tokens"):
        _estimate([r for r in ROWS if r["visual_tokens"] == 16])
    with pytest.raises(NoAnswerError, match=r"same error 0\.5"):
        _estimate([{**row, "error": 0.5} for row in ROWS])
    with pytest.raises(NoAnswerError, match="move together"):
        _estimate([{"n_params": 10**6 * 2**i, "visual_tokens": 2**i, "error": 1 / (i + 2)}
                   for i in range(6)])  # fmt: skip


def test_published_law_is_said_not_to_identify_the_exponents():
    [(row, _)] = fit_table(Request(str(PUBLISHED), tasks=("reasoning",)))
    assert {"d_at_bound", "weakly_identified_exponents"} <= set(row["flags"])
    assert row["aicc"] == pytest.approx(-301.1, abs=0.06)
    words = " ".join(describe(row))
    assert "alpha/beta = 4.7 [4.32, 5.15]" in words
    assert "alpha and beta are not identified one by one" in words


def test_an_interval_holds_its_estimate():
    # Errors that fall by .1 with every fourfold N and V: a law with D below zero, of ratio 1.
    points = [(1, 1, 0.6), (1, 4, 0.5), (4, 1, 0.5), (4, 4, 0.4), (8, 4, 0.35)]
    row = _estimate([{"n_params_b": n, "visual_tokens": v, "error": e} for n, v, e in points])
    assert row["d"] == 0
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["v_star_low"] <= row["v_star"]


def test_an_exponent_of_rounding_errors_is_zero():
    points = [(1, 1, 0.6), (1, 4, 0.4), (4, 1, 0.6), (4, 4, 0.4), (8, 4, 0.4)]
    row = _estimate([{"n_params_b": n, "visual_tokens": v, "error": e} for n, v, e in points])
    assert (row["alpha"], row["ratio"]) == (0, None)
    assert "a larger LLM did not lower the error" in " ".join(describe(row))


def test_fixed_exponents_of_the_wrong_sign_are_refused():
    [points] = read_points([{**row, "error": 1 - row["error"]} for row in ROWS], "t")
    with pytest.raises(NoAnswerError, match="errors grow with N and V"):
        estimate(points, Settings(exponents=(0.3, 0.1)))


def test_beta_above_alpha_asks_for_all_tokens():
    rows = [{**row, "error": e} for row, e in zip(ROWS, law(0.5, 0.1, 0.3, 0.1), strict=True)]
    row = _estimate(rows)
    assert row["v_star"] is None
    assert row["p_alpha_larger"] == 0
    assert "as many visual tokens as possible" in " ".join(describe(row))


def test_wrong_signs_are_reported_not_hidden():
    rows = [{**row, "error": e} for row, e in zip(ROWS, law(0.3, 0.1, -0.02, 0), strict=True)]
    row = _estimate(rows)
    assert row["beta"] == pytest.approx(-0.02, rel=1e-3)
    assert row["ratio"] is None
    assert "more visual tokens did not lower the error" in " ".join(describe(row))


def test_holdout_predicts_the_published_7b_points():
    request = Request(str(PUBLISHED), tasks=("reasoning",), holdout="n_params>=7b")
    [(row, _)] = fit_table(request)
    assert row["holdout_points"] == 7
    assert row["n_params_max"] == 4_000_000_000
    assert row["holdout_rmse"] == pytest.approx(0.0027, abs=5e-5)
    assert 0 < row["holdout_mape"] < row["holdout_max_ape"] < 0.02


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("n>3", "write n_params or visual_tokens"),
        ("n_params>=many", "write n_params or visual_tokens"),
        ("n_params>=70b", "matches no point"),
        ("n_params>0", "leaves 0 points"),
    ],
)
def test_bad_holdouts_are_refused(condition, message):
    [points] = read_points(ROWS, "t")
    with pytest.raises(InputError, match=message):
        holdout.split(points, condition)


def test_holding_out_every_other_size_needs_an_alpha():
    request_rows = [r for r in ROWS if r["n_params"] in (4e9, 7e9)]
    [points] = read_points(request_rows, "t")
    kept, out = holdout.split(points, "n_params>=7b")
    with pytest.raises(InputError, match="no alpha"):
        holdout.assess(estimate(kept, Settings()), out, "n_params>=7b")


def test_exponents_text():
    assert parse_exponents(".077/.015") == (0.077, 0.015)
    assert parse_exponents(None) is None
    with pytest.raises(InputError, match="write alpha/beta"):
        parse_exponents("0.3")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_a_law_survives_its_file(tmp_path, suffix):
    row = _estimate([{**r, "error": r["error"] + 1e-3 * (i % 3)} for i, r in enumerate(ROWS)])
    path = tmp_path / f"law.{suffix}"
    write_rows([row], specs.LAW, path)
    [back] = read_rows(path, specs.LAW).rows
    assert json.loads(json.dumps(back)) == json.loads(json.dumps(specs.LAW.complete(row)))


def test_equal_data_have_equal_hashes_in_any_order():
    [points], [other] = read_points(ROWS, "t"), read_points(ROWS[::-1], "t")
    assert points.sha() == other.sha()
    assert points.sha() != other.subset(other.points[1:]).sha()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([10**4, 10**6, 5 * 10**8, 7 * 10**9, 10**12]),
            st.sampled_from([1, 4, 16, 144, 576]),
            st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]),
        ),
        max_size=25,
    )
)
def test_any_points_give_a_finite_law_or_a_sentence(points):
    rows = [{"n_params": n, "visual_tokens": v, "error": e} for n, v, e in points]
    try:
        row = _estimate(rows)
    except VtcError:
        return
    json.dumps(row, allow_nan=False)
    assert 0 <= row["d"] < 1
    assert row["k"] > 0
    spread = sum((p["error"] - np.mean([r["error"] for r in rows])) ** 2 for p in rows)
    assert row["sse"] <= spread * (1 + 1e-9)
    assert describe(row)
