"""The design behind `vtc plan`: its variances are the fit's, by definition and by simulation."""

import decimal
import math
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_design import LOG_N, LOG_V, SIZES, TOKENS, published

from vtc.law import intervals, splitplot
from vtc.law.design import (
    Expected,
    Line,
    Noise,
    expected,
    half_width,
    likely_llm_sd,
    line,
    log_widths,
    sums,
)
from vtc.law.design_forms import Told, Views
from vtc.law.regret import best_tokens, log_left, slope_of, wasted, worst
from vtc.law.studentt import t_quantile
from vtc.law.varpro import fit_many

LOGS = Line(0.0383889, 0.0081358, 0.590172, 0.0, True)
POWER = Line(0.3, 0.1, 0.5, 0.1, False)
NOISE = Noise(0.0034, 0.003)


def plots_of(log_n, shape):
    return (log_n[:, None] == np.unique(log_n)) * shape[:, None]


def design(law, log_n, log_v):
    """Jacobian, plots, and the gradient of ln(alpha/beta)."""
    jacobian = law.jacobian(log_n, log_v)
    gradient = np.zeros(jacobian.shape[1])
    gradient[1], gradient[2] = 1 / law.alpha, -1 / law.beta
    return jacobian, plots_of(log_n, law.shape(log_n, log_v)), gradient


def as_fitted(jacobian, plots, gradient, noise, unit):
    """The fit's own standard error and df, both mean squares at their expectations."""
    strata = splitplot.split(jacobian, np.random.default_rng(0).normal(size=len(jacobian)), plots)
    if strata is None:
        return None
    if strata.df_between == 0:
        # The fit cannot know what is peculiar to an LLM there; the design is told.
        noise = noise._replace(llm_sd=0.0)
    between = noise.run_sd**2 + strata.plot_size * noise.llm_sd**2 / unit
    strata = strata._replace(ms_within=noise.run_sd**2, ms_between=between)
    return *splitplot.standard_error(strata, gradient), strata.df_between


cells = st.lists(
    st.tuples(st.sampled_from(SIZES.tolist()), st.sampled_from(TOKENS.tolist())),
    min_size=5,
    max_size=40,
).filter(lambda runs: len({n for n, _ in runs}) > 2 and len({v for _, v in runs}) > 1)


@given(cells, st.booleans(), st.floats(0, 0.01))
def test_any_design_has_the_error_and_degrees_that_the_fit_gives_it(runs, in_logs, llm_sd):
    law, noise = (LOGS if in_logs else POWER), Noise(0.0034, llm_sd)
    log_n, log_v = np.array(runs).T
    jacobian, plots, gradient = design(law, log_n, log_v)
    if np.linalg.matrix_rank(jacobian, tol=1e-6) < jacobian.shape[1]:
        return
    unit = float((plots * plots).sum(axis=1).mean())
    found = expected(sums(jacobian, plots), gradient, noise, unit)
    fitted = as_fitted(jacobian, plots, gradient, noise, unit)
    if fitted is None:
        assert found.df == 0
        assert half_width(found, 0.95) == math.inf
        return
    se, df, df_between = fitted
    assert float(found.df) == pytest.approx(df, rel=1e-4)
    if df_between:
        assert float(found.se) == pytest.approx(se, rel=1e-5)
    else:
        assert float(found.se) >= se * (1 - 1e-5)


def test_runs_add_up_and_designs_stand_side_by_side():
    jacobian, plots, gradient = design(LOGS, LOG_N, LOG_V)
    whole = sums(jacobian, plots)
    parts = sums(jacobian[:20], plots[:20]).plus(sums(jacobian[20:], plots[20:]))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)
    each = whole.plus(sums(jacobian[:, None], plots[:, None]))
    found = expected(each, gradient, NOISE, 1.0)
    rows = [sums(jacobian[i : i + 1], plots[i : i + 1]) for i in range(len(jacobian))]
    alone = [expected(whole.plus(row), gradient, NOISE, 1.0).se for row in rows]
    np.testing.assert_allclose(found.se, alone, rtol=1e-9)
    widths = log_widths(found, 0.95)
    exact = [half_width(Expected(*each_), 0.95) for each_ in zip(*found, strict=True)]
    np.testing.assert_allclose(np.exp(widths), exact, rtol=1e-9)


def test_a_second_v_of_an_llm_helps_less_than_a_run_of_a_new_one():
    jacobian, plots, gradient = design(LOGS, LOG_N, LOG_V)
    peculiar = Noise(0.0034, 0.006)
    base = sums(jacobian, np.pad(plots, ((0, 0), (0, 1))))
    beyond = np.array([np.log(14.0)])
    row = LOGS.jacobian(beyond, np.zeros(1))

    def after(hit, noise):
        return float(expected(base.plus(sums(row, np.array([hit]))), gradient, noise, 1.0).se)

    old, new = [0.0, 0, 0, 1, 0], [0.0, 0, 0, 0, 1]
    assert after(new, peculiar) < after(old, peculiar)
    # Where LLMs have no peculiarities it does not matter whose run it is.
    assert after(new, Noise(0.0034, 0.0)) == pytest.approx(after(old, Noise(0.0034, 0.0)))


AT_14B = np.array([1.0, -math.log(14), -math.log(16)])
RATIO = np.array([0.0, 1 / LOGS.alpha, -1 / LOGS.beta])


@pytest.mark.parametrize("gradient", [RATIO, AT_14B], ids=["ratio", "predict"])
@pytest.mark.parametrize("llm_sd", [0.0006, 0.003])
@pytest.mark.parametrize("new", [(0.36, 576), (14, 1)], ids=["0.36B-576", "14B-1"])
def test_what_is_expected_of_a_run_is_what_refitting_finds_on_average(gradient, llm_sd, new):
    """A run added to the published design: 600 studies fitted before and after it."""
    rng = np.random.default_rng(1)
    log_n, log_v = np.append(LOG_N, np.log(new[0])), np.append(LOG_V, np.log(new[1]))
    noise = Noise(0.0034, llm_sd)
    peculiar = rng.normal(0, llm_sd, (600, 5))[:, [*np.repeat(range(4), 7), 4]]
    errors = LOGS.error(log_n, log_v) + peculiar + rng.normal(0, noise.run_sd, (600, 29))
    shrunk, narrower = [], []
    for count in (28, 29):
        jacobian, plots, _ = design(LOGS, log_n[:count], log_v[:count])
        found = expected(sums(jacobian, plots), gradient, noise, 1.0)
        solver = np.linalg.pinv(jacobian)
        halves, squares = [], []
        for ys in errors[:, :count]:
            strata = splitplot.split(jacobian, ys - jacobian @ (solver @ ys), plots)
            assert strata is not None
            se, df = splitplot.standard_error(strata, gradient)
            squares.append(se * se)
            halves.append(se * t_of(round(df, 1)))
        scatter = (errors[:, :count] @ solver.T @ gradient).std()
        said = float(np.sqrt(np.mean(squares)))
        # Of lopsided designs the fit says more than the scatter is, never less.
        assert 0.83 * said < scatter < 1.12 * said
        assert said == pytest.approx(float(found.se), rel=0.06)
        assert np.mean(halves) == pytest.approx(half_width(found, 0.95), rel=0.05)
        shrunk.append((said, float(found.se)))
        narrower.append((np.mean(halves), half_width(found, 0.95)))
    for (was, expected_was), (now, expected_now) in (shrunk, narrower):
        assert 1 - now / was == pytest.approx(1 - expected_now / expected_was, abs=0.035)


@cache
def t_of(df):
    return t_quantile(0.975, df)


@pytest.mark.parametrize("law", [LOGS, POWER], ids=["log-linear", "power"])
def test_a_line_is_the_surrogate_that_the_interval_stands_on(law):
    rng = np.random.default_rng(3)
    errors = law.error(LOG_N, LOG_V) + rng.normal(0, 1e-5, len(LOG_N))
    fit = fit_many(LOG_N, LOG_V, errors[None])
    found = intervals.surrogate(LOG_N, LOG_V, errors, fit)
    again = line(found, LOG_N, LOG_V, errors)
    np.testing.assert_allclose(again.error(LOG_N, LOG_V), law.error(LOG_N, LOG_V), atol=5e-5)
    assert found.strata is not None
    np.testing.assert_allclose(again.jacobian(LOG_N, LOG_V), found.strata.jacobian, rtol=1e-6)
    np.testing.assert_allclose(
        plots_of(LOG_N, again.shape(LOG_N, LOG_V)), found.strata.plots, rtol=1e-6
    )


def test_the_llms_sd_is_median_unbiased():
    rng = np.random.default_rng(0)
    for llm_sd, plot_size, df in ((0.0, 7.0, 2), (0.003, 7.0, 2), (0.003, 7.0, 6)):
        between = 0.0034**2 + plot_size * llm_sd**2
        drawn = between * rng.chisquare(df, 4000) / df
        found = [likely_llm_sd(0.0034**2, ms, df, plot_size, 1.0) for ms in drawn]
        if llm_sd:
            assert np.mean(np.array(found) > llm_sd) == pytest.approx(0.5, abs=0.03)
        else:
            assert np.median(found) < 5e-4


def test_forms_are_told_apart_as_by_the_whole_covariance():
    rng = np.random.default_rng(5)
    factor = rng.normal(size=(2, 6, 6)) / 300
    seen = Views(rng.normal(0, 0.01, 6), factor @ factor.transpose(0, 2, 1), 0.0034)

    def whole(indices):
        gap = seen.gap[indices]
        parts = []
        for form in range(2):
            s = seen.covariance[form][np.ix_(indices, indices)] + 0.0034**2 * np.eye(len(indices))
            parts.append(gap @ np.linalg.solve(s, gap))
        return min(parts)

    told, taken = Told(seen), []
    for index in (2, 5, 2, 0):
        assert told.alone()[index] == pytest.approx(whole([*taken, index]) - told.chi_square)
        first, second = np.array([1, 2, 3]), np.array([1, 5, 4])
        for value, a, b in zip(told.together(first, second), first, second, strict=True):
            assert value == pytest.approx(whole([*taken, a, b]) - told.chi_square)
        told.take(index)
        taken.append(index)
        assert told.chi_square == pytest.approx(whole(taken))


@pytest.mark.parametrize(
    ("tokens", "share"),
    [(1, 0.28), (4, 0.09), (16, 0.0), (36, 0.09), (64, 0.22), (144, 0.46), (576, 0.77)],
)
def test_regret_of_the_published_law(tokens, share):
    assert wasted(1 / 4.697, 50, [tokens], (1, 576)) == pytest.approx(share, abs=0.006)


def test_worst_case_over_the_published_interval():
    assert worst(4.697, 3.86, 5.77, 50, (1, 576)) == pytest.approx(0.006, abs=2e-4)
    assert worst(4.697, None, 5.77, 50, (1, 576)) == 1.0
    # Where every ratio asks for as many tokens as there are, none of them is wrong.
    assert worst(0.7, 0.4, 1.0, 50, (1, 576)) == 0.0


@given(
    st.floats(0.3, 50), st.floats(1, 500), st.floats(1, 1000), st.floats(1.01, 20)
)  # fmt: skip
def test_regret_is_least_at_the_best_and_knows_no_unit(ratio, q, tokens, times):
    span, slope = (1e-6, 1e6), slope_of(ratio)
    best = float(best_tokens(slope, q, span))

    def share(v, text=q, within=span):
        return float(wasted(slope, text, [v], within)[0])

    assert share(best) == pytest.approx(0, abs=1e-9)
    one = share(tokens)
    assert 0 <= one <= 1
    if ratio > 1.05:
        scaled = (span[0] * times, span[1] * times)
        assert share(tokens * times, q * times, scaled) == pytest.approx(one, abs=1e-9)
        assert share(best * times) > 0 or best in span


@settings(max_examples=60)
@given(
    st.one_of(st.floats(-1, 40), st.floats(0.999, 1.001)), st.floats(0, 500),
    st.floats(1, 576), st.floats(1, 576),
)  # fmt: skip
def test_what_is_left_to_fifty_digits(slope, q, one, other):
    """Also where waste is 1 to the last digit, or the best V is next to the one asked about."""
    with decimal.localcontext(prec=50):
        s, text, span = Decimal(slope), Decimal(q), (Decimal(1), Decimal(576))
        free = text * s / (1 - s) if s < 1 else span[1]
        best = min(max(free, span[0]), span[1])
        for v in (one, other, (one + other) / 2, float(best)):
            wide = Decimal(v)
            cost = ((text + best) / (text + wide)).ln() - s * (best / wide).ln()
            (left,) = log_left(slope, q, [v], (1, 576))
            # Rounding of 1 - slope moves the best V, which costs the square of that alone.
            assert left == pytest.approx(float(cost), rel=1e-12, abs=1e-13)
            (share,) = wasted(slope, q, [v], (1, 576))
            assert share == pytest.approx(float(1 - cost.exp()), rel=1e-12, abs=1e-13)


def test_ends_of_the_ratio_and_shapes():
    """Where tokens alone help the most is best; where the LLM alone does, the fewest."""
    v = [1.0, 36.0, 576.0]
    assert wasted(slope_of(None), 50, v, (1, 576)).tolist() == [1, 1, 0]
    assert slope_of(0.0) == math.inf
    assert slope_of(math.inf) == 0
    assert wasted(0, 0, v, (1, 576)) == pytest.approx([0, 35 / 36, 575 / 576])
    assert not np.signbit(wasted(0.3, 0, [1.0], (1, 576))).any()
    several = wasted([[0.1, 0.2], [1.0, math.inf]], 50, v, (1, 576))
    assert several.shape == (2, 2, 3)
    assert several[0, 1].tolist() == wasted(0.2, 50, v, (1, 576)).tolist()


def test_the_published_points_are_one_line():
    log_n, log_v, errors = published()
    found = intervals.surrogate(log_n, log_v, errors, fit_many(log_n, log_v, errors[None]))
    law = line(found, log_n, log_v, errors)
    assert law.log_linear
    assert (law.k, law.alpha, law.beta) == pytest.approx((0.590172, 0.0383889, 0.0081358), rel=1e-4)
