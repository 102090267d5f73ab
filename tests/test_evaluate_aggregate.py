"""Scores from predictions: means, clustered errors, and what must agree within a run."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtc.errors import InputError
from vtc.evaluate.aggregate import aggregate, clustered_stderr, score_item

RUN = {
    "run_id": "r",
    "backbone": "tiny",
    "n_params": 1000,
    "compressor": "mlp",
    "visual_tokens": 4,
    "benchmark": "b",
    "task": "reasoning",
    "metric": "exact_match",
}


def row(item: str, prediction: str, image: str = "i", **more):
    return {
        **RUN,
        "item_id": item,
        "image_id": image,
        "prediction": prediction,
        "references": ["yes"],
        **more,
    }


def test_scores_of_two_runs():
    rows = [
        row("1", "Yes.", "i"),
        row("2", "no", "j"),
        row("1", "no", run_id="s", visual_tokens=16),
        row("3", "yes", fault="damaged image"),
    ]
    scores = aggregate([score_item(r) for r in rows])
    assert [(s["run_id"], s["visual_tokens"], s["n_items"]) for s in scores] == [
        ("r", 4, 3),
        ("s", 16, 1),
    ]
    # The third item of run r has a fault: wrong, whatever its text says.
    assert scores[0]["score"] == pytest.approx(1 / 3)
    assert scores[0]["error"] == pytest.approx(2 / 3)
    assert scores[1]["stderr"] is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_one_item_an_image_gives_the_usual_standard_error(scores):
    found = clustered_stderr(scores, [str(n) for n in range(len(scores))])
    usual = statistics.stdev(scores) / math.sqrt(len(scores))
    assert found == pytest.approx(usual, abs=1e-12)


def test_copies_of_an_item_under_one_image_add_no_information():
    scores, images = [1.0, 0.0, 1.0, 1.0], ["a", "b", "c", "d"]
    alone = clustered_stderr(scores, images)
    copied = clustered_stderr(scores * 12, images * 12)
    assert copied == pytest.approx(alone)


def test_a_run_that_contradicts_itself_is_refused():
    with pytest.raises(InputError, match="column 'n_params' is 1000 in one row and 2000"):
        aggregate([score_item(row("1", "yes")), score_item(row("2", "yes", n_params=2000))])
    with pytest.raises(InputError, match="item '1' stands twice"):
        aggregate([score_item(row("1", "yes")), score_item(row("1", "no"))])
