"""Figures of points and laws: hold-outs, ridges, forms, groups, runs of the same compute."""

import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from vtc.catalog import laws
from vtc.catalog.measurements import PUBLISHED
from vtc.cost.flops import prefill_flops
from vtc.errors import InputError, NoAnswerError
from vtc.figures import forms, groups, holdout, profile, ridge, same_compute
from vtc.figures.panel import law_panels
from vtc.law.forms import FORMS
from vtc.law.profiles import profile_rows
from vtc.tables import specs
from vtc.tables.write import write_rows


@pytest.fixture(scope="module")
def panel():
    [found] = law_panels(str(PUBLISHED), str(laws.path("published")), ("reasoning",), True)
    return found


# ------------------------------------------------------------ hold-out
@pytest.fixture(scope="module")
def held():
    [found] = holdout.read_panels(str(PUBLISHED), None, "n_params>=7b", ("reasoning",), True)
    return found


def test_held_out_points_are_the_laws_predictions(held):
    found = holdout.held_out(held.row)
    assert [(p.n_params, p.visual_tokens) for p in found] == [
        (7e9, v) for v in (1, 4, 16, 36, 64, 144, 576)
    ]
    for point in found:
        assert point.predicted == pytest.approx(held.law.error(7e9, point.visual_tokens))
        assert point.low < point.predicted < point.high
        off, low, high = point.off
        assert point.predicted * (1 + off / 100) == pytest.approx(point.error)
        assert low < off < high
    # The published claim: off by less than 2 %.
    assert max(abs(point.off[0]) for point in found) < 2


def test_a_task_without_a_law_has_no_panel(tmp_path):
    table = tmp_path / "points.json"
    cells = [(n, v) for n in (1, 2, 4) for v in (1, 4, 16)]
    rows = [
        {"task": task, "n_params_b": n, "visual_tokens": v, "error": error(n, v)}
        for task, error in (
            ("flat", lambda n, v: 0.5),
            ("law", lambda n, v: 0.5 * n**-0.3 / v**0.1),
        )
        for n, v in cells
    ]
    table.write_text(json.dumps(rows))
    found = holdout.read_panels(str(table), None, "n_params>=4b", (), False)
    assert [panel.points.task for panel in found] == ["law"]


def test_the_holdout_figure_shows_what_was_measured_hollow(held):
    above, below = holdout.draw([held]).axes
    hollow = [line for line in above.lines if line.get_markerfacecolor() == "white"]
    assert sum(len(line.get_xdata()) for line in hollow) == 7
    assert [note.get_text() for note in below.texts] == ["7B"]
    assert "7 of 7 inside" in below.get_title(loc="left")
    assert "7B, held out" in [note.get_text() for note in above.texts]


def test_holdout_takes_one_source_of_laws(tmp_path):
    for law, condition in ((None, None), ("published", "n_params>=7b")):
        with pytest.raises(InputError, match="give one of --law"):
            holdout.read_panels(str(PUBLISHED), law, condition, ("reasoning",), True)
    with pytest.raises(InputError, match="was fitted to all points"):
        holdout.read_panels(str(PUBLISHED), "published", None, ("reasoning",), True)


def test_a_law_without_intervals_is_drawn_without_bars(held):
    bare = {**held.row, "holdout_low": None, "holdout_high": None, "holdout_inside": None}
    below = holdout.draw([type(held)(held.points, bare)]).axes[1]
    assert [p.low for p in holdout.held_out(bare)] == [None] * 7
    assert sum(line.get_marker() == "_" for line in below.lines) == 0


# --------------------------------------------------------------- ridge
def test_the_valleys_floor_is_the_profile(panel):
    rows = [r for r in profile_rows(panel.points, panel.row) if r["parameter"] == "alpha"]
    [row] = [r for r in rows if abs(r["value"] - 0.08) == min(abs(s["value"] - 0.08) for s in rows)]
    beta = np.linspace(row["beta"] - 0.004, row["beta"] + 0.004, 401)
    column = ridge.sums_of_squares(panel, np.array([row["value"]]), beta)[:, 0]
    assert column.min() == pytest.approx(row["sse"], rel=1e-5)
    assert beta[column.argmin()] == pytest.approx(row["beta"], abs=3e-5)
    best = ridge.sums_of_squares(
        panel, np.array([panel.row["alpha"]]), np.array([panel.row["beta"]])
    )
    assert best[0, 0] == pytest.approx(panel.row["sse"], rel=1e-9)


def test_the_regions_are_whole_and_nested(panel):
    found = ridge.valley(panel)
    inside = [found.p > 1 - level for level in ridge.LEVELS]
    assert all((small <= large).all() for small, large in pairwise(inside))
    edges = inside[-1].copy()
    edges[1:-1, 1:-1] = False
    assert not edges.any()
    # alpha/beta is known where alpha and beta are not: the valley is long and thin.
    alpha, beta = np.meshgrid(found.alpha, found.beta)
    ratio = (alpha / beta)[inside[1]]
    assert ratio.max() / ratio.min() < 1.4 < alpha[inside[1]].max() / alpha[inside[1]].min()


def test_p_is_that_of_the_f_distribution(panel):
    stats = pytest.importorskip("scipy.stats")
    found = ridge.valley(panel)
    best = min(panel.row["sse"], found.sse.min())
    f = (found.sse[::40, ::40] - best) / 2 / (best / 24)
    assert found.p[::40, ::40] == pytest.approx(stats.f.sf(f, 2, 24), abs=1e-12)


def test_laws_without_a_ridge_are_refused(panel):
    with pytest.raises(NoAnswerError, match="one LLM size has no alpha"):
        ridge.valley(type(panel)(panel.points, {**panel.row, "alpha": None}))
    with pytest.raises(NoAnswerError, match="meets exactly"):
        ridge.valley(type(panel)(panel.points, {**panel.row, "sse": 0.0}))


def test_the_ridge_figure_draws_lines_of_one_ratio(panel):
    axes = ridge.draw([panel]).axes[0]
    slopes = [line.get_ydata()[1] / line.get_xdata()[1] for line in axes.lines
              if len(line.get_xdata()) == 2 and line.get_ydata()[1] == 10]  # fmt: skip
    row = panel.row
    wanted = [1 / row[name] for name in ("ratio", "ratio_low", "ratio_high")]
    assert slopes == pytest.approx(wanted)


# --------------------------------------------------------------- forms
def test_forms_are_those_of_the_law_room(panel):
    found = forms.fitted(panel.points)
    assert {one.name for one in found} == set(FORMS)
    assert [one.rmse for one in found] == sorted(one.rmse for one in found)
    power = next(one for one in found if one.name == "power")
    predicted = power.errors(np.array([5e8, 7e9]), 16)
    assert predicted == pytest.approx([panel.law.error(5e8, 16), panel.law.error(7e9, 16)])


def test_forms_of_a_table_belong_to_its_points(panel, tmp_path):
    rows = [
        {
            "task": "reasoning", "rank": 1, "form": "log-linear", "formula": "",
            "values": [0.59, 0.04, 0.01], "names": ["c", "a", "b"], "n_convention": "nominal",
            "n_points": 28, "sse": 1.0,
            "rmse": 0.1, "aicc": -3.0, "aicc_gap": 0.0, "ties": [], "at_n_params": [],
            "at_visual_tokens": [], "at_error": [], "flops": 1.0, "text_tokens": 50.0,
            "best_v": 1.0, "best_n_params": 1.0, "best_error": 0.5, "flags": [],
            "data_sha": panel.points.sha(),
        }
    ]  # fmt: skip
    table = str(tmp_path / "forms.parquet")
    write_rows([specs.FORMS.complete(row) for row in rows], specs.FORMS, table)
    [(points, found)] = forms.read_forms(str(PUBLISHED), table, ("reasoning",), True)
    assert points.sha() == panel.points.sha()
    assert [(one.name, one.note) for one in found] == [("log-linear", "AICc +0.0")]
    assert found[0].errors(1e9, 1.0) == pytest.approx(0.59)
    with pytest.raises(InputError, match="no forms of task 'ocr'"):
        forms.read_forms(str(PUBLISHED), table, ("ocr",), True)
    rows[0]["data_sha"] = "other"
    write_rows([specs.FORMS.complete(row) for row in rows], specs.FORMS, table, force=True)
    with pytest.raises(InputError, match="fitted to other points"):
        forms.read_forms(str(PUBLISHED), table, ("reasoning",), True)


def test_runs_of_several_tables_are_drawn_together(panel, tmp_path):
    lines = PUBLISHED.read_text(encoding="utf-8").splitlines()
    own = [line for line in lines[1:] if line.startswith("reasoning")]
    halves = [tmp_path / name for name in ("a.csv", "b.csv")]
    for half, rows in zip(halves, (own[:14], own[14:]), strict=True):
        half.write_text("\n".join([lines[0], *rows]))
    [found] = law_panels(list(map(str, halves)), None)
    assert found.points.sha() == panel.points.sha()
    with pytest.raises(InputError, match="given twice"):
        law_panels([str(halves[0])] * 2, None)


def test_the_forms_figure_goes_beyond_the_points(panel):
    left, right = forms.draw([(panel.points, forms.fitted(panel.points))]).axes
    assert max(line.get_xdata()[-1] for line in left.lines) == pytest.approx(4 * 576)
    assert max(line.get_xdata()[-1] for line in right.lines) == pytest.approx(7e10)
    named = [text.get_text() for text in left.get_legend().get_texts()]
    assert sum(name.startswith("power (rmse") for name in named) == 1
    assert len({str(line.get_linestyle()) + str(line.get_color()) for line in left.lines}) >= 7


# -------------------------------------------------------------- groups
def group(name, alpha, beta, **more):
    ratio = alpha / beta if alpha and beta and alpha > 0 < beta else None
    return {"task": "t", "by": "benchmark", "group": name, "k": 0.5, "alpha": alpha, "beta": beta,
            "ratio": ratio, **more}  # fmt: skip


def test_groups_stand_by_their_ratio_and_the_whole_last():
    rows = [
        group(None, 0.1, 0.02), group("b", 0.3, 0.02), group("none", None, 0.1),
        group("a", 0.1, 0.1), group("down", 0.1, -0.1),
    ]  # fmt: skip
    assert [row["group"] for row in groups.ordered(rows)] == ["a", "b", "none", "down", None]
    with pytest.raises(InputError, match="of whole tasks"):
        groups.ordered(rows[:1])


def test_axes_hold_all_estimates_and_cut_endless_bars():
    rows = [group("a", 0.1, 0.02, alpha_low=-3.0, alpha_high=5.0), group("b", 0.12, 0.03)]
    low, high = groups.span(rows, "alpha")
    assert -3 < low < 0.1
    assert 0.12 < high < 5
    low, high = groups.span(rows, "ratio")
    assert 0 < low < 4
    assert high > 5
    assert groups.span([group("a", None, 0.1)], "alpha") is None
    # One wild fit leaves the panel to the others, and is told there.
    rows = [group(f"g{n}", 0.1 + 0.01 * n, 0.05) for n in range(6)] + [group("wild", 30.0, 0.05)]
    low, high = groups.span(rows, "alpha")
    assert low < 0.1
    assert 0.15 < high < 1
    notes = [note.get_text() for note in groups.draw(rows).axes[0].texts]
    assert notes == ["30 →"]


def test_twelve_groups_with_long_names_are_drawn():
    rows = [
        group(f"a benchmark with a very long name, number {n}, $x$", 0.05 + 0.01 * n, 0.02,
              alpha_shrunk=0.08, beta_shrunk=0.02, ratio_shrunk=4.0, ratio_without_group=4.1)
        for n in range(12)
    ]  # fmt: skip
    figure = groups.draw([*rows, group(None, 0.1, 0.02)])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 13
    assert labels[-1] == "the whole task"
    assert max(len(line) for label in labels for line in label.split("\n")) <= 28
    figure.draw_without_rendering()


# -------------------------------------------------------- same compute
def score(n, v, benchmark="gqa", **more):
    row = {"n_params": n, "visual_tokens": v, "benchmark": benchmark, "score": 0.5, "stderr": 0.01,
           "chance": 0.2, "compressor": "tokenpacker", "compressor_settings": None}  # fmt: skip
    return row | more


GRID = [
    score(n, v, benchmark)
    for n in (5 * 10**8, 18 * 10**8, 4 * 10**9, 7 * 10**9)
    for v in (1, 4, 16, 36, 64, 144, 576)
    for benchmark in ("gqa", "textvqa")
]


def test_runs_of_a_budget_cost_about_as_much():
    every = same_compute.choices_of(GRID, 50)
    assert len(every) == 28
    budget = same_compute.best_budget(every, 0.25)
    found = same_compute.match(every, budget, 0.25)
    # The published study's trade: one more size up for every fourth of the tokens.
    assert [(one.n_params, one.visual_tokens) for one in found.choices] == [
        (5 * 10**8, 576), (18 * 10**8, 144), (4 * 10**9, 36), (7 * 10**9, 1),
    ]  # fmt: skip
    for one in found.choices:
        assert one.flops == prefill_flops(one.n_params, one.visual_tokens, 50)
        assert budget / 1.25 <= one.flops <= 1.25 * budget


def test_tokens_dropped_inside_the_llm_cost_what_is_left_of_them():
    rows = [score(10**9, 576), score(10**9, 576, compressor="fastv", visual_tokens_mean=200.0)]
    fastv, plain = same_compute.choices_of(rows, 50)
    assert (fastv.compressor, plain.compressor) == ("fastv", "tokenpacker")
    assert fastv.flops == prefill_flops(1e9, 200, 50)
    assert plain.flops == prefill_flops(1e9, 576, 50)


def test_budgets_without_two_llms_are_refused():
    every = same_compute.choices_of(GRID, 50)
    with pytest.raises(NoAnswerError, match="nearest: 500M at V = 1"):
        same_compute.match(every, 1e9, 0.25)
    with pytest.raises(NoAnswerError, match="one LLM size alone"):
        same_compute.best_budget(every[:7], 0.25)
    with pytest.raises(NoAnswerError, match="no two LLMs"):
        same_compute.best_budget([every[0], every[-1]], 0.25)


def test_scores_of_the_same_compute_are_drawn_by_benchmark():
    every = same_compute.choices_of(GRID, 50)
    matches = [same_compute.match(every, flops, 0.4) for flops in (3e11, 1e12)]
    rows = [*GRID, score(7 * 10**9, 16, "mme", stderr=None, chance=None)]
    figure = same_compute.draw(rows, matches)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "gqa", "textvqa", "mme",
    ]  # fmt: skip
    named = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert "7B, V = 16 (924 GFLOP)" in named
    many = [score(10**9 + n, 16, compressor=f"c{n}") for n in range(9)]
    choices = same_compute.choices_of(many, 50)
    with pytest.raises(InputError, match="9 choices"):
        same_compute.draw(many, [same_compute.match(choices, choices[0].flops, 0.25)])


def test_rows_of_json_may_lack_columns(tmp_path):
    table = tmp_path / "points.json"
    rows = [
        {"n_params_b": n, "visual_tokens": v, "error": 0.5 * n**-0.1 * v**-0.05 + 0.001 * (v % 3)}
        for n in (1, 2, 4)
        for v in (1, 4, 16)
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    [(points, found)] = forms.read_forms(str(table), None, (), False)
    assert points.task == "all"
    assert len(found) == 7


# -------------------------------------------------------------- scales and profiles


def test_ratios_close_to_one_another_have_several_ticks():
    axes = Figure().subplots()
    groups._ratio_scale(axes, 4.2, 5.3)
    assert len(axes.get_xticks()) >= 3


def test_admitted_ends_lie_on_the_threshold():
    values, rises = [0.0, 1.0, 2.0, 3.0], [8.0, 0.0, 2.0, 6.0]
    rows = [{"f": f, "admitted": f < 4} for f in rises]
    bound = profile.threshold(rows)
    assert bound == 4.0
    x, y = profile.admitted(values, rises, bound)
    assert [(a, b) for a, b in zip(x, y, strict=True) if b == b] == [
        (0.5, 4.0), (1.0, 0.0), (2.0, 2.0), (2.5, 4.0)
    ]  # fmt: skip
    assert profile.threshold(rows[1:3]) is None
