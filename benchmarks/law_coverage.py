"""How often the interval of alpha/beta covers the truth, in simulated studies.

    python benchmarks/law_coverage.py [--replicates 1000] [--truth log-linear|power]

A study is the published one's design (4 sizes, 7 token counts) with run noise and an effect of
each LLM that hits all its points. `log-linear` is the truth of the published coverage figures;
`power` has steeper exponents and an irreducible error, as small worlds do.
"""

import argparse

import numpy as np

from vtc.law.intervals import ratio_interval, surrogate
from vtc.law.varpro import fit_many

SIZES = np.log([0.5, 1.8, 4.0, 7.0])
TOKENS = np.log([1, 4, 16, 36, 64, 144, 576])
RUN_SD = 0.0034
LLM_SDS = (0.0, 0.003, 0.006)


def main() -> None:
    """Print the coverage for each size of the LLM effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--truth", choices=("log-linear", "power"), default="log-linear")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    log_n, log_v = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS, indexing="ij"))
    if options.truth == "power":
        mean, ratio = 0.1 + 0.5 * np.exp(-0.3 * log_n - 0.1 * log_v), 3.0
    else:
        mean, ratio = 0.590172 - 0.0383889 * log_n - 0.0081358 * log_v, 0.0383889 / 0.0081358
    for llm_sd in LLM_SDS:
        print(f"LLM sd {llm_sd:.3f}:", coverage(log_n, log_v, mean, ratio, llm_sd, options))


def coverage(log_n, log_v, mean, ratio, llm_sd, options) -> str:
    """The share of simulated studies whose 95 % interval covers `ratio`, in words."""
    rng = np.random.default_rng(options.seed)
    covered = missing = 0
    widths = []
    for _ in range(options.replicates):
        effects = np.repeat(rng.normal(0, llm_sd, len(SIZES)), len(TOKENS))
        errors = mean + effects + rng.normal(0, RUN_SD, len(mean))
        fit = fit_many(log_n, log_v, errors[None])
        interval = ratio_interval(surrogate(log_n, log_v, errors, fit), 0.95)
        if interval is None:
            missing += 1
            continue
        covered += interval[0] <= ratio <= interval[1]
        widths.append(interval[1] - interval[0])
    share = covered / max(len(widths), 1)
    return f"coverage {share:.3f}, median width {np.median(widths):.3g}, no interval {missing}"


if __name__ == "__main__":
    main()
