"""Plans on the published points: their order, their sums, their words, and the demonstrations."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from vtc.catalog.measurements import PUBLISHED
from vtc.cost.study import Study
from vtc.errors import InputError, NoAnswerError
from vtc.law.design import Sums, expected, line, log_widths
from vtc.law.design_forms import parse_forms
from vtc.law.design_goals import Goal, parse_goal, quantity
from vtc.law.design_llms import check_distinct, default_llms, sized
from vtc.law.design_plan import Question, plan
from vtc.law.design_pool import Candidate, pool_of
from vtc.law.design_words import describe
from vtc.law.estimate import estimate
from vtc.law.intervals import surrogate
from vtc.law.points import Point, Points, read_points, read_table
from vtc.law.rows import Settings, arrays
from vtc.law.varpro import fit_many

[POINTS] = read_points(read_table(str(PUBLISHED)), "published", tasks=("reasoning",))
LAW = estimate(POINTS, Settings(n_draws=0))
TOKENS = (1, 4, 16, 36, 64, 144, 576)
STUDY = Study((558e3, 665e3), image_flops=366e9)
A100 = 0.35 * 312e12 * 3600
# What the noise of the demonstrations was taken to be.
NOISE: dict[str, Any] = {"run_sd": 0.0034, "llm_sd": 0.0012}


def runs(*sizes_b, tokens=TOKENS, **more):
    return [
        Candidate(f"{n}B", round(n * 1e9), v, STUDY.flops(n * 1e9, v) / A100, **more)
        for n in sizes_b
        for v in tokens
    ]


def ask(candidates, hours=100.0, goal="ratio", **more):
    return Question(POINTS, LAW, candidates, parse_goal(goal), hours, **more)


def rows(candidates, hours=100.0, goal="ratio", **more):
    return plan(ask(candidates, hours, goal, **more)).rows


@pytest.mark.parametrize(
    ("n", "v", "hours"),
    [(7, 576, 84), (0.36, 64, 2.5), (0.36, 576, 5.4), (0.36, 1, 2.1), (0.5, 576, 7), (14, 1, 39),
     (14, 576, 167), (32, 144, 160)],
)  # fmt: skip
def test_hours_of_the_llava_recipe(n, v, hours):
    assert STUDY.flops(n * 1e9, v) / A100 == pytest.approx(hours, rel=0.02)


@pytest.fixture(scope="module")
def rated():
    found = rows(runs(0.36, 0.5, 1.8, 4, 7, 14, 32), 500.0, each=True, **NOISE)
    return found, {(row["n_params"] / 1e9, row["visual_tokens"]): row for row in found}


def test_small_llms_at_many_tokens_narrow_the_ratio_most_an_hour(rated):
    order, cells = rated
    for (n, v), share in (
        ((0.36, 64), 0.03), ((0.36, 576), 0.08), ((0.5, 576), 0.05), ((14, 1), 0.09),
    ):  # fmt: skip
        assert cells[n, v]["se_shrinkage"] == pytest.approx(share, abs=0.006)
    first = [row["n_params"] for row in order[:5]]
    assert first == [360_000_000] * 5
    replicates = [row for row in order if row["replicate"] == 2]
    assert (replicates[0]["n_params"], replicates[0]["visual_tokens"]) == (500_000_000, 576)
    # A larger LLM beats more tokens of a run, and a new one adds a degree of freedom besides.
    assert cells[14, 1]["se_shrinkage"] > cells[7, 1]["se_shrinkage"] > cells[4, 1]["se_shrinkage"]
    assert cells[14, 1]["shrinkage"] > cells[14, 1]["se_shrinkage"]
    assert cells[7, 1]["new_llm"] is False
    assert cells[14, 1]["new_llm"] is True


@pytest.mark.parametrize(
    ("n", "v", "by_noise", "sigma"),
    [(0.36, 1, 1.7, 1.35), (32, 144, 3.5, 2.7), (14, 576, 2.4, 1.9), (14, 1, 0.3, 0.25)],
)
def test_runs_tell_the_forms_apart(rated, n, v, by_noise, sigma):
    row = rated[1][n, v]
    # The gap over a run's noise, and over all that is not known of the run.
    assert abs(row["gap"]) / NOISE["run_sd"] == pytest.approx(by_noise, abs=0.08)
    assert row["sigma"] == pytest.approx(sigma, abs=0.06)


def test_the_published_data_say_stop():
    question = ask(runs(0.36, 0.5))
    found = plan(question)
    assert found.regret == pytest.approx(0.006, abs=0.001)
    text = "\n".join(describe(question, found, "Hours: stated."))
    assert "Stop: wherever alpha/beta lies in [3.856, 5.773], V = 13.5 wastes" in text
    assert "wastes at most 0.6% of the FLOPs" in text
    assert "first, two repeats of one cheap cell, such as 0.5B with V = 1" in text
    assert "--goal discriminate" in text
    strict = ask(runs(0.36, 0.5), stop=0.001)
    assert "Stop" not in "\n".join(describe(strict, plan(strict), ""))


def test_a_plan_keeps_to_its_budget_and_adds_up():
    found = rows(runs(0.36, 0.5, 1.8, 4), 40.0)
    assert found[-1]["gpu_hours_total"] <= 40
    total = list(itertools.accumulate(row["gpu_hours"] for row in found))
    assert [row["gpu_hours_total"] for row in found] == pytest.approx(total)
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    left = math.prod(1 - row["shrinkage"] for row in found)
    assert 1 - found[-1]["shrinkage_total"] == pytest.approx(left)
    for one, other in itertools.pairwise(found):
        assert other["before_low"] == one["after_low"]
        assert other["regret"] <= one["regret"] + 1e-12
    assert found[-1]["after_low"] > found[0]["before_low"]
    cells = [(row["n_params"], row["visual_tokens"]) for row in found]
    assert len(set(cells)) == len(cells), "a cell is made as often as --seeds says, once"
    again = rows(runs(0.5, tokens=(576,), seeds=3), 40.0)
    assert [row["replicate"] for row in again] == [2, 3, 4]


@pytest.mark.parametrize("goal", ["ratio", "predict:N=14b,V=16"])
@pytest.mark.parametrize("llm_sd", [0.0006, 0.003])
@pytest.mark.parametrize("hours", [10, 30, 100])
def test_a_plan_is_next_to_the_best_of_all_sets_of_runs(goal, llm_sd, hours):
    """All 4096 sets of 12 candidates: no set within the budget leaves a visibly narrower one."""
    pool_ = runs(0.36, 0.5, 1.8, 14, tokens=(1, 16, 576))
    found = plan(ask(pool_, hours, goal, llm_sd=llm_sd))
    log_n, log_v, errors = arrays(POINTS)
    law = line(surrogate(log_n, log_v, errors, fit_many(log_n, log_v, errors[None])), log_n, log_v,
               errors)  # fmt: skip
    pool = pool_of(POINTS, law, pool_)
    sets = (np.arange(4096)[:, None] >> np.arange(12)) & 1
    sets = sets[sets @ pool.hours <= hours]
    every = pool.base.plus(Sums(*(np.tensordot(sets, part, 1) for part in pool.each)))
    gradient = quantity(parse_goal(goal), law, 3).gradient
    widths = log_widths(expected(every, gradient, found.noise, pool.unit), 0.95)
    best = 1 - np.exp(widths.min() - widths[0])
    assert best - 0.002 < found.rows[-1]["shrinkage_total"] < best + 1e-9


def test_another_family_pays_only_in_pairs():
    level = {"level": ("smollm2", ""), "family": "smollm2"}
    found = rows(runs(0.36, 1.7, tokens=(1, 576), **level), 12.0)
    assert found[0]["with_next"]
    assert found[0]["shrinkage"] == pytest.approx(0, abs=1e-6)
    assert found[1]["shrinkage"] > 0.05
    assert found[0]["own_level"] == "smollm2"
    with pytest.raises(NoAnswerError, match="would help with alpha/beta"):
        rows(runs(0.36, tokens=(64,), **level), 12.0)


def test_other_goals():
    vstar = rows(runs(0.36, 0.5), 10.0, "vstar")[0]
    ratio = rows(runs(0.36, 0.5), 10.0)[0]
    assert vstar["after_low"] == pytest.approx(50 / (ratio["after_high"] - 1))
    assert vstar["shrinkage"] == ratio["shrinkage"]
    big = rows(runs(0.5, 7, 14), 60.0, "predict:N=14b,V=16")
    assert any(row["n_params"] == 14e9 for row in big)
    assert 0.46 < big[0]["value"] < 0.47
    half = big[0]["before_high"] - big[0]["before_low"]
    assert big[-1]["after_high"] - big[-1]["after_low"] == pytest.approx(
        half * (1 - big[-1]["shrinkage_total"])
    )
    told = rows(runs(0.36, 0.5, 14), 50.0, "discriminate")
    assert told[0]["n_params"] == 360_000_000
    assert told[0]["visual_tokens"] == 1
    sigmas = [row["sigma_total"] for row in told]
    assert sigmas == sorted(sigmas)
    assert sigmas[-1] < math.sqrt(sum(row["sigma"] ** 2 for row in told)) + 1e-9


def test_noise_stated_is_noise_used():
    quiet = rows(runs(0.36), 10.0, run_sd=0.001, llm_sd=0.0)[0]
    loud = rows(runs(0.36), 10.0, run_sd=0.004, llm_sd=0.0)[0]
    assert (quiet["run_sd"], quiet["llm_sd"]) == (0.001, 0.0)

    def width(row):
        return math.log(row["before_high"] / row["before_low"])

    assert width(loud) == pytest.approx(4 * width(quiet))
    assert loud["shrinkage"] == pytest.approx(quiet["shrinkage"])


def points(errors):
    cells = [Point(n * 10**9, v, e) for (n, v), e in errors.items()]
    return Points("t", tuple(cells), "nominal")


def test_points_that_no_plan_stands_on():
    grid = list(itertools.product((1, 2, 4), (1, 4, 16)))
    rising = points({(n, v): 0.3 + 0.05 * math.log(n * v) for n, v in grid})
    rising = rising.subset([p._replace(error=p.error + 1e-3 * (i * 7 % 5))
                            for i, p in enumerate(rising.points)])  # fmt: skip
    law = estimate(rising, Settings(n_draws=0))
    with pytest.raises(NoAnswerError, match=r"\(of the best law, .*\) are not both positive"):
        plan(Question(rising, law, runs(1), Goal("ratio"), 100))
    assert plan(Question(rising, law, runs(1), parse_goal("predict:N=8b,V=4"), 100)).rows
    flat = points({(1, v): 0.5 * v**-0.1 for v in (1, 4, 16, 64)})
    with pytest.raises(NoAnswerError, match="one LLM size only"):
        plan(Question(flat, {"ratio": None}, runs(1), Goal("ratio"), 100))
    exact = points({(n, v): 0.5 - 0.04 * math.log(n) - 0.01 * math.log(v) for n, v in grid})
    law = estimate(exact, Settings(n_draws=0))
    with pytest.raises(NoAnswerError, match="follow a law to the last digit"):
        plan(Question(exact, law, runs(1), Goal("ratio"), 100))
    assert plan(Question(exact, law, runs(1), Goal("ratio"), 100, run_sd=0.003)).rows
    with pytest.raises(InputError, match="no run to choose from"):
        plan(ask([]))
    with pytest.raises(NoAnswerError, match=r"0.36B with V = 1 needs 2.1\d GPU-hours"):
        plan(ask(runs(0.36), 2.0))


def test_two_sizes_leave_the_llms_sd_to_be_stated():
    rng = np.random.default_rng(0)
    cells = {(n, v): 0.6 - 0.04 * math.log(n) - 0.01 * math.log(v) + rng.normal(0, 0.002)
             for n in (1, 4) for v in (1, 4, 16, 64)}  # fmt: skip
    two = points(cells)
    question = Question(two, estimate(two, Settings(n_draws=0)), runs(1, 8), Goal("ratio"), 100)
    found = plan(question)
    assert found.noise.llm_sd == found.noise.run_sd
    assert "nothing to learn it from" in " ".join(describe(question, found, ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [("speed", "--goal speed is unknown"), ("predict", "write predict:N=14b,V=16"),
     ("predict:N=14b,V=1.5", "write predict"), ("predict:N=-14,V=16", "write predict"),
     ("predict:N=14b,V=16,V=16", "write predict"), ("predict:N=x,V=16", "write predict"),
     ("vstar:1", "is unknown")],
)  # fmt: skip
def test_goals_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        parse_goal(text)


@pytest.mark.parametrize("size", ["14", "14.0", "14b", "14B", "1.4e10"])
def test_a_small_n_counts_billions(size):
    assert parse_goal(f"predict:N={size},V=16") == parse_goal("predict:N=14000000000,V=16")


def test_forms_that_are_none():
    assert parse_forms("power, interaction") == ("power", "interaction")
    for text in ("power", "power,power", "power,cubic", "power,offset,additive"):
        with pytest.raises(InputError, match="name two of"):
            parse_forms(text)


def test_llms_by_name_and_size_are_counted_as_the_points_count():
    assert sized("0.5b", POINTS).name == sized("Qwen/Qwen1.5-0.5B-Chat", POINTS).name
    assert sized("SmolLM2-360M", POINTS).other == "smollm2"
    bare = sized("0.36b", POINTS)
    assert (bare.n_params, bare.source, bare.other) == (360_000_000, None, None)
    names = [one.name for one in default_llms(POINTS)]
    assert names[0] == "Qwen1.5-0.5B"
    assert names[-1] == "Qwen1.5-72B"
    [total] = read_points(
        read_table(str(PUBLISHED)), "published", tasks=("reasoning",), convention="total"
    )
    assert sized("Qwen1.5-0.5B", total).n_params == 463_987_712
    assert sized("0.464b", total).n_params == 463_987_712
    with pytest.raises(
        InputError, match=r"nominal count of Qwen1\.5-0\.5B, but the points count N"
    ):
        sized("0.5b", total)
    with pytest.raises(InputError, match=r"total count of Qwen1\.5-4B"):
        sized("3.95b", POINTS)
    with pytest.raises(InputError, match="the same LLM twice"):
        check_distinct([sized("0.5b", POINTS), sized("500m", POINTS)])
    for text in ("0.36", "-1b", "nobody"):
        with pytest.raises(InputError, match="is no size"):
            sized(text, POINTS)


@pytest.mark.parametrize("goal", ["ratio", "predict:N=14b,V=16"])
def test_no_run_of_a_plan_could_be_left_out(goal):
    pool = runs(0.36, 0.5, 1.8, 14, tokens=(1, 16, 576))
    found = rows(pool, 100.0, goal)
    whole = found[-1]["shrinkage_total"]
    made = [
        next(
            one
            for one in pool
            if (one.llm, one.visual_tokens) == (row["llm"], row["visual_tokens"])
        )
        for row in found
    ]
    assert len(made) > 2
    for out in range(len(made)):
        rest = made[:out] + made[out + 1 :]
        less = rows(rest, 100.0, goal)[-1]["shrinkage_total"]
        assert less < whole
