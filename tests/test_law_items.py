"""Intervals over other items: a paired bootstrap of images, crossed with the noise of runs."""

import json

import numpy as np
import pytest
from law_design import LOG_N, LOG_V, law
from shell import vtc

from vtc.evaluate.influences import read_influences
from vtc.evaluate.kinds import is_predictions
from vtc.law import items, splitplot
from vtc.law.estimate import Settings, estimate
from vtc.law.points import Point, Points, read_points

N_IMAGES, PER_IMAGE = 60, 3


def predictions(seed=0):
    """Answers of a small study: items differ in hardness, those of an image alike."""
    rng = np.random.default_rng(seed)
    hardness = np.repeat(rng.normal(0, 0.15, N_IMAGES), PER_IMAGE)
    rows = []
    for n, v in ((n, v) for n in (1, 2, 4) for v in (1, 8, 64)):
        right = 0.5 * n**-0.3 * v**-0.1 + hardness + rng.normal(0, 0.1, len(hardness)) < 0.35
        about = {"run_id": f"r{n}-{v}", "backbone": f"llm-{n}", "n_params": n * 10**9,
                 "visual_tokens": v, "compressor": "avgpool", "metric": "exact_match",
                 "task": "reasoning", "benchmark": "own"}  # fmt: skip
        rows += [
            {**about, "item_id": str(i), "image_id": str(i // PER_IMAGE), "references": ["yes"],
             "prediction": "yes" if one else "no"}
            for i, one in enumerate(right)
        ]  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("items") / "predictions.json"
    path.write_text("\n".join(map(json.dumps, predictions())))
    rows, images = read_influences(str(path))
    [points] = read_points(rows, "t")
    return path, points, images


def test_a_bootstrap_is_one_of_the_runs_scores(study):
    _, points, images = study
    [moved] = items.shifts(points, images)
    assert moved.shape == (N_IMAGES, 9)
    rows = predictions()
    weights = np.bincount(np.random.default_rng(5).integers(0, N_IMAGES, N_IMAGES),
                          minlength=N_IMAGES)  # fmt: skip
    for at, point in enumerate(points.points):
        own = [row for row in rows if row["run_id"] == point.run]
        wrong = np.array([row["prediction"] == "no" for row in own], dtype=float)
        resampled = np.average(wrong, weights=weights[[int(row["image_id"]) for row in own]])
        # Exact for a mean of images of equal size, up to the small-sample factor.
        small = (N_IMAGES / (N_IMAGES - 1)) ** 0.5
        assert point.error + (weights - 1) @ moved[:, at] / small == pytest.approx(resampled)


def test_the_draws_have_the_clustered_covariance(study):
    _, points, images = study
    moved = items.shifts(points, images)
    covariance = items.covariance(moved)
    noise = items.resample(moved, 20_000, np.random.default_rng(0))
    assert np.abs(noise.mean(axis=0)).max() < 0.002
    assert np.allclose(np.cov(noise.T), covariance, atol=0.03 * covariance.max())
    errors = {row["run_id"]: row["stderr"] for row in read_influences(str(study[0])).rows}
    for at, point in enumerate(points.points):
        assert covariance[at, at] ** 0.5 == pytest.approx(errors[point.run])


def test_what_all_points_share_is_taken_out():
    shared = np.full((5, 5), 2.0)
    assert items.not_shared(shared) == pytest.approx(0)
    assert items.not_shared(shared + np.eye(5)) == pytest.approx(1)


def test_known_noise_leaves_the_mean_squares():
    rng = np.random.default_rng(0)
    linear = np.stack([np.ones(28), LOG_N, LOG_V], axis=1)
    plots = (LOG_N[:, None] == np.unique(LOG_N)) * 1.0
    root = rng.normal(0, 1, (28, 28)) / 28**0.5
    covariance = root @ root.T
    left = []
    for _ in range(300):
        noise = rng.normal(0, 1, 28) + root @ rng.normal(0, 1, 28)
        residual = noise - linear @ np.linalg.lstsq(linear, noise, rcond=None)[0]
        strata = splitplot.without(splitplot.split(linear, residual, plots), covariance)
        left.append((strata.ms_within, strata.ms_between))
    # A floor at zero lifts the mean of the few degrees of freedom between LLMs, not within them.
    assert np.mean(left, axis=0)[0] == pytest.approx(1, abs=0.15)
    assert 0.8 < np.mean(left, axis=0)[1] < 2.5


def test_items_that_turn_the_law_widen_its_interval():
    rng = np.random.default_rng(0)
    errors = law(0.5, 0.3, 0.1, 0.1) + rng.normal(0, 0.003, 28)
    cells = [Point(round(np.exp(a) * 1e9), round(np.exp(b)), float(e), f"r{i}")
             for i, (a, b, e) in enumerate(zip(LOG_N, LOG_V, errors, strict=True))]  # fmt: skip
    points = Points("t", tuple(cells), "nominal", benchmarks=("b",))
    widths = {}
    for name, pattern in (("shift", np.ones(28)), ("turn", LOG_V - LOG_V.mean())):
        slopes = rng.normal(0, 0.003, 100)
        moved = np.outer(slopes - slopes.mean(), pattern) / 10
        images = {
            (p.run, p.visual_tokens, "b"): {str(i): cell for i, cell in enumerate(column)}
            for p, column in zip(cells, moved.T.tolist(), strict=True)
        }
        row = estimate(points, Settings(n_draws=50), images)
        assert len(row["draw_k"]) == 50
        widths[name] = row["ratio_items_high"] - row["ratio_items_low"]
        plain = row["ratio_high"] - row["ratio_low"]
    assert widths["shift"] < 1.6 * plain
    assert widths["turn"] > 2 * plain


def test_equal_answers_are_scored_once_and_alike(study):
    from vtc.evaluate.aggregate import aggregate, score_item
    from vtc.evaluate.predictions import Source, read_predictions

    path, _, _ = study
    rows = [score_item(row) for row in read_predictions(path, Source({}))]
    assert read_influences(str(path)).rows == aggregate(rows)
    assert is_predictions(str(path))
    assert not is_predictions("-")


def test_fit_takes_predictions(study, tmp_path):
    path, points, _ = study
    out = tmp_path / "law.json"
    done = vtc("fit", path, "-o", out, "--draws", "30")
    assert done.returncode == 0, done.stderr
    row = json.loads(out.read_text())
    assert row["n_points"] == len(points.points)
    assert row["item_sd"] > row["item_sd_not_shared"] > 0
    assert "with other images of the same kind" in done.stderr or row["ratio"] is None
