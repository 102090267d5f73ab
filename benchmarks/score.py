"""Predictions a second and peak memory of `vtc score`, on VQAv2-like rows of ten answers each.

    python benchmarks/score.py 214354 1000000

The reading of the file, the library's start and the writing of the scores are inside; one process a
size, best pinned to one core (`taskset -c 0`).
"""

import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = ("yes", "no", "red", "2", "three", "the", "a", "man", "tennis racket", "it's", "dont",
         "top-left", "black", "white", "1,000", "on the table")  # fmt: skip


def main() -> None:
    """Print a line for each size."""
    for size in map(int, sys.argv[1:] or ["214354"]):
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "predictions.parquet"
            write(table, size)
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            code = (
                "import atexit, resource, sys\n"
                "use = lambda: resource.getrusage(resource.RUSAGE_SELF)\n"
                "atexit.register(lambda: print(use().ru_maxrss, file=sys.stderr))\n"
                "from vtc.cli import run\nrun(sys.argv[1:])"
            )
            about = "--benchmark vqav2 --n-params 7b --visual-tokens 576 --format csv"
            command = [sys.executable, "-c", code, "score", str(table), *about.split()]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
            peak = int(done.stderr.splitlines()[-1]) / 1e6
            print(f"{size} rows: {seconds:.1f} s CPU, {size / seconds:.0f} rows/s, {peak:.2f} GB")


def write(path: Path, size: int) -> None:
    """`size` predictions, half of them the most frequent answer, five an image."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(0)
    kind = pa.schema(
        [
            ("item_id", pa.string()),
            ("image_id", pa.string()),
            ("prediction", pa.string()),
            ("references", pa.list_(pa.string())),
        ]
    )
    with pq.ParquetWriter(path, kind) as writer:
        for start in range(0, size, 50_000):
            rows = [row(rng, number) for number in range(start, min(start + 50_000, size))]
            writer.write_table(pa.Table.from_pylist(rows, schema=kind))


def row(rng: random.Random, number: int) -> dict:
    """One prediction and its ten answers, of one to three words."""
    said = answer(rng)
    references = [said if rng.random() < 0.6 else answer(rng) for _ in range(10)]
    prediction = said if rng.random() < 0.5 else answer(rng)
    about = {"item_id": str(number), "image_id": str(number // 5)}
    return {**about, "prediction": prediction, "references": references}


def answer(rng: random.Random) -> str:
    """A few words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.choice([1, 1, 1, 2, 3])))


if __name__ == "__main__":
    main()
