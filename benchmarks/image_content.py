"""What `vtc eval` pays to notice changed images: sizes and ends of files, against whole files.

    python benchmarks/image_content.py

CPU seconds of this process for files of random bytes, the best of three rounds that take turns, and
the ratio to hashing whole files; the files are in the system's cache.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vtc.data.image_files import content_hash, file_id


def main() -> None:
    """Print a row for each number and size of files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", default="10000:5000,1000:200000", help="number:bytes,...")
    print(f"{'files':>8}{'bytes':>9}{'ends':>9}{'whole':>9}{'ratio':>7}")
    for given in parser.parse_args().files.split(","):
        n_files, size = map(int, given.split(":"))
        with tempfile.TemporaryDirectory() as folder:
            images = written(Path(folder), n_files, size)
            rounds = [(seconds(content_hash, images), seconds(whole, images)) for _ in range(3)]
        ends, every = (min(times) for times in zip(*rounds, strict=True))
        print(f"{n_files:>8}{size:>9}{ends:>9.3f}{every:>9.3f}{ends / every:>7.2f}")


def written(folder: Path, n_files: int, size: int) -> list[tuple[Path, str]]:
    """Files of random bytes, the same every time."""
    source = random.Random(0)
    for number in range(n_files):
        (folder / f"{number}.png").write_bytes(source.randbytes(size))
    return [(folder, f"{number}.png") for number in range(n_files)]


def whole(images: list[tuple[Path, str]]) -> None:
    """Hash every byte of every file."""
    for root, relative in images:
        file_id(root, relative)


def seconds(work: Callable[[list], object], images: list[tuple[Path, str]]) -> float:
    """CPU seconds of some work on images."""
    start = time.process_time()
    work(images)
    return time.process_time() - start


if __name__ == "__main__":
    main()
