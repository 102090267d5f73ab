"""How often the interval of alpha/beta covers the truth, in simulated studies.

    python benchmarks/law_coverage.py [--replicates 1000] [--truth log-linear|power]
    python benchmarks/law_coverage.py --replicates 300 --images 400
    python benchmarks/law_coverage.py --replicates 300 --share exponents|alpha|none
    python benchmarks/law_coverage.py --replicates 300 --jackknife --llm-sd 0.006

A study is the published one's design (4 sizes, 7 token counts) with run noise and an effect of
each LLM that hits all its points. `log-linear` is the truth of the published coverage figures;
`power` has steeper exponents and an irreducible error, as small worlds do.

With `--images` every run answers the same items, a new draw of them for each study, five an image;
items differ in hardness and in how far N and V help with them. The truth is that of all items there
could be: the split-plot interval, which takes the items as given, must miss it, and the one over
images must not.

With `--share` three compressors stand on the same LLMs, with laws of their own; their exponents,
or alpha, are shared in truth and in the fit. Coverage is that of alpha and of beta one by one, and
of alpha/beta, of the first compressor; `none` fits its law alone. Truth is a power law.
"""

import argparse

import numpy as np

from vtc.law.estimate import Settings, estimate
from vtc.law.groups import group_rows
from vtc.law.intervals import leave_one_size_out, ratio_interval, surrogate
from vtc.law.points import Point, Points
from vtc.law.varpro import fit_many

SIZES = np.log([0.5, 1.8, 4.0, 7.0])
TOKENS = np.log([1, 4, 16, 36, 64, 144, 576])
RUN_SD = 0.0034
LLM_SDS = (0.0, 0.003, 0.006)
# k, beta and D of three compressors, where beta is not shared.
GROUPS = ((0.5, 0.1, 0.1), (0.35, 0.13, 0.2), (0.6, 0.08, 0.05))
ALPHA, BETA = 0.3, 0.1


def main() -> None:
    """Print the coverage for each size of the LLM effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--truth", choices=("log-linear", "power"), default="log-linear")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jackknife", action="store_true", help="cover by the jackknife, too")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--llm-sd", type=float, nargs="+", default=LLM_SDS, help="LLM effects")
    parser.add_argument("--share", choices=("exponents", "alpha", "none"))
    options = parser.parse_args()
    log_n, log_v = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS, indexing="ij"))
    if options.truth == "power":
        mean, ratio = 0.1 + 0.5 * np.exp(-0.3 * log_n - 0.1 * log_v), 3.0
    else:
        mean, ratio = 0.590172 - 0.0383889 * log_n - 0.0081358 * log_v, 0.0383889 / 0.0081358
    for llm_sd in options.llm_sd:
        if options.share:
            print(f"LLM sd {llm_sd:.3f}:", share_coverage(log_n, log_v, llm_sd, options))
            continue
        if options.images:
            print(
                f"LLM sd {llm_sd:.3f}:", image_coverage(log_n, log_v, mean, ratio, llm_sd, options)
            )
            continue
        print(f"LLM sd {llm_sd:.3f}:", coverage(log_n, log_v, mean, ratio, llm_sd, options))


def coverage(log_n, log_v, mean, ratio, llm_sd, options) -> str:
    """The share of simulated studies whose 95 % interval covers `ratio`, in words."""
    rng = np.random.default_rng(options.seed)
    covered = missing = folded = 0
    widths = []
    for _ in range(options.replicates):
        effects = np.repeat(rng.normal(0, llm_sd, len(SIZES)), len(TOKENS))
        errors = mean + effects + rng.normal(0, RUN_SD, len(mean))
        fit = fit_many(log_n, log_v, errors[None])
        found = surrogate(log_n, log_v, errors, fit)
        if options.jackknife:
            left = leave_one_size_out(log_n, log_v, errors, found, 0.95)
            folded += left is None or left.jackknife[0] <= ratio <= left.jackknife[1]
        interval = ratio_interval(found, 0.95)
        if interval is None:
            missing += 1
            continue
        covered += interval[0] <= ratio <= interval[1]
        widths.append(interval[1] - interval[0])
    share = covered / max(len(widths), 1)
    said = f"coverage {share:.3f}, median width {np.median(widths):.3g}, no interval {missing}"
    if options.jackknife:
        said += f"; jackknife over sizes {folded / options.replicates:.3f}"
    return said


def share_coverage(log_n, log_v, llm_sd, options) -> str:
    """The shares of studies whose intervals of alpha, beta and their ratio cover the truth."""
    rng = np.random.default_rng(options.seed)
    names = ("alpha", "beta", "ratio")
    truth = {"alpha": ALPHA, "beta": BETA, "ratio": ALPHA / BETA}
    covered, given = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for _ in range(options.replicates):
        # One LLM's peculiarity is the same under every compressor.
        effects = np.repeat(rng.normal(0, llm_sd, len(SIZES)), len(TOKENS))
        groups = []
        for number, (k, beta, d) in enumerate(GROUPS[: 1 if options.share == "none" else None]):
            own = beta if options.share == "alpha" else BETA
            errors = k * np.exp(-ALPHA * log_n - own * log_v) + d + effects
            errors = errors + rng.normal(0, RUN_SD, len(errors))
            cells = [
                Point(round(np.exp(a) * 1e9), round(np.exp(b)), float(e))
                for a, b, e in zip(log_n, log_v, errors, strict=True)
            ]
            groups.append(Points("t", tuple(cells), "nominal", by="compressor", group=f"{number}"))
        settings = Settings(n_draws=0)
        if options.share == "none":
            row = estimate(groups[0], settings)
        else:
            row = group_rows(groups, settings, options.share, None, print)[0] or {}
        for name in names:
            if row.get(f"{name}_low") is not None:
                given[name] += 1
                covered[name] += row[f"{name}_low"] <= truth[name] <= row[f"{name}_high"]
    said = [f"{name} {covered[name] / max(given[name], 1):.3f}" for name in names]
    missing = options.replicates - min(given.values())
    return f"{', '.join(said)}, no interval {missing}"


def image_coverage(log_n, log_v, mean, ratio, llm_sd, options) -> str:
    """The shares of studies whose intervals, with items given and over images, cover `ratio`."""
    rng = np.random.default_rng(options.seed)
    n, per_image = options.images, 5
    given = over = 0
    for _ in range(options.replicates):
        effects = np.repeat(rng.normal(0, llm_sd, len(SIZES)), len(TOKENS))
        runs = effects + rng.normal(0, RUN_SD, len(mean))
        # An image's items share half of what is theirs; chance answers come on top.
        own = [np.repeat(rng.normal(0, sd, n), per_image) + rng.normal(0, sd, n * per_image)
               for sd in (0.25, 0.02, 0.01)]  # fmt: skip
        centred = (log_n - log_n.mean(), log_v - log_v.mean())
        errors = (
            (mean + runs)[:, None]
            + own[0]
            + sum(np.outer(x, slopes) for x, slopes in zip(centred, own[1:], strict=True))
        )
        errors = errors + rng.normal(0, 0.15, errors.shape)
        points = errors.mean(axis=1)
        moved = -((errors - points[:, None]).reshape(len(mean), n, per_image).sum(axis=2))
        moved /= errors.shape[1]
        names = [f"image-{number}" for number in range(n)]
        cells = [
            Point(round(np.exp(a) * 1e9), round(np.exp(b)), float(e), f"r{at}")
            for at, (a, b, e) in enumerate(zip(log_n, log_v, points, strict=True))
        ]
        study = Points("t", tuple(cells), "nominal", benchmarks=("b",))
        images = {(str(p.run), p.visual_tokens, "b"): dict(zip(names, row.tolist(), strict=True))
                  for p, row in zip(cells, moved, strict=True)}  # fmt: skip
        row = estimate(study, Settings(n_draws=10, seed=options.seed), images)
        if row["ratio_low"] is not None:
            given += row["ratio_low"] <= ratio <= row["ratio_high"]
        low, high = row["ratio_items_low"] or 0.0, row["ratio_items_high"] or np.inf
        over += low <= ratio <= high
    share = given / options.replicates, over / options.replicates
    return f"items as given {share[0]:.3f}, over images {share[1]:.3f}"


if __name__ == "__main__":
    main()
