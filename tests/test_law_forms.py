"""Forms of the law: recovery, global optima, ranking, ties, and `vtc fit --form`."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_design import LOG_N, LOG_V, law, published
from shell import vtc

from vtc.catalog.measurements import PUBLISHED
from vtc.commands.fit import FORMS as OFFERED
from vtc.errors import InputError, NoAnswerError
from vtc.law import sentences
from vtc.law.compare import Interest, certificate, compare, describe, parse_at
from vtc.law.estimate import Settings, estimate
from vtc.law.forms import FORMS
from vtc.law.points import Point, Points, read_points
from vtc.law.varpro import fit_many
from vtc.tables.read import read_rows

TRUTHS = {
    "power": st.tuples(
        st.floats(0.2, 0.6), st.floats(0.15, 0.6), st.floats(0.1, 0.4), st.floats(0.05, 0.3)
    ),
    "power-d0": st.tuples(st.floats(0.2, 0.6), st.floats(0.05, 0.5), st.floats(0.05, 0.4)),
    "log-linear": st.tuples(st.floats(0.5, 0.7), st.floats(-0.02, 0.05), st.floats(-0.02, 0.03)),
    "logit-linear": st.tuples(st.floats(-1, 2), st.floats(-0.2, 0.6), st.floats(-0.1, 0.4)),
    "interaction": st.tuples(
        st.floats(0.5, 0.7), st.floats(0, 0.05), st.floats(0, 0.02), st.floats(-0.005, 0.005)
    ),
    "additive": st.tuples(
        st.floats(0.05, 0.2), st.floats(0.1, 0.3), st.floats(0.3, 0.9), st.floats(0.1, 0.3),
        st.floats(0.2, 0.8),
    ),
    "offset": st.tuples(
        st.floats(0.3, 0.8), st.floats(0.05, 0.4), st.floats(0.1, 0.4), st.floats(0.5, 20)
    ),
}  # fmt: skip


def points_of(errors, log_n=LOG_N, log_v=LOG_V):
    cells = zip(np.exp(log_n), np.exp(log_v), errors, strict=True)
    return Points(
        "t", tuple(Point(round(n * 1e9), round(v), float(e)) for n, v, e in cells), "nominal"
    )


def sse(form, values, errors):
    return float(((form.predict(np.asarray(values), LOG_N, LOG_V) - errors) ** 2).sum())


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data())
def test_recovers_a_form_without_noise(name, data):
    form, truth = FORMS[name], np.array(data.draw(TRUTHS[name]))
    errors = form.predict(truth, LOG_N, LOG_V)
    values = form.fit(LOG_N, LOG_V, errors, None)
    assert sse(form, values, errors) < 1e-10
    assert np.allclose(values, truth, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("name", ["additive", "offset", "logit-linear"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_no_member_of_a_brute_force_grid_fits_better(name, seed):
    rng = np.random.default_rng(seed)
    errors = law(0.5, 0.2, 0.1, 0.05) + rng.normal(0, 0.02, len(LOG_N))
    form = FORMS[name]
    best = sse(form, form.fit(LOG_N, LOG_V, errors, None), errors)
    tried = rng.uniform(0, 1, (1500, len(form.names))) * {
        "additive": (0.6, 0.6, 3, 0.6, 3), "offset": (1, 1, 1, 60), "logit-linear": (2, 1, 1)
    }[name]  # fmt: skip
    assert best <= min(sse(form, values, errors) for values in tried) + 1e-12
    found = form.fit(LOG_N, LOG_V, errors, None)
    for values in found * rng.normal(1, 0.02, (300, len(found))):
        assert best <= sse(form, values, errors) + 1e-12


@pytest.mark.parametrize("name", FORMS)
def test_units_of_n_and_v_do_not_matter(name):
    rng = np.random.default_rng(4)
    errors = law(0.5, 0.2, 0.1, 0.05) + rng.normal(0, 0.01, len(LOG_N))
    form, far = FORMS[name], (LOG_N + math.log(1e3), LOG_V + math.log(7))
    here = form.predict(form.fit(LOG_N, LOG_V, errors, None), LOG_N, LOG_V)
    there = form.predict(form.fit(*far, errors, None), *far)
    assert np.allclose(here, there, atol=1e-6)


def test_the_published_points_rank_as_known():
    [points] = read_points(read_rows(PUBLISHED).rows, "t", tasks=("reasoning",))
    rows = compare(points, tuple(FORMS), Interest(at=((14e9, 1.0), (14e9, 576.0))))
    found = {row["form"]: row for row in rows}
    known = {
        "power": (-301.1, 0.00415, (0.490, 0.445)), "power-d0": (-304.1, 0.00415, (0.490, 0.445)),
        "log-linear": (-312.6, 0.00348, (0.489, 0.437)),
        "interaction": (-312.0, 0.00339, (0.492, 0.435)),
        "logit-linear": (-313.0, 0.00345, (0.489, 0.437)),
        "additive": (-302.9, 0.00372, (0.496, 0.445)),
        "offset": (-301.2, 0.00433, (0.490, 0.445)),
    }  # fmt: skip
    for form, (aicc, left_out, at) in known.items():
        assert found[form]["aicc"] == pytest.approx(aicc, abs=0.06)
        assert found[form]["loo_point_rmse"] == pytest.approx(left_out, abs=2e-5)
        assert found[form]["at_error"] == pytest.approx(at, abs=6e-4)
        assert ("aicc" in found[form]["ties"]) == (aicc < -311)
        assert 13 < found[form]["best_v"] < 17
    assert {"boundary", "log_linear_limit", "not_identified"} <= set(found["power"]["flags"])
    # The best V of a power law is Q / (alpha / beta - 1), whatever the budget.
    _, alpha, beta, _ = found["power"]["values"]
    assert found["power"]["best_v"] == pytest.approx(50 / (alpha / beta - 1), rel=5e-3)
    assert "logit-linear, log-linear, interaction cannot be told apart" in describe(rows)[1]
    assert "at D = 0 0.00037938" in certificate(points)
    log_n, log_v, errors = published()
    assert found["power"]["sse"] == pytest.approx(fit_many(log_n, log_v, errors[None]).sse[0])


def test_two_sizes_leave_none_out_and_one_size_is_refused():
    two, one = LOG_N < 1, LOG_N < 0
    rng = np.random.default_rng(0)
    errors = law(0.5, 0.2, 0.1, 0.05) + rng.normal(0, 0.01, len(LOG_N))
    rows = compare(points_of(errors[two], LOG_N[two], LOG_V[two]), tuple(FORMS), Interest())
    assert {row["loo_size_rmse"] for row in rows} == {None}
    with pytest.raises(NoAnswerError, match="one LLM size cannot tell"):
        compare(points_of(errors[one], LOG_N[one], LOG_V[one]), tuple(FORMS), Interest())


def test_exponents_of_a_step_are_not_shown_as_known():
    # Only the smallest LLM is worse: a step in N, which ever steeper power laws approach.
    rng = np.random.default_rng(0)
    errors = np.where(LOG_N < 0, 0.5, 0.3) + rng.normal(0, 0.01, len(LOG_N))
    row = estimate(points_of(errors), Settings(n_draws=0))
    assert "exponents_not_identified" in row["flags"]
    assert row["alpha_low"] is row["alpha_high"] is row["beta_low"] is row["beta_high"] is None
    words = " ".join(sentences.describe(row))
    assert "k, alpha and beta not identified" in words
    assert f"{row['alpha']:.4g}" not in words


def test_points_of_interest():
    assert parse_at("14b:1,0.5b:576") == ((14e9, 1), (0.5e9, 576))
    for wrong in ("14b", "14b:0", "7:1", "a:b", "", "inf:1"):
        with pytest.raises(InputError, match="write N:V"):
            parse_at(wrong)


def test_the_command_offers_every_form_and_writes_the_table(tmp_path):
    assert tuple(FORMS) == OFFERED
    out = tmp_path / "forms.json"
    command = ("fit", PUBLISHED, "--task", "reasoning", "--form", "all", "--flops", "1e12")
    done = vtc(*command, "--at", "14b:576", "-o", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["rank"] for row in rows) == list(range(1, 8))
    assert "Error at N = 14B, V = 576" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--at", "14b:1"), "--at compares forms"),
        (("--form", "all", "--holdout", "n_params>=7b"), "--holdout is for the power law"),
    ],
)
def test_contradictions_are_one_line(arguments, message):
    done = vtc("fit", PUBLISHED, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
