"""check-data against the bare decoding of the same images: CPU seconds and memory, in one run.

    python benchmarks/check_data.py [N_IMAGES]

Decoding alone is Pillow in one thread, whole and at an eighth of the size (as check-data does it).
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Make the images, decode them, check them, print one line each."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, count)
        whole = decoding(folder, count, draft=False)
        eighth = decoding(folder, count, draft=True)
        checked, peak = checking(folder)
    print(f"{count} JPEGs of 336 x 336, CPU seconds")
    print(f"decoding, whole         {whole:6.1f}")
    print(f"decoding, an eighth     {eighth:6.1f}")
    print(f"vtc check-data          {checked:6.1f}   {checked / whole:.2f} of decoding them whole")
    print(f"peak memory of vtc check-data: {peak / 1e6:.0f} MB")


def make(folder: Path, count: int) -> None:
    """`count` JPEGs of 30 kB (20 different ones) and their LLaVA rows."""
    generator = np.random.default_rng(0)
    kinds = []
    for _ in range(20):
        small = generator.integers(0, 256, (42, 42, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((336, 336)).save(file, "JPEG", quality=85)
        kinds.append(file.getvalue())
    rows = []
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(kinds[number % len(kinds)])
        talk = [
            {"from": "human", "value": f"<image>\nWhat stands in picture {number}?"},
            {"from": "gpt", "value": f"Squares of many colours, {number} of them."},
        ]
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": talk})
    (folder / "rows.json").write_text(json.dumps(rows))


def decoding(folder: Path, count: int, draft: bool) -> float:
    """CPU seconds to decode all images in this thread."""
    start = time.process_time()
    for number in range(count):
        with Image.open(folder / f"{number}.jpg") as image:
            if draft:
                image.draft(None, (1, 1))
            image.load()
    return time.process_time() - start


def checking(folder: Path) -> tuple[float, int]:
    """CPU seconds (start of Python included) and peak bytes of `vtc check-data`."""
    command = [sys.executable, "-m", "vtc", "check-data", str(folder / "rows.json")]
    subprocess.run([*command, "-o", str(folder / "samples.parquet")], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


if __name__ == "__main__":
    main()
