"""What a feature cache costs and when it pays, stated before it is written."""

import os
import shutil
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from vtc.errors import InputError

PROBE_BYTES = 32 << 20


@dataclass(frozen=True)
class CacheCost:
    """A cache of `n_images` images in `n_bytes`; the encoder's and the disk's speed here."""

    n_images: int
    n_bytes: int
    images_per_second: float
    disk_bytes_per_second: float

    @property
    def encoder_seconds(self) -> float:
        """The encoder's pass over all images."""
        return self.n_images / self.images_per_second

    @property
    def disk_seconds(self) -> float:
        """Writing or reading the whole cache once."""
        return self.n_bytes / self.disk_bytes_per_second

    @property
    def bandwidth(self) -> float:
        """Bytes a second at which reading is as fast as encoding."""
        return self.n_bytes / self.encoder_seconds

    @property
    def break_even(self) -> int | None:
        """Passes over the images (epochs x runs apart) from which on the cache saves time.

        The smallest K with E + D + K D < K E, for a pass E of the encoder and D of the disk; None
        where reading is slower than encoding.
        """
        spared = self.encoder_seconds - self.disk_seconds
        if spared <= 0:
            return None
        exact = (self.encoder_seconds + self.disk_seconds) / spared
        return int(exact) + 1 if exact == int(exact) else ceil(exact)

    def sentences(self) -> list[str]:
        """Size, needed bandwidth and break-even, for people."""
        each = self.n_bytes / self.n_images
        size = f"features of {self.n_images:,} images: {_amount(self.n_bytes)}, {_amount(each)} an "
        speed = f"{self.images_per_second:.3g} images/s ({_duration(self.encoder_seconds)} a pass)"
        needed = f"reading must pass {_amount(self.bandwidth)}/s to be faster than the encoder; "
        here = f"this disk takes {_amount(self.disk_bytes_per_second)}/s: "
        pays = (
            "it does not pay here"
            if self.break_even is None
            else f"it pays from {self.break_even} passes over the images on (epochs x V)"
        )
        return [f"{size}image; the encoder makes {speed}", needed + here + pays]


def disk_speed(folder: Path, n_bytes: int) -> float:
    """Bytes a second that `folder` takes, synced to disk: a careful guess at reading, too."""
    probe = folder / f".probe.{os.getpid()}.partial"
    size = max(1 << 20, min(n_bytes, PROBE_BYTES))
    block = os.urandom(1 << 20)
    start = time.perf_counter()
    try:
        with open(probe, "wb") as file:
            for _ in range(size >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
    return (size >> 20 << 20) / (time.perf_counter() - start)


def check_space(folder: Path, n_bytes: int) -> None:
    """Raise InputError if the disk of `folder` has less than `n_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise InputError(
            f"the features take {_amount(n_bytes)}, {folder} has {_amount(free)} free; store fewer "
            "levels, --pool them, or train without a cache"
        )


def _amount(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
