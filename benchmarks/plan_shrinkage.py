"""Whether the interval that `vtc plan` expects is the one that refitting finds, on average.

    python benchmarks/plan_shrinkage.py [--replicates 400] [--hours 60]

Plans upon the published points, then makes that plan's runs in simulated studies: the log-linear
truth as fitted, run noise and an effect of each LLM as the plan assumed them. Each study is fitted
whole, as `vtc fit` does, with the published runs and with the planned ones too. Printed are, of
ln(alpha/beta): the scatter of the estimates and the mean width of their intervals, beside what the
plan expects, and how many intervals cover the truth.
"""

import argparse
import math

import numpy as np

from vtc.catalog.measurements import PUBLISHED
from vtc.cost.study import Study
from vtc.law.design_goals import Goal
from vtc.law.design_plan import Question, plan
from vtc.law.design_pool import Candidate
from vtc.law.estimate import estimate
from vtc.law.intervals import ratio_interval, surrogate
from vtc.law.points import read_points, read_table
from vtc.law.rows import Settings, arrays
from vtc.law.varpro import fit_many

C, A, B = 0.590172, 0.0383889, 0.0081358
SIZES, TOKENS = (0.36e9, 0.5e9, 1.8e9, 4e9, 7e9, 14e9), (1, 4, 16, 36, 64, 144, 576)
FLOPS_AN_HOUR = 0.35 * 312e12 * 3600


def main() -> None:
    """Print expectation and simulation side by side, for each sd of the LLMs' peculiarities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--hours", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    [points] = read_points(read_table(str(PUBLISHED)), "published", tasks=("reasoning",))
    law = estimate(points, Settings(n_draws=0))
    study = Study(image_flops=366e9)
    pool = [
        Candidate(f"{n:g}", round(n), v, study.flops(n, v) / FLOPS_AN_HOUR)
        for n in SIZES
        for v in TOKENS
    ]
    for llm_sd in (0.0, 0.0012, 0.003):
        question = Question(points, law, pool, Goal("ratio"), options.hours, llm_sd=llm_sd)
        found = plan(question)
        log_n, log_v, _ = arrays(points)
        more_n = [math.log(row["n_params"] / 1e9) for row in found.rows]
        more_v = [math.log(row["visual_tokens"]) for row in found.rows]
        print(f"LLM sd {llm_sd}: {len(found.rows)} runs more, {options.hours:g} GPU-hours")
        last = found.rows[-1]
        for name, n, v, expected in (
            (
                "published",
                log_n,
                log_v,
                (found.rows[0]["before_low"], found.rows[0]["before_high"]),
            ),
            (
                "planned  ",
                np.append(log_n, more_n),
                np.append(log_v, more_v),
                (last["after_low"], last["after_high"]),
            ),
        ):
            width = math.log(expected[1] / expected[0])
            said = simulate(n, v, found.noise, options)
            print(f"  {name}: width expected {width:.4f}; {said}")


def simulate(log_n, log_v, noise, options) -> str:
    """Scatter, mean width and coverage over simulated studies, in words."""
    rng = np.random.default_rng(options.seed)
    sizes = np.unique(log_n)
    hit = (log_n[:, None] == sizes).astype(float)
    widths, ratios, covered = [], [], 0
    for _ in range(options.replicates):
        errors = C - A * log_n - B * log_v + rng.normal(0, noise.run_sd, len(log_n))
        errors = errors + hit @ rng.normal(0, noise.llm_sd, len(sizes))
        found = surrogate(log_n, log_v, errors, fit_many(log_n, log_v, errors[None]))
        ends = ratio_interval(found, 0.95)
        if ends is None:
            continue
        widths.append(math.log(ends[1] / ends[0]))
        ratios.append(math.log(found.alpha / found.beta))
        covered += ends[0] <= A / B <= ends[1]
    return (
        f"found {np.mean(widths):.4f} (sd of estimates {np.std(ratios):.4f}, coverage "
        f"{covered / len(widths):.3f}, {len(widths)} studies)"
    )


if __name__ == "__main__":
    main()
