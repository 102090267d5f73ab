"""Laws of groups: apart, sharing exponents, drawn to their mean; benchmarks left out; hold-outs."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_design import LOG_N, LOG_V, law
from scipy import stats
from shell import vtc

from vtc.errors import InputError, NoAnswerError
from vtc.law import shared_intervals, shrinkage
from vtc.law.extras import Extras
from vtc.law.run import Material, Request, compare_table, fit_laws, fit_table
from vtc.law.sentences import describe
from vtc.law.shared import Data, fit_shared, held_exponent, refit_shared
from vtc.law.varpro import fit_many

N, V = np.exp(LOG_N) * 1e9, np.exp(LOG_V)


def table(laws, column="compressor", noise=0.003, seed=0):
    """Rows of a scores table: a law's points for each named group."""
    rng = np.random.default_rng(seed)
    rows = []
    for group, values in laws.items():
        errors = law(*values) + rng.normal(0, noise, len(N))
        for index, (n, v, error) in enumerate(zip(N, V, errors, strict=True)):
            benchmark = group if column == "benchmark" else "b"
            rows.append(
                {"run_id": f"r{index}" if column == "benchmark" else f"{group}-{index}",
                 "benchmark": benchmark, "task": "reasoning", "n_params": round(n),
                 "visual_tokens": round(v), "error": float(error), column: group}
            )  # fmt: skip
    return rows


def fit(rows, **options):
    found = fit_table(Request("t", **{"n_draws": 0, **options}), Material(rows))
    return [row for row, _ in found]


def data_of(errors, n_groups):
    index = np.repeat(np.arange(n_groups), len(LOG_N))
    log_n, log_v = np.tile(LOG_N, n_groups), np.tile(LOG_V, n_groups)
    return Data(log_n, log_v, np.asarray(errors), index, np.unique(log_n, return_inverse=True)[1])


THREE = {"a": (0.5, 0.3, 0.1, 0.1), "b": (0.3, 0.3, 0.1, 0.2), "c": (0.6, 0.3, 0.1, 0.05)}


@pytest.mark.parametrize("share", ["exponents", "alpha"])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_the_shared_fit_is_the_global_optimum(share, seed):
    rng = np.random.default_rng(seed)
    betas = rng.uniform(-0.02, 0.3, 2)
    errors = np.concatenate(
        [law(rng.uniform(0.2, 0.6), 0.25, b, rng.uniform(0, 0.2)) for b in betas]
    ) + rng.normal(0, 0.01, 2 * len(LOG_N))  # fmt: skip
    data = data_of(errors, 2)
    best = fit_shared(data, share)
    assert ((best.fitted(data)[0] - errors) ** 2).sum() == pytest.approx(best.sse[0])
    assert (best.alpha[0, 0] == best.alpha[0]).all()
    assert share == "alpha" or (best.beta[0, 0] == best.beta[0]).all()
    # No other start of a plain descent over all parameters finds less.
    from scipy.optimize import least_squares

    n_beta = 1 if share == "exponents" else 2

    def gap(p):
        alpha, beta = p[0], np.resize(p[1 : 1 + n_beta], 2)[data.group]
        k, d = p[1 + n_beta : 3 + n_beta][data.group], p[3 + n_beta :][data.group]
        return k * np.exp(-alpha * data.log_n - beta * data.log_v) + d - errors

    low = [-2] * (1 + n_beta) + [1e-9] * 2 + [0] * 2
    high = [2] * (1 + n_beta) + [50] * 2 + [1] * 2
    for start in ([0.1] * (1 + n_beta), [0.4, *([0.2] * n_beta)]):
        other = least_squares(gap, [*start, 0.4, 0.4, 0.1, 0.1], bounds=(low, high))
        assert best.sse[0] <= 2 * other.cost + 1e-10


def test_one_group_is_a_law_of_its_own():
    rng = np.random.default_rng(0)
    errors = law(0.5, 0.3, 0.1, 0.1) + rng.normal(0, 0.005, len(LOG_N))
    alone = fit_many(LOG_N, LOG_V, errors[None])
    for share in ("exponents", "alpha"):
        one = fit_shared(data_of(errors, 1), share)
        assert one.sse[0] == pytest.approx(alone.sse[0], rel=1e-9)
        assert one.alpha[0, 0] == pytest.approx(alone.alpha[0], rel=1e-4)


def test_refits_descend_to_each_data_sets_own_optimum():
    rng = np.random.default_rng(0)
    data = data_of(np.concatenate([law(*values) for values in THREE.values()]), 3)
    best = fit_shared(data, "alpha")
    rows = data.errors + rng.normal(0, 0.004, (3, len(data.errors)))
    many = refit_shared(data, "alpha", best, rows)
    for index, errors in enumerate(rows):
        one = fit_shared(data._replace(errors=errors), "alpha")
        assert many.sse[index] == pytest.approx(one.sse[0], rel=1e-6)


@pytest.mark.parametrize("share", ["exponents", "alpha"])
def test_shared_rows_know_more_than_rows_apart(share):
    apart = fit(table(THREE), by="compressor")
    shared = fit(table(THREE), by="compressor", share=share, n_draws=200)
    assert [row["group"] for row in shared] == ["a", "b", "c"]
    assert len({row["alpha"] for row in shared}) == 1
    assert len({row["beta"] for row in shared}) == (1 if share == "exponents" else 3)
    widths = []
    for one, many in zip(apart, shared, strict=True):
        assert many["ratio_low"] < 3.0 < many["ratio_high"]
        width = many["ratio_high"] - many["ratio_low"]
        widths.append((width, one["ratio_high"] - one["ratio_low"]))
        ratios = np.array(many["draw_alpha"]) / np.array(many["draw_beta"])
        low, high = np.quantile(ratios, [0.025, 0.975])
        assert 0.6 < (high - low) / width < 1.6
        assert many["shared_p"] > 0.01
        assert many["ratio_without_a_size_low"] < many["ratio_without_a_size_high"]
        assert many["alpha_low"] < 0.3 < many["alpha_high"]
        assert many["beta_low"] < 0.1 < many["beta_high"]
    own, apart = np.sum(widths, axis=0)
    assert own < 0.8 * apart
    words = " ".join(describe(shared[0]))
    assert "reasoning, compressor a: " in words
    assert "the points do not speak against it" in words


def test_without_peculiarities_an_exponents_interval_is_the_profiles_f_interval():
    rng = np.random.default_rng(3)
    errors = law(0.5, 0.3, 0.1, 0.1) + rng.normal(0, 0.003, len(LOG_N))
    # One LLM at all points: its peculiarity is in k, so nothing is left to scale by.
    data = data_of(errors, 1)._replace(llm=np.zeros(len(LOG_N), dtype=int))
    found = fit_shared(data, "exponents")
    ends = shared_intervals.exponent_intervals(data, "exponents", found, 0.95)
    df = len(errors) - 4
    for index, now in enumerate((found.alpha[0, 0], found.beta[0, 0])):
        held = held_exponent(data, "exponents", found, index, ends[index] - now)
        f = (held.sse - found.sse[0]) / (found.sse[0] / df)
        assert f == pytest.approx([stats.f.ppf(0.95, 1, df)] * 2, rel=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_peculiarity_under_two_compressors_widens_what_is_shared(seed):
    rng = np.random.default_rng(seed)
    quiet = table({name: THREE[name] for name in "ab"}, noise=0.0005, seed=seed)
    moved = dict(zip(sorted({r["n_params"] for r in quiet}), rng.normal(0, 0.003, 4), strict=True))
    loud = [{**r, "error": r["error"] + moved[r["n_params"]]} for r in quiet]
    first, other = (fit(rows, by="compressor", share="exponents")[0] for rows in (quiet, loud))
    for name in ("alpha", "beta"):
        width = other[f"{name}_high"] - other[f"{name}_low"]
        assert width > 3 * (first[f"{name}_high"] - first[f"{name}_low"])


def test_an_interval_without_an_end_is_not_given():
    # Log-linear points of two groups: ever lower D fit alike, D stands at its bound.
    rows = table({"a": (0.6, 0.07, 0.015, 0.0), "b": (0.7, 0.07, 0.015, 0.0)}, noise=0.02)
    for row in fit(rows, by="compressor", share="exponents"):
        for name in ("alpha", "beta"):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert (low is None) == (high is None)
            assert low is None or low <= row[name] <= high


def test_sharing_what_differs_is_told_by_the_f_test():
    other = {**THREE, "c": (0.6, 0.3, 0.3, 0.05)}
    exponents = fit(table(other), by="compressor", share="exponents")
    assert exponents[0]["shared_p"] < 1e-6
    assert "the points speak against it" in " ".join(describe(exponents[0]))
    alpha = fit(table(other), by="compressor", share="alpha")
    assert alpha[0]["shared_p"] > 0.01
    assert alpha[2]["beta"] == pytest.approx(0.3, rel=0.1)


def test_the_f_test_of_sharing_is_the_textbooks():
    rows = table({name: THREE[name] for name in "ab"})
    [first, _] = fit(rows, by="compressor", share="exponents")
    apart = sum(row["sse"] for row in fit(rows, by="compressor"))
    together = sum(row["sse"] for row in fit(rows, by="compressor", share="exponents"))
    f = (together - apart) / 2 / (apart / (56 - 8))
    assert first["shared_p"] == pytest.approx(stats.f.sf(f, 2, 48), rel=1e-4)


def test_a_group_of_one_size_may_borrow_alpha():
    rows = table(THREE)
    rows = [r for r in rows if r["compressor"] != "c" or r["n_params"] == 4_000_000_000]
    assert fit(rows, by="compressor")[2]["alpha"] is None
    borrowed = fit(rows, by="compressor", share="alpha")[2]
    assert borrowed["alpha"] == pytest.approx(0.3, abs=0.03)
    assert borrowed["ratio_low"] is not None


def test_benchmarks_have_laws_and_the_task_a_jackknife_over_them():
    truths = {f"b{i}": (0.5, 0.25 + 0.03 * i, 0.1, 0.1) for i in range(5)}
    whole, *rows = fit(table(truths, "benchmark"), by="benchmark", text_tokens=50)
    [plain] = fit(table(truths, "benchmark"))
    assert {
        k: v for k, v in whole.items() if "jackknife_groups" not in k and "between" not in k
    } == {k: v for k, v in plain.items() if "jackknife_groups" not in k and "between" not in k}
    assert [row["group"] for row in rows] == list(truths)
    for left_out, row in zip(truths, rows, strict=True):
        others = [r for r in table(truths, "benchmark") if r["benchmark"] != left_out]
        assert row["ratio_without_group"] == pytest.approx(fit(others)[0]["ratio"], rel=1e-9)
    logs = np.log([row["ratio_without_group"] for row in rows])
    half = stats.t.ppf(0.975, 4) * np.sqrt(4 / 5 * ((logs - logs.mean()) ** 2).sum())
    assert whole["ratio_jackknife_groups_high"] == pytest.approx(whole["ratio"] * np.exp(half))
    assert whole["alpha_between"] > 0
    words = [" ".join(describe(row)) for row in (whole, *rows)]
    assert "With other benchmarks of the same kind" in words[0]
    assert "Drawn to the mean of the groups" in words[1]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-4, 3))
def test_shrinking_is_the_posterior_mean_of_the_best_normal(seed, scale):
    rng = np.random.default_rng(seed)
    roots = rng.normal(0, 0.1, (6, 2, 2))
    doubts = roots @ roots.transpose(0, 2, 1) + 1e-4 * np.eye(2)
    truths = rng.normal((0.3, 0.1), scale, (6, 2))
    found = np.array([rng.multivariate_normal(t, s) for t, s in zip(truths, doubts, strict=True)])
    shrunk = shrinkage.shrink(found, doubts)

    def restricted(t):
        """-2 log restricted likelihood of a between-group covariance."""
        w = np.linalg.inv(doubts + t)
        mean = np.linalg.solve(w.sum(axis=0), np.einsum("gij,gj->i", w, found))
        gap = found - mean
        return (
            np.linalg.slogdet(doubts + t)[1].sum() + np.linalg.slogdet(w.sum(axis=0))[1]
            + np.einsum("gi,gij,gj->", gap, w, gap)
        )  # fmt: skip

    best = restricted(shrunk.between)
    for root in rng.normal(0, 0.2, (40, 2, 2)):
        moved = (np.eye(2) + root) @ shrunk.between @ (np.eye(2) + root).T
        assert best <= restricted(moved) + 1e-3
    for rival in rng.uniform(0, 2 * found.var(axis=0), (40, 2)):
        assert best <= restricted(np.diag(rival)) + 1e-3
    weights = np.linalg.inv(doubts + shrunk.between)
    gap = np.einsum("ij,gjk,gk->gi", shrunk.between, weights, found - shrunk.mean)
    assert np.allclose(shrunk.exponents, shrunk.mean + gap, atol=1e-4)


def test_equal_groups_shrink_to_one_and_known_groups_stay():
    rng = np.random.default_rng(0)
    doubt = np.broadcast_to(np.array([[0.01, 0.004], [0.004, 0.002]]), (40, 2, 2))
    same = rng.multivariate_normal((0.3, 0.1), doubt[0], 40)
    shrunk = shrinkage.shrink(same, doubt)
    assert shrunk.exponents.std(axis=0).max() < 0.4 * same.std(axis=0).min()
    apart = rng.normal((0.3, 0.1), 1.0, (40, 2))
    assert np.allclose(shrinkage.shrink(apart, doubt * 1e-6).exponents, apart, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"by": "encoder"}, InputError, "row 0: column 'encoder' is missing or empty; --by"),
        ({}, {"by": "benchmark"}, InputError, "has one benchmark, 'b'; --by benchmark needs two"),
        ({}, {"share": "alpha"}, InputError, "name their column with --by"),
        ({}, {"by": "compressor", "share": "alpha", "exponents": ".1/.1"}, InputError,
         "--exponents and --share exclude each other"),
        ({"visual_tokens": 4}, {"by": "compressor"}, NoAnswerError,
         "compressor 'a': every point has 4 visual tokens"),
    ],
)  # fmt: skip
def test_groups_that_cannot_be_fitted_are_named(change, options, error, message):
    rows = [{**row, **change} for row in table(THREE)]
    with pytest.raises(error, match=message):
        fit(rows, **options)


def told(rows, **options):
    """The groups that have a law, and what is said of those that have none."""
    said = []
    found = fit_laws(Request("t", n_draws=0, **options), Material(rows), said.append)
    return [law.row["group"] for law in found], said


@pytest.mark.parametrize(
    ("change", "share", "reason"),
    [
        ({"visual_tokens": 4}, None, "every point has 4 visual tokens"),
        ({"visual_tokens": 4}, "alpha", "which does not tell its own beta"),
        ({"error": 0.5}, None, "every point has the same error 0.5"),
        ({"error": 0.5}, "exponents", "every point has the same error 0.5"),
    ],
)
def test_the_others_are_fitted_where_a_group_has_no_law(change, share, reason):
    rows = table(THREE)
    rows[28:56] = [{**row, **change} for row in rows[28:56]]
    groups, said = told(rows, by="compressor", share=share)
    assert groups == ["a", "c"]
    assert len(said) == 1
    assert said[0].startswith("No law for task 'reasoning', compressor 'b': ")
    assert reason in said[0]
    # What is left is what it would be alone.
    alone = fit(rows[:28] + rows[56:], by="compressor", share=share)
    assert fit(rows, by="compressor", share=share) == alone


def test_the_checklist_says_which_group_has_no_law(tmp_path):
    rows = table(THREE)
    rows[28:56] = [{**row, "error": 0.5} for row in rows[28:56]]
    request, said = Request("t", n_draws=0, by="compressor"), []
    laws = fit_laws(request, Material(rows), said.append)
    path = tmp_path / "points.json"
    path.write_text("[]")
    page = tmp_path / "law"
    where = dataclasses.replace(request, table=str(path))
    assert Extras(report=str(page)).write(where, Material(rows), laws, said) == [
        f"wrote {page}.md", f"wrote {page}.json",
    ]  # fmt: skip
    text = page.with_suffix(".md").read_text()
    assert "No law for task 'reasoning', compressor 'b': every point has the same error" in text


def test_a_group_of_one_v_may_share_exponents():
    rows = [r for r in table(THREE) if r["compressor"] != "b" or r["visual_tokens"] == 4]
    groups, said = told(rows, by="compressor", share="exponents")
    assert (groups, said) == (["a", "b", "c"], [])


def test_a_group_too_small_is_named_and_the_others_fitted():
    groups, said = told(table(THREE)[:59], by="compressor")
    assert groups == ["a", "b"]
    assert "compressor 'c': it has 3 points" in said[0]
    _, said = told(table(THREE)[:59], by="compressor", share="alpha")
    assert len(said) == 1


def test_sharing_takes_two_groups_that_have_a_law():
    rows = table({name: THREE[name] for name in "ab"})
    rows[28:] = [{**row, "error": 0.5} for row in rows[28:]]
    with pytest.raises(NoAnswerError, match=r"same error 0.5 \(and 1 more"):
        fit(rows, by="compressor", share="alpha")


def test_a_benchmark_without_a_law_still_counts_in_the_mean_and_its_jackknife():
    truths = {f"b{i}": (0.5, 0.25 + 0.03 * i, 0.1, 0.1) for i in range(4)}
    rows = table(truths, "benchmark")
    rows[:28] = [{**row, "error": 0.5} for row in rows[:28]]
    groups, said = told(rows, by="benchmark")
    assert groups == [None, "b1", "b2", "b3"]
    assert "benchmark 'b0': every point has the same error" in said[0]
    whole = fit(rows, by="benchmark")[0]
    left = [fit([r for r in rows if r["benchmark"] != b])[0]["ratio"] for b in truths]
    spread = np.sqrt(3 / 4 * ((np.log(left) - np.mean(np.log(left))) ** 2).sum())
    half = stats.t.ppf(0.975, 3) * spread
    assert whole["ratio_jackknife_groups_high"] == pytest.approx(whole["ratio"] * np.exp(half))


@pytest.mark.parametrize("form", ["power", "all"])
def test_the_other_task_is_fitted_where_one_has_no_law(form):
    rows = table({"a": THREE["a"]})
    rows += [{**row, "task": "ocr", "run_id": f"o{row['run_id']}", "error": 0.5} for row in rows]
    request = Request("t", n_draws=0, form=form)
    if form == "power":
        said = []
        tasks = [law.row["task"] for law in fit_laws(request, Material(rows), said.append)]
    else:
        found, said = compare_table(request, Material(rows))
        tasks = list(dict.fromkeys(row["task"] for row in found))
    assert tasks == ["reasoning"]
    assert any(line.startswith("No law for task 'ocr': every point") for line in said)


def test_held_out_sizes_are_predicted_with_intervals():
    rows = table({"a": (0.5, 0.3, 0.1, 0.1)})
    [row] = fit(rows, holdout="n_params>=7b", n_draws=400)
    assert row["holdout_n_params"] == [7e9] * 7
    assert row["holdout_error"] == [r["error"] for r in rows if r["n_params"] == 7e9]
    ends = zip(row["holdout_low"], row["holdout_predicted"], row["holdout_high"], strict=True)
    assert all(low < predicted < high for low, predicted, high in ends)
    assert row["holdout_noise"] == pytest.approx(row["holdout_rmse"] / row["run_sd"])
    assert row["holdout_inside"] >= 6 / 7
    words = describe(row)
    assert sum("times the noise)" in line for line in words) == 7
    [bare] = fit(rows, holdout="n_params>=7b", n_draws=0)
    assert bare["holdout_low"] is None
    assert bare["holdout_predicted"] == row["holdout_predicted"]


@pytest.mark.parametrize("errors", [(0.001, 0.06), (0.94, 0.999)])
def test_intervals_of_held_out_runs_are_shares(errors):
    rng = np.random.default_rng(0)
    rows = [{**r, "error": float(e)} for r, e in
            zip(table({"a": THREE["a"]}), rng.uniform(*errors, 28), strict=True)]  # fmt: skip
    [row] = fit(rows, holdout="n_params>=7b", n_draws=200)
    ends = zip(row["holdout_low"], row["holdout_high"], strict=True)
    assert all(0 <= low <= high <= 1 for low, high in ends)
    assert 0.0 in row["holdout_low"] or 1.0 in row["holdout_high"]


def test_intervals_of_held_out_runs_cover_them():
    inside = [
        fit(table({"a": (0.5, 0.3, 0.1, 0.1)}, seed=seed), holdout="n_params>=7b", n_draws=300)[0]
        ["holdout_inside"] for seed in range(6)
    ]  # fmt: skip
    assert np.mean(inside) > 0.85


def test_the_command_writes_groups_and_their_column(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("\n".join(map(json.dumps, table(THREE))))
    out = tmp_path / "laws.parquet"
    done = vtc("fit", path, "--by", "compressor", "-o", out, "--share", "alpha")
    assert done.returncode == 0, done.stderr
    from vtc.tables import specs
    from vtc.tables.read import read_rows

    rows = read_rows(out, specs.LAW).rows
    assert [(row["by"], row["group"], row["shared"]) for row in rows] == [
        ("compressor", name, "alpha") for name in "abc"
    ]
    assert "reasoning, compressor b: Y = " in done.stderr
