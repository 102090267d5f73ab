"""Figures of what a law advises: their points are `recommend`'s answers."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtc import recommend as adviser
from vtc.catalog import laws, llms
from vtc.commands import deploying
from vtc.cost.flops import affordable_n_params, prefill_flops
from vtc.errors import InputError, NoAnswerError
from vtc.figures import choices, decision, text
from vtc.figures import regret as shown
from vtc.figures.panel import law_mixes
from vtc.law import regret
from vtc.law.power import PowerLaw
from vtc.recommend.deploy import advise
from vtc.recommend.laws import Mix, Part
from vtc.tables import specs
from vtc.tables.read import read_rows
from vtc.tables.write import write_rows

REASONING, OCR = law_mixes("published")


def law_of(alpha, beta, d=0.1, text_tokens=50.0):
    """A mix of one law fitted on 1B to 8B and V from 1 to 576."""
    row = {
        "task": "t", "alpha": alpha, "beta": beta, "ratio_low": None, "ratio_high": None,
        "n_params_min": 10**9, "n_params_max": 8 * 10**9, "visual_tokens_min": 1,
        "visual_tokens_max": 576, "text_tokens": text_tokens, "n_convention": "nominal",
    }  # fmt: skip
    return Mix("law", (Part("t", 1.0, row, PowerLaw(0.5, alpha, beta, d)),))


# ---------------------------------------------------------------- text
@pytest.mark.parametrize("q", [0, 10, 50, 400])
@pytest.mark.parametrize("mix", [REASONING, OCR], ids=["reasoning", "ocr"])
def test_the_best_v_is_where_the_curve_is_lowest(mix, q):
    flops = text.default_flops(mix)
    found, curve = text.best(mix, flops, q), text.at_budget(mix, flops, q)
    n, v = found.n_params, found.visual_tokens
    assert prefill_flops(n, v, q) == pytest.approx(flops)
    assert mix.error(n, v) <= curve.errors.min() + 1e-12
    at = curve.visual_tokens[curve.errors.argmin()]
    assert abs(math.log(at / v)) < math.log(576) / (text.STEPS - 1)


def test_the_published_best_v_and_its_interval():
    found = text.best(REASONING, 1e12, 50)
    assert found.visual_tokens == pytest.approx(13.5, abs=0.05)
    assert (found.low, found.high) == pytest.approx((12.1, 15.1), abs=0.1)
    # OCR: as many as there are; without text reasoning takes the fewest.
    assert text.best(OCR, 1e12, 50).visual_tokens == 576
    assert text.best(REASONING, 1e12, 0).visual_tokens == 1


def test_curves_say_which_sizes_were_fitted():
    curve = text.at_budget(REASONING, prefill_flops(7e9, 16, 50), 50)
    sizes = [affordable_n_params(prefill_flops(7e9, 16, 50), v, 50) for v in curve.visual_tokens]
    assert list(curve.covered) == [5e8 <= n <= 7e9 for n in sizes]
    assert curve.covered.any()
    assert not curve.covered.all()


def test_the_text_figure_names_every_q():
    figure = text.draw([REASONING, OCR], (0, 50), None)
    named = [note.get_text() for note in figure.axes[0].texts]
    assert sorted(named) == ["Q = 0", "Q = 50"]
    assert figure.axes[2].get_ylabel() == "best V (visual tokens)"


# -------------------------------------------------------------- regret
def test_regret_of_the_published_law():
    # 2 * 7e9 * 64 FLOP at Q = 50: what each V wastes of them.
    slope, _ = shown.slopes_of(REASONING)
    v = np.array([1, 4, 16, 36, 64, 144, 576])
    found = 100 * regret.wasted(slope, 50, v, (1, 576))
    assert found == pytest.approx([28, 9, 0, 9, 22, 46, 77], abs=1.0)
    low, high = shown.little(slope, 50, (1, 576))
    assert (low, high) == (9, 21)


@settings(max_examples=40, deadline=None)
@given(
    alpha=st.floats(0.02, 0.4), beta=st.floats(0.005, 0.4), q=st.floats(0, 500),
    v=st.floats(1, 576), n=st.floats(1e9, 1e11),
)  # fmt: skip
def test_what_is_saved_reaches_the_same_error(alpha, beta, q, v, n):
    """FLOPs that are left are an exponential: 1 - waste has no digits where waste is near 1."""
    mix, law = law_of(alpha, beta), PowerLaw(0.5, alpha, beta, 0.1)
    log_left = float(regret.log_left(beta / alpha, q, [v], (1, 576))[0])
    free = adviser.optimum(
        adviser.Question(1.0, q, "", mix.row, (), (1, 576), mix=mix)
    ).visual_tokens
    left = math.exp(log_left) * prefill_flops(n, v, q)
    error = law.error(n, v)
    assert law.error(affordable_n_params(left, free, q), free) == pytest.approx(error, rel=1e-9)
    # No other V does better with what is left.
    for other in np.geomspace(1, 576, 25).tolist():
        found = law.error(affordable_n_params(left, other, q), other)
        assert found >= error * (1 - 1e-9)
    # Half of it does not reach the error.
    assert law.error(affordable_n_params(left / 2, free, q), free) > error


def test_slopes_hold_the_interval_and_the_estimate():
    slope, admitted = shown.slopes_of(REASONING)
    row = REASONING.row
    assert slope == row["beta"] / row["alpha"]
    assert 1 / admitted.min() == pytest.approx(row["ratio_high"])
    assert 1 / admitted.max() == pytest.approx(row["ratio_low"])
    assert slope in admitted
    v = np.geomspace(1, 576, 9)
    band = regret.wasted(admitted, 50, v, (1, 576))
    assert band.shape == (len(admitted), 9)
    assert (band.min(axis=0) <= regret.wasted(slope, 50, v, (1, 576))).all()


def test_laws_that_cannot_choose_are_refused(tmp_path):
    rows = read_rows(laws.path("published"), specs.LAW).rows
    path = str(tmp_path / "law.parquet")
    bare = {name: [] for name in rows[0] if name.startswith("draw_")} | {"alpha": -0.1}
    write_rows([row | bare for row in rows], specs.LAW, path)
    with pytest.raises(NoAnswerError, match="a larger one does not lower the error"):
        law_mixes(path)
    with pytest.raises(NoAnswerError, match="a larger one does not lower the error"):
        choices.decide(choices.Choices(law_of(-0.1, 0.1), llms.family("qwen1.5"), (1, 4)), (1, 9))
    two = replace(REASONING, parts=(REASONING.parts[0], OCR.parts[0]))
    with pytest.raises(InputError, match="not a mix"):
        shown.slopes_of(two)


def test_the_regret_figure_has_a_band_at_the_laws_own_q():
    figure = shown.draw([REASONING, law_of(0.2, -0.1)], (0, 50), 1e12)
    assert "V = 9 to 21 waste at most 2 %" in figure.axes[0].get_title(loc="left")
    assert "V = 1 alone wastes" in figure.axes[1].get_title(loc="left")
    assert [len(axes.collections) for axes in figure.axes[:2]] == [1, 0]


# ----------------------------------------------------------------- map
@pytest.mark.parametrize("mix", [REASONING, OCR], ids=["reasoning", "ocr"])
def test_the_map_is_what_recommend_puts_first(mix):
    # Two families, so that LLMs of one N stand side by side.
    models, tokens = [*llms.family("qwen2.5"), *llms.family("qwen1.5")], (1, 4, 16, 64, 144, 576)
    found = choices.decide(choices.Choices(mix, models, tokens), (1, 1000), cells=(7, 11))
    nothing = 0
    for line, q in enumerate(found.text_tokens.tolist()):
        for column, flops in enumerate(found.budgets.tolist()):
            asked = adviser.Question(flops, q, mix.name, mix.row, models, tokens, 1, mix)
            try:
                best = adviser.recommend(asked).rows[0]
            except NoAnswerError:
                assert found.best[line, column] == choices.NOTHING
                nothing += 1
                continue
            assert models[found.model[line, column]].model == best["model"]
            assert tokens[found.tokens[line, column]] == best["visual_tokens"]
    assert 0 < nothing < found.best.size


def test_a_map_of_several_tasks_weighs_them():
    [mix] = law_mixes("published", ("reasoning:0.5,ocr:0.5",))
    asked = choices.Choices(mix, llms.family("qwen1.5"), (1, 64, 576))
    assert asked.errors[0, 0] == pytest.approx(mix.error(5e8, 1))
    found = choices.decide(asked, (1, 100), (1e10, 1e13), cells=(4, 5))
    assert decision.draw(found).axes[0].get_title(loc="left").startswith("best LLM, reasoning:0.5")


def test_a_map_on_which_nothing_fits_is_refused():
    asked = choices.Choices(REASONING, llms.family("qwen1.5"), (1, 4))
    with pytest.raises(NoAnswerError, match="the cheapest choice takes 11G"):
        choices.decide(asked, (10, 20), (1.0, 2.0), cells=(3, 3))


def deployment(**flags):
    """What `recommend` asks with these flags."""
    named = {"gpu": ("rtx4090",), "latency": 1.0, "text_tokens": 50.0, **flags}
    asked = defaultdict(lambda: None, named)
    return deploying.deployment(asked, REASONING, deploying.llms_of(asked))


def test_a_gpus_map_is_what_recommend_puts_first():
    question = deployment(weights="nf4", generated=8.0)
    asked = choices.Served(REASONING, question.models, question.visual_tokens, question)
    found = choices.decide(asked, (5, 500), (0.005, 0.2), cells=(3, 5))
    places = []
    for line, q in enumerate(found.text_tokens.tolist()):
        for column, seconds in enumerate(found.budgets.tolist()):
            again = deployment(weights="nf4", generated=8.0, latency=seconds, text_tokens=q, top=1)
            rows = advise(again).rows
            place = found.best[line, column]
            assert (place == choices.NOTHING) == (not rows)
            if rows:
                assert question.models[found.model[line, column]].model == rows[0]["model"]
                v = question.visual_tokens[found.tokens[line, column]]
                assert v == rows[0]["visual_tokens"]
            places.append(place)
    assert len(set(places)) > 3
    # The 72B fits no such card, whatever the budget.
    assert np.isinf(asked.costs(5.0)[-1]).all()
    assert [asked.said(one) for one in (0.03, 0.0025, 2.0)] == ["30 ms", "2.5 ms", "2 s"]
    assert asked.label == "budget: time to the last token on rtx4090 (roofline)"


def test_a_gpu_that_holds_nothing_is_refused():
    question = deployment(vram=10**8)
    asked = choices.Served(REASONING, question.models, question.visual_tokens, question)
    with pytest.raises(NoAnswerError, match="no choice fits the memory"):
        choices.decide(asked, (5, 500), cells=(2, 2))


def test_names_stand_where_a_region_is_deepest():
    region = np.zeros((20, 60), dtype=bool)
    region[5:12, 10:50] = True
    region[15:17, 3:6] = True
    line, column, depth = decision.deepest(region)
    assert region[line, column]
    assert 6 <= line <= 10
    assert 20 <= column <= 40
    assert depth == 4
    assert decision.deepest(np.zeros((3, 3), dtype=bool))[2] == 0
