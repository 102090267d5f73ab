"""`vtc fit` against the published procedure on the 28 published points: time, answer, seeds.

    python benchmarks/law_speed.py [--share 0.2]

The published procedure (arXiv 2411.03312, its reference code): a grid of 50 x 100 x 100 x 10 cells
of (k, alpha, beta, D), shuffled, the first fifth of it tried in plain Python loops over the points,
the least mean squared error kept; no intervals. Written anew here after its description. `--share`
tries less of the grid and scales its loop's time up, which the output says. Each whole process is
timed in CPU seconds, the baseline's loop and our fit also alone; then 10,000 refits on one core.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time

from vtc.catalog.measurements import PUBLISHED

CELLS = 50 * 100 * 100 * 10


def main() -> None:
    """Print times, ratios, sums of squares, and what differs from seed to seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.2, help="of the grid that is tried")
    parser.add_argument("--baseline", type=int, help="run the published procedure with this seed")
    options = parser.parse_args()
    if options.baseline is not None:
        published_procedure(options.baseline, options.share)
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    fit = [sys.executable, "-m", "vtc", "fit", str(PUBLISHED), "--task", "reasoning", "--format",
           "json", "--seed"]  # fmt: skip
    # Interleaved, so that what else the machine does falls on both.
    ours = [measured([*fit, str(seed)]) for seed in range(3)]
    own = [sys.executable, __file__, "--share", str(options.share), "--baseline", "0"]
    theirs_s, theirs = measured(own)
    ours += [measured([*fit, str(seed)]) for seed in range(3, 6)]
    ours_s = sorted(seconds for seconds, _ in ours)[len(ours) // 2]
    fit_s = fit_alone()
    whole = theirs_s + theirs["loop_s"] * (0.2 / options.share - 1)
    loop = theirs["loop_s"] * 0.2 / options.share
    note = "" if options.share == 0.2 else f" (extrapolated from {options.share:g} of the grid)"
    print(f"process: published {whole:.1f} s, vtc fit {ours_s:.2f} s, x {whole / ours_s:.0f}{note}")
    print(f"the fit alone: {loop:.1f} s, {fit_s * 1e3:.2f} ms, x {loop / fit_s:.0f}{note}")
    laws = [json.loads(line) for _, line in ours]
    answers = {(law["k"], law["alpha"], law["beta"], law["d"]) for law in laws}
    print(f"sum of squares: published {theirs['sse']:.6g}, ours {laws[0]['sse']:.6g}")
    print(f"different answers of ours over {len(laws)} seeds: {len(answers)}")
    many, _ = measured([*fit, "0", "--draws", "10000"])
    print(f"vtc fit --draws 10000, the whole process: {many:.1f} s")


def measured(command: list[str]) -> tuple[float, dict | str]:
    """CPU seconds of a process, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(done.stdout) if "--baseline" in command else done.stdout


def fit_alone() -> float:
    """CPU seconds of one fit without intervals, in a process that has loaded the library."""
    import numpy as np

    from vtc.law.points import read_points, read_table
    from vtc.law.rows import arrays
    from vtc.law.varpro import fit_many

    [points] = read_points(read_table(str(PUBLISHED)), "t", tasks=("reasoning",))
    log_n, log_v, errors = arrays(points)
    times = []
    for _ in range(50):
        start = time.process_time()
        fit_many(log_n, log_v, errors[None])
        times.append(time.process_time() - start)
    return float(np.median(times))


def published_procedure(seed: int, share: float) -> None:
    """The baseline: prints its best cell, the sum of squares and the loop's CPU seconds as JSON."""
    import csv

    import numpy as np

    with open(PUBLISHED, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "reasoning"]
    errors = {(float(row["n_params_b"]), int(row["visual_tokens"])): 1 - float(row["score"])
              for row in rows}  # fmt: skip
    grid = [(k, alpha, beta, d) for k in np.linspace(0.2, 0.7, 50).tolist()
            for alpha in np.linspace(0, 0.2, 100).tolist()
            for beta in np.linspace(0, 0.05, 100).tolist()
            for d in np.linspace(0, 0.3, 10).tolist()]  # fmt: skip
    random.Random(seed).shuffle(grid)
    best, cell = float("inf"), None
    start = time.process_time()
    for tried, (k, alpha, beta, d) in enumerate(grid):
        if tried > share * CELLS:
            break
        total = 0.0
        for (n, v), error in errors.items():
            predicted = k * n**-alpha * v**-beta + d
            total += (predicted - error) ** 2
        mean = total / len(errors)
        if mean < best:
            best, cell = mean, (k, alpha, beta, d)
    seconds = time.process_time() - start
    print(json.dumps({"cell": cell, "sse": best * len(errors), "loop_s": seconds}))


if __name__ == "__main__":
    main()
