"""The global least-squares fit: the published numbers, recovery of known laws, optimality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_design import LOG_N, LOG_V, SIZES, law, published

from vtc.law.estimate import fixed_exponents
from vtc.law.grid import paper_grid
from vtc.law.varpro import fit_many


def test_published_reasoning_points():
    log_n, log_v, errors = published()
    fit = fit_many(log_n, log_v, errors[None])
    assert fit.alpha[0] == pytest.approx(0.070937, abs=5e-7)
    assert fit.beta[0] == pytest.approx(0.015102, abs=5e-7)
    assert fit.k[0] == pytest.approx(0.590771, abs=5e-7)
    assert fit.d[0] == 0
    assert fit.sse[0] == pytest.approx(3.79380e-4, abs=1e-9)


def test_published_ocr_points_without_the_suspect_rows():
    log_n, log_v, errors = published("ocr")
    fit = fit_many(log_n, log_v, errors[None])
    assert 0.027 <= fit.alpha[0] <= 0.028
    assert fit.beta[0] == pytest.approx(0.039, abs=1e-3)
    assert fit.d[0] == 0


def test_whole_paper_grid():
    log_n, log_v, errors = published()
    fit = paper_grid(log_n, log_v, errors)
    assert fit.alpha[0] == pytest.approx(0.0747475, abs=5e-8)
    assert fit.beta[0] == pytest.approx(0.0161616, abs=5e-8)
    assert fit.k[0] == pytest.approx(0.557143, abs=5e-7)
    assert fit.d[0] == pytest.approx(0.0333333, abs=5e-8)
    assert fit.sse[0] == pytest.approx(3.963130e-4, abs=1e-9)


def test_fixed_exponents_of_the_paper():
    fit = fixed_exponents(*published(), 0.077, 0.015)
    assert fit.k[0] == pytest.approx(0.553418, abs=5e-7)
    assert fit.d[0] == pytest.approx(0.035691, abs=5e-7)
    assert fit.sse[0] == pytest.approx(4.373709e-4, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    k=st.floats(0.05, 2),
    alpha=st.floats(-0.5, 1.0),
    beta=st.floats(-0.3, 1.0),
    d=st.floats(0, 0.5),
)
def test_recovers_an_exact_law_whatever_the_signs(k, alpha, beta, d):
    errors = law(k, alpha, beta, d)
    fit = fit_many(LOG_N, LOG_V, errors[None])
    predicted = law(fit.k[0], fit.alpha[0], fit.beta[0], fit.d[0])
    spread = ((errors - errors.mean()) ** 2).sum()
    assert fit.sse[0] <= 1e-6 * spread + 1e-18
    assert np.abs(predicted - errors).max() <= 1e-3 * np.ptp(errors) + 1e-9
    # The ratio is identified wherever an exponent is more than the search's resolution.
    if max(abs(alpha), abs(beta)) > 0.05 and d < 0.4:
        angle = np.arctan2(fit.beta[0], fit.alpha[0]) - np.arctan2(beta, alpha)
        assert abs(np.angle(np.exp(1j * angle))) < 0.02


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.sampled_from([0.001, 0.01, 0.05]))
def test_no_nearby_law_fits_better(seed, noise):
    rng = np.random.default_rng(seed)
    errors = law(0.5, 0.2, 0.1, 0.05) + rng.normal(0, noise, len(LOG_N))
    fit = fit_many(LOG_N, LOG_V, errors[None])
    best = (fit.k[0], fit.alpha[0], fit.beta[0], fit.d[0])
    predicted = law(*best)
    assert ((predicted - errors) ** 2).sum() == pytest.approx(fit.sse[0], rel=1e-9)
    assert fit.sse[0] <= fit.sse_bound[0]
    for _ in range(200):
        trial = np.array(best) + rng.normal(0, 0.02, 4) * np.array([1, 1, 1, 1])
        if trial[0] > 0 and 0 <= trial[3] < 1:
            assert ((law(*trial) - errors) ** 2).sum() >= fit.sse[0] - 1e-15


def test_matches_a_general_optimiser_from_many_starts():
    from scipy.optimize import least_squares

    rng = np.random.default_rng(3)
    errors = law(0.45, 0.25, 0.08, 0.12) + rng.normal(0, 0.004, len(LOG_N))
    best = min(
        least_squares(
            lambda p: law(*p) - errors,
            (rng.uniform(0.1, 1), rng.uniform(0.01, 1), rng.uniform(0.01, 1), rng.uniform(0, 0.3)),
            bounds=([0, -2, -2, 0], [5, 5, 5, 1]),
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
        ).cost
        for _ in range(12)
    )
    assert fit_many(LOG_N, LOG_V, errors[None]).sse[0] == pytest.approx(2 * best, rel=1e-6)


def test_many_rows_equal_rows_one_by_one():
    rng = np.random.default_rng(0)
    errors = law(0.5, 0.1, 0.05, 0.1) + rng.normal(0, 0.005, (300, len(LOG_N)))
    together = fit_many(LOG_N, LOG_V, errors)
    for index in (0, 255, 256, 299):
        alone = fit_many(LOG_N, LOG_V, errors[index : index + 1])
        assert alone.sse[0] == pytest.approx(together.sse[index], rel=1e-9)
        assert alone.beta[0] == pytest.approx(together.beta[index], rel=1e-4)


def test_one_size_fits_beta_alone():
    keep = SIZES[1] == LOG_N
    errors = 0.4 * np.exp(-0.2 * LOG_V[keep]) + 0.1
    fit = fit_many(LOG_N[keep], LOG_V[keep], errors[None])
    assert fit.alpha[0] == 0
    assert fit.beta[0] == pytest.approx(0.2, rel=1e-6)
    assert fit.d[0] == pytest.approx(0.1, rel=1e-6)
    assert fit.k[0] == pytest.approx(0.4, rel=1e-6)


def test_the_unit_of_n_moves_only_k():
    log_n, log_v, errors = published()
    other = fit_many(log_n + np.log(1e3), log_v, errors[None])
    same = fit_many(log_n, log_v, errors[None])
    assert other.alpha[0] == pytest.approx(same.alpha[0], rel=1e-9)
    assert other.k[0] == pytest.approx(same.k[0] * 1e3 ** same.alpha[0], rel=1e-9)
