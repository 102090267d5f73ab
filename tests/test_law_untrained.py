"""Points of elastic runs at V that they were not trained at: kept and said, or left out."""

import pytest

from vtc.law.points import read_points
from vtc.law.rows import data_flags
from vtc.law.run import Material, Request, fit_table
from vtc.law.sentences import describe


def rows(mark=False):
    return [
        {
            "run_id": f"n{n}", "benchmark": "b", "n_params_b": n, "visual_tokens": v,
            "error": 0.5 * n**-0.1 * v**-0.05, "visual_tokens_trained": mark if v == 9 else None,
        }
        for n in (1, 2, 4)
        for v in (1, 4, 9, 36)
    ]  # fmt: skip


@pytest.mark.parametrize("mark", [False, "false", "False", "0"])
def test_they_stay_unless_they_are_to_go(mark):
    [points] = read_points(rows(mark), "t")
    assert (len(points.points), points.n_untrained) == (12, 3)
    assert "untrained_rows" in data_flags(points)
    [dropped] = read_points(rows(mark), "t", drop_untrained=True)
    assert {point.visual_tokens for point in dropped.points} == {1, 4, 36}
    assert "untrained_rows" not in data_flags(dropped)


@pytest.mark.parametrize("mark", [True, "true", None, "1"])
def test_what_was_trained_or_is_not_known_is_not_marked(mark):
    for drop in (False, True):
        [points] = read_points(rows(mark), "t", drop_untrained=drop)
        assert (len(points.points), points.n_untrained) == (12, 0)


def test_the_fit_says_so():
    for drop in (False, True):
        request = Request("t.csv", drop_untrained=drop, n_draws=0)
        [(row, n_dropped)] = fit_table(request, Material(rows()))
        said = any("--drop-untrained leaves them out" in line for line in describe(row, n_dropped))
        assert said is not drop
        assert row["n_points"] == (9 if drop else 12)
