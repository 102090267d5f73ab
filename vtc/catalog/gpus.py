"""GPUs the program knows: memory, bandwidth and dense bf16 peak, each with its source."""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from vtc.errors import InputError

# The driver and the memory's error correction keep some of what is on the label.
_USABLE = 0.97


@dataclass(frozen=True)
class Gpu:
    """One GPU. `bf16_flops` is the dense peak a second with fp32 accumulation, never reached."""

    gpu: str
    name: str
    memory_gb: float
    bandwidth_gb_s: float
    bf16_flops: float
    source: str

    @property
    def usable_bytes(self) -> int:
        """What a process may fill: the label counts GiB, of which some 3 % are never free."""
        return int(self.memory_gb * 2**30 * _USABLE)


@cache
def catalog() -> tuple[Gpu, ...]:
    """The GPUs of gpus.csv, in its order."""
    text = resources.files("vtc.catalog").joinpath("gpus.csv").read_text(encoding="utf-8")
    return tuple(
        Gpu(
            row["gpu"],
            row["name"],
            float(row["memory_gb"]),
            float(row["bandwidth_gb_s"]),
            float(row["bf16_tflops"]) * 1e12,
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def find(name: str) -> Gpu:
    """The GPU of a name such as rtx4090, "RTX 4090", A100-80GB; raises InputError with the choices.

    Of a driver's name ("NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-80GB") maker and socket are
    left out.
    """
    wanted = _key(name)
    for gpu in catalog():
        if wanted in (_key(gpu.gpu), _key(gpu.name)):
            return gpu
    raise InputError(
        f"--gpu {name} is unknown; choose from {', '.join(gpu.gpu for gpu in catalog())}"
    )


def _key(name: str) -> str:
    return re.sub(r"nvidia|geforce|jetson|super|sxm\d?|hbm\d?e?|[^a-z0-9]", "", name.lower())
