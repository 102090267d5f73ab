"""`recommend` over the whole catalog: every LLM, every V, every GPU, with odds and intervals.

    python benchmarks/recommend.py [--runs 5]

Prints CPU seconds (user + system), median and least of the runs: of the answer alone in a warm
process, and of a whole `vtc recommend` process. Exits with 1 if the answer's median passes LIMIT.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from vtc.commands import deploying
from vtc.commands.recommend import recommend
from vtc.recommend import read_mix
from vtc.recommend.deploy import advise

LIMIT = 1.0
# resampler makes any V of 24 x 24 patches.
TOKENS = ",".join(map(str, range(1, 577)))
FLAGS = ["--gpu", "all", "--latency", "30ms", "--family", "all", "--compressor", "resampler"]
CASES = {"one task": [], "a mix": ["--task", "reasoning:0.7,ocr:0.3"]}


def answer(flags: list[str]) -> tuple[float, int]:
    """CPU seconds from parsed flags to ranked rows, and how many choices were weighed."""
    given = dict(recommend.make_context("recommend", list(flags)).params)
    law, task, n, group = (given.pop(name) for name in ("law", "task", "convention", "group"))
    start = time.process_time()
    mix, models = read_mix(law, task, n, group), deploying.llms_of(given)
    question = deploying.deployment(given, mix, models)
    advice = advise(question)
    seconds = time.process_time() - start
    return seconds, advice.static.total_flops.size * len(advice.views)


def whole(flags: list[str]) -> float:
    """CPU seconds of the command, its output thrown away."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "vtc", "recommend", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def main() -> None:
    """Measure both cases and say whether one is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    failed = False
    for name, more in CASES.items():
        flags = [*FLAGS, *more, "--visual-tokens", TOKENS]
        _, count = answer(flags)
        alone = [answer(flags)[0] for _ in range(runs)]
        process = [whole(flags) for _ in range(runs)]
        failed |= statistics.median(alone) > LIMIT
        for what, times in (("answer", alone), ("process", process)):
            middle, least = statistics.median(times), min(times)
            print(f"{middle:6.2f} {least:6.2f}  {what}, {name}: {count:,} choices")
    sys.exit(failed)


if __name__ == "__main__":
    main()
