"""CPU time (user + system) of whole vtc processes against their limits.

    python benchmarks/startup.py [--runs 15]

Prints a row a command: median and least CPU seconds of the runs, and the limit where one is set.
Exits with 1 if a median passes its limit.
"""

import argparse
import os
import statistics
import subprocess
import sys

DATA = "vtc/catalog/published_measurements.csv"
# Command line and its limit in CPU seconds.
CASES = (
    (("--help",), 0.15),
    (("recommend", "--flops", "3e12", "--q", "50"), 0.45),
    (("recommend", "--flops", "3e12", "--task", "ocr", "--top", "20"), 0.45),
    (("recommend", "--gpu", "rtx4090", "--latency", "30ms"), 0.45),
    (("catalog", "gpus"), 0.45),
    (("fit", DATA, "--task", "reasoning"), 1.5),
    (("fit", DATA, "--drop-suspect"), 1.5),
    (("fit", DATA, "--task", "reasoning", "--method", "paper-grid"), 1.5),
)


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    """User plus system seconds of one run of vtc, its output thrown away."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "vtc", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def main() -> None:
    """Measure every case and say which is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    failed = False
    for arguments, limit in CASES:
        cpu_seconds(arguments)  # fills the file cache and the bytecode cache
        times = [cpu_seconds(arguments) for _ in range(runs)]
        middle = statistics.median(times)
        failed |= middle > limit
        print(f"{middle:6.3f} {min(times):6.3f} {limit:6.2f}  vtc {' '.join(arguments)}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
