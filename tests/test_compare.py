"""vtc compare: doubt, curves, shares and prices to their definitions; faults in the scores."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtc.catalog import encoders, llms
from vtc.compare import betas
from vtc.compare.cells import cells_of
from vtc.compare.curves import At, Curve, verdicts
from vtc.compare.estimates import Estimate, combined, difference, estimate, interval, seed_noise
from vtc.compare.gap import share_closed
from vtc.compare.pricing import Price, price, read_times
from vtc.compare.recipes import differences
from vtc.compare.run import Request, compare
from vtc.cost.compressor import InferenceCost, stated
from vtc.cost.inference import Compressing, Service, work
from vtc.errors import InputError
from vtc.law.run import Material, fit_laws
from vtc.law.run import Request as FitRequest
from vtc.law.studentt import t_quantile
from vtc.tables.compressors import settings_of

CLIP, QWEN = "openai/clip-vit-large-patch14-336", "Qwen1.5-0.5B"
SCORES = st.floats(0, 1)


def row(compressor, v, score, seed=0, benchmark="gqa", task="reasoning", **more):
    """A row of the scores table."""
    return {
        "run_id": f"{compressor}-v{v}-s{seed}",
        "backbone": QWEN,
        "n_params": 500_000_000,
        "compressor": compressor,
        "visual_tokens": v,
        "encoder": CLIP,
        "seed": seed,
        "benchmark": benchmark,
        "task": task,
        "metric": "exact_match",
        "score": score,
        "error": 1 - score,
        "n_items": 400,
        "stderr": 0.02,
        "chance": 0.05,
        **more,
    }


def exact(score, seeds=0.0001, items=0.0002):
    return Estimate(score, seeds, 20.0, items, 399.0)


def study(noise=0.01, seeds=(0, 1)):
    """Scores of two compressors that part, a control, and the uncompressed model."""
    draw = np.random.default_rng(0)
    rows = []
    for seed in seeds:
        for v in (1, 4, 16, 36):
            for name, score in (("avgpool", 0.2), ("quecc", 0.4), ("blind", 0.05)):
                slope = 0 if name == "blind" else 0.03
                rows.append(row(name, v, score + slope * math.log(v) + draw.normal(0, noise), seed))
        rows.append(row("mlp", 576, 0.7 + draw.normal(0, noise), seed))
    return rows


def free(cell):
    return Price(100.0, 10.0, 0.0, float(cell.visual_tokens))


def test_noise_between_seeds_is_pooled_over_cells():
    cells = [[0.5, 0.6], [0.2, 0.2, 0.5], [0.9]]
    noise = seed_noise(cells)
    wanted = (statistics.variance(cells[0]) + 2 * statistics.variance(cells[1])) / 3
    assert noise is not None
    assert noise.df == 3
    assert noise.variance == pytest.approx(wanted)
    assert seed_noise([[0.5], [0.4]]) is None


def test_an_interval_is_students_of_the_noise_that_is_known():
    noise = seed_noise([[0.4, 0.6], [0.3, 0.4]])
    alone = estimate([0.4, 0.6], [None, None], None, noise)
    half = t_quantile(0.975, 2) * math.sqrt(noise.variance / 2)
    assert alone.half_width(0.95) == pytest.approx(half)
    # The same images in both seeds: more seeds do not make their doubt smaller.
    items = estimate([0.5, 0.5], [0.03, 0.01], 101, None)
    assert items.half_width(0.95) == pytest.approx(t_quantile(0.975, 100) * math.sqrt(0.0005))
    assert estimate([0.5], [None], 10, None).half_width(0.95) is None
    both = estimate([0.5, 0.5], [0.03, 0.01], 101, noise)
    assert both.variance == pytest.approx(noise.variance / 2 + 0.0005)


def test_intervals_cover():
    """Scores of a known truth: noise of images shared by a cell's seeds, and of the seeds."""
    draw, hits, n = np.random.default_rng(1), 0, 400
    for _ in range(n):
        items = draw.normal(0, 0.015, 6)
        cells = [[0.5 + shared + own for own in draw.normal(0, 0.02, 2)] for shared in items]
        noise = seed_noise(cells)
        low, high = interval(estimate(cells[0], [0.015] * 2, 500, noise), 0.9)
        hits += low <= 0.5 <= high
    assert 0.86 <= hits / n <= 0.96


@given(SCORES, SCORES, st.floats(-2, 2))
def test_estimates_add_up_as_independent(one, other, weight):
    both = combined(((1.0, exact(one)), (weight, exact(other, 0.0003, 0.0001))))
    assert both.score == pytest.approx(one + weight * other)
    assert both.seeds == pytest.approx(0.0001 + 0.0003 * weight**2)
    assert both.items == pytest.approx(0.0002 + 0.0001 * weight**2)


def test_a_part_without_doubt_leaves_the_others_degrees_of_freedom():
    gap = difference(exact(0.5), Estimate(0.1, None, 0.0, 0.0, math.inf))
    assert gap.seeds_df == 20.0
    assert gap.half_width(0.95) == pytest.approx(exact(0.5).half_width(0.95))


def test_a_curve_buys_tokens_and_scores_straight_in_their_logarithm():
    points = [(100.0 + v, v, exact(0.1 + 0.05 * math.log(v))) for v in (16, 1, 4)]
    curve = Curve.of("a", points)
    assert curve.at(100.5) is None
    measured = curve.at(104.0)
    assert (measured.how, measured.visual_tokens) == ("measured", 4)
    assert measured.estimate == points[2][2]
    between = curve.at(110.0)
    assert between.how == "interpolated"
    assert between.visual_tokens == pytest.approx(10)
    assert between.estimate.score == pytest.approx(0.1 + 0.05 * math.log(10))
    # The doubt of the images is shared, that of the trainings is not.
    assert between.estimate.items == pytest.approx(0.0002)
    assert between.estimate.seeds < 0.0001
    beyond = curve.at(1e6)
    assert (beyond.how, beyond.visual_tokens) == ("cheaper", 16)
    assert beyond.estimate == points[0][2]


@given(st.lists(SCORES, min_size=1, max_size=6))
def test_the_best_is_never_behind(scores):
    rivals = [At(str(n), exact(score), 4, "measured") for n, score in enumerate(scores)]
    found = verdicts(rivals, 0.95)
    places = [found[one.label].place for one in rivals]
    top = max(rivals, key=lambda one: one.estimate.score)
    half = difference(top.estimate, top.estimate).half_width(0.95)
    for one, place in zip(rivals, places, strict=True):
        apart = top.estimate.score - one.estimate.score > half
        assert (place == "behind") == apart
    assert ("best" in places) == (len(places) > 1 and places.count("behind") == len(places) - 1)


def test_without_known_doubt_nothing_is_told_apart():
    rivals = [At(str(n), Estimate(n / 10, None, 0.0, None, 1.0), 4, "measured") for n in range(3)]
    assert {one.place for one in verdicts(rivals, 0.95).values()} == {"tied"}


@given(SCORES, st.floats(0.1, 3))
def test_a_share_of_a_gap_has_its_ends_and_no_scale(score, scale):
    floor, whole = exact(0.1), exact(0.9)
    share = share_closed(exact(score), floor, whole, 0.95)
    assert share.value == pytest.approx((score - 0.1) / 0.8)
    assert share.low < share.value < share.high
    assert share_closed(floor, floor, whole, 0.95).value == 0
    assert share_closed(whole, floor, whole, 0.95).value == 1
    smaller = [
        one._replace(
            score=scale * one.score, seeds=scale**2 * one.seeds, items=scale**2 * one.items
        )
        for one in (exact(score), floor, whole)
    ]
    assert share_closed(*smaller, 0.95).low == pytest.approx(share.low)


def test_no_share_of_a_gap_that_is_not_told():
    assert share_closed(exact(0.5), exact(0.5), exact(0.51), 0.95) is None
    assert share_closed(exact(0.5), exact(0.6), exact(0.4), 0.95) is None


@pytest.mark.parametrize("name", ["avgpool", "quecc"])
def test_a_price_is_that_of_an_inference(name):
    encoder, llm = encoders.shape(CLIP), llms.shape(QWEN)
    said = stated(name, encoder, llm.hidden_size, 16)
    found = price(llm, encoder, said, 16, 50)
    parts = work(
        llm, encoder, Compressing(said.n_params, said.flops, said.level, 1, said.needs_query), 16,
        Service(text_tokens=50),
    )  # fmt: skip
    assert found.total == pytest.approx(sum(part.flops for part in parts.values()))
    assert (found.query > 0) == (name == "quecc")


def test_text_that_is_fused_is_part_of_the_price():
    encoder, llm = encoders.shape(CLIP), llms.shape(QWEN)
    alone = price(llm, encoder, InferenceCost(0, 10**9, 23), 16, 50)
    fused = price(llm, encoder, InferenceCost(0, 10**9, 23, text_flops=(7, 3)), 16, 50)
    assert fused == alone._replace(query=7 * 50 + 3 * 50**2)


def test_cells_are_means_over_benchmarks_and_refuse_what_does_not_compare():
    rows = [
        row("avgpool", 4, score, seed, benchmark)
        for seed, benchmark, score in ((0, "a", 0.2), (0, "b", 0.4), (1, "a", 0.4), (1, "b", 0.4))
    ]
    [cell] = cells_of(rows)
    assert [run.score for run in cell.runs] == pytest.approx([0.3, 0.4])
    assert cell.runs[0].stderr == pytest.approx(math.sqrt(2 * 0.02**2) / 2)
    assert cell.seeds == [0, 1]
    assert len(cells_of(rows, "benchmark")) == 2
    for wrong, said in (
        (rows[:-1], "avgpool-v4-s1 has no row of benchmark 'b'"),
        ([*rows, rows[0]], "has benchmark 'a' twice at V = 4"),
        ([*rows, *({**one, "run_id": "again"} for one in rows[:2])], "again are both of avgpool"),
        ([{**rows[0], "n_items": 3}, *rows[1:]], "of 3 items in run avgpool-v4-s0, 400 items in"),
        ([{**rows[0], "metric": "anls"}, *rows[1:]], "scored by anls"),
        ([{**rows[0], "compressor": ""}], "no compressor"),
    ):
        with pytest.raises(InputError, match=said):
            cells_of(wrong)


def test_a_comparison_says_who_is_best_where():
    found = compare(study(), Request(), free)
    by = {(one["compressor"], one["visual_tokens"]): one for one in found.rows}
    assert len(found.rows) == 13
    assert by["quecc", 4]["same_v"] == "best"
    assert by["avgpool", 4]["same_v"] == "behind"
    assert by["avgpool", 4]["same_v_high"] < 0
    assert by["mlp", 576]["same_v"] == "only"
    assert by["mlp", 576]["gap_closed"] == 1
    assert by["blind", 4]["gap_closed"] == 0
    assert by["quecc", 4]["floor"] == "blind at V = 4"
    own, low, top = (by[key]["score"] for key in (("quecc", 4), ("blind", 4), ("mlp", 576)))
    assert by["quecc", 4]["gap_closed"] == pytest.approx((own - low) / (top - low))
    next_best = by["avgpool", 4]["score"]
    shares = (own - next_best) / (top - next_best)
    assert by["quecc", 4]["gap_closed_next"] == pytest.approx(shares)
    assert by["avgpool", 4]["next_best"] is None
    # At the uncompressed model's cost the others have their largest V left over.
    assert by["mlp", 576]["same_cost"] == "best"
    assert by["avgpool", 4]["same_cost_best"] == "quecc"
    assert by["avgpool", 4]["same_cost_how"] == "measured"
    assert by["quecc", 16]["seeds"] == "0,1"
    assert any("V = 4: quecc is best (of 3)" in line for line in found.lines)


def test_costs_change_who_is_best():
    """A compressor that costs as much as 30 tokens is no match at equal FLOPs."""
    rows = [one for one in study() if one["compressor"] in ("avgpool", "quecc")]
    rows = [
        one
        if one["compressor"] == "avgpool"
        else {**one, "score": one["score"] - 0.18, "error": one["error"] + 0.18}
        for one in rows
    ]

    def dear(cell):
        own = 130.0 if cell.compressor == "quecc" else 100.0
        return Price(own, 0.0, 0.0, float(cell.visual_tokens))

    found = compare(rows, Request(), dear)
    by = {(one["compressor"], one["visual_tokens"]): one for one in found.rows}
    assert by["quecc", 1]["same_v"] in ("best", "tied")
    assert by["quecc", 1]["same_cost"] == "behind"
    assert by["quecc", 1]["same_cost_best"] == "avgpool"
    assert by["quecc", 1]["same_cost_how"] == "interpolated"
    assert by["quecc", 1]["same_cost_best_v"] == pytest.approx(31)
    assert by["avgpool", 1]["same_cost"] == "only"


def test_what_is_missing_is_said():
    rows = [one for one in study() if one["compressor"] != "mlp"]
    lines = compare(rows[:-1], Request(), lambda cell: None).lines
    said = "\n".join(lines)
    assert "No run of mlp" in said
    assert "Seeds are missing: blind at V = 36 (1)." in said
    assert "Without a known cost: 12 of 12 rows" in said
    one_seed = compare(study(seeds=(0,)), Request(), free)
    assert any("One run a cell" in line for line in one_seed.lines)
    assert one_seed.rows[0]["stderr_seeds"] is None
    with pytest.raises(InputError, match="--floor blind"):
        compare([one for one in rows if one["compressor"] != "blind"], Request(floor="blind"), free)
    with pytest.raises(InputError, match="no scores of task 'ocr'; there are reasoning"):
        compare(rows, Request(tasks=("ocr",)), free)


def test_some_rows_without_a_cost_are_named():
    lines = compare(study(), Request(), lambda c: None if c.compressor == "mlp" else free(c)).lines
    [line] = [line for line in lines if "Without a known cost" in line]
    assert "1 of 13 rows (mlp at V = 576); not known is what these compressors cost" in line
    assert "--llm" not in line


def test_items_that_all_score_alike_give_no_interval_to_be_trusted():
    none_right = [{**one, "score": 0.0, "error": 1.0, "stderr": 0.0} for one in study()]
    lines = compare(none_right, Request(), free).lines
    [line] = [line for line in lines if "scored alike" in line]
    assert "avgpool at V = 1, blind at V = 1" in line
    assert "and 8 more" in line
    assert "13 intervals have no width" in line
    one = [{**row, "stderr": 0.0} if row["compressor"] == "mlp" else row for row in study()]
    [line] = [line for line in compare(one, Request(), free).lines if "scored alike" in line]
    assert "in mlp at V = 576: " in line
    assert "width" not in line  # The seeds still differ.
    assert not any("scored alike" in line for line in compare(study(), Request(), free).lines)


def test_an_uncompressed_model_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="--uncompressed xyz: the scores are of avgpool, blind, m"):
        compare(study(), Request(uncompressed="xyz"), free)


def test_tokens_dropped_inside_the_llm_have_no_v():
    rows = study()
    inside = {**row("fastv", 576, 0.5), "visual_tokens_mean": 64.0}
    found = compare([*rows, inside, {**inside, "visual_tokens_mean": 128.0}], Request(), free)
    assert "fastv" not in {one["compressor"] for one in found.rows}
    assert any(line.startswith("Left out: 2 of 28 rows") for line in found.lines)
    with pytest.raises(InputError, match="no scores of compressors before the LLM"):
        compare([inside], Request(), free)


def test_betas_are_those_of_fit():
    rows = [one for one in study() if one["compressor"] in ("avgpool", "quecc")]
    larger = [
        {**one, "backbone": "Qwen1.5-1.8B", "n_params": 1_800_000_000,
         "run_id": f"large-{one['run_id']}", "score": one["score"] + 0.1,
         "error": one["error"] - 0.1}
        for one in rows
    ]  # fmt: skip
    found = betas.betas(rows + larger, "task", 0.95)
    request = FitRequest("scores", by="compressor", share="alpha", n_draws=0)
    for law in fit_laws(request, Material(rows + larger)):
        beta = found["reasoning", None, CLIP, law.points.group]
        assert beta[:3] == (law.row["beta"], law.row["beta_low"], law.row["beta_high"])
    single = betas.betas(rows, "task", 0.95)
    assert all("single_size" in one.flags for one in single.values())
    assert len(single) == 2


@given(st.floats(-0.3, 0.3), st.floats(0.01, 0.2))
def test_a_slope_is_the_exponent_of_a_law_without_a_floor(beta, step):
    rows = [
        row("a", v, 1 - 0.6 * factor * v**-beta, seed, n_params=n, run_id=f"{n}-{v}-{seed}")
        for n, factor in ((10, 1.0), (20, 1 - step))
        for v in (1, 4, 16)
        for seed in (0, 1)
    ]
    rows = [one for one in rows if 0 < one["score"] < 1]
    found = betas.slopes(rows, "task", 0.95).get(("reasoning", None, CLIP, "a"))
    if found is None:  # Too few errors below 1 were left.
        assert len({one["visual_tokens"] for one in rows}) < 2
    else:
        assert found.value == pytest.approx(beta, abs=1e-9)
        assert found.high - found.low < 1e-6


def test_a_slopes_interval_is_students_of_the_residuals():
    draw = np.random.default_rng(0)
    v = np.repeat([1, 4, 16, 36], 2)
    errors = 0.8 * v**-0.1 * np.exp(draw.normal(0, 0.02, 8))
    rows = [row("a", int(t), 1 - e, n % 2, run_id=f"{t}-{n}") for n, (t, e) in enumerate(
        zip(v, errors, strict=True))]  # fmt: skip
    [found] = betas.slopes(rows, "task", 0.9).values()
    (slope, _), covariance = np.polyfit(np.log(v), -np.log(errors), 1, cov=True)
    half = 1.943180 * math.sqrt(covariance[0, 0])  # t of 95 %, six degrees of freedom.
    assert found[:3] == pytest.approx((slope, slope - half, slope + half))


def test_a_beta_that_the_points_do_not_tell_is_left_out():
    """A step and then nothing: a floor with any large exponent, and with none."""
    flat = [row("a", v, 0.1, seed) for v in (1, 4, 16) for seed in (0, 1)]
    flat[0]["score"], flat[0]["error"] = 0.11, 0.89
    found = compare(flat, Request(), free)
    assert {one["beta"] for one in found.rows} == {None}
    assert "beta_may_be_zero" in found.rows[0]["beta_flags"]
    assert found.rows[0]["beta_d0_low"] < 0 < found.rows[0]["beta_d0_high"]
    assert any("the points tell none" in line for line in found.lines)


def test_settings_come_back_from_their_text():
    assert settings_of('layers=2, query=area, trained=[1,4]') == {
        "layers": 2, "query": "area", "trained": [1, 4],
    }  # fmt: skip
    assert settings_of(None) == {}
    with pytest.raises(InputError, match="no list of KEY=VALUE"):
        settings_of("layers")


def test_measured_times_stand_for_costs(tmp_path):
    head = "subject,device,compressor,visual_tokens,text_tokens,encoder_ms,projector_ms,prefill_ms"
    cells = [f"{QWEN},gpu,{name},{v},50,10,{ms},{v}" for name, ms in (("avgpool", 1), ("quecc", 40))
             for v in (1, 4, 16, 36)]  # fmt: skip
    table = tmp_path / "costs.csv"
    table.write_text("\n".join([head, *cells]))
    times = read_times([str(table)], 50)
    found = compare(study(), Request(), lambda cell: None, times)
    by = {(one["compressor"], one["visual_tokens"]): one for one in found.rows}
    assert by["quecc", 4]["time_ms"] == 54
    assert by["mlp", 576]["same_cost"] is None
    assert by["avgpool", 36]["same_cost"] == "only"
    assert by["quecc", 1]["same_cost_how"] == "measured"
    with pytest.raises(InputError, match=r"it has text tokens 50"):
        read_times([str(table)], 7)
    table.write_text("\n".join([head, *cells, cells[0].replace("gpu", "other")]))
    with pytest.raises(InputError, match=r"holds 2 devices \(gpu, other\); name one with --device"):
        read_times([str(table)], 50)
    assert len(read_times([str(table)], 50, "other").by_cell) == 1


def test_recipes_that_differ_are_named(tmp_path):
    def manifest(name, parent=None, **settings):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        footer = {"settings": {"seed": 1, **settings}, "inputs": [{"sha256": "ab" * 32}]}
        text = json.dumps({"run_id": name, "llm": {"name": "q"}, "encoder": {"name": "e"},
                           "parent": parent, "footer": footer})  # fmt: skip
        (folder / "manifest.json").write_text(text)

    rows = [{"run_id": name} for name in ("a", "b", "gone")]
    manifest("stage1-a", learning_rate=0.1)
    manifest("stage1-b", learning_rate=0.1)
    manifest("a", "stage1-a", learning_rate=0.1)
    manifest("b", "stage1-b", learning_rate=0.2)
    lines = differences([str(tmp_path)], rows)
    assert lines == [
        "No manifest there of gone.",
        "q: learning_rate differs: 0.1 in a; 0.2 in b.",
    ]
    assert differences([], rows) == []
    with pytest.raises(InputError, match="no manifest there is of a run of the scores, such as x"):
        differences([str(tmp_path)], [{"run_id": "x"}])
