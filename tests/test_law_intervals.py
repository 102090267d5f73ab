"""Split-plot intervals, the profile over D, leave-one-size-out, draws, quantiles of t."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_design import LOG_N, LOG_V, SIZES, TOKENS, law, published
from scipy import stats

from vtc.law import intervals, splitplot
from vtc.law.power import PowerLaw, optimal_visual_tokens, quantile
from vtc.law.studentt import t_cdf, t_quantile
from vtc.law.varpro import fit_many


def test_ratio_and_best_v_of_the_published_reasoning_points():
    log_n, log_v, errors = published()
    fit = fit_many(log_n, log_v, errors[None])
    found = intervals.surrogate(log_n, log_v, errors, fit)
    assert found.log_linear
    low, high = intervals.ratio_interval(found, 0.95)
    assert low == pytest.approx(4.32, abs=0.006)
    assert high == pytest.approx(5.15, abs=0.006)
    assert optimal_visual_tokens(high, 50) == pytest.approx(12.1, abs=0.06)
    assert optimal_visual_tokens(low, 50) == pytest.approx(15.1, abs=0.07)


def test_leave_one_size_out_of_the_published_reasoning_points():
    log_n, log_v, errors = published()
    fit = fit_many(log_n, log_v, errors[None])
    found = intervals.surrogate(log_n, log_v, errors, fit)
    left = intervals.leave_one_size_out(log_n, log_v, errors, found, 0.95)
    assert min(left.ratios) == pytest.approx(4.49, abs=0.006)
    assert max(left.ratios) == pytest.approx(5.00, abs=0.006)
    assert left.jackknife == pytest.approx((3.86, 5.77), abs=0.006)


def test_the_jackknife_is_the_textbooks():
    others = [4.5, 4.9, 4.6, 5.1]
    low, high = intervals.jackknife(4.7, others, 0.95)
    # Variance (n - 1) / n times the sum of squares about the mean, on the logarithm.
    half = stats.t.ppf(0.975, 3) * np.sqrt(3 / 4 * 4 * np.var(np.log(others)))
    assert (low, high) == pytest.approx((4.7 * np.exp(-half), 4.7 * np.exp(half)))


def test_profile_of_the_published_points_is_one_sided_in_d():
    log_n, log_v, errors = published()
    fit = fit_many(log_n, log_v, errors[None])
    profile = intervals.profile(log_n, log_v, errors, fit)
    admitted = profile.fits.alpha[profile.admitted]
    assert admitted.min() == pytest.approx(0.0709, abs=1e-4)
    # Further than the .095 of independent errors: LLMs that are peculiar bend the curve as D does.
    assert 0.1 < admitted.max() < 0.14
    ratios = (profile.fits.alpha / profile.fits.beta)[profile.admitted]
    assert np.ptp(ratios) < 0.03 * ratios.mean()


@pytest.mark.parametrize("llm_sd", [0.0, 0.006])
def test_intervals_of_beta_cover_it_where_llms_are_peculiar(llm_sd):
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(40):
        effects = np.repeat(rng.normal(0, llm_sd, len(SIZES)), len(TOKENS))
        errors = law(0.5, 0.3, 0.1, 0.1) + effects + rng.normal(0, 0.0034, len(LOG_N))
        fit = fit_many(LOG_N, LOG_V, errors[None])
        profile = intervals.profile(LOG_N, LOG_V, errors, fit)
        low, high = intervals.exponent_intervals(LOG_N, LOG_V, errors, profile, 0.95)["beta"]
        inside += low <= 0.1 <= high
    # Without scaling the test 33 to 36 of 40 with peculiar LLMs.
    assert inside >= 37


def test_balanced_strata_are_the_textbook_split_plot():
    rng = np.random.default_rng(0)
    errors = (
        0.6 - 0.04 * LOG_N - 0.01 * LOG_V
        + np.repeat(rng.normal(0, 0.01, 4), 7) + rng.normal(0, 0.003, 28)
    )  # fmt: skip
    linear = np.stack([np.ones(28), LOG_N, LOG_V], axis=1)
    solution = np.linalg.lstsq(linear, errors, rcond=None)[0]
    strata = splitplot.split(linear, errors - linear @ solution, (LOG_N[:, None] == SIZES) * 1.0)
    means = errors.reshape(4, 7).mean(axis=1)
    slope, offset = np.polyfit(SIZES, means, 1)
    between = 7 * ((means - offset - slope * SIZES) ** 2).sum() / 2
    assert (strata.df_between, strata.df_within) == (2, 23)
    assert strata.plot_size == pytest.approx(7)
    assert strata.ms_between == pytest.approx(between)
    se, df = splitplot.standard_error(strata, np.array([0.0, 1.0, 0.0]))
    assert se == pytest.approx((between / 7 / ((SIZES - SIZES.mean()) ** 2).sum()) ** 0.5)
    assert df == pytest.approx(2)
    se, df = splitplot.standard_error(strata, np.array([0.0, 0.0, 1.0]))
    spread = 4 * ((TOKENS - TOKENS.mean()) ** 2).sum()
    assert se == pytest.approx((strata.ms_within / spread) ** 0.5)
    assert df == pytest.approx(23)


@pytest.mark.parametrize("llm_sd", [0.0, 0.006])
def test_the_interval_covers_the_truth(llm_sd):
    mean, ratio = law(0.5, 0.3, 0.1, 0.1), 3.0
    rng = np.random.default_rng(1)
    covered, replicates = 0, 150
    for _ in range(replicates):
        errors = mean + np.repeat(rng.normal(0, llm_sd, 4), 7) + rng.normal(0, 0.0034, 28)
        fit = fit_many(LOG_N, LOG_V, errors[None])
        found = intervals.ratio_interval(intervals.surrogate(LOG_N, LOG_V, errors, fit), 0.95)
        covered += found is not None and found[0] <= ratio <= found[1]
    # Three standard deviations of a binomial below 95 %.
    assert covered / replicates > 0.895


def test_a_useless_factor_has_no_ratio_interval():
    rng = np.random.default_rng(0)
    errors = law(0.5, 0.2, 0.0, 0.0) + rng.normal(0, 0.01, 28)
    fit = fit_many(LOG_N, LOG_V, errors[None])
    assert intervals.ratio_interval(intervals.surrogate(LOG_N, LOG_V, errors, fit), 0.95) is None


def test_draws_are_admissible_and_as_wide_as_the_interval():
    log_n, log_v, errors = published()
    fit = fit_many(log_n, log_v, errors[None])
    found = intervals.surrogate(log_n, log_v, errors, fit)
    draws = intervals.draw_laws(log_n, log_v, fit, found.strata, 500, np.random.default_rng(0))
    assert (draws.k > 0).all()
    assert ((draws.d >= 0) & (draws.d < 1)).all()
    low, high = np.quantile(draws.alpha / draws.beta, [0.025, 0.975])
    assert 4.0 < low < 4.4
    assert 5.05 < high < 5.6


@settings(deadline=None)
@given(st.floats(0.51, 0.9999), st.floats(0.6, 300))
def test_t_quantile_inverts_the_cdf(probability, df):
    from scipy import stats

    value = t_quantile(probability, df)
    assert t_cdf(value, df) == pytest.approx(probability, abs=1e-10)
    assert value == pytest.approx(stats.t.ppf(probability, df), rel=1e-6)
    assert t_quantile(1 - probability, df) == pytest.approx(-value, rel=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys(values, share):
    ordered = sorted(values)
    assert quantile(ordered, share) == pytest.approx(np.quantile(ordered, share), abs=1e-12)


@settings(deadline=None)
@given(
    alpha=st.floats(0.02, 1), ratio=st.floats(1.05, 50), q=st.floats(1, 500), n=st.floats(1, 100)
)
def test_best_v_beats_its_neighbours_at_equal_flops(alpha, ratio, q, n):
    found = PowerLaw(0.5, alpha, alpha / ratio, 0.1)
    best = optimal_visual_tokens(ratio, q)
    budget = n * (q + best)
    errors = [found.error(1e9 * budget / (q + v), v) for v in (0.9 * best, best, 1.1 * best)]
    assert errors[1] <= min(errors) * (1 + 1e-12)
